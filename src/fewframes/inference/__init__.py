"""The inference wing: a model over one video. It makes predictions, streams, timelines, explanations and early exits.

It imports `models`, `video` and `core`, and none of the wings above it.
"""
