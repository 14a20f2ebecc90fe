"""Label a live source at a chosen pace over the last seconds; each frame goes through the frame encoder once.

The last T frame embeddings are cached in one (T, D) tensor, and a prediction is one pass of the temporal half over them. The
timestamps are those of `sampling.steady_times`, so that a prediction equals that of `predict` for the same seconds of a file.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from fewframes.core.text import count_of
from fewframes.inference.alarms import Alarm
from fewframes.inference.live.model import EmbeddingRing, Judge, Judged, StreamModel
from fewframes.inference.promise import AlarmPromise
from fewframes.results import Familiarity, top_labels
from fewframes.runtime.protocol import CachesMotion, Floats, Frames
from fewframes.runtime.still import AFRESH_FRAMES, StillGate
from fewframes.video.live import POLL_S, LiveReader
from fewframes.video.live_queue import WAITING, LiveEvent, LiveFrame
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import LiveSource
from fewframes.video.transforms import fit_frame

MOST_LATENCIES = 100_000
"""Latencies that a summary's percentiles are taken over, the latest ones: a stream runs for days in constant memory."""
OnEvent = Callable[[LiveEvent], None]


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
    familiarity: Familiarity | None = None
    """The judgement on the window by itself; None if it was not judged."""
    model: str = ""
    """The name of the model, if several answer in one pass; empty if one does."""

    def to_dict(self, topk: int = 5) -> dict[str, object]:
        """Return plain values, as `fewframes stream --json` writes them."""
        best = np.argsort(-self.scores, kind="stable")[:topk].tolist()
        scores, smoothed = self.scores.tolist(), self.smoothed.tolist()
        return {
            **({"model": self.model} if self.model else {}),
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

    def __str__(self) -> str:
        lines = (
            f"{self.num_predictions} predictions in {self.seconds:.1f} s; {self.num_moments} timestamps seen, "
            f"{count_of(self.num_encoded, 'frame')} encoded, {self.num_reused} reused, {self.num_dropped} dropped; "
            f"{self.num_pictures} decoded, {self.num_left_out} left out, {self.num_bad_packets} bad packets; "
            f"{self.num_reconnects} reconnections"
        )
        lines += "" if self.num_alarms is None else f"; {count_of(self.num_alarms, 'alarm')}"
        happened = ", ".join(f"{count} {kind}" for kind, count in self.events.items())
        lines += f"; events: {happened}" if happened else ""
        if self.latency_p50_s is None or self.latency_p95_s is None or self.latency_p99_s is None:
            return lines
        values = (self.latency_p50_s, self.latency_p95_s, self.latency_p99_s)
        return lines + "; latency p50/p95/p99 " + "/".join(f"{1e3 * value:.0f}" for value in values) + " ms"


class Stream:
    """An iterator over the predictions of a stream (`for prediction in stream`). `close` it, or use `with`, to end early.

    Several models answer one after the other at each time. Raises VideoError where the source cannot be opened, or is lost for
    good.
    """

    def __init__(
        self,
        models: Sequence[StreamModel],
        judge: Judge,
        source: LiveSource,
        config: StreamConfig,
        on_event: OnEvent | None = None,
    ) -> None:
        """Open a stream. `Predictor.stream` and `Heads.stream` are the way in.

        Args:
            models: The models, which share a frame encoder.
            judge: Returns what each of them says of a window.
            source: The source.
            config: Settings of the stream.
            on_event: Called at once with every event.
        """
        self._models, self._judge = models, judge
        self._runtime = runtime = models[0].runtime
        self._config, self._on_event = config, on_event
        self._size = runtime.num_frames
        self._interval_s = config.window_s / self._size
        self._every_frames = max(1, round((config.every_s or 0.0) / self._interval_s))
        self._min_frames = 1 if runtime.causal else self._size
        self.events: deque[LiveEvent] = deque(maxlen=1000)
        """The latest thousand events."""
        self.alarms: deque[Alarm] = deque(maxlen=1000)
        """The latest thousand alarms."""
        self._new_events: list[LiveEvent] = []
        self._event_counts: Counter[str] = Counter()
        self._latencies_s: deque[float] = deque(maxlen=MOST_LATENCIES)
        self._num_predictions = self._num_timestamps = 0
        self._gate, self._block = StillGate(runtime, config.still), (0, 0)
        self._last: tuple[Frames, Floats] | None = None
        self._cost_s = 0.0
        self._began = time.monotonic()
        self._restart(0)
        self._reader = LiveReader(
            source, config, self._interval_s, lambda frame_CHW: fit_frame(frame_CHW, runtime.view)
        )
        self.source = self._reader.address.name

    def __iter__(self) -> Iterator[StreamPrediction]:
        # A live source is answered frame by frame, so that none is late; a file by as many as wait, so that no core idles.
        most = 1 if self._reader.is_live else WAITING
        with self:
            while (items := self._reader.take(most, POLL_S, self._oldest_s())) is not None:
                samples = [item for item in items if isinstance(item, LiveFrame)]
                frames = iter(self._embedded(samples))
                for item in items:
                    if isinstance(item, LiveEvent):
                        self._note(item)
                    else:
                        yield from self._step(item, next(frames))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the source."""
        self._reader.close()

    @property
    def every_s(self) -> float:
        """Seconds between predictions, rounded to the grid of frames."""
        return self._every_frames * self._interval_s

    def summary(self) -> StreamSummary:
        """Return the counts and latencies so far."""
        counts, latencies = self._reader.counts, np.array(self._latencies_s)
        raisers = [model.raiser for model in self._models if model.raiser is not None]
        p50, p95, p99 = [float(np.quantile(latencies, q)) if len(latencies) else None for q in (0.5, 0.95, 0.99)]
        return StreamSummary(
            self._num_predictions,
            self._num_timestamps,
            self._gate.num_embedded,
            counts.dropped,
            counts.pictures,
            counts.left_out,
            counts.bad_packets,
            counts.reconnects,
            dict(self._event_counts),
            time.monotonic() - self._began,
            p50,
            p95,
            p99,
            self._gate.num_reused,
            None if not raisers else sum(raiser.count for raiser in raisers),
        )

    def _oldest_s(self) -> float:
        """Return the greatest age in seconds of a frame that is still worth a prediction; 0 for any age."""
        budget_s = self._config.max_latency_s
        return 0.0 if budget_s is None else max(1e-3, budget_s - self._cost_s)

    def _note(self, event: LiveEvent) -> None:
        self.events.append(event)
        self._new_events = [*self._new_events[-99:], event]
        self._event_counts[event.kind] += 1
        if self._on_event is not None:
            self._on_event(event)

    def _embedded(self, samples: list[LiveFrame]) -> list[Floats]:
        """Return the embedding (D,) of each sample. The gate forgets at the timestamps at which a timeline's does."""
        embedded = []
        for block, part in groupby(samples, lambda sample: (sample.stretch, sample.index // AFRESH_FRAMES)):
            if block != self._block and self._config.still:
                self._gate.forget()
                self._last = None
            self._block = block
            embedded += self._through_gate([sample.picture for sample in part])
        return embedded

    def _through_gate(self, pictures: list[Frames]) -> list[Floats]:
        """Return the embedding (D,) of each picture. One that is shown at several timestamps is encoded once."""
        # A frame that is shown at several timestamps is one array, so its identity tells it.
        known = {id(self._last[0]): self._last[1]} if self._last is not None else {}
        new = {id(picture): picture for picture in pictures if id(picture) not in known}
        if new:
            began = time.monotonic()
            embedded_MD = self._gate.embed(np.stack(list(new.values())))
            known |= dict(zip(new, embedded_MD, strict=True))
            self._cost_s += 0.1 * (time.monotonic() - began - self._cost_s)  # a running mean of the network's time
        if pictures:
            self._last = pictures[-1], known[id(pictures[-1])]
        return [known[id(picture)] for picture in pictures]

    def _restart(self, stretch: int) -> None:
        self._stretch = stretch
        is_alone = len(self._models) == 1  # what is cached of motion tokens is one model's
        runtime = self._runtime
        motion_cache = runtime.motion_cache if is_alone and isinstance(runtime, CachesMotion) else None
        self._ring = EmbeddingRing(self._size, motion_cache)
        self._last_window: tuple[Floats, Judged] | None = None
        for model in self._models:
            model.restart()

    def _step(self, sample: LiveFrame, embedding_D: Floats) -> list[StreamPrediction]:
        """Take one more timestamp; return the predictions of all models where they are due."""
        if sample.stretch != self._stretch:
            self._restart(sample.stretch)
        self._num_timestamps += 1
        num_before = self._ring.index + 1
        self._ring.push(sample.index, embedding_D)
        # Answers lie on the grid of frames; where frames were dropped, a multiple may have been passed without being hit.
        is_due = (sample.index + 1) // self._every_frames > num_before // self._every_frames
        return self._answers(sample) if is_due and len(self._ring.embeddings_TD) >= self._min_frames else []

    def _judged(self) -> Judged:
        """Return what each model says of the newest window: what it said of the last one if the embeddings are the same."""
        window_TD = self._ring.embeddings_TD
        if self._last_window is None or not np.array_equal(self._last_window[0], window_TD):
            self._last_window = window_TD, self._judge(self._ring)
        return self._last_window[1]

    def _answers(self, sample: LiveFrame) -> list[StreamPrediction]:
        num_frames = len(self._ring.embeddings_TD)
        end_s = sample.time_s + self._interval_s / 2
        found = [
            model.step(encoded, familiarity, sample.time_s, end_s, is_whole=num_frames == self._size)
            for model, (encoded, familiarity) in zip(self._models, self._judged(), strict=True)
        ]
        latency_s = time.monotonic() - sample.arrived
        self._latencies_s.append(latency_s)
        self._num_predictions += 1
        events, self._new_events = tuple(self._new_events), []
        self.alarms += [alarm for *_, alarm in found if alarm is not None]
        return [
            StreamPrediction(
                source=self.source,
                labels=model.runtime.labels,
                start_s=end_s - num_frames * self._interval_s,
                end_s=end_s,
                scores=scores_K,
                smoothed=smoothed_K,
                label=label,
                familiarity=familiarity,
                latency_s=latency_s,
                num_frames=num_frames,
                num_dropped=self._reader.counts.dropped,
                events=events,
                alarm=alarm,
                promise=model.promise,
                model=model.name,
            )
            for model, (_, familiarity), (scores_K, smoothed_K, label, alarm) in zip(
                self._models, self._judged(), found, strict=True
            )
        ]
