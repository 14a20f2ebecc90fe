"""List the events of a stream for a page, with their marks, and find the files of their clips and pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from fewframes.errors import MissingVideo, Refusal
from fewframes.serve.live.changes import ChangeLog, Values
from fewframes.watch.clips.folder import OWN_NAME, ClipsFolder, StoredEvent
from fewframes.watch.clips.marks import Verdict
from fewframes.watch.event import Event

MOST_SHOWN = 300
"""The most events that a page shows: those that go on, and the newest of the others."""


class EventList:
    """The events that a page shows: those of a folder with their clips, or those of this run where no clips are kept."""

    def __init__(self, folder: ClipsFolder | None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._told: dict[str, Event] = {}
        self._log = ChangeLog()

    def add(self, events: Iterable[Event]) -> None:
        """Take in events that have started, ended, or were none. They are remembered only where no folder has them."""
        if self.folder is not None:
            return
        with self._lock:
            for event in events:
                if event.withdrawn:
                    self._told.pop(event.id, None)
                else:
                    self._told[event.id] = event
            while len(self._told) > MOST_SHOWN:
                del self._told[next(iter(self._told))]

    def since(self, after: int) -> Values:
        """Return what has changed since the change of this number: `number`, `changed`, `gone` and `whole`."""
        entries = self._entries()
        with self._lock:
            self._log.update(entries)
            changed, gone, is_whole = self._log.since(after)
            return {"number": self._log.number, "changed": changed, "gone": gone, "whole": is_whole}

    def mark(self, event_id: str, verdict: Verdict, label: str) -> Values:
        """Write a mark, and return the mark as the page has it.

        Raises:
            Refusal: No clips are kept, so there is no place for marks (409).
            MissingVideo: There is no such event.
            DataError: The label cannot be one.
            OutputError: The disk is full.
        """
        if self.folder is None:
            raise Refusal(409, "no clips are kept, so marks have no place; start the stream with --clips FOLDER")
        mark = self.folder.mark(event_id, verdict, label)
        return {"event": event_id, "verdict": mark.verdict, "label": mark.label}

    def file(self, event_id: str, kind: Literal["clip", "picture"]) -> Path:
        """Return the file of an event's clip or picture. Raises MissingVideo if there is none, or if it is not of this folder."""
        folder = self.folder
        stored = None if folder is None else next((one for one in folder.events if one.event.id == event_id), None)
        name = "" if stored is None else str(getattr(stored.event, kind))
        if folder is not None and name:
            # What the file of an event says may come from elsewhere: only files that the folder itself has written are read.
            root = folder.folder.resolve()
            path = (root / name).resolve()
            if path.is_relative_to(root) and OWN_NAME.fullmatch(path.name) and path.is_file():
                return path
        raise MissingVideo(f"event {event_id[:8]}: has no {kind} here; older ones are deleted to make room")

    def _entries(self) -> dict[str, Values]:
        """Return the values of all events that are shown."""
        folder = self.folder
        if folder is None:
            with self._lock:
                return {event.id: _values_of(event) for event in self._told.values()}
        unfinished = {event.id: _values_of(event) | self._marked(event.id) for event in folder.unfinished}
        stored = {one.event.id: _stored_values(one) | self._marked(one.event.id) for one in folder.events[-MOST_SHOWN:]}
        return unfinished | stored

    def _marked(self, event_id: str) -> Values:
        mark = None if self.folder is None else self.folder.marks.of(event_id)
        return {"mark": None if mark is None else {"verdict": mark.verdict, "label": mark.label}}


def _values_of(event: Event) -> Values:
    """Return an event without files as plain values."""
    names = ("id", "state", "source", "zone", "track", "model", "label", "started_at", "ended_at")
    return {
        **{name: getattr(event, name) for name in names},
        "confidence": round(event.confidence, 3),
        "lasts_s": None if event.duration_s is None else round(event.duration_s, 1),
        "clip": "",
        "has_picture": False,
        "begins_s": 0.0,
        "note": "",
        "is_stored": False,
        "mark": None,
    }


def _stored_values(stored: StoredEvent) -> Values:
    """Return an event with its files as plain values. `clip` is the name to save it by, and `begins_s` a time in the clip."""
    event = stored.event
    begins_s = 0.0 if stored.clip_start_s is None else max(0.0, event.start_s - stored.clip_start_s)
    return _values_of(event) | {
        "clip": Path(event.clip).name,
        "has_picture": bool(event.picture),
        "begins_s": round(begins_s, 2),
        "note": stored.note,
        "is_stored": True,
    }
