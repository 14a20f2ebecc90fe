"""Teach a model, and measure it."""
