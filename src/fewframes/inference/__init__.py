"""A model over one video: predictions, streams, timelines, explanations, early exit.

Imports `models`, `video` and `core`.
"""
