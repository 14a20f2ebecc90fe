"""A live source -> an answer at a chosen pace over the last seconds; each picture goes through the frame encoder once.

The last T frame embeddings are kept, one (T, D) tensor; an answer is a pass of the temporal half over them. The moments are
those of `sampling.steady_times`, so that an answer is what `predict` says of the same seconds of a file.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fewframes.errors import ConfigError
from fewframes.models.config import ModelConfig
from fewframes.models.stam import STAM, VideoEncoding
from fewframes.results import top_labels
from fewframes.video.live import POLL_S, WAITING, LiveEvent, LiveFrame, LiveReader
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import LiveSource
from fewframes.video.transforms import fit_frame
from fewframes.video.view import ViewConfig

MOST_KEPT = 100_000
"""Latencies of which the summary's percentiles are, the last ones; a stream runs for days in flat memory."""
OnEvent = Callable[[LiveEvent], None]


class FrameNetwork(Protocol):
    """What of a `Predictor` a stream needs."""

    labels: tuple[str, ...]
    view: ViewConfig
    config: ModelConfig
    model: STAM

    def embed_frames(self, frames_TCHW: Tensor) -> Tensor:
        """(T, C, H, W) uint8 -> (T, D)."""

    def keep(self, before_D: Tensor, frame_D: Tensor) -> Tensor | None:
        """(D,) and (D,) -> (2, W)."""

    def encode_windows(self, windows_BTD: Tensor, *, kept_BT2W: Tensor | None = None) -> VideoEncoding:
        """(B, T, D) -> logits (B, K)."""


@dataclass(frozen=True, eq=False)
class StreamPrediction:
    """What the model says of [start_s, end_s] of a stream, in seconds on its clock.

    `scores` (K,) in the order of `labels`, `smoothed` (K,) over earlier answers; `label` is the action with hysteresis, None while
    none is sure. `latency_s`: from the arrival of the newest picture to this answer. `events`: what happened since the last one.
    """

    source: str
    labels: tuple[str, ...]
    start_s: float
    end_s: float
    scores: Tensor
    smoothed: Tensor
    label: str | None
    latency_s: float
    num_frames: int
    """Moments of the window that have been seen; fewer than the model's own at the beginning of a causal one."""
    num_dropped: int
    """Moments dropped so far because the network was behind."""
    events: tuple[LiveEvent, ...]

    def to_dict(self, topk: int = 5) -> dict[str, object]:
        """Plain values, as `fewframes stream --json` writes them."""
        best = self.scores.topk(min(topk, len(self.labels))).indices.tolist()
        scores, smoothed = self.scores.tolist(), self.smoothed.tolist()
        return {
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "label": self.label,
            "top": [
                {"label": self.labels[index], "score": round(scores[index], 6), "smoothed": round(smoothed[index], 6)}
                for index in best
            ],
            "latency_s": round(self.latency_s, 4),
            "frames": self.num_frames,
            "dropped": self.num_dropped,
            "events": [event.to_dict() for event in self.events],
        }

    def __repr__(self) -> str:
        best = top_labels(self.scores, self.labels, 1)[0]
        return (
            f"StreamPrediction({self.start_s:.2f}-{self.end_s:.2f} s: {self.label}; now {best.label} {best.score:.1%}, "
            f"{1e3 * self.latency_s:.0f} ms)"
        )


@dataclass(frozen=True)
class StreamSummary:
    """A stream so far: answers, moments looked at and dropped, pictures encoded, pictures decoded and left out (late or damaged),
    packets that could not be decoded, reconnections, how often each kind of event, and the latency (seconds, None before the
    first answer) that half, 95 % and 99 % of the answers kept to."""

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

    def __str__(self) -> str:
        lines = (
            f"{self.num_predictions} predictions in {self.seconds:.1f} s; {self.num_moments} moments looked at, "
            f"{self.num_encoded} pictures encoded, {self.num_dropped} dropped; {self.num_pictures} decoded, "
            f"{self.num_left_out} left out, {self.num_bad_packets} bad packets; {self.num_reconnects} reconnections"
        )
        happened = ", ".join(f"{count} {kind}" for kind, count in self.events.items())
        lines += f"; events: {happened}" if happened else ""
        if self.latency_p50_s is None or self.latency_p95_s is None or self.latency_p99_s is None:
            return lines
        values = (self.latency_p50_s, self.latency_p95_s, self.latency_p99_s)
        return lines + "; latency p50/p95/p99 " + "/".join(f"{1e3 * value:.0f}" for value in values) + " ms"


