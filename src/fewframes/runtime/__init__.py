"""Running of models: one protocol, and an implementation for each kind of model file and each library that can compute it.

Arrays go in and come out. torch is imported only in `torch_runtime.py`. This wing imports `models` and what lies below it.
"""
