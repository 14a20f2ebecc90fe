"""Label long videos with a model that learns from each label.

Frames are embedded once, in the background. Each label is learned in a fraction of a second, because the read-out of the embeddings
is solved in closed form. This wing imports `training`, `serve`, `viz`, and what lies below; it needs no torch. FastAPI is imported
in `app.py` alone.
"""