class Smoother:
    """Scores over time: an exponential mean with a time constant, and a label with hysteresis."""

    def __init__(self, smooth_s: float, enter: float, leave: float) -> None:
        self._smooth_s, self._enter, self._leave = smooth_s, enter, leave
        self._smoothed_K: Tensor | None = None
        self._time_s = 0.0
        self.choice: int | None = None
        """The label: the likeliest class once its smoothed score reached `enter`, until another's does or its own falls below
        `leave`."""

    def step(self, scores_K: Tensor, time_s: float) -> Tensor:
        """The smoothed scores (K,) after these, which are of `time_s`."""
        if self._smoothed_K is None or self._smooth_s == 0:
            self._smoothed_K = scores_K
        else:
            kept = math.exp(-(time_s - self._time_s) / self._smooth_s)
            self._smoothed_K = kept * self._smoothed_K + (1 - kept) * scores_K
        self._time_s = time_s
        best = int(self._smoothed_K.argmax())
        if float(self._smoothed_K[best]) >= self._enter:
            self.choice = best
        elif self.choice is not None and float(self._smoothed_K[self.choice]) < self._leave:
            self.choice = None
        return self._smoothed_K


class EmbeddingRing:
    """The embeddings of the last T steady moments, `frames_TD`, oldest first, and what `keep` made of each; a moment that was
    dropped shows what the one before it showed."""

    def __init__(self, size: int, keep: Callable[[Tensor, Tensor], Tensor | None]) -> None:
        self._size, self._keep = size, keep
        self.place = -1
        """The newest moment's number."""
        self.frames_TD = torch.empty(0, 0)
        self.kept_T2W: Tensor | None = None

    def push(self, place: int, frame_D: Tensor) -> None:
        """The embedding of a moment, later than all before."""
        num_missing = min(place - self.place - 1, self._size) if len(self.frames_TD) else 0
        before_D = self.frames_TD[-1] if len(self.frames_TD) else frame_D
        for shown_D in (*[before_D] * num_missing, frame_D):
            kept_2W = self._keep(before_D, shown_D)
            self.frames_TD = self._pushed(self.frames_TD, shown_D)
            if kept_2W is not None:
                self.kept_T2W = self._pushed(torch.empty(0) if self.kept_T2W is None else self.kept_T2W, kept_2W)
            before_D = shown_D
        self.place = place

    def _pushed(self, row: Tensor, new: Tensor) -> Tensor:
        return torch.cat([row, new[None]])[-self._size :] if len(row) else new[None]


