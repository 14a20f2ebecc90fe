"""Describe videos that show the same footage, and say what that means for the parts of a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewframes.data.dataset import VideoSet, grouped
from fewframes.data.samples import Sample
from fewframes.data.scenes.likeness import join


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Two videos that show the same footage, and where."""

    first: int
    """The index of the video that comes first in the data."""
    second: int
    """The index of the other."""
    first_s: float
    """The time at which the common footage begins in the first, in seconds from the start of the sample."""
    second_s: float
    """The time at which it begins in the second."""
    length_s: float
    """The length of the common footage, in seconds."""
    mirrored: bool
    """True if one shows the other mirrored left to right."""
    likeness: float
    """The correlation of what changes in both, up to 1. Pairs below `matching.LEAST_LIKENESS` are no copies."""

    def to_dict(self, samples: Sequence[Sample]) -> dict[str, object]:
        """Return plain values for JSON, with the paths of the videos and times in their files."""
        first, second = samples[self.first], samples[self.second]
        return {
            "paths": [first.path, second.path],
            "splits": [first.split, second.split],
            "start_s": [round(first.start_s + self.first_s, 1), round(second.start_s + self.second_s, 1)],
            "length_s": self.length_s,
            "mirrored": self.mirrored,
            "likeness": self.likeness,
        }

    def described(self, data: VideoSet, row: int) -> str:
        """Return words on what one of the two videos shows of the other."""
        is_first = row == self.first
        other = data.samples[self.second if is_first else self.first]
        own_s, other_s = (self.first_s, self.second_s) if is_first else (self.second_s, self.first_s)
        part = f" ({other.split})" if other.split else ""
        return (
            f"{self.length_s:.1f} s from {data.samples[row].start_s + own_s:.1f} s show what {other.path}{part}, "
            f"{', '.join(other.labels)}, shows from {other.start_s + other_s:.1f} s"
            f"{', mirrored' if self.mirrored else ''} (likeness {self.likeness:.2f})"
        )


def copied_rows(data: VideoSet, copies: Sequence[Copy], ranks: Mapping[str, int]) -> Iterator[tuple[int, str, str]]:
    """Yield (row, kind of problem, reason) for each video that shows the footage of another one.

    The part of higher rank keeps its video, and the other one leaks. Within a part the later video is named.

    Args:
        data: The labelled videos.
        copies: The pairs that show the same footage.
        ranks: The ranks of the parts of a split; a part that is not named has rank 0.
    """
    named: dict[int, tuple[str, str]] = {}
    rank_B = [ranks.get(sample.split, 0) for sample in data.samples]
    for copy in copies:
        first, second = copy.first, copy.second
        row = first if rank_B[first] < rank_B[second] else second
        kind = "copy" if rank_B[first] == rank_B[second] else "copied leak"
        if row not in named or (kind == "copied leak" and named[row][0] == "copy"):
            named[row] = kind, copy.described(data, row)
    for row, (kind, reason) in sorted(named.items()):
        yield row, kind, reason


def joined(num_videos: int, copies: Sequence[Copy]) -> list[int]:
    """Return for each video the first that it is connected to by copies, or by copies of these; itself if there are none."""
    first_B = np.arange(num_videos)
    for copy in copies:
        join(first_B, [copy.first, copy.second])
    return first_B.tolist()


def grouped_copies(data: VideoSet, copies: Sequence[Copy]) -> VideoSet:
    """Return the data with one group for all videos of a part that show the same footage.

    Groups that the data have already, such as scenes, are joined where a video of one shows the footage of a video of another.
    """
    samples = data.samples
    together = np.arange(len(samples))
    for rows in grouped(range(len(samples)), lambda row: (samples[row].group or samples[row].path, samples[row].split)):
        join(together, rows)
    for copy in copies:
        if samples[copy.first].split == samples[copy.second].split:
            join(together, [copy.first, copy.second])
    names: dict[int, str] = {}
    for copy in copies:
        part = f" in {samples[copy.first].split}" if samples[copy.first].held_out else ""
        names.setdefault(int(together[copy.first]), f"copies {len(names) + 1}{part}")
    return replace(
        data,
        samples=tuple(
            replace(sample, group=names.get(first, sample.group))
            for sample, first in zip(samples, together.tolist(), strict=True)
        ),
    )


def with_copies(contents: Mapping[str, str], data: VideoSet, copies: Sequence[Copy]) -> dict[str, str]:
    """Return the content keys of files by path, with one key for all files that show the same footage."""
    paths = [sample.path for sample in data.samples]
    keys = [contents.get(path, "") for path in paths]
    together = np.array(joined(len(paths), copies))
    for rows in grouped((row for row, key in enumerate(keys) if key), keys.__getitem__):
        join(together, rows)
    return {
        path: f"{keys[first]} {first}" for path, first in zip(paths, together.tolist(), strict=True) if path in contents
    }
