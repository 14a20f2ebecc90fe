"""Spans from sliding windows: how sure each window is of each action, and which windows become spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fewframes.core.settings import Task
from fewframes.inference.detection.frame_row import SteadyFrames
from fewframes.inference.detection.spans import Span, most_over_time, without_repeats
from fewframes.inference.detection.windows import WindowReader
from fewframes.inference.frame_features import Times
from fewframes.models.moments import change_of
from fewframes.results import background_labels
from fewframes.runtime.protocol import Floats, scores_of
from fewframes.runtime.still import each_once

STEEP, TINY = 8.0, 1e-6
WINDOWS_PER_LENGTH = 8
"""Windows that begin during the length of one."""
LIVELY_FRACTION = 0.9
"""The fraction of windows that change less than the level at which this video's changes are measured."""


@dataclass(frozen=True, eq=False)
class WindowScores:
    """The model's output for windows of one length: window w covers `length_s` seconds from `starts_s[w]` (W,).

    `known` (W,) says how likely each shows one of the actions at all (0-1); None if that was not judged.

    `logits` (W, K) are those of `predict` for the same seconds, NaN where a frame could not be decoded. `changes` (W,) say how much
    the embeddings change from frame to frame, as a fraction of their size. Windows longer than the shortest use every second frame
    or fewer, and may begin or end just outside of the video.
    """

    length_s: float
    starts_s: Times
    logits: Floats
    changes: Floats
    known: Floats | None = None


def window_reader(
    lengths: Sequence[int], frames: SteadyFrames, num_frames: int, encode: Callable[[Floats], list[Floats]]
) -> WindowReader:
    """Return a reader of windows of these lengths, which finds how much each changes, and then what `encode` returns."""

    def with_changes(windows_WTD: Floats) -> Floats:
        return np.concatenate([changes_of(windows_WTD)[:, None], *encode(windows_WTD)], axis=1)

    intervals = [max(1, num_frames * stride // WINDOWS_PER_LENGTH) for stride in lengths]
    return WindowReader(partial(each_once, with_changes), frames, num_frames, lengths, intervals)


def changes_of(windows_WTD: Floats) -> Floats:
    """Return how much each window changes (W,): the mean step between frames as a fraction of the mean size; NaN for one frame."""
    if windows_WTD.shape[1] == 1:
        return np.full(len(windows_WTD), np.nan, np.float32)
    return change_of(windows_WTD)


def confidences(
    windows: Sequence[WindowScores],
    task: Task,
    least_known: float = 0.0,
    *,
    temperature: float = 1.0,
    still_share: float = 0.5,
) -> list[Floats]:
    """Return the confidence of each window of each length in each action: (W, K) in 0-1, NaN where it could not be decoded.

    It is the softened score, times a factor that is small where a window changes little for this video. It is NaN where a window
    shows none of the actions.

    Args:
        windows: Windows of each length, the shortest first.
        task: The kind of labels, which decides how logits become scores.
        least_known: The value of `known` below which a window shows none of the actions.
        temperature: The divisor of the logits.
        still_share: The fraction of the change in the liveliest windows below which a window is still; 0 for none.
    """
    changes_W = windows[0].changes[~np.isnan(windows[0].changes)]
    lively = float(np.quantile(changes_W, LIVELY_FRACTION)) if len(changes_W) else 0.0
    found = []
    for length in windows:
        scores_WK = scores_of(length.logits / np.float32(temperature), task)
        if still_share and len(changes_W):
            liveliness_W = length.changes / max(lively, TINY)
            factor_W = scores_of((liveliness_W - still_share) * STEEP, "multilabel")
            scores_WK = (scores_WK * factor_W[:, None]).astype(np.float32)
        if length.known is not None:
            scores_WK[length.known < least_known] = np.nan
        found.append(scores_WK)
    return found


def spans_of(
    windows: Sequence[WindowScores],
    found: Sequence[Floats],
    labels: Sequence[str],
    range_s: tuple[float, float],
    least: float,
) -> tuple[Span, ...]:
    """Return the windows that are confident enough of an action, in the order of time, without repeats of more confident ones.

    Args:
        windows: Windows of each length.
        found: Their confidences (W, K), as `confidences` returns them.
        labels: Names of the K labels.
        range_s: Seconds between which spans must lie; they are cut to it.
        least: The lowest confidence of a span.
    """
    nothing = background_labels(labels)
    candidates = [
        Span(
            max(range_s[0], float(length.starts_s[window])),
            min(range_s[1], float(length.starts_s[window]) + length.length_s),
            labels[label],
            float(confidences_WK[window, label]),
        )
        for length, confidences_WK in zip(windows, found, strict=True)
        for window, label in np.argwhere(confidences_WK >= least).tolist()
        if labels[label] not in nothing
    ]
    return tuple(sorted(without_repeats(candidates), key=lambda span: (span.start_s, span.end_s)))


def known_over_time(windows: Sequence[WindowScores], times_s: Times) -> Floats:
    """Return how likely each timestamp is in a window that shows one of the actions: (N,), the most of the windows over it."""
    found = [
        most_over_time(length.known[:, None], length.starts_s, length.length_s, times_s)[:, 0]
        for length in windows
        if length.known is not None
    ]
    return np.stack(found).max(axis=0)
