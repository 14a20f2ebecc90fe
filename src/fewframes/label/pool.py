"""Hold the windows of all embedded videos that may be labelled next, as arrays, so that one is chosen in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fewframes.label.archive import Archive, ArchivedVideo, Window
from fewframes.label.choosing import compress
from fewframes.runtime.protocol import Floats

LEAST_OVERLAP = 0.25
"""The fraction of a window, or of the part if that is shorter, from which a part that was labelled or skipped closes it."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The windows that may be offered: those of the shortest length over all embedded videos.

    Letters in shapes: W windows, F numbers of a compressed feature.
    """

    videos: tuple[str, ...] = ()
    """The ids of the videos."""
    video: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    """The index (W,) of the video of each window."""
    first: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """The first frame (W,) of each window."""
    start_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    end_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    features: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0), np.float16))
    """The compressed features (W, F)."""

    def __len__(self) -> int:
        return len(self.first)

    def with_video(self, archive: Archive, video: ArchivedVideo) -> Pool:
        """Return the pool with the windows of one more video. Windows with frames that could not be decoded are left out."""
        first_W = archive.windows(video, 1)
        features_WF = np.concatenate([compress(piece) for piece in archive.moments_in_pieces(video, 1)])
        good_W = np.isfinite(features_WF).all(axis=1)[: len(first_W)]
        times = np.array([archive.times_of(Window(video.id, 1, first)) for first in first_W.tolist()]).reshape(-1, 2)
        features_WF = features_WF[: len(first_W)][good_W]
        return Pool(
            (*self.videos, video.id),
            np.append(self.video, np.full(good_W.sum(), len(self.videos), np.int32)),
            np.append(self.first, first_W[good_W]),
            np.append(self.start_s, times[good_W, 0]),
            np.append(self.end_s, times[good_W, 1]),
            np.concatenate([self.features, features_WF]) if len(self) else features_WF,
        )

    def window(self, index: int) -> Window:
        """Return a window by its index."""
        return Window(self.videos[self.video[index]], 1, int(self.first[index]))

    def open_without(self, parts: Iterable[tuple[str, float, float]]) -> NDArray[np.bool_]:
        """Return which windows may be offered (W,): those that share little with parts that were labelled or skipped.

        Args:
            parts: The video, start and end in seconds of each part.
        """
        open_W = np.ones(len(self), bool)
        number = {video: index for index, video in enumerate(self.videos)}
        rows_of = np.searchsorted(self.video, np.arange(len(number) + 1)).tolist()
        for video, start_s, end_s in parts:
            if video in number:
                first, behind = rows_of[number[video] : number[video] + 2]
                # Windows of a video stand together, in the order of time: those that a part touches are neighbours.
                touched = slice(
                    first + int(np.searchsorted(self.end_s[first:behind], start_s, side="right")),
                    first + int(np.searchsorted(self.start_s[first:behind], end_s, side="left")),
                )
                starts_s, ends_s = self.start_s[touched], self.end_s[touched]
                shared_W = np.minimum(ends_s, end_s) - np.maximum(starts_s, start_s)
                open_W[touched] &= shared_W <= LEAST_OVERLAP * np.minimum(ends_s - starts_s, end_s - start_s)
        return open_W

    def apart(self) -> NDArray[np.intp]:
        """Return the indices of windows that do not overlap, for a grid of tiles."""
        kept, end_s, video = [], -1.0, -1
        for index, (own, start_s) in enumerate(zip(self.video.tolist(), self.start_s.tolist(), strict=True)):
            if own != video or start_s >= end_s - 1e-6:
                kept.append(index)
                video, end_s = own, float(self.end_s[index])
        return np.array(kept, np.intp)


def features_of(moments_MP: Floats) -> NDArray[np.float32]:
    """Return the compressed features (M, F) of windows by their moments."""
    return compress(moments_MP).astype(np.float32)
