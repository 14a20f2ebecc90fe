"""Video classifiers of the library transformers, for comparison: their files, their view and their networks."""
