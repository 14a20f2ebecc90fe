"""A source that is watched: its reader, the regions of its picture, its events, and the counts of all that."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

from fewframes.core.hours import Clock, Schedule, utc_now
from fewframes.inference.alarms import Alarm
from fewframes.inference.live.persons import LivePersons
from fewframes.inference.live.region import LiveRegion, RegionAnswers, block_of
from fewframes.inference.live.results import StreamPrediction, StreamSummary
from fewframes.runtime.protocol import Floats, Frames
from fewframes.video.live import LiveReader
from fewframes.video.live_queue import LiveEvent, LiveFrame
from fewframes.video.live_settings import StreamConfig
from fewframes.video.pictures.arrays import Prepare
from fewframes.video.pictures.display import Pixels
from fewframes.video.regions.boxes import Floats64

MOST_LATENCIES = 100_000
"""Latencies that a summary's percentiles are taken over, the latest ones: a stream runs for days in constant memory."""
OnEvent = Callable[[LiveEvent], None]


class Place(NamedTuple):
    """A part of the picture that is judged: the name of a zone, the number of a person, and what judges it."""

    zone: str
    track: str
    region: LiveRegion


@dataclass(frozen=True, eq=False)
class Look:
    """A picture that is looked at: each place with its part of the picture, and the places that are judged no more."""

    parts: tuple[tuple[Place, LiveFrame], ...] = ()
    gone: tuple[Place, ...] = ()
    whole: LiveFrame | None = None
    """The whole picture, if somebody wants to have it."""
    persons: Mapping[str, Floats64] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LivePicture:
    """A picture of a source that was looked at, with all that was found out about it."""

    pixels: Pixels
    """The picture (H, W, C) uint8 RGB, as it is shown."""
    time_s: float
    """Its time on the stream's clock, in seconds."""
    shown_s: float
    """Seconds to the next one."""
    answers: tuple[StreamPrediction, ...]
    """The answers that were due with it."""
    persons: Mapping[str, Floats64]
    """The box (4,) of each person who is judged, in pixels: x0, y0, x1, y1."""


OnPicture = Callable[[LivePicture], None]
FeedItem = Look | LiveEvent


