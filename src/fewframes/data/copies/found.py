"""Describe videos that show the same footage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fewframes.data.samples import Sample

MOST_STEPS = 1_000_000
"""The most steps of all footprints that are compared: 27 hours of video. The time to compare them grows with their square."""


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
    """The likeness of what moves in both, up to 1. See `matching.likeness_at`."""

    def to_dict(self, samples: Sequence[Sample]) -> dict[str, object]:
        """Return plain values for JSON, with the paths of both and times from the start of their files."""
        first, second = samples[self.first], samples[self.second]
        return {
            "first": first.path,
            "first_start_s": round(first.start_s + self.first_s, 1),
            "second": second.path,
            "second_start_s": round(second.start_s + self.second_s, 1),
            "length_s": self.length_s,
            "mirrored": self.mirrored,
            "likeness": self.likeness,
        }

    def words(self, other: str) -> str:
        """Return the reason for people: what the second video shows of the first, `other`."""
        mirrored = ", mirrored" if self.mirrored else ""
        return f"{self.length_s:g} s of it show the same footage as {other}{mirrored} (likeness {self.likeness:.2f})"


def lines_on(copies: Sequence[Copy] | None, *, sought: bool) -> list[str]:
    """Return lines for people on the copies that were found; None where there was too much footage to compare."""
    if not sought:
        return []
    if copies is None:
        return [
            f"copies are looked for in at most {MOST_STEPS // 36_000} hours of video, and there are more: not compared"
        ]
    return [f"pairs of videos with the same footage: {len(copies)}"] if copies else []