class Stream:
    """The answers of a stream, one after the other (`for prediction in stream`); `close` it, or use `with`, to end early.

    Raises VideoError where the source cannot be opened, or is lost for good.
    """

    def __init__(
        self, network: FrameNetwork, source: LiveSource, config: StreamConfig, on_event: OnEvent | None = None
    ) -> None:
        if network.config.layout != "factorised":
            raise ConfigError(
                f"a stream needs embeddings of single frames, and layout {network.config.layout!r} mixes frames inside the "
                "encoder; take a model of layout 'factorised'"
            )
        self._network, self._config, self._on_event = network, config, on_event
        self._size = network.config.num_frames
        self._spacing_s = config.window_s / self._size
        self._hop = max(1, round((config.every_s or 0.0) / self._spacing_s))
        self._min_frames = 1 if network.config.temporal == "causal" else self._size
        self.events: deque[LiveEvent] = deque(maxlen=1000)
        """What happened, the last thousand."""
        self._new_events: list[LiveEvent] = []
        self._event_counts: Counter[str] = Counter()
        self._latencies_s: deque[float] = deque(maxlen=MOST_KEPT)
        self._num_predictions = self._num_moments = self._num_encoded = 0
        self._last: tuple[Tensor, Tensor] | None = None
        self._cost_s = 0.0
        self._began = time.monotonic()
        self._restart(0)
        self._reader = LiveReader(source, config, self._spacing_s, lambda frame_CHW: fit_frame(frame_CHW, network.view))
        self.source = self._reader.address.name

    def __iter__(self) -> Iterator[StreamPrediction]:
        # One by one where pictures must not be late; else as many as wait, which keeps every core busy.
        most = 1 if self._reader.is_live else WAITING
        with self:
            while (items := self._reader.take(most, POLL_S, self._oldest_s())) is not None:
                samples = [item for item in items if isinstance(item, LiveFrame)]
                frames = iter(self._embedded(samples))
                for item in items:
                    if isinstance(item, LiveEvent):
                        self._note(item)
                    elif (prediction := self._step(item, next(frames))) is not None:
                        yield prediction

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the source."""
        self._reader.close()

    @property
    def every_s(self) -> float:
        """Seconds between answers, as they lie on the frames' grid."""
        return self._hop * self._spacing_s

    def summary(self) -> StreamSummary:
        """What the stream has been so far."""
        counts, latencies = self._reader.counts, torch.tensor(self._latencies_s, dtype=torch.float64)
        p50, p95, p99 = [float(latencies.quantile(share)) if len(latencies) else None for share in (0.5, 0.95, 0.99)]
        return StreamSummary(
            self._num_predictions,
            self._num_moments,
            self._num_encoded,
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
        )

    def _oldest_s(self) -> float:
        """How old a sample may be that is still worth an answer; 0 for any age."""
        budget_s = self._config.max_latency_s
        return 0.0 if budget_s is None else max(1e-3, budget_s - self._cost_s)

    def _note(self, event: LiveEvent) -> None:
        self.events.append(event)
        self._new_events = [*self._new_events[-99:], event]
        self._event_counts[event.kind] += 1
        if self._on_event is not None:
            self._on_event(event)

    def _embedded(self, samples: list[LiveFrame]) -> list[Tensor]:
        """The embedding (D,) of each sample; a picture that is shown at several moments is encoded once."""
        pictures = [sample.picture for sample in samples]
        known = {id(self._last[0]): self._last[1]} if self._last is not None else {}
        new = {id(picture): picture for picture in pictures if id(picture) not in known}
        if new:
            began = time.monotonic()
            embedded_MD = self._network.embed_frames(torch.stack(list(new.values())))
            known |= dict(zip(new, embedded_MD, strict=True))
            self._num_encoded += len(new)
            self._cost_s += 0.1 * (time.monotonic() - began - self._cost_s)
        if pictures:
            self._last = pictures[-1], known[id(pictures[-1])]
        return [known[id(picture)] for picture in pictures]

    def _restart(self, stretch: int) -> None:
        self._stretch = stretch
        self._ring = EmbeddingRing(self._size, self._network.keep)
        self._smoother = Smoother(self._config.smooth_s, self._config.enter, self._config.leave)

    def _step(self, sample: LiveFrame, frame_D: Tensor) -> StreamPrediction | None:
        """One moment more; the answer, where one is due."""
        if sample.stretch != self._stretch:
            self._restart(sample.stretch)
        self._num_moments += 1
        num_before = self._ring.place + 1
        self._ring.push(sample.index, frame_D)
        is_due = (sample.index + 1) // self._hop > num_before // self._hop
        return self._answer(sample) if is_due and len(self._ring.frames_TD) >= self._min_frames else None

    def _answer(self, sample: LiveFrame) -> StreamPrediction:
        window_TD, kept_T2W = self._ring.frames_TD, self._ring.kept_T2W
        encoded = self._network.encode_windows(window_TD[None], kept_BT2W=None if kept_T2W is None else kept_T2W[None])
        scores_K = self._network.model.scores(encoded.logits)[0]
        smoothed_K = self._smoother.step(scores_K, sample.time_s)
        choice = self._smoother.choice
        latency_s = time.monotonic() - sample.arrived
        self._latencies_s.append(latency_s)
        self._num_predictions += 1
        events, self._new_events = tuple(self._new_events), []
        end_s = sample.time_s + self._spacing_s / 2
        return StreamPrediction(
            source=self.source,
            labels=self._network.labels,
            start_s=end_s - len(window_TD) * self._spacing_s,
            end_s=end_s,
            scores=scores_K,
            smoothed=smoothed_K,
            label=None if choice is None else self._network.labels[choice],
            latency_s=latency_s,
            num_frames=len(window_TD),
            num_dropped=self._reader.counts.dropped,
            events=events,
        )
