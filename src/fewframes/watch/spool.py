"""Deliveries that are waiting, kept on disk until they are acknowledged, so that a restart loses none.

Decisions are made from memory, and a thread mirrors it on disk, so that nobody waits for a slow disk. While the disk is full,
deliveries go on from memory, and the disk catches up later.
"""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from fewframes.core.files import held, writing
from fewframes.core.text import count_of
from fewframes.errors import ConfigError
from fewframes.watch.event import Event

SPOOL_FILE = "spool.sqlite"
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
"""The seconds before the second attempt, and the most seconds between two attempts."""
REWRITE_S = 2.0
"""The seconds after which a disk that could not be written to is tried again."""
Change = tuple[str, tuple[object, ...]]
"""A statement of SQL, and its values."""
TABLES = (
    "create table if not exists deliveries "
    "(number integer primary key, sink text not null, event text not null, attempts integer not null)",
    "create table if not exists going (id text primary key, event text not null)",
)


def wait_s(attempts: int, lot: random.Random) -> float:
    """Return the seconds to wait after so many failed attempts. They double with each attempt, and up to half is left out."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempts - 1, 30)) * lot.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Delivery:
    """An event that waits for one sink."""

    number: int
    """The place among all deliveries of the spool."""
    sink: str
    event: Event
    num_bytes: int
    attempts: int = 0
    """The attempts that have failed so far."""
    due: float = float("-inf")
    """The earliest time of the next attempt, by the monotonic clock."""


class Spool:
    """The deliveries that wait for any sink, oldest first. Methods may be called from any thread."""

    def __init__(self, folder: Path | None, max_bytes: int, tell: Callable[[str], None]) -> None:
        """Open the spool, with what an earlier process left in it.

        Args:
            folder: The folder of its file; None keeps everything in memory.
            max_bytes: The most bytes of waiting events. Above them, the oldest are dropped.
            tell: Called with messages for the user.

        Raises:
            ConfigError: Another process uses the folder, or its file is no spool.
            OutputError: The folder cannot be written to.
        """
        self.folder, self._max_bytes, self._tell = folder, max_bytes, tell
        self._changed = threading.Condition()
        self._waiting: dict[str, dict[int, Delivery]] = {}
        self._num_bytes = 0
        self._going: dict[str, Event] = {}
        """Events that were put with their start and not yet with their end."""
        self._unwritten: set[int | str] = set()
        """The numbers of deliveries, and the ids of events, of which the disk does not have the last change."""
        self.dropped: Counter[str] = Counter()
        """Deliveries of each sink that were dropped for want of room."""
        self._is_behind = self._is_closing = False
        self._numbers = itertools.count(1)
        with ExitStack() as stack:
            if folder is not None:
                with writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(held(folder))
                disk = stack.enter_context(closing(_opened(folder / SPOOL_FILE)))
                waiting, self._going = _read(disk, folder / SPOOL_FILE)
                for delivery in waiting:
                    self._keep(delivery)
                self._numbers = itertools.count(1 + max((each.number for each in waiting), default=0))
                self._unwritten.clear()
                writer = threading.Thread(target=self._mirror, args=(disk,), name="spool", daemon=True)
                writer.start()
                stack.callback(writer.join)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Write what is not written yet, and release the folder."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._stack.close()

    def wait_until_written(self, timeout_s: float) -> bool:
        """Wait until the disk has everything. Return False if that takes longer than `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.folder is None or not self._unwritten, timeout_s)

    @property
    def is_behind(self) -> bool:
        """Return True if the disk could not be written to, and does not have all deliveries yet."""
        return self._is_behind

    @property
    def going(self) -> list[Event]:
        """Return the events that were put with their start and not yet with their end, by an earlier process too."""
        return list(self._going.values())

    def put(self, event: Event, sinks: tuple[str, ...]) -> None:
        """Add an event for some sinks. It returns at once; the disk has the event some milliseconds later."""
        num_bytes = len(json.dumps(event.to_dict()))
        with self._changed:
            if event.state == "started":
                self._going[event.id] = event
            else:
                self._going.pop(event.id, None)
            self._unwritten.add(event.id)
            for sink in sinks:
                self._keep(Delivery(next(self._numbers), sink, event, num_bytes))
            self._drop()
            self._changed.notify_all()

    def next(self, sink: str, timeout_s: float) -> Delivery | None:
        """Wait for a delivery of a sink that is due, and return it; None after `timeout_s`.

        The oldest comes first. An event's end does not come before its start.
        """
        until = time.monotonic() + timeout_s
        with self._changed:
            while True:
                now, soonest, seen = time.monotonic(), until, set()
                for delivery in self._waiting.get(sink, {}).values():
                    if delivery.event.id not in seen:
                        if delivery.due <= now:
                            return delivery
                        soonest = min(soonest, delivery.due)
                        seen.add(delivery.event.id)
                if now >= until:
                    return None
                self._changed.wait(soonest - now)

    def done(self, delivery: Delivery) -> None:
        """Forget a delivery that was acknowledged, or that will never be."""
        with self._changed:
            self._forget(delivery)
            self._changed.notify_all()

    def failed(self, delivery: Delivery, seconds: float) -> None:
        """Keep a delivery that failed for another attempt after so many seconds."""
        with self._changed:
            if delivery.number in self._waiting.get(delivery.sink, {}):  # it may have been dropped meanwhile
                due = time.monotonic() + seconds
                self._keep(replace(delivery, attempts=delivery.attempts + 1, due=due))
                self._changed.notify_all()

    def num_waiting(self) -> dict[str, int]:
        """Return the number of deliveries that wait for each sink."""
        with self._changed:
            return {sink: len(waiting) for sink, waiting in self._waiting.items() if waiting}

    def wait_until_empty(self, sinks: tuple[str, ...], timeout_s: float) -> bool:
        """Wait until no delivery waits for any of the sinks. Return False if that takes longer than `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not any(self._waiting.get(sink) for sink in sinks), timeout_s)

    def _keep(self, delivery: Delivery) -> None:
        waiting = self._waiting.setdefault(delivery.sink, {})
        self._num_bytes += 0 if delivery.number in waiting else delivery.num_bytes
        waiting[delivery.number] = delivery  # a delivery that is kept again keeps its place
        self._unwritten.add(delivery.number)

    def _forget(self, delivery: Delivery) -> None:
        if self._waiting.get(delivery.sink, {}).pop(delivery.number, None) is not None:
            self._num_bytes -= delivery.num_bytes
            self._unwritten.add(delivery.number)

    def _drop(self) -> None:
        """Drop the oldest deliveries until the rest is small enough."""
        num_dropped = 0
        while self._num_bytes > self._max_bytes:
            oldest = min(
                (next(iter(each.values())) for each in self._waiting.values() if each), key=lambda each: each.number
            )
            self._forget(oldest)
            self.dropped[oldest.sink] += 1
            num_dropped += 1
        if num_dropped:
            self._tell(
                f"{count_of(num_dropped, 'waiting message')} dropped: more than {self._max_bytes / 1e6:g} MB wait; "
                f"{count_of(self.dropped.total(), 'message')} so far"
            )

    def _mirror(self, disk: sqlite3.Connection) -> None:
        """Write changes to the disk until the spool is closed. If it cannot be written to, that is told once, and tried again."""
        while True:
            with self._changed:
                # After a failure, changes alone do not make another attempt worth while.
                self._changed.wait_for(self._has_to_write, REWRITE_S if self._is_behind else None)
                names, self._unwritten = self._unwritten, set()
                changes = self._changes(names)
                is_last = self._is_closing
            failure = _written(disk, changes)
            with self._changed:
                self._unwritten |= names if failure else set()
                self._tell_disk(failure)
                self._changed.notify_all()
            if is_last:
                return

    def _has_to_write(self) -> bool:
        return self._is_closing or bool(self._unwritten and not self._is_behind)

    def _tell_disk(self, failure: str) -> None:
        if failure and not self._is_behind:
            self._tell(f"{self.folder}: cannot be written ({failure}); messages wait in memory meanwhile; make room")
        if self._is_behind and not failure:
            self._tell(f"{self.folder}: can be written again; all waiting messages are on disk")
        self._is_behind = bool(failure)

    def _changes(self, names: set[int | str]) -> list[Change]:
        """Return the changes of the disk for deliveries and events of these names."""
        changes = [
            (
                "delete from deliveries where number = ?"
                if isinstance(name, int)
                else "delete from going where id = ?",
                (name,),
            )
            for name in names
        ]
        deliveries = [waiting[number] for waiting in self._waiting.values() for number in waiting.keys() & names]
        events = [self._going[name] for name in self._going.keys() & names]
        return [
            *changes,
            *(("insert into deliveries values (?, ?, ?, ?)", _row(each)) for each in deliveries),
            *(("insert into going values (?, ?)", (each.id, json.dumps(each.to_dict()))) for each in events),
        ]


