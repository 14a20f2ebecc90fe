"""Arithmetic on spans of actions: how far two overlap, which of many repeat each other, and how well detected ones fit true ones.

It works on seconds alone, with no video and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.core.text import for_subtitles, stamp

TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Overlaps from which a detected span counts as right. Mean average precision is the mean over labels and over these."""

MOST_OVERLAP = 0.3
"""The largest overlap (tIoU) of two spans of one label that count as two actions; with more they are taken for the same."""


@dataclass(frozen=True)
class Span:
    """An action from `start_s` to `end_s`, in seconds from the start of the video, with a `confidence` in 0-1."""

    start_s: float
    end_s: float
    label: str
    confidence: float = 1.0

    @property
    def length_s(self) -> float:
        """The duration in seconds."""
        return self.end_s - self.start_s

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "label": self.label,
            "confidence": round(self.confidence, 4),
        }


def clock(time_s: float) -> str:
    """Format seconds as people write them: `0:07`, `12:30`, `1:02:03`."""
    minutes, seconds = divmod(round(time_s), 60)
    return f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def overlap(one: Span, other: Span) -> float:
    """Return the temporal intersection over union (tIoU, 0-1) of two spans, whatever their labels."""
    shared_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return max(0.0, shared_s) / (one.length_s + other.length_s - max(0.0, shared_s))


def average_precision(found: Sequence[Sequence[Span]], true: Sequence[Sequence[Span]], tiou: float) -> float:
    """Return the average precision of detected spans of one label over videos.

    That is the area below the curve of precision (the best at any higher recall) over recall, most confident span first. A true
    span is matched once, by the most confident detected span that overlaps it enough; further matches of it are wrong.

    Args:
        found: Detected spans of each video.
        true: True spans of each video.
        tiou: Overlap from which a detected span counts as right.
    """
    num_true = sum(map(len, true))
    ranked = sorted(
        ((span, video) for video, spans in enumerate(found) for span in spans), key=lambda pair: -pair[0].confidence
    )
    taken: set[tuple[int, int]] = set()
    hits = []
    for span, video in ranked:
        free = [(overlap(span, other), index) for index, other in enumerate(true[video]) if (video, index) not in taken]
        best, index = max(free, default=(0.0, 0))
        hits.append(best >= tiou)
        if best >= tiou:
            taken.add((video, index))
    if not num_true or not hits:
        return 0.0
    right_N = np.array(hits, dtype=np.float64)
    precision_N = right_N.cumsum() / np.arange(1, len(hits) + 1)
    best_N = np.maximum.accumulate(precision_N[::-1])[::-1]  # the best precision at this recall or any higher one
    return float((best_N * right_N).sum() / num_true)


def mean_average_precision(
    found: Sequence[Sequence[Span]], true: Sequence[Sequence[Span]], tious: Sequence[float] = TIOUS
) -> dict[float, float]:
    """Return, for each overlap, the mean of `average_precision` over the labels of the true spans.

    Args:
        found: Detected spans of each video.
        true: True spans of each video.
        tious: Overlaps from which a detected span counts as right.
    """
    labels = sorted({span.label for spans in true for span in spans})

    def of(label: str, videos: Sequence[Sequence[Span]]) -> list[list[Span]]:
        return [[span for span in spans if span.label == label] for spans in videos]

    return {
        tiou: sum(average_precision(of(label, found), of(label, true), tiou) for label in labels) / max(1, len(labels))
        for tiou in tious
    }


def most_over_time(
    scores_WK: NDArray[np.float32], starts_s: NDArray[np.float64], length_s: float, times_s: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the highest score of the windows over each timestamp: (N, K), 0 where there is no window.

    Args:
        scores_WK: Scores of the windows; a window with NaN counts for nothing.
        starts_s: Seconds at which the windows start (W,), ascending.
        length_s: Seconds that each lasts.
        times_s: Timestamps (N,).
    """
    good_W = ~np.isnan(scores_WK).any(axis=1)
    scores_WK, starts_s = scores_WK[good_W], starts_s[good_W]
    first_N = np.searchsorted(starts_s + length_s, times_s, side="right")
    behind_N = np.searchsorted(starts_s, times_s, side="right")
    most_NK = np.zeros((len(times_s), scores_WK.shape[1]), np.float32)
    # Windows over a time are neighbours: one pass takes the first of each time, the next pass the second, and so on.
    for number in range(int((behind_N - first_N).max()) if len(starts_s) else 0):
        indices_N = first_N + number
        covers_N = indices_N < behind_N
        most_NK[covers_N] = np.maximum(most_NK[covers_N], scores_WK[indices_N[covers_N]])
    return most_NK


def without_repeats(spans: Sequence[Span], most_overlap: float = MOST_OVERLAP) -> list[Span]:
    """Return the spans that overlap no more confident span of their label by more than `most_overlap` (tIoU), most confident first.

    torchvision's non-maximum suppression gives the same result and takes seconds to import.
    """
    return [spans[index] for index in unrepeated(spans, most_overlap)]


def unrepeated(spans: Sequence[Span], most_overlap: float = MOST_OVERLAP) -> list[int]:
    """Return the indices of the spans that `without_repeats` returns, in its order."""
    order = sorted(range(len(spans)), key=lambda index: -spans[index].confidence)
    starts_N, ends_N = (np.array([getattr(spans[index], end) for index in order]) for end in ("start_s", "end_s"))
    of_label: dict[str, list[int]] = {}
    for rank, index in enumerate(order):
        of_label.setdefault(spans[index].label, []).append(rank)
    kept: list[int] = []
    for ranks in of_label.values():
        for left_N in _apart(np.array(ranks), starts_N, ends_N):
            while len(left_N):
                best, left_N = left_N[0], left_N[1:]
                kept.append(int(best))
                shared_N = np.minimum(ends_N[best], ends_N[left_N]) - np.maximum(starts_N[best], starts_N[left_N])
                whole_N = np.maximum(ends_N[best], ends_N[left_N]) - np.minimum(starts_N[best], starts_N[left_N])
                left_N = left_N[shared_N <= most_overlap * whole_N]
    return [order[rank] for rank in sorted(kept)]


def _apart(
    ranks_N: NDArray[np.int64], starts_N: NDArray[np.float64], ends_N: NDArray[np.float64]
) -> list[NDArray[np.int64]]:
    """Return ranks in groups whose spans do not touch those of other groups, each ascending.

    A day of video has thousands of spans, and comparing each with all would take the square of that.
    """
    by_start = ranks_N[np.argsort(starts_N[ranks_N], kind="stable")]
    reached_N = np.maximum.accumulate(ends_N[by_start])
    begins = np.flatnonzero(starts_N[by_start][1:] > reached_N[:-1]) + 1
    return [np.sort(group) for group in np.split(by_start, begins)]


def subtitles(spans: Sequence[Span]) -> str:
    """Return spans as WebVTT, in the order of time."""
    cues = [
        f"{stamp(span.start_s)} --> {stamp(span.end_s)}\n{for_subtitles(span.label)} {span.confidence:.0%}\n"
        for span in sorted(spans, key=lambda span: span.start_s)
    ]
    return "\n".join(["WEBVTT\n", *cues])
