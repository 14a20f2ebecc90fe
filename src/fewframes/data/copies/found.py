"""Describe videos that show the same footage, and say which part of a split loses them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Two videos that show the same footage, and where."""

    first: int
    """The index of the video that comes first in the data."""
    second: int
    """The index of the other."""
    first_s: float
    """The time at which the common footage begins in the first video's footprint, in seconds from the start of its part."""
    second_s: float
    """The time at which it begins in the second."""
    length_s: float
    """The length of the common footage, in seconds."""
    mirrored: bool
    """True if one shows the other mirrored left to right."""
    likeness: float
    """The correlation of what changes in both, from 0 to 1. See `matching.LEAST_LIKENESS`."""
