"""Answers of a stream with scores that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fewframes import StreamPrediction
from fewframes.inference.alarms import Alarm
from fewframes.inference.live.spans import LiveSpan
from fewframes.inference.promise import AlarmPromise, AlarmThreshold

LABELS = ("opening door", "carrying", "background")


def answer_of(
    end_s: float,
    scores: Mapping[str, float],
    *,
    is_known: bool = True,
    only: tuple[str, ...] | None = None,
    spans: tuple[LiveSpan, ...] | None = None,
    alarm: Alarm | None = None,
    promise: AlarmPromise | None = None,
    source: str = "cam1",
) -> StreamPrediction:
    """Return the answer of a time; labels without a score have 0."""
    scores_K = np.array([scores.get(name, 0.0) for name in LABELS], np.float32)
    return StreamPrediction(
        source=source,
        labels=LABELS,
        start_s=end_s - 3.2,
        end_s=end_s,
        scores=scores_K,
        smoothed=scores_K,
        label=None,
        is_known=is_known,
        only=only,
        spans=spans,
        latency_s=0.0,
        num_frames=16,
        num_dropped=0,
        events=(),
        alarm=alarm,
        promise=promise,
    )


def promise_of(threshold: float, *, gap_s: float) -> AlarmPromise:
    """Return a promise of alarms above a threshold, at least `gap_s` apart."""
    found = AlarmThreshold(threshold=threshold, alarms=0, clumping=1.0, promised=1.0, most_per_day=3.0)
    return AlarmPromise(
        alarms_per_day=1.0,
        hours=24.0,
        num_blocks=24,
        num_videos=1,
        window_s=3.2,
        every_s=None,
        smooth_s=1.0,
        enter=0.5,
        alarm_gap_s=gap_s,
        at_enter=0,
        overall=found,
        actions={},
    )
