"""Say what to look at next: suggestions on the timeline, the next moment, doubtful labels, and the tiles of the grid."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewframes.inference.detection.spans import Span, most_over_time, overlap, without_repeats
from fewframes.inference.unknowns import known_windows
from fewframes.label.archive import STRIDES, Archive, ArchivedVideo, Window, window_of
from fewframes.label.choosing import Choice, Compression, likeness_order, next_windows
from fewframes.label.journal import Labels, span_of
from fewframes.label.learner import Learned
from fewframes.label.pool import Pool
from fewframes.label.values import (
    Doubt,
    GridOrder,
    GridPage,
    Moment,
    MomentReason,
    Segment,
    Suggestion,
    VideoTimeline,
)
from fewframes.models.read_out.solve import cross_entropy, solve_rows
from fewframes.results import is_background
from fewframes.runtime.protocol import Floats, scores_of

SUGGESTED = 0.5
"""The score from which a span is suggested."""
SUGGESTED_BEFORE = 0.8
"""The score from which the model that the session began with suggests a span, as in a timeline, while nothing is learned yet."""
MOST_OVERLAP = 0.3
"""The overlap (tIoU) with a label, or with a likelier suggestion, above which a span is not suggested."""
DOUBTED = 0.5
"""The score of another label from which a label counts as doubtful."""
AT_ONCE = 4096
"""Windows that are scored together."""
CONTRADICTED = 0.8
"""The score of another label from which a label is offered as the next moment."""
MOST_TILES = 2000
"""Tiles of the whole grid, spread evenly over the archive."""
WORDS: dict[MomentReason, str] = {
    "first": "a typical part of these videos; nothing like it is labelled",
    "uncertain": "the model is undecided here, so this label teaches much",
    "new": "nothing that is labelled looks like this",
    "contradicting": "the model contradicts the label here; one of them is wrong",
}
"""The reasons for the next moment in words."""


@dataclass(frozen=True, eq=False)
class _Scored:
    """The scores (W, K) of the first windows of a pool by a read-out, which is None if nothing was learned yet."""

    learned: Learned
    compression: Compression
    readout: tuple[Floats, Floats] | None
    scores: NDArray[np.float32]


class Offers:
    """The choice of what an annotator sees next. Its pool of windows grows with each video that is embedded."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._pool = Pool()
        self._lock = threading.Lock()
        self._kept: set[str] = set()
        """The contradicted labels that were looked at."""
        self._passed: set[tuple[str, float, float]] = set()
        """The moments that were skipped: video, start and end."""
        self._order: tuple[int, NDArray[np.intp]] = (-1, np.empty(0, np.intp))
        self._scored: tuple[_Scored, ...] = ()
        self._before: dict[str, list[NDArray[np.float32]]] = {}
        self._features: tuple[Compression | None, dict[Window, NDArray[np.float32]]] = (None, {})
        """The compression, and the features of the windows that were learned from."""

    def add(self, video: ArchivedVideo) -> None:
        """Take the windows of an embedded video into the pool."""
        pool = self._pool.with_video(self._archive, video)  # videos are added by one thread
        with self._lock:
            self._pool = pool

    def prepare(self, segments: Sequence[Segment], learned: Learned) -> None:
        """Score all windows by what was learned, so that nobody waits for it who asks for the next moment."""
        self._scores(self._pool, segments, learned)

    # The timeline.

    def timeline(self, video: ArchivedVideo, segments: Sequence[Segment], learned: Learned) -> VideoTimeline:
        """Return the labels of a video, the model's scores, and the spans that it suggests."""
        doubtful = tuple(one.id for one in segments if self._contradiction(one, learned, DOUBTED))
        if video.embeddings is None:
            return VideoTimeline(video.id, video.duration_s, tuple(segments), (), (), {}, doubtful)
        if learned.labels:
            labels, least = learned.labels, SUGGESTED
            scores = [learned.scores(moments_WP) for moments_WP in self._archive.all_moments(video)]
        else:
            labels, least = self._archive.predictor.labels, SUGGESTED_BEFORE
            scores = self._scores_before(video)
        times_s = np.asarray((np.arange(0, video.num_frames, 2) + 0.5) * video.interval_s, np.float64)
        scores_NK = np.zeros((len(times_s), len(labels)), np.float32)
        spans: list[Span] = []
        for stride, scores_WK in zip(STRIDES, scores, strict=True):
            first_W = self._archive.windows(video, stride)
            if not len(first_W):
                continue
            length_s = self._archive.num_frames * stride * video.interval_s
            starts_s = np.asarray((first_W + 0.5 - stride / 2) * video.interval_s, np.float64)
            scores_NK = np.maximum(scores_NK, most_over_time(scores_WK, starts_s, length_s, times_s))
            for row, label in np.argwhere(scores_WK >= least).tolist():
                if not is_background(labels[label]):
                    start_s, end_s = self._archive.times_of(Window(video.id, stride, int(first_W[row])))
                    spans.append(Span(start_s, end_s, labels[label], float(scores_WK[row, label])))
        suggested = _free(spans, segments)
        # Of the model that the session began with only the actions are shown that it sees here.
        seen = {span.label for span in suggested} if not learned.labels else {*labels}
        return VideoTimeline(
            video.id,
            video.duration_s,
            tuple(segments),
            tuple(Suggestion(one.start_s, one.end_s, one.label, one.confidence) for one in suggested),
            tuple(times_s.tolist()),
            {
                label: tuple(scores_NK[:, number].tolist())
                for number, label in enumerate(labels)
                if label in seen and not is_background(label)
            },
            doubtful,
        )

    def _scores_before(self, video: ArchivedVideo) -> list[NDArray[np.float32]]:
        """Return the scores (W, K) of the windows of each length by the model that the session began with, which are kept.

        Windows that show none of its actions have scores of 0.
        """
        if video.id not in self._before:
            predictor, found = self._archive.predictor, []
            least = 0.0 if predictor.unknown_rule is None else predictor.unknown_rule.threshold
            for stride in STRIDES:
                parts = [np.empty((0, len(predictor.labels)), np.float32)]
                for windows_WTD in self._archive.embeddings_in_pieces(video, stride):
                    logits_WK = predictor.runtime.encode_windows(windows_WTD).logits
                    known_W = known_windows(predictor.unknown_rule, windows_WTD)
                    scores_WK = scores_of(np.asarray(logits_WK, np.float32), predictor.runtime.task)
                    parts.append(np.where((known_W < least)[:, None], 0, scores_WK).astype(np.float32))
                found.append(np.concatenate(parts))
            self._before[video.id] = found
        return self._before[video.id]

    # The next moment.

    def next_moment(self, segments: Sequence[Segment], learned: Learned, after: str) -> Moment | None:
        """Return the moment whose label would teach most; None if there is none left."""
        if after.startswith(SEGMENT):
            self._kept.add(after)
        elif after:
            window = window_of(after)
            self._passed.add((window.video, *self._archive.times_of(window)))
        pool = self._pool
        if (contradicted := self._contradicted(segments, learned)) is not None:
            return contradicted
        open_W = pool.open_without([*map(_part_of, segments), *tuple(self._passed)])
        if not open_W.any():
            return None
        scores_WK = self._scores(pool, segments, learned)
        found = next_windows(pool.features, scores_WK, self._examples(pool, learned), open_W, 1)
        return self._moment(pool, found[0], learned, scores_WK) if found else None

    def _contradicted(self, segments: Sequence[Segment], learned: Learned) -> Moment | None:
        found = []
        for segment in segments if learned.accuracy is not None else ():
            key = f"{SEGMENT}{segment.id}"
            doubt = self._contradiction(segment, learned, CONTRADICTED)
            if doubt is not None and key not in self._kept:
                found.append((doubt[1], key, segment, doubt[0]))
        if not found:
            return None
        score, key, segment, label = max(found, key=lambda one: one[0])
        self._kept.add(key)  # a label that stays as it is need not be looked at twice
        words = f"labelled {segment.label!r}; without it, the model says {label!r}"
        return Moment(key, segment.video, segment.start_s, segment.end_s, label, score, "contradicting", words)

    def _contradiction(self, segment: Segment, learned: Learned, least: float) -> tuple[str, float] | None:
        """Return the other label that a segment gets without its own group, with its score; None if that is not so likely."""
        if segment.id not in learned.left_out:
            return None
        label, score = learned.likeliest(segment)
        return (label, score) if label != segment.label and score >= least else None

    def _moment(self, pool: Pool, choice: Choice, learned: Learned, scores_WK: Floats | None) -> Moment:
        index = choice.index
        window = pool.window(index)
        guess, score = "", 0.0
        if scores_WK is not None:
            guess, score = learned.labels[int(scores_WK[index].argmax())], float(scores_WK[index].max())
        start_s, end_s = self._archive.times_of(window)
        return Moment(window.key, window.video, start_s, end_s, guess, score, choice.reason, WORDS[choice.reason])

    def _examples(self, pool: Pool, learned: Learned) -> NDArray[np.float32]:
        """Return the compressed features (M, F) of the windows that were learned from."""
        windows = [window for found in learned.windows.values() for window in found]
        if not windows:
            return np.empty((0, pool.features.shape[1]), np.float32)
        return self._features_of(pool, windows)

    def _features_of(self, pool: Pool, windows: Sequence[Window]) -> NDArray[np.float32]:
        """Return the compressed features (M, F) of windows, which are kept for as long as the compression is the same."""
        compression, known = self._features
        if compression is not pool.compression:
            known = {}
        if new := [window for window in windows if window not in known]:
            known = known | dict(zip(new, pool.features_of(self._archive.moments_of(new)), strict=True))
        self._features = (pool.compression, known)
        return np.stack([known[window] for window in windows])

    def _scores(self, pool: Pool, segments: Sequence[Segment], learned: Learned) -> NDArray[np.float32] | None:
        """Return the scores (W, K) of all windows; None if nothing is learned yet.

        They come from a read-out of the compressed features, because the moments of a whole archive do not fit in memory.
        """
        if pool.compression is None:
            return None
        own = [one for one in self._scored if one.learned is learned and one.compression is pool.compression]
        others = tuple(one for one in self._scored if one.learned is not learned)
        if own:
            found = own[0]
        else:
            nothing = np.empty((0, len(learned.labels)), np.float32)
            found = _Scored(learned, pool.compression, self._quick_readout(pool, segments, learned), nothing)
        if found.readout is not None and len(found.scores) < len(pool):  # a pool only grows at its end
            more_wK = _scores_by(*found.readout, pool.features[len(found.scores) :])
            found = replace(found, scores=np.concatenate([found.scores, more_wK]))
        self._scored = (found, *others[:1])  # the newest, and the one before while that is still asked for
        return None if found.readout is None else found.scores[: len(pool)]

    def _quick_readout(self, pool: Pool, segments: Sequence[Segment], learned: Learned) -> tuple[Floats, Floats] | None:
        label_of = {segment.id: segment.label for segment in segments}
        rows = [
            (window, label_of[key]) for key, found in learned.windows.items() if key in label_of for window in found
        ]
        labels = [label for _, label in rows if label in learned.labels]
        if len(set(labels)) < 2 or len(labels) < len(rows):
            return None
        features_MF = self._features_of(pool, [window for window, _ in rows])
        targets_MK = np.eye(len(learned.labels))[[learned.labels.index(label) for label in labels]]
        groups_M = np.arange(len(rows))
        solved = solve_rows(features_MF[:, None], targets_MK, cross_entropy, groups_B=groups_M, moments=None)
        return solved.weight, solved.bias

    # Doubts and tiles.

    def doubtful(self, labels: Labels, learned: Learned, num: int) -> tuple[Doubt, ...]:
        """Return at most `num` doubts: disagreements of annotators, then contradicted labels, then unknown parts."""
        doubts = [
            Doubt("disagreement", one.id, one.video, one.start_s, one.end_s, one.label, other.label, 1.0)
            for one, other in labels.disagreements()
        ]
        wrong = []
        for segment in labels.segments:
            found = self._contradiction(segment, learned, DOUBTED)
            if found is not None:
                times = (segment.start_s, segment.end_s)
                wrong.append(Doubt("wrong", segment.id, segment.video, *times, segment.label, *found))
        doubts += sorted(wrong, key=lambda doubt: -doubt.score)
        return (*doubts[:num], *self._unknown(labels.segments, learned, max(0, num - len(doubts))))

    def _unknown(self, segments: Sequence[Segment], learned: Learned, num: int) -> list[Doubt]:
        """Return the windows of which the model is least sure, at most `num`."""
        with self._lock:
            pool = self._pool
        scores_WK = self._scores(pool, segments, learned)
        if scores_WK is None or num < 1:
            return []
        open_W = pool.open_without(map(_part_of, segments))
        apart = [index for index in pool.apart().tolist() if open_W[index]]
        found = sorted(apart, key=lambda index: float(scores_WK[index].max()))[: min(num, len(apart) // 10 + 1)]
        doubts = []
        for index in found:
            window, label = pool.window(index), learned.labels[int(scores_WK[index].argmax())]
            times = self._archive.times_of(window)
            doubts.append(Doubt("unknown", "", window.video, *times, "", label, float(scores_WK[index].max())))
        return doubts

    def grid(self, segments: Sequence[Segment], learned: Learned, num: int, offset: int, order: GridOrder) -> GridPage:
        """Return a page of the windows without a label that do not overlap."""
        with self._lock:
            pool = self._pool
        open_W = pool.open_without(map(_part_of, segments))
        apart = pool.apart()
        if len(apart) > MOST_TILES:
            apart = apart[np.linspace(0, len(apart) - 1, MOST_TILES).astype(np.intp)]
        scores_WK = self._scores(pool, segments, learned)
        if order == "likeness" and len(apart):
            if self._order[0] != len(pool):  # once for each pool, so that pages fit together
                self._order = (len(pool), apart[likeness_order(pool.features[apart])])
            apart = self._order[1]
        elif order == "uncertain" and scores_WK is not None:
            apart = apart[np.argsort(scores_WK[apart].max(axis=1), kind="stable")]
        tiles = apart[open_W[apart]]
        some = tiles[offset : offset + num].tolist()
        choices = [Choice(index, "new", 0.0) for index in some]
        return GridPage(tuple(self._moment(pool, choice, learned, scores_WK) for choice in choices), len(tiles))


SEGMENT = "segment "
"""The start of the id of a moment that is a labelled segment."""


def _part_of(segment: Segment) -> tuple[str, float, float]:
    return segment.video, segment.start_s, segment.end_s


def _scores_by(weight_KF: Floats, bias_K: Floats, features_WF: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the scores (W, K) of windows by a read-out of their compressed features, piece by piece: the pieces fit in caches."""
    weight_FK = weight_KF.T.astype(np.float32)
    pieces = (features_WF[start : start + AT_ONCE] for start in range(0, len(features_WF), AT_ONCE))
    return np.concatenate([scores_of(piece.astype(np.float32) @ weight_FK + bias_K, "single") for piece in pieces])


def _free(spans: Sequence[Span], segments: Sequence[Segment]) -> list[Span]:
    """Return the spans that overlap neither labels nor likelier spans much, in the order of time."""
    kept: list[Span] = []
    for span in without_repeats(spans):
        taken = [*(span_of(segment) for segment in segments), *kept]
        if all(overlap(span, other) <= MOST_OVERLAP and _inside(span, other) <= 0.5 for other in taken):
            kept.append(span)
    return sorted(kept, key=lambda span: span.start_s)


def _inside(one: Span, other: Span) -> float:
    """Return the fraction of the shorter of two spans that lies in the other."""
    shared_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return max(0.0, shared_s) / max(1e-9, min(one.length_s, other.length_s))
