"""The image-text encoder of labels in words, if none is named."""

from __future__ import annotations

DEFAULT_ENCODER = "clip:PE-Core-B-16/meta"
"""The encoder if none is named."""
