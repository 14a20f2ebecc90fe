"""Heads of models: the linear read-outs in numpy, and several models that share one frame encoder."""
