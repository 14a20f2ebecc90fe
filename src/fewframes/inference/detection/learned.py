"""Detect spans with a model's own detector: where actions begin and end, then which, by the model itself.

Letters in shapes: N frames, D width of a frame embedding, T frames of a window, P detected spans, K actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewframes.inference.detection.frame_row import SteadyFrames
from fewframes.inference.detection.span_finder import BLOCKS, Blocks, DetectedSpans, ScoreSpans, SpanFinder
from fewframes.inference.detection.spans import Span, unrepeated
from fewframes.inference.frame_features import Indices, Times
from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.results import background_labels
from fewframes.runtime.protocol import Floats, Runtime, scores_of
from fewframes.video.decode.packets import SAME_S

LEAST_CONFIDENCE = 0.02
"""The confidence below which a span is not considered at all."""
CUT_CHANGE, CUT_RATIO, CUT_REACH = 0.35, 3.0, 4
"""The least change at a cut, as a fraction of the size of embeddings, and the factor by which it is above the median change of so
many frames to both sides."""
SNAP_SHARE = 0.12
"""The part of a span's length by which its ends are moved to a cut at most."""


def confidences_of(found: DetectedSpans, boundaries: Boundaries, labels: Sequence[str]) -> Floats:
    """Return how sure it is (P, K) that spans show each action; 0 for labels that stand for none."""
    nothing = background_labels(labels)
    is_action_K = np.array([label not in nothing for label in labels])
    return boundaries.confidence(found.happening, found.scores, found.labels) * is_action_K


def spans_in(
    found: DetectedSpans, confidences_PK: Floats, labels: Sequence[str], interval_s: float, start_s: float
) -> list[Span]:
    """Return the spans that `named_spans` returns, whose arguments these are."""
    return [span for span, _ in named_spans(found, confidences_PK, labels, interval_s, start_s)]


def named_spans(
    found: DetectedSpans, confidences_PK: Floats, labels: Sequence[str], interval_s: float, start_s: float
) -> list[tuple[Span, int]]:
    """Return the spans of each action with the index of the detected span, without repeats of surer ones, in the order of time.

    Args:
        found: The detected spans.
        confidences_PK: Their confidences, as `confidences_of` returns them.
        labels: Names of the K actions.
        interval_s: Seconds between frames.
        start_s: The time at which the first frame begins.
    """
    spans = [
        (
            Span(
                start_s + float(found.starts[row]) * interval_s,
                start_s + float(found.ends[row]) * interval_s,
                labels[label],
                float(confidences_PK[row, label]),
            ),
            row,
        )
        for row, label in np.argwhere(confidences_PK >= LEAST_CONFIDENCE).tolist()
    ]
    kept = [spans[index] for index in unrepeated([span for span, _ in spans])]
    return sorted(kept, key=lambda pair: (pair[0].start_s, pair[0].end_s))


@dataclass(frozen=True, eq=False)
class Detected:
    """The findings of a detector in a video: spans of any confidence, scores (N, K) over time, and the times of cuts.

    `vectors` (S, V) has what the scores of spans were asked to bring along, a row for each span.
    """

    spans: tuple[Span, ...]
    scores: Floats
    cuts_s: tuple[float, ...]
    vectors: Floats


class SpanReader:
    """Finds the spans of a model's detector in the frames of a video, which come chunk by chunk."""

    def __init__(
        self,
        boundaries: Boundaries,
        score: ScoreSpans,
        labels: Sequence[str],
        frames: SteadyFrames,
        blocks: Blocks = BLOCKS,
    ) -> None:
        """Prepare to find spans.

        Args:
            boundaries: The detector.
            score: What scores spans as the model does.
            labels: Names of the K actions.
            frames: The frames that will come.
            blocks: The sizes of the blocks that are in memory.
        """
        self._boundaries, self._labels, self._frames = boundaries, labels, frames
        self._finder, self._cuts = SpanFinder(score, boundaries, len(frames.times_s), blocks), CutFinder()

    def add(self, rows_ND: Floats) -> None:
        """Take the next frames (n, D), NaN where one could not be decoded. What comes after D numbers is for the scores alone."""
        self._finder.add(rows_ND)
        self._cuts.add(rows_ND[:, : len(self._boundaries.mean)])

    def found(self, times_s: Times) -> Detected:
        """Return what was found, with the scores at these timestamps (M,)."""
        frames = self._frames
        cuts = self._cuts.found()
        found = snapped(self._finder.finish(), cuts)
        confidences_PK = confidences_of(found, self._boundaries, self._labels)
        named = named_spans(found, confidences_PK, self._labels, frames.interval_s, frames.start_s)
        over_time = most_of_spans(
            confidences_PK,
            frames.start_s + found.starts.astype(np.float64) * frames.interval_s,
            frames.start_s + found.ends.astype(np.float64) * frames.interval_s,
            times_s,
        )
        return Detected(
            tuple(span for span, _ in named),
            over_time,
            tuple((frames.start_s + cuts * frames.interval_s).tolist()),
            found.vectors[[row for _, row in named]],
        )


def is_long_enough(boundaries: Boundaries, num_frames: int, length_s: float) -> bool:
    """Return True if a video, or part, has as many frames for the detector as the model looks at. Else it is one window."""
    return length_s >= num_frames * boundaries.interval_s - SAME_S


