"""The paper's networks, and the files that hold them.

This wing imports `video`, for the view that a model expects, and `core`.
"""