class Feed:
    """A source that is watched, with the regions of its picture, or the persons in it."""

    def __init__(
        self,
        regions: Mapping[str, LiveRegion],
        reader: LiveReader,
        config: StreamConfig,
        name: str,
        on_event: OnEvent | None = None,
        persons: LivePersons | None = None,
        now: Clock = utc_now,
        fit: Prepare | None = None,
        on_picture: OnPicture | None = None,
    ) -> None:
        """Begin to watch a source.

        Args:
            regions: The regions by their names; the whole picture is named "".
            reader: The source.
            config: Settings of the stream.
            name: The name of the source in answers.
            on_event: Called at once with every event.
            persons: Finds persons, who are judged instead of the regions.
            now: The clock for the hours of the source.
            fit: Makes the input of the regions from a picture of the source; None if the reader does.
            on_picture: Called with every picture that is looked at, after its answers. Pictures of the source must be whole.
        """
        self.regions, self.reader, self.name = regions, reader, name
        self._places = () if persons else tuple(Place(zone, "", region) for zone, region in regions.items())
        self._persons, self._schedule = persons, Schedule(config.hours, config.time_zone, now)
        self._fit, self._on_picture = fit, on_picture
        self._fitted: tuple[Frames, Frames] | None = None
        self._num_rests = 0
        first = next(iter(regions.values()))
        self.interval_s, self.every_frames = first.interval_s, first.every_frames
        self.events: deque[LiveEvent] = deque(maxlen=1000)
        """The latest thousand events."""
        self.alarms: deque[Alarm] = deque(maxlen=1000)
        """The latest thousand alarms."""
        self._config, self._on_event = config, on_event
        self._new_events: list[LiveEvent] = []
        self._event_counts: Counter[str] = Counter()
        self._latencies_s: deque[float] = deque(maxlen=MOST_LATENCIES)
        self._num_predictions = self._num_timestamps = 0
        self._cost_s = self._detect_s = 0.0
        self._last: LiveFrame | None = None
        self._seen: LiveFrame | None = None
        self._began = time.monotonic()

    @property
    def is_resting(self) -> bool:
        """Return True outside of the source's hours."""
        return self._schedule.is_resting

    @property
    def has_seen_nobody(self) -> bool:
        """Return True if persons are judged and pictures have come: where nobody answers, nobody is there."""
        return self._persons is not None and self._seen is not None

    def seen(self, zone: str) -> Frames | None:
        """Return the newest picture of a zone as the models see it, or the whole picture where persons are judged or pictures are
        drawn: (C, H, W) uint8. None before the first.
        """
        if self._seen is None:
            return None
        picture = self._seen.picture
        return picture if picture.ndim == 3 else picture[list(self.regions).index(zone)]

    def take(self, most: int, timeout_s: float) -> list[FeedItem] | None:
        """Return what has come, in order, with at most `most` pictures; None at the end.

        Where answers may be late by so much only, frames are dropped that would be later. Outside of the source's hours nothing is
        looked at. Raises VideoError if the source is lost, and ConfigError if the detector of persons returns no boxes.
        """
        budget_s = self._config.max_latency_s
        items = self.reader.take(most, timeout_s, 0.0 if budget_s is None else max(1e-3, budget_s - self._cost_s))
        if items is None:
            return None
        found: list[FeedItem] = []
        for item in items:
            found += [item] if isinstance(item, LiveEvent) else self._looks(item)
        return found

    def _looks(self, sample: LiveFrame) -> Iterator[FeedItem]:
        """Yield what there is to judge in a picture, and what happens with it."""
        was_resting, is_resting = self._schedule.is_resting, self._schedule.rests()
        if is_resting:
            if not was_resting:
                yield LiveEvent("hours", sample.time_s, "its hours are over; nothing is looked at until they begin")
                yield Look(gone=self._gone())
            return
        if was_resting:
            self._num_rests += 1
            yield LiveEvent("hours", sample.time_s, "its hours have begun")
        self._seen = sample
        # After a rest nothing is known of what was before, as after a jump of the clock.
        sample = replace(sample, stretch=sample.stretch + self._num_rests)
        whole = None if self._on_picture is None else sample
        if self._persons is None:
            fitted = self._fitted_to_regions(sample)
            yield Look(tuple((place, fitted) for place in self._places), whole=whole)
            return
        scene = self._persons.look(sample)
        yield from scene.events
        gone = tuple(Place("", name, region) for name, region in scene.gone)
        parts = tuple((Place("", view.name, view.region), view.frame) for view in scene.persons)
        yield Look(parts, gone, whole, {view.name: view.box for view in scene.persons})

    def _fitted_to_regions(self, sample: LiveFrame) -> LiveFrame:
        """Return a picture as the regions take it: the same object as before where the picture is."""
        if self._fit is None:
            return sample
        if self._fitted is None or self._fitted[0] is not sample.picture:
            self._fitted = sample.picture, self._fit(sample.picture)
        return replace(sample, picture=self._fitted[1])

    def _gone(self) -> tuple[Place, ...]:
        """Return all places, which are judged no more."""
        if self._persons is None:
            return self._places
        return tuple(Place("", name, region) for name, region in self._persons.leave())

    def note_cost(self, seconds: float) -> None:
        """Take into account how long the encoder and the detector took for new pictures, in a running mean; 0 is none.

        Args:
            seconds: The seconds of the encoder. Those of the detector are known.
        """
        detect_s = 0.0 if self._persons is None else self._persons.detect_s
        seconds, self._detect_s = seconds + detect_s - self._detect_s, detect_s
        if seconds:
            self._cost_s += 0.1 * (seconds - self._cost_s)

    def answers(
        self, items: Sequence[FeedItem], embedded: Mapping[LiveRegion, Sequence[Floats]]
    ) -> Iterator[StreamPrediction]:
        """Yield the answers that are due with these items, and note events.

        Args:
            items: What `take` returned.
            embedded: For each region, the embedding (D,) of each frame among the items.
        """
        rows = {region: iter(found) for region, found in embedded.items()}
        for item in items:
            if isinstance(item, LiveEvent):
                self._note(item)
                continue
            told: list[StreamPrediction] = []
            for answer in self._answers_to(item, rows):
                told.append(answer)
                yield answer
            if self._on_picture is not None and item.whole is not None:
                pixels_HWC, shown_s = item.whole.picture.transpose(1, 2, 0), self.interval_s
                self._on_picture(LivePicture(pixels_HWC, item.whole.time_s, shown_s, tuple(told), item.persons))

    def _answers_to(self, item: Look, rows: Mapping[LiveRegion, Iterator[Floats]]) -> Iterator[StreamPrediction]:
        """Yield the answers that are due with a picture; `rows` has the next embedding of each region."""
        for place in item.gone:
            yield from self._ended(place, place.region.last(), is_last=True)
        self._num_timestamps += bool(item.parts) or self._persons is not None
        found = [(place, sample, place.region.step(sample, next(rows[place.region]))) for place, sample in item.parts]
        for place, sample, answers in found:
            self._last = sample
            if answers is not None:
                predictions = self._predictions(sample, place, answers)
                self._latencies_s.append(predictions[0].latency_s)
                self._num_predictions += 1
                yield from predictions

    def finish(self) -> Iterator[StreamPrediction]:
        """Yield the last answer once more of each person, and of each model whose actions end with the stream."""
        for place in self._gone():
            found = place.region.last() if self._persons else place.region.finish()
            yield from (
                answer
                for answer in self._ended(place, found, is_last=self._persons is not None)
                if answer.is_last or answer.spans
            )

    def _ended(self, place: Place, found: RegionAnswers | None, *, is_last: bool) -> Iterator[StreamPrediction]:
        """Yield the last answers of a place once more, if it had any."""
        if found is not None and self._last is not None:
            yield from (replace(answer, is_last=is_last) for answer in self._predictions(self._last, place, found))

    def _predictions(self, sample: LiveFrame, place: Place, found: RegionAnswers) -> list[StreamPrediction]:
        latency_s = time.monotonic() - sample.arrived
        events, self._new_events = tuple(self._new_events), []
        self.alarms += [answer.alarm for answer in found.answers if answer.alarm is not None]
        return [
            StreamPrediction(
                source=self.name,
                labels=model.runtime.labels,
                start_s=found.end_s - found.num_frames * self.interval_s,
                end_s=found.end_s,
                scores=answer.scores,
                smoothed=answer.smoothed,
                label=answer.label,
                is_known=answer.is_known,
                only=self._config.only,
                familiarity=answer.familiarity,
                latency_s=latency_s,
                num_frames=found.num_frames,
                num_dropped=self.reader.counts.dropped,
                events=events,
                alarm=answer.alarm,
                promise=model.promise,
                model=model.name,
                zone=place.zone,
                track=place.track,
                spans=answer.spans,
                repetitions=found.repetitions,
            )
            for model, answer in zip(place.region.models, found.answers, strict=True)
        ]

    def _note(self, event: LiveEvent) -> None:
        self.events.append(event)
        self._new_events = [*self._new_events[-99:], event]
        self._event_counts[event.kind] += 1
        if self._on_event is not None:
            self._on_event(event)

    def summary(self) -> StreamSummary:
        """Return the counts and latencies so far."""
        counts, latencies = self.reader.counts, np.array(self._latencies_s)
        regions, persons = self.regions.values(), self._persons
        raisers = [model.raiser for region in regions for model in region.models if model.raiser is not None]
        p50, p95, p99 = [float(np.quantile(latencies, q)) if len(latencies) else None for q in (0.5, 0.95, 0.99)]
        return StreamSummary(
            self._num_predictions,
            self._num_timestamps,
            sum(region.gate.num_embedded for region in regions) + (persons.num_encoded if persons else 0),
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
            sum(region.gate.num_reused for region in regions) + (persons.num_reused if persons else 0),
            None if not raisers else sum(raiser.count for raiser in raisers),
            None if persons is None else persons.num_persons,
            0 if persons is None else persons.num_detections,
            0.0 if persons is None else persons.detect_s,
        )


