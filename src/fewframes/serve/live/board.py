"""Gather what a page shows of a running stream: the newest answer of each source, zone and model, and the events.

The stream's own thread only puts each answer down. All else is worked out when a page asks.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from fewframes.core.text import plain
from fewframes.errors import MissingVideo, Refusal
from fewframes.inference.live.feed import Feed
from fewframes.inference.live.going_on import GoingOn, with_spans
from fewframes.inference.live.results import StreamPrediction
from fewframes.inference.live.spans import LiveSpan
from fewframes.inference.live.streams import Streams
from fewframes.inference.stream import Stream
from fewframes.results import top_labels
from fewframes.serve.live.changes import ChangeLog, Values
from fewframes.serve.live.events import EventList
from fewframes.video.live_queue import LiveEvent
from fewframes.viz.thumbnails import jpeg_of_height
from fewframes.watch.clips.folder import ClipsFolder
from fewframes.watch.event import Event
from fewframes.watch.maker import StreamAnswer
from fewframes.watch.watch import Watcher

MOST_LATENCIES = 1000
"""The latest answers whose latencies count."""
SHOWN_LABELS, SHOWN_NOTES = 5, 3
STILL_S, STILL_PX = 1.0, 360
"""The least seconds between two stills of a source and zone that are made, and the most pixels of their height."""
AWAY = {"stall": "stalled", "cut": "away", "away": "away", "end": "ended"}
"""The states of a source after events of these kinds, until it answers again."""
Place = tuple[str, str, str, str]
"""A source, a zone, a person and a model."""


@dataclass(eq=False)
class _Answered:
    """The newest answer of a place, and counts of its answers."""

    answer: StreamPrediction
    at: float
    num_answers: int = 0
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_LATENCIES))
    going_on: list[LiveSpan] = field(default_factory=list)
    last_event: LiveEvent | None = None
    """The last event of the source before the answer."""


class Board:
    """Everything that a page shows of a stream. It stands before a watch: `step` takes each answer, and hands it on."""

    def __init__(self, watch: Watcher | None = None, folder: ClipsFolder | None = None) -> None:
        """Begin without sources; `follow` names them.

        Args:
            watch: The watch that makes events of the answers, if any does.
            folder: The folder of events with their clips, if they are kept.
        """
        self.events = EventList(folder)
        self.run = secrets.token_hex(4)
        """A word that is another one in each process, so that a page notices a restart."""
        self._watch = watch
        self._answers: Stream | Streams | None = None
        self._lock = threading.Lock()
        self._answered: dict[Place, _Answered] = {}
        self._going_on: GoingOn = {}
        self._log = ChangeLog()
        self._stills: dict[tuple[str, str], tuple[float, bytes]] = {}

    def follow(self, answers: Stream | Streams) -> None:
        """Show the sources of a stream, whose answers `step` takes from now on."""
        self._answers = answers

    def step(
        self, source: str, answer: StreamAnswer, *, zone: str = "", track: str = "", at: datetime | None = None
    ) -> list[Event]:
        """Take in an answer, and return the events that end and start with it. The arguments are those of `Watch.step`."""
        told = [] if self._watch is None else self._watch.step(source, answer, zone=zone, track=track, at=at)
        if told:
            self.events.add(told)
        if isinstance(answer, StreamPrediction):
            self._take(answer)
        return told

    def end(self, source: str | None = None, *, zone: str | None = None, track: str | None = None) -> list[Event]:
        """Show a place no longer, and return the events that end. The arguments are those of `Watch.end`."""
        told = [] if self._watch is None else self._watch.end(source, zone=zone, track=track)
        if told:
            self.events.add(told)
        with self._lock:
            for place in list(self._answered):
                if all(wanted in (None, own) for wanted, own in zip((source, zone, track), place[:3], strict=True)):
                    del self._answered[place]
        return told

    def _take(self, answer: StreamPrediction) -> None:
        place = (answer.source, answer.zone, answer.track, answer.model)
        feed = self._feeds.get(answer.source)
        with self._lock:
            own = self._answered.get(place)
            if own is None:
                own = self._answered[place] = _Answered(answer, time.time())
            own.answer, own.at = answer, time.time()
            own.num_answers += 1
            own.latencies_s.append(answer.latency_s)
            own.last_event = feed.events[-1] if feed is not None and feed.events else None
            if answer.spans is not None:
                own.going_on = with_spans(self._going_on, answer)

    def sources(self, after: int) -> Values:
        """Return what has changed of the sources since the change of this number: `number`, `changed`, `gone` and `whole`."""
        with self._lock:
            self._log.update(self._cards())
            changed, gone, is_whole = self._log.since(after)
            return {"number": self._log.number, "changed": changed, "gone": gone, "whole": is_whole}

    def still(self, source: str, zone: str) -> bytes:
        """Return the newest picture of a source, as its models see it, as a JPEG. It is made at most once in `STILL_S`.

        Raises:
            MissingVideo: There is no such source or zone.
            Refusal: There is no picture yet (503).
        """
        feed = self._feeds.get(source)
        if feed is None or zone not in feed.regions:
            raise MissingVideo(
                f"{plain(source)} {plain(zone)}: no such source and zone in this stream; reload the page"
            )
        known = self._stills.get((source, zone))
        if known is not None and time.monotonic() - known[0] < STILL_S:
            return known[1]
        picture = feed.seen(zone)
        if picture is None:
            raise Refusal(503, f"{plain(source)}: no picture has come yet; wait for one", retry_s=1)
        found = jpeg_of_height(picture, STILL_PX)
        self._stills[source, zone] = time.monotonic(), found
        return found

    @property
    def _feeds(self) -> dict[str, Feed]:
        return {} if self._answers is None else dict(self._answers.feeds)

    def _cards(self) -> dict[str, Values]:
        """Return what is shown of each source, zone and model."""
        failures = self._answers.failures if isinstance(self._answers, Streams) else {}
        cards: dict[str, Values] = {}
        for source, feed in self._feeds.items():
            places = [place for place in self._answered if place[0] == source]
            for place in places or [(source, zone, "", "") for zone in feed.regions]:
                key = "\n".join(place)
                own, error = self._answered.get(place), failures.get(source)
                cards[key] = {
                    "key": key,
                    "position": len(cards),
                    "source": place[0],
                    "zone": place[1],
                    "person": place[2],
                    "model": place[3],
                    "state": "lost" if error is not None else _state(feed, own),
                    "error": "" if error is None else plain(error),
                    "dropped": feed.reader.counts.dropped,
                    "pictures": feed.reader.counts.pictures,
                    "reconnects": feed.reader.counts.reconnects,
                    "notes": [event.to_dict() for event in list(feed.events)[-SHOWN_NOTES:]],
                    "answer": None if own is None else _values_of(own),
                }
        return cards


def _state(feed: Feed, own: _Answered | None) -> str:
    """Return the state of a source: `opening`, `answering`, `nobody`, `resting`, `stalled`, `away` or `ended`."""
    for event in reversed(list(feed.events)):
        if own is not None and event is own.last_event:
            break
        if event.kind in AWAY:
            return AWAY[event.kind]
        if event.kind == "reconnected":
            return "opening"
    if feed.is_resting:
        return "resting"
    if own is None:
        return "nobody" if feed.has_seen_nobody else "opening"
    return "answering"


def _values_of(own: _Answered) -> Values:
    """Return the newest answer of a place as plain values."""
    answer = own.answer
    p50_s, p95_s = np.quantile(np.array(own.latencies_s), (0.5, 0.95)).tolist()
    return {
        "at": round(own.at, 1),
        "time_s": round(answer.end_s, 1),
        "window_s": round(answer.end_s - answer.start_s, 2),
        "label": answer.label,
        "top": [
            {"label": label, "score": round(score, 3)}
            for label, score in top_labels(answer.smoothed, answer.labels, SHOWN_LABELS)
        ],
        "answers": own.num_answers,
        "latency_p50_ms": round(1e3 * p50_s),
        "latency_p95_ms": round(1e3 * p95_s),
        "going_on": [
            {"label": span.label, "lasts_s": round(max(0.0, answer.end_s - span.start_s), 1)} for span in own.going_on
        ],
        "repetitions": None if answer.repetitions is None else answer.repetitions.count,
    }
