"""The paper's networks, and the files that hold them.

Imports `video` for the view a model expects, and `core`.
"""
