"""Decode the wanted pictures of a video file, exactly and from as few packets as possible."""
