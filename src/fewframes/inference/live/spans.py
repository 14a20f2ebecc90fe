"""Detect spans in a stream by the model's detector: an action is told when it has begun, and once more when it has ended.

The detector looks at the frames so far again and again. What it says of an action that goes on changes with every frame, so an
action counts as begun when two looks in a row agree, and as ended when its end lies a while back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewframes.inference.detection.learned import CutFinder, confidences_of, snapped, span_scorer, spans_in
from fewframes.inference.detection.span_finder import DetectedSpans
from fewframes.inference.detection.spans import Span
from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.runtime.protocol import Floats, Runtime

MOST_FRAMES, BLOCK_FRAMES = 256, 32
"""The frames that the detector looks back, and those that are forgotten at once. Levels of its pyramid join up to 32 frames, always
the same ones."""
LOOKS_TO_START = 2
"""The looks in a row that must find an action before it counts as begun."""
SETTLED_FRAMES = 3
"""The frames by which the end of an action must lie back before it counts as ended."""
LOOKS_TO_WITHDRAW = 3
"""The looks in a row without it after which an action that was told as begun is given up."""
SAME_ACTION = 0.5
"""The fraction of the shorter of two spans of one label from which they are one action."""
STAYS = 0.9
"""The fraction of the threshold that is enough for an action that was told as begun."""


@dataclass(frozen=True)
class LiveSpan:
    """An action in a stream: `started` while it goes on, `ended` with its end, or `withdrawn` if it was none after all.

    Times are in seconds on the clock of the stream. The start may be corrected at the end.
    """

    number: int
    """The number of the action in this stream, from 1 on: the same when it starts and when it ends."""
    state: Literal["started", "ended", "withdrawn"]
    label: str
    start_s: float
    end_s: float | None
    """The end; None while the action goes on."""
    confidence: float

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "number": self.number,
            "state": self.state,
            "label": self.label,
            "start_s": round(self.start_s, 3),
            "end_s": None if self.end_s is None else round(self.end_s, 3),
            "confidence": round(self.confidence, 4),
        }


@dataclass(eq=False)
class _Action:
    """An action that the detector has found, with how often it was seen and missed in a row."""

    span: Span
    number: int = 0
    """Its number once it was told as begun; 0 before."""
    num_seen: int = 1
    num_missed: int = 0
    is_over: bool = False


class ActionLog:
    """Turns what look after look finds into actions that begin and end, each told once."""

    def __init__(self, threshold: float, interval_s: float) -> None:
        """Begin a stream.

        Args:
            threshold: The confidence from which an action counts.
            interval_s: Seconds between the frames of the detector.
        """
        self._threshold, self._interval_s = threshold, interval_s
        self._count = 0
        self._actions: list[_Action] = []

    @property
    def least_confidence(self) -> float:
        """The confidence below which a span does not even keep an action that was told as begun."""
        return STAYS * self._threshold

    def finish(self) -> list[LiveSpan]:
        """Return the actions that go on, as ended where they were seen last, and forget all."""
        ended = [self._told(action, "ended") for action in self._actions if action.number and not action.is_over]
        self._actions = []
        return sorted(ended, key=lambda span: (span.start_s, span.number))

    def look(self, spans: Sequence[Span], now_s: float) -> list[LiveSpan]:
        """Take in what one look found; return what begins and ends with it."""
        told: list[LiveSpan] = []
        left = sorted(spans, key=lambda span: -span.confidence)
        settled_s = now_s - SETTLED_FRAMES * self._interval_s
        for action in sorted(self._actions, key=lambda action: -action.number):
            same = [span for span in left if _is_same(span, action.span)]
            left = [span for span in left if span not in same]
            if action.is_over:
                continue
            action.num_seen = action.num_seen + 1 if same else 0
            action.num_missed = 0 if same else action.num_missed + 1
            if same:
                action.span = same[0]
            told += self._changes(action, settled_s)
        self._actions += [_Action(span) for span in left if span.confidence >= self._threshold]
        horizon_s = now_s - (MOST_FRAMES - BLOCK_FRAMES) * self._interval_s
        self._actions = [
            action
            for action in self._actions
            if not (action.is_over and action.span.end_s < horizon_s) and (action.number or action.num_missed == 0)
        ]
        return sorted(told, key=lambda span: (span.start_s, span.number))

    def _changes(self, action: _Action, settled_s: float) -> list[LiveSpan]:
        """Return what there is to tell of an action after a look."""
        told = []
        if not action.number and action.num_seen >= LOOKS_TO_START:
            self._count += 1
            action.number = self._count
            told.append(self._told(action, "started"))
        if action.number and not action.num_missed and action.span.end_s <= settled_s:
            action.is_over = True
            told.append(self._told(action, "ended"))
        elif action.number and action.num_missed >= LOOKS_TO_WITHDRAW:
            action.is_over = True
            told.append(self._told(action, "withdrawn"))
        return told

    def _told(self, action: _Action, state: Literal["started", "ended", "withdrawn"]) -> LiveSpan:
        span = action.span
        end_s = None if state == "started" else span.end_s
        return LiveSpan(action.number, state, span.label, span.start_s, end_s, span.confidence)


class LiveSpans:
    """The actions in the frames of a stream, by a model's detector."""

    def __init__(self, runtime: Runtime, boundaries: Boundaries, interval_s: float) -> None:
        """Begin a stream.

        Args:
            runtime: The model.
            boundaries: Its detector.
            interval_s: Seconds between the frames of the stream.
        """
        self._boundaries, self._labels, self._interval_s = boundaries, runtime.labels, interval_s
        self._scorer = span_scorer(runtime)
        self._log = ActionLog(boundaries.threshold, boundaries.interval_s)
        self._restart()

    def _restart(self) -> None:
        self._first = self._next = 0  # frames of the detector: the first that is remembered, and the one to come
        self._last_D: Floats | None = None
        self.rows: list[Floats] = []
        self._projected: list[Floats] = []
        self._cuts = CutFinder()

    def restart(self) -> list[LiveSpan]:
        """Begin a new stretch of the source; return the actions that went on, as ended where they were seen last."""
        self._restart()
        return self._log.finish()

    def push(self, index: int, embedding_D: Floats, time_s: float) -> list[LiveSpan]:
        """Add a frame that is later than all before; return what begins and ends. One that was dropped repeats the one before it.

        Args:
            index: Position of the frame in the grid of frames.
            embedding_D: Its embedding.
            time_s: Its timestamp on the clock of the stream.
        """
        is_due = False
        while (nearest := int((self._next + 0.5) * self._boundaries.interval_s / self._interval_s)) <= index:
            shown_D = embedding_D if nearest == index or self._last_D is None else self._last_D
            self.rows.append(shown_D)
            self._projected.append(self._boundaries.projected(shown_D[None])[0])
            self._cuts.add(shown_D[None])
            self._next += 1
            is_due = True
            if len(self.rows) >= MOST_FRAMES + BLOCK_FRAMES:
                del self.rows[:BLOCK_FRAMES], self._projected[:BLOCK_FRAMES]
                self._cuts.forget(BLOCK_FRAMES)
                self._first += BLOCK_FRAMES
        self._last_D = embedding_D
        if not is_due:
            return []
        began_s = time_s - (index + 0.5) * self._interval_s
        return self._log.look(self.found(began_s), began_s + self._next * self._boundaries.interval_s)

    def found(self, began_s: float) -> list[Span]:
        """Return the spans whose end is not long past, with any confidence that keeps an action.

        Args:
            began_s: The time at which the frames of this stretch begin, on the clock of the stream.
        """
        boundaries, num_frames = self._boundaries, len(self.rows)
        found = boundaries.candidates_of(np.stack(self._projected), (0, num_frames))
        # Most are no action whatever their frames show, so that the model need not look at these.
        most_PK = boundaries.confidence(found.happening, np.ones_like(found.labels), found.labels)
        can_count = (most_PK.max(axis=1, initial=0) >= self._log.least_confidence) & (
            found.ends >= num_frames - 2 * SETTLED_FRAMES - LOOKS_TO_WITHDRAW
        )
        if not can_count.any():
            return []
        rows_ND = np.stack(self.rows)
        found = found.of(np.flatnonzero(can_count))
        scores_PK = self._scorer.of(rows_ND, found.starts, found.ends)
        detected = DetectedSpans(found.starts, found.ends, found.happening, found.labels, scores_PK, scores_PK[:, :0])
        detected = snapped(detected, self._cuts.found())
        confidences_PK = confidences_of(detected, boundaries, self._labels)
        start_s = began_s + self._first * boundaries.interval_s
        spans = spans_in(detected, confidences_PK, self._labels, boundaries.interval_s, start_s)
        return [span for span in spans if span.confidence >= self._log.least_confidence]


def _is_same(one: Span, other: Span) -> bool:
    """Return True if two spans of one label are one action."""
    shared_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return one.label == other.label and shared_s >= SAME_ACTION * min(one.length_s, other.length_s)


def spans_of(told: Sequence[LiveSpan]) -> list[Span]:
    """Return the actions that have ended, as spans."""
    return [
        Span(span.start_s, span.end_s, span.label, span.confidence)
        for span in told
        if span.state == "ended" and span.end_s is not None
    ]
