"""A model as graphs for other runtimes, and those graphs at work.

Making them takes the extra `export`.
"""
