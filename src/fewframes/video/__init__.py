"""Decode files, streams and cameras into frames at timestamps, as uint8 pixels. Of the wings this one imports `core` alone."""
