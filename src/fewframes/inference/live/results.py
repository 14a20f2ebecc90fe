"""Results of a stream: a prediction for the last seconds, and the counts so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewframes.core.text import count_of
from fewframes.inference.alarms import Alarm
from fewframes.inference.counting.live import RunningCount
from fewframes.inference.live.spans import LiveSpan
from fewframes.inference.promise import AlarmPromise
from fewframes.results import Familiarity, top_labels
from fewframes.runtime.protocol import Floats
from fewframes.video.live_queue import LiveEvent


@dataclass(frozen=True, eq=False)
class StreamPrediction:
    """A prediction for the seconds [start_s, end_s] of a stream, on its own clock.

    `scores` (K,) are in the order of `labels`, and `smoothed` (K,) is their mean over earlier predictions. `label` is the action
    with hysteresis, None while none is certain, and `unknown` while the last seconds seem to show none of the actions. `latency_s`
    is the time from the arrival of the newest frame to this prediction. `events` are those since the last prediction.
    """

    source: str
    labels: tuple[str, ...]
    start_s: float
    end_s: float
    scores: Floats
    smoothed: Floats
    label: str | None
    latency_s: float
    num_frames: int
    """Timestamps of the window that have been seen; fewer than the model's own at the beginning for a causal model."""
    num_dropped: int
    """Timestamps dropped so far because the network was behind."""
    events: tuple[LiveEvent, ...]
    alarm: Alarm | None = None
    """The alarm that this answer raises: one for each happening."""
    promise: AlarmPromise | None = None
    """The promised rate of false alarms, if the stream raises alarms."""
    is_known: bool = True
    """False while the last seconds seem to show none of the model's actions."""
    only: tuple[str, ...] | None = None
    """The actions that are told; None for all. Others count as none."""
    familiarity: Familiarity | None = None
    """The judgement on the window by itself; None if it was not judged."""
    model: str = ""
    """The name of the model, if several answer in one pass; empty if one does."""
    zone: str = ""
    """The name of the part of the picture that the answer is about; empty for all of it."""
    track: str = ""
    """The number of the person that the answer is about; empty if nobody is followed."""
    is_last: bool = False
    """True if this repeats the last answer about a person who has gone, or of a source whose hours are over."""
    spans: tuple[LiveSpan, ...] | None = None
    """The actions that began or ended since the answer before, by the model's detector; None if it is not used."""
    repetitions: RunningCount | None = None
    """The repetitions so far; None if they are not counted."""

    def to_dict(self, topk: int = 5, *, with_source: bool = False) -> dict[str, object]:
        """Return plain values, as `fewframes stream --json` writes them; with the source, as it does for several."""
        best = np.argsort(-self.scores, kind="stable")[:topk].tolist()
        scores, smoothed = self.scores.tolist(), self.smoothed.tolist()
        return {
            **({"source": self.source} if with_source else {}),
            **({"model": self.model} if self.model else {}),
            **({"zone": self.zone} if self.zone else {}),
            **({"track": self.track} if self.track else {}),
            **({"is_last": True} if self.is_last else {}),
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "label": self.label,
            **({} if self.familiarity is None else self.familiarity.to_dict()),
            "top": [
                {"label": self.labels[index], "score": round(scores[index], 6), "smoothed": round(smoothed[index], 6)}
                for index in best
            ],
            "latency_s": round(self.latency_s, 4),
            "frames": self.num_frames,
            "dropped": self.num_dropped,
            "events": [event.to_dict() for event in self.events],
            **({} if self.spans is None else {"spans": [span.to_dict() for span in self.spans]}),
            **({} if self.repetitions is None else {"repetitions": self.repetitions.to_dict()}),
            **self._alarm_dict(),
        }

    def _alarm_dict(self) -> dict[str, object]:
        """Return the alarm and what is promised, if the stream raises alarms."""
        if self.promise is None:
            return {}
        return {
            "alarm": None if self.alarm is None else self.alarm.to_dict(),
            "threshold": self.promise.overall.threshold,
            "promised": round(self.promise.overall.promised, 4),
            "hours": round(self.promise.hours, 4),
        }

    def __repr__(self) -> str:
        best = top_labels(self.scores, self.labels, 1)[0]
        return (
            f"StreamPrediction({self.start_s:.2f}-{self.end_s:.2f} s: {self.label}; now {best.label} {best.score:.1%}, "
            f"{1e3 * self.latency_s:.0f} ms)"
        )


@dataclass(frozen=True)
class StreamSummary:
    """The counts of a stream so far: predictions, timestamps seen and dropped, frames encoded, frames decoded and left out (late or
    damaged), packets that could not be decoded, reconnections, and events of each kind.

    The latencies, in seconds, are those that 50 %, 95 % and 99 % of the predictions kept to; None before the first prediction.
    """

    num_predictions: int
    num_moments: int
    num_encoded: int
    num_dropped: int
    num_pictures: int
    num_left_out: int
    num_bad_packets: int
    num_reconnects: int
    events: dict[str, int]
    seconds: float
    latency_p50_s: float | None
    latency_p95_s: float | None
    latency_p99_s: float | None
    num_reused: int = 0
    """Frames that showed nothing new and got the embedding of one before."""
    num_alarms: int | None = None
    """Alarms raised; None if the stream raises none."""
    num_persons: int | None = None
    """Persons that were judged; None if nobody is followed."""
    num_detections: int = 0
    """Pictures in which persons were looked for."""
    detect_s: float = 0.0
    """Seconds that this took."""

    def __str__(self) -> str:
        lines = (
            f"{self.num_predictions} predictions in {self.seconds:.1f} s; {self.num_moments} timestamps seen, "
            f"{count_of(self.num_encoded, 'frame')} encoded, {self.num_reused} reused, {self.num_dropped} dropped; "
            f"{self.num_pictures} decoded, {self.num_left_out} left out, {self.num_bad_packets} bad packets; "
            f"{self.num_reconnects} reconnections"
        )
        lines += "" if self.num_alarms is None else f"; {count_of(self.num_alarms, 'alarm')}"
        if self.num_persons is not None:
            each_ms = 1e3 * self.detect_s / max(1, self.num_detections)
            lines += (
                f"; {count_of(self.num_persons, 'person')} judged, looked for in {count_of(self.num_detections, 'picture')} "
                f"({each_ms:.0f} ms each, {self.detect_s / self.seconds:.0%} of the time)"
            )
        happened = ", ".join(f"{count} {kind}" for kind, count in self.events.items())
        lines += f"; events: {happened}" if happened else ""
        if self.latency_p50_s is None or self.latency_p95_s is None or self.latency_p99_s is None:
            return lines
        values = (self.latency_p50_s, self.latency_p95_s, self.latency_p99_s)
        return lines + "; latency p50/p95/p99 " + "/".join(f"{1e3 * value:.0f}" for value in values) + " ms"