def span_reader(
    runtime: Runtime,
    boundaries: Boundaries,
    frames: SteadyFrames,
    vectors_of: Callable[[Floats, Floats], Floats] | None = None,
    blocks: Blocks = BLOCKS,
) -> SpanReader:
    """Return a reader that finds the spans of a model's detector, and labels them by the model.

    Args:
        runtime: The model.
        boundaries: The detector.
        frames: The frames that will come.
        vectors_of: A function of windows (W, T, D) and their video embeddings (W, D') that returns a vector of each (W, V), if
            spans are to have one. The windows have all numbers of the rows, those of a second model too.
        blocks: The sizes of the blocks that are in memory.
    """

    return SpanReader(boundaries, span_scorer(runtime, vectors_of), runtime.labels, frames, blocks)


def span_scorer(runtime: Runtime, vectors_of: Callable[[Floats, Floats], Floats] | None = None) -> ScoreSpans:
    """Return what scores spans as a model scores clips. The arguments are those of `span_reader`."""

    def scores(windows_WTD: Floats) -> Floats:
        encoded = runtime.encode_windows(np.ascontiguousarray(windows_WTD[..., : runtime.frame_width]))
        scores_WK = scores_of(encoded.logits, runtime.task)
        if vectors_of is None:
            return scores_WK
        return np.concatenate([scores_WK, vectors_of(windows_WTD, encoded.embedding)], axis=1)

    return ScoreSpans(scores, runtime.num_frames)


def most_of_spans(confidences_PK: Floats, starts_s: Times, ends_s: Times, times_s: Times) -> Floats:
    """Return the highest confidence of the spans over each timestamp: (N, K), 0 where there is none.

    Args:
        confidences_PK: The confidences of spans.
        starts_s: The seconds at which they start (P,).
        ends_s: The seconds at which they end (P,).
        times_s: Timestamps (N,), ascending.
    """
    most_NK = np.zeros((len(times_s), confidences_PK.shape[1]), np.float32)
    firsts, lasts = np.searchsorted(times_s, starts_s), np.searchsorted(times_s, ends_s)
    for first, last, confidences_K in zip(firsts.tolist(), lasts.tolist(), confidences_PK, strict=True):
        np.maximum(most_NK[first:last], confidences_K, out=most_NK[first:last])
    return most_NK


def cuts_in(embeddings_ND: Floats) -> Indices:
    """Return the frames before which one shot is cut to the next (C,), in embeddings of frames that follow each other in time."""
    finder = CutFinder()
    finder.add(embeddings_ND)
    return finder.found()


class CutFinder:
    """Finds the frames before which one shot is cut to the next, in frames that come chunk by chunk.

    There the embedding changes more than anywhere near, and by much of its size. Movement changes it less, and over several frames.
    Cuts beside a frame of NaN are not found.
    """

    def __init__(self) -> None:
        self._last_1D: Floats | None = None
        self._steps: list[Floats] = []
        self._sizes: list[Floats] = []

    def add(self, rows_ND: Floats) -> None:
        """Take the next frames (n, D), NaN where one could not be decoded."""
        before_1D = rows_ND[:1] if self._last_1D is None else self._last_1D
        self._steps.append(np.linalg.norm(np.diff(rows_ND, axis=0, prepend=before_1D), axis=1))
        self._sizes.append(np.linalg.norm(rows_ND, axis=1))
        self._last_1D = rows_ND[-1:].copy()

    def forget(self, num_frames: int) -> None:
        """Forget the first frames. What is found is counted from the first one left."""
        self._steps = [np.concatenate(self._steps)[num_frames:]]
        self._sizes = [np.concatenate(self._sizes)[num_frames:]]

    def found(self) -> Indices:
        """Return the frames (C,)."""
        steps, sizes = (np.concatenate([np.zeros(0, np.float32), *parts]) for parts in (self._steps, self._sizes))
        steps = steps[1:]  # the first frame has none before it
        if len(steps) < 2 or np.isnan(sizes).all():
            return np.zeros(0, np.int64)
        steps = np.nan_to_num(steps / max(float(np.nanmean(sizes)), 1e-6))
        padded = np.pad(steps, CUT_REACH, mode="edge")
        near = np.stack(
            [padded[shift : shift + len(steps)] for shift in range(2 * CUT_REACH + 1) if shift != CUT_REACH]
        )
        beside = near[CUT_REACH - 1 : CUT_REACH + 1].max(axis=0)
        is_cut = (steps >= CUT_CHANGE) & (steps >= CUT_RATIO * np.median(near, axis=0)) & (steps >= beside)
        return np.flatnonzero(is_cut) + 1


def snapped(found: DetectedSpans, cuts: Indices) -> DetectedSpans:
    """Return the spans with each end that lies near a cut moved to it, so that a span does not reach into another shot.

    Args:
        found: The detected spans, in frames.
        cuts: The frames before which shots are cut.
    """
    if not len(cuts):
        return found
    most = np.maximum(1.0, SNAP_SHARE * (found.ends - found.starts))

    def moved(times: Floats) -> Floats:
        after = np.searchsorted(cuts, times).clip(1, max(1, len(cuts) - 1))
        sides = np.stack([cuts[after - 1], cuts[np.minimum(after, len(cuts) - 1)]])
        nearest = np.take_along_axis(sides, np.abs(sides - times).argmin(axis=0)[None], axis=0)[0]
        return np.where(np.abs(nearest - times) <= most, nearest, times)

    starts, ends = moved(found.starts), moved(found.ends)
    whole = ends - starts >= 1
    return replace(found, starts=np.where(whole, starts, found.starts), ends=np.where(whole, ends, found.ends))
