"""Graphs of a model for other runtimes, and the running of such graphs.

Making them needs the extra `export`.
"""
