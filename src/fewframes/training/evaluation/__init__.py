"""Measure a model on labelled videos, and report it."""