def answers_together(
    came: Sequence[tuple[Feed, Sequence[FeedItem]]], embed: Callable[[Frames], Floats]
) -> Iterator[StreamPrediction]:
    """Embed the new pictures of all sources together, and yield the answers that are due.

    Args:
        came: Sources with what `Feed.take` returned.
        embed: The frame encoder, as for `embed_together`.
    """
    jobs: dict[LiveRegion, list[LiveFrame]] = {}
    for _, items in came:
        for item in items:
            for place, sample in () if isinstance(item, LiveEvent) else item.parts:
                jobs.setdefault(place.region, []).append(sample)
    found, seconds = embed_together(list(jobs.items()), embed)
    embedded = dict(zip(jobs, found, strict=True))
    for feed, items in came:
        feed.note_cost(seconds)
        yield from feed.answers(items, embedded)


def embed_together(
    jobs: Sequence[tuple[LiveRegion, Sequence[LiveFrame]]], embed: Callable[[Frames], Floats]
) -> tuple[list[list[Floats]], float]:
    """Return the embedding (D,) of each frame of several regions, and the seconds that the encoder took; 0 if it was not needed.

    New pictures of all regions go through the encoder in one batch.

    Args:
        jobs: Regions with their frames, which may be of several sources.
        embed: The frame encoder, (N, C, H, W) uint8 -> (N, D).
    """
    blocks = [[list(part) for _, part in groupby(samples, block_of)] for _, samples in jobs]
    found: list[list[Floats]] = [[] for _ in jobs]
    seconds = 0.0
    for number in range(max(map(len, blocks), default=0)):
        due = [index for index in range(len(jobs)) if number < len(blocks[index])]
        pictures = [jobs[index][0].select(blocks[index][number]) for index in due]
        new = [picture_NCHW for picture_NCHW in pictures if len(picture_NCHW)]
        began = time.monotonic()
        rows_ND = embed(np.concatenate(new)) if new else None
        seconds += time.monotonic() - began if new else 0.0
        first = 0
        for index, picture_NCHW in zip(due, pictures, strict=True):
            end = first + len(picture_NCHW)
            found[index] += jobs[index][0].settle(None if rows_ND is None or first == end else rows_ND[first:end])
            first = end
    return found, seconds
