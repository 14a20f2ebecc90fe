"""Hold what a live stream gives until the network (the model) takes it: frames at steady timestamps, and events."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from fewframes.video.pictures.display import Pixels

EventKind = Literal["size", "clock", "damaged", "stall", "cut", "away", "reconnected", "end", "crowd", "hours"]

WAITING = 8
"""The most frames that wait for the network (the model)."""


@dataclass(frozen=True)
class LiveEvent:
    """An event in a stream.

    The size of its pictures changed (`size`), its timestamps jumped (`clock`), a part could not be decoded (`damaged`), nothing
    comes (`stall`), it broke off (`cut`), it cannot be opened (`away`), it was opened again (`reconnected`), it ended (`end`),
    more persons are there than are judged (`crowd`), or the hours begin or end in which it is looked at (`hours`).
    """

    kind: EventKind
    time_s: float
    """The time of the event on the stream's clock, in seconds."""
    words: str
    """A description in one line."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {**asdict(self), "time_s": round(self.time_s, 3)}


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """The picture shown at one of steady timestamps."""

    time_s: float
    """The timestamp on the stream's clock, in seconds."""
    stretch: int
    """The number of times that the timestamps have begun anew before this frame."""
    index: int
    """The index of the timestamp since the timestamps last began anew."""
    picture: Pixels
    """The picture (C, H, W) uint8 RGB as `prepare` made it; the same object as before where nothing new is shown."""
    arrived: float
    """The time at which the picture came in (time.monotonic)."""


@dataclass
class LiveCounts:
    """The counts of a stream so far: pictures decoded, pictures left out as late or damaged, packets that could not be decoded,
    timestamps dropped because the network (the model) was behind, and times that the source was opened again."""

    pictures: int = 0
    left_out: int = 0
    bad_packets: int = 0
    dropped: int = 0
    reconnects: int = 0


class LiveQueue:
    """The queue from the reading thread: events, and up to `WAITING` frames. When it is full of frames, the oldest is dropped if
    `drops`; else the reading thread waits. `wake` is called whenever something has come."""

    def __init__(self, counts: LiveCounts, *, drops: bool = False, wake: Callable[[], None] = lambda: None) -> None:
        self.closed, self.drops = False, drops
        self._counts, self._wake = counts, wake
        self._items: deque[LiveFrame | LiveEvent] = deque()
        self._changed = threading.Condition()

    def put(self, item: LiveFrame | LiveEvent) -> None:
        """Add an item. Frames that come after `close` are discarded."""
        with self._changed:
            if isinstance(item, LiveFrame):
                while self._num_frames() >= WAITING and not self.drops and not self.closed:
                    self._changed.wait()
                if self.closed:
                    return
                if self._num_frames() >= WAITING:
                    self._drop_oldest()
            self._items.append(item)
            self._changed.notify_all()
        self._wake()

    def take(self, most: int, timeout_s: float, not_before: float = 0.0) -> list[LiveFrame | LiveEvent]:
        """Return the oldest items in order, at most `most` frames; nothing if nothing comes within `timeout_s`, or after `close`.

        Frames that arrived before `not_before` (time.monotonic) are dropped where newer ones wait."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self.closed, timeout_s)
            taken: list[LiveFrame | LiveEvent] = []
            while self._items and most:
                item = self._items.popleft()
                if isinstance(item, LiveFrame):
                    if item.arrived < not_before and self._num_frames():
                        self._counts.dropped += 1
                        continue
                    most -= 1
                taken.append(item)
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Let nobody wait any more. Items that are inside can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self._wake()

    def _num_frames(self) -> int:
        return sum(isinstance(item, LiveFrame) for item in self._items)

    def _drop_oldest(self) -> None:
        index = next(index for index, item in enumerate(self._items) if isinstance(item, LiveFrame))
        del self._items[index]
        self._counts.dropped += 1
