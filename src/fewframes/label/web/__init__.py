"""The page for labelling, and its routes. FastAPI is imported in `app.py` alone."""
