"""Labelled videos: read from folders and lists, checked, split. Imports `video` and `core`; trains and evaluates nothing."""