def _row(delivery: Delivery) -> tuple[object, ...]:
    return delivery.number, delivery.sink, json.dumps(delivery.event.to_dict()), delivery.attempts


def _written(disk: sqlite3.Connection, changes: list[Change]) -> str:
    """Write changes, all or none. Return why that failed, or an empty text."""
    try:
        with disk:
            for statement, values in changes:
                disk.execute(statement, values)
    except sqlite3.Error as error:
        return str(error)
    return ""


def _opened(path: Path) -> sqlite3.Connection:
    """Open the file of a spool, and make it if there is none. Raises ConfigError if the file is something else."""
    disk = sqlite3.connect(path, check_same_thread=False)  # opened and closed by one thread, and used by another
    try:
        disk.execute("pragma journal_mode = persist")  # its room is taken once, so that a full disk can forget
        disk.execute("pragma synchronous = full")
        with disk:
            for table in TABLES:
                disk.execute(table)
    except sqlite3.Error as error:
        disk.close()
        raise ConfigError(
            f"{path}: cannot be opened as a spool ({error}); move it away, or take another folder"
        ) from None
    return disk


def _read(disk: sqlite3.Connection, path: Path) -> tuple[list[Delivery], dict[str, Event]]:
    """Return the deliveries that an earlier process left, and the events that went on.

    Raises ConfigError if they are damaged, or of another version.
    """
    try:
        rows = disk.execute("select number, sink, event, attempts from deliveries order by number").fetchall()
        waiting = [
            Delivery(number, sink, Event.from_dict(json.loads(text)), len(text), attempts)
            for number, sink, text, attempts in rows
        ]
        going = [
            Event.from_dict(json.loads(text)) for (text,) in disk.execute("select event from going order by rowid")
        ]
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: its waiting messages are damaged ({error}); move it away") from None
    return waiting, {event.id: event for event in going}
