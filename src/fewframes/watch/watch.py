"""Watch streams: make events of their answers, and deliver them."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol, TextIO

from fewframes.core.text import count_of
from fewframes.watch.courier import Courier, SinkCounts
from fewframes.watch.event import Event
from fewframes.watch.happening import Region
from fewframes.watch.maker import EventMaker, StreamAnswer
from fewframes.watch.metrics import SourceCounts, WatchMetrics
from fewframes.watch.settings import WatchSettings
from fewframes.watch.sinks.command import CommandSink
from fewframes.watch.sinks.lines import FileSink, StreamSink
from fewframes.watch.sinks.protocol import Announces, Sink
from fewframes.watch.sinks.webhook import WebhookSink
from fewframes.watch.spool import Spool

MOST_ANNOUNCED = 50
"""The most labels of a zone that are announced before they have had an event."""
LAST_ATTEMPT_S = 2.0
"""The most seconds that the end waits for attempts that are being made."""
Record = Callable[[Event], Event | None]
"""A function that returns an event with its picture or clip, or None if it will call `Watch.deliver` itself."""


class Watcher(Protocol):
    """A thing that is given each answer of streams: a `Watch`, or what stands before one."""

    def step(
        self, source: str, answer: StreamAnswer, *, zone: str = "", track: str = "", at: datetime | None = None
    ) -> list[Event]:
        """Take in an answer; return the events that end and start with it."""

    def end(self, source: str | None = None, *, zone: str | None = None, track: str | None = None) -> list[Event]:
        """End what goes on in a place that is judged no more; return the events that end."""


@dataclass(frozen=True)
class WatchCounts:
    """The counts of a watch so far."""

    started: dict[tuple[str, str, str], int]
    """Events that started, by source, zone and label."""
    num_going: int
    """Events that go on."""
    num_withdrawn: int
    """Events that were none after all."""
    sinks: dict[str, SinkCounts]
    waiting: dict[str, int]
    """Deliveries that wait for each sink."""
    dropped: dict[str, int]
    """Deliveries of each sink that were dropped for want of room."""
    is_behind: bool
    """True while the disk of the spool cannot be written to."""

    def __str__(self) -> str:
        parts = [count_of(sum(self.started.values()), "event")]
        parts += [f"{self.num_withdrawn} withdrawn"] if self.num_withdrawn else []
        for name, counts in self.sinks.items():
            words = [f"{counts.delivered} delivered"]
            words += [count_of(counts.failed, "failed attempt")] if counts.failed else []
            words += [f"{counts.refused} refused"] if counts.refused else []
            words += [f"{self.waiting[name]} waiting"] if self.waiting.get(name) else []
            words += [f"{self.dropped[name]} dropped"] if self.dropped.get(name) else []
            parts.append(f"{name}: {', '.join(words)}")
        return "; ".join(parts)


class Watch:
    """The events of any number of sources. Use it with `with`, which delivers what waits at the end.

    `step` never waits for a receiver: each sink has a thread of its own.
    """

    def __init__(
        self,
        settings: WatchSettings,
        *,
        tell: Callable[[str], None],
        record: Record | None = None,
        output: TextIO | None = None,
    ) -> None:
        """Begin to watch, and to deliver what an earlier process left in the spool.

        Args:
            settings: The rules, and where events go.
            tell: Called with messages for the user, by any thread.
            record: Called with each event before it is delivered.
            output: The stream for events as JSON lines, if the settings ask for standard output.

        Raises:
            ConfigError: A setting cannot be used.
            MissingDependency: A package is missing that a sink needs.
        """
        self._settings, self._tell, self._record = settings, tell, record
        self._maker = EventMaker(settings.book)
        self.sources: Callable[[], SourceCounts] = dict
        """Returns the counts of each source, for the metrics. Whoever reads the sources sets it."""
        self._started: Counter[tuple[str, str, str]] = Counter()
        self._num_going = self._num_withdrawn = 0
        self._seen: set[Region] = set()
        with ExitStack() as stack:
            self._spool = Spool(Path(settings.spool) if settings.spool else None, int(1e6 * settings.spool_mb), tell)
            stack.callback(self._spool.close)
            self._sinks: list[Sink] = []
            self._couriers: list[Courier] = []
            if settings.metrics.file or settings.metrics.port is not None:
                stack.callback(WatchMetrics(settings.metrics, self.counts, self._source_counts, tell).close)
            for make in makers_of(settings, output):
                self._sinks.append(make())
                stack.callback(self._sinks[-1].close)
            self._tell_waiting()
            for event in self._spool.going:  # an earlier process was killed before they ended
                self.deliver(replace(event, end_s=event.start_s, ended_at=event.started_at))
            self._couriers = [Courier(sink, self._spool, tell) for sink in self._sinks]
            stack.callback(self._finish)
            self._stack = stack.pop_all()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all events, wait for deliveries for as long as the settings say, and release everything."""
        self.end()
        self._stack.close()

    def step(
        self, source: str, answer: StreamAnswer, *, zone: str = "", track: str = "", at: datetime | None = None
    ) -> list[Event]:
        """Return the events that end and start with one more answer, and deliver them.

        Args:
            source: The name of the source.
            answer: The answer.
            zone: The name of the zone; empty for the whole picture.
            track: The id of the person or thing that is followed; empty if none is.
            at: The time of the answer's `end_s` by the clock of this machine, with a time zone. By default, what is shown happens
                now.

        Raises:
            ConfigError: A rule is about a label that the model does not have.
        """
        region = Region(source, zone, track, answer.model)
        place = region._replace(track="")
        if place not in self._seen:
            self._see(place, answer)
        at = datetime.now(UTC) - timedelta(seconds=answer.latency_s) if at is None else at
        return self._recorded(self._maker.step(region, answer, at))

    def end(self, source: str | None = None, *, zone: str | None = None, track: str | None = None) -> list[Event]:
        """End what goes on, deliver it, and return it. None stands for all sources, zones and followed persons."""
        sources = self._maker.sources if source is None else [source]
        return self._recorded([event for each in sources for event in self._maker.end(each, zone, track)])

    def deliver(self, event: Event) -> None:
        """Deliver an event that `record` has held back. May be called from any thread."""
        self._spool.put(event, tuple(sink.name for sink in self._sinks if event.state in sink.states))

    def counts(self) -> WatchCounts:
        """Return the counts so far."""
        return WatchCounts(
            dict(self._started),
            self._num_going,
            self._num_withdrawn,
            {courier.sink.name: courier.counts for courier in self._couriers},
            self._spool.num_waiting(),
            dict(self._spool.dropped),
            self._spool.is_behind,
        )

    def _source_counts(self) -> SourceCounts:
        return self.sources()

    def _recorded(self, events: list[Event]) -> list[Event]:
        """Deliver events. Return them as they were delivered, or as they are where `record` delivers them later."""
        told = []
        for event in events:
            has_started = event.state == "started"
            self._started[event.source, event.zone, event.label] += has_started
            self._num_going += 1 if has_started else -1
            self._num_withdrawn += event.withdrawn
            recorded = event if self._record is None else self._record(event)
            if recorded is not None:
                self.deliver(recorded)
            told.append(recorded or event)
        return told

    def _see(self, region: Region, answer: StreamAnswer) -> None:
        """Check the rules against a model, and announce the labels of a zone of which there may be events."""
        self._seen.add(region)
        book = self._settings.book
        if not answer.model:  # where several answer, a label need not be of each
            book.check_labels(answer.labels, "the model")
        labels = book.labels_told(region.source, region.zone, answer.labels)
        if len(labels) <= MOST_ANNOUNCED:
            for sink in self._sinks:
                if isinstance(sink, Announces):
                    for label in labels:
                        sink.announce(region.source, region.zone, label, region.model)

    def _tell_waiting(self) -> None:
        """Tell what an earlier process left in the spool."""
        names = [sink.name for sink in self._sinks]
        for name, number in self._spool.num_waiting().items():
            words = "are delivered now" if name in names else "stay: there is no such receiver now"
            self._tell(f"{name}: {count_of(number, 'message')} of an earlier run; they {words}")

    def _finish(self) -> None:
        """Wait for deliveries, end the threads, and tell what is left."""
        names = tuple(sink.name for sink in self._sinks)
        self._spool.wait_until_empty(names, self._settings.close_s)
        for courier in self._couriers:
            courier.stop()
        until = time.monotonic() + LAST_ATTEMPT_S
        for courier in self._couriers:
            courier.join(max(0.0, until - time.monotonic()))
        waiting = self._spool.num_waiting()
        folder = self._spool.folder
        if folder is None:
            words = "lost, because no spool folder is set"
        elif self._spool.is_behind:
            words = f"lost, unless there is room in {folder} now"
        else:
            words = f"left in {folder}, and delivered at the next start"
        for name in names:
            if waiting.get(name):
                self._tell(f"{name}: {count_of(waiting[name], 'message')} not delivered; {words}")


def makers_of(settings: WatchSettings, output: TextIO | None) -> list[Callable[[], Sink]]:
    """Return a function for each sink of the settings, which makes it."""
    makers: list[Callable[[], Sink]] = []
    if settings.events == "-" and output is not None:
        makers.append(partial(StreamSink, output))
    elif settings.events:
        makers.append(partial(FileSink, Path(settings.events)))
    makers += [
        partial(CommandSink, each, name) for name, each in zip(names("command"), settings.commands, strict=False)
    ]
    makers += [
        partial(WebhookSink, each, name) for name, each in zip(names("webhook"), settings.webhooks, strict=False)
    ]
    if settings.mqtt is not None:
        from fewframes.watch.sinks.mqtt import MqttSink  # late: few need it

        makers.append(partial(MqttSink, settings.mqtt, "mqtt"))
    return makers


def names(kind: str) -> Iterator[str]:
    """Yield names for the sinks of a kind: `webhook`, `webhook-2`, `webhook-3`. They stay the same over restarts."""
    yield kind
    yield from (f"{kind}-{number}" for number in itertools.count(2))
