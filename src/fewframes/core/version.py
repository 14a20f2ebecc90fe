"""The version of fewframes."""

__version__ = "0.1.0"
