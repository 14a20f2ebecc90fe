"""A camera, a network stream, a file or a pipe -> the pictures shown at steady moments, as they come.

A thread decodes without a pause; only pictures that a moment needs become RGB. What goes wrong on the way (a cut, a stall, bytes
that are no video, another size, a clock that jumps) is survived where it can be, and always reported.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Literal

import av
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.error import InvalidDataError as InvalidData
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from fewframes.core.forks import keep_in_forks
from fewframes.errors import VideoError
from fewframes.video.decode.container import (
    DECODE_CLOCK,
    END_NOT_LENGTH,
    MAX_PIXELS,
    in_its_words,
    packets_of,
    video_of,
)
from fewframes.video.decode.packets import SAME_S
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import Address, LiveSource
from fewframes.video.pictures.display import Display, Geometry, shown_size
from fewframes.video.pictures.tensors import rgb_of_pixels

EventKind = Literal["size", "clock", "damaged", "stall", "cut", "reconnected", "end"]

WAITING = 8
"""Pictures that may wait for the network."""
JUMP_S = 10.0
"""Times further apart than this are a clock that jumped (or a source that was away), and windows do not reach across."""
BACK_S = 1.0
"""A picture this much earlier than the one before it is late and left out; one that is earlier still means a new clock."""
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 10.0
"""Before a source is opened again: the first pause and, doubled each time, the longest."""
POLL_S = 0.25
"""How often a silent source is asked again, so that an interruption is noticed."""
MOST_WITHOUT_KEY = 300
"""Pictures passed over, at the start and after damage, while waiting for a key frame; some streams never have another one."""
MOST_ERRORS = 100
"""Failures in a row to read a packet, after which the source counts as cut."""


@dataclass(frozen=True)
class LiveEvent:
    """What happened to a stream, and when on its clock (seconds): `size` its pictures have another one; `clock` its times jumped,
    windows begin anew; `damaged` some of it could not be decoded; `stall` nothing comes; `cut` it broke off; `reconnected`;
    `end`."""

    kind: EventKind
    time_s: float
    words: str

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {**asdict(self), "time_s": round(self.time_s, 3)}


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """What is shown at a steady moment: `picture` (C, H, W) uint8 RGB as `prepare` made it, the same object where nothing new is
    shown. `time_s` is the moment, `place` its number since the clock last began anew (`stretch`); `arrived` when the picture came
    here (time.monotonic)."""

    time_s: float
    stretch: int
    place: int
    picture: Tensor
    arrived: float


@dataclass
class LiveCounts:
    """What became of a stream so far: pictures decoded, those left out as late or damaged, packets that could not be decoded,
    moments dropped because the network was behind, times it was opened again."""

    pictures: int = 0
    left_out: int = 0
    bad_packets: int = 0
    dropped: int = 0
    reconnects: int = 0


class LiveQueue:
    """What the reading thread hands over: events, and up to `WAITING` samples. When these are too many, the oldest is dropped
    (`drops`), or the reader waits."""

    def __init__(self, counts: LiveCounts, *, drops: bool = False) -> None:
        self.closed, self.drops = False, drops
        self._counts = counts
        self._items: deque[LiveFrame | LiveEvent] = deque()
        self._changed = threading.Condition()

    def put(self, item: LiveFrame | LiveEvent) -> None:
        """Hand over; nothing after `close`."""
        with self._changed:
            if isinstance(item, LiveFrame):
                while self._num_samples() >= WAITING and not self.drops and not self.closed:
                    self._changed.wait()
                if self.closed:
                    return
                if self._num_samples() >= WAITING:
                    self._drop_oldest()
            self._items.append(item)
            self._changed.notify_all()

    def take(self, most: int, timeout_s: float, not_before: float = 0.0) -> list[LiveFrame | LiveEvent]:
        """The oldest items in order, up to `most` samples; none when nothing comes in time or it is closed. Samples that arrived
        before `not_before` are dropped where newer ones wait."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self.closed, timeout_s)
            taken: list[LiveFrame | LiveEvent] = []
            while self._items and most:
                item = self._items.popleft()
                if isinstance(item, LiveFrame):
                    if item.arrived < not_before and self._num_samples():
                        self._counts.dropped += 1
                        continue
                    most -= 1
                taken.append(item)
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Nothing waits any more; what is inside can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _num_samples(self) -> int:
        return sum(isinstance(item, LiveFrame) for item in self._items)

    def _drop_oldest(self) -> None:
        place = next(place for place, item in enumerate(self._items) if isinstance(item, LiveFrame))
        del self._items[place]
        self._counts.dropped += 1


class LiveReader:
    """An open source, read in a thread of its own from the start; `prepare` makes of an RGB picture what the network takes.

    Raises VideoError where it cannot be opened; later failures come out of `take`.
    """

    def __init__(
        self, source: LiveSource, config: StreamConfig, spacing_s: float, prepare: Callable[[Tensor], Tensor]
    ) -> None:
        self.address = Address.of(source)
        self.counts = LiveCounts()
        self._config, self._spacing_s, self._prepare = config, spacing_s, prepare
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._display = Display(self.address.name, MAX_PIXELS)
        self._num_tries = 0
        self._last: _Shown | None = None
        self._size = (0, 0)
        self._stretch, self._place, self._began_s = -1, 0, 0.0
        self._offset_s: float | None = None
        self._wall_began = time.monotonic()
        self._last_at = self._wall_began
        self._stalled = False
        self.can_return = self.is_live = False
        """Whether the source is opened again when it breaks off; whether pictures come at their own pace."""
        self._box = LiveQueue(self.counts)
        self._opened = threading.Event()
        keep_in_forks(self)
        # In the thread too: a pipe that says nothing cannot be interrupted while it is opened.
        self._thread = threading.Thread(target=self._run, daemon=True, name="fewframes-live")
        self._thread.start()
        while not self._opened.wait(POLL_S):  # again and again, so that a signal is noticed
            waited_s = time.monotonic() - self._wall_began
            if config.open_s is not None and waited_s > config.open_s:
                self._stop.set()
                raise VideoError(f"{self.address.name}: not open after {waited_s:.1f} s, and no more are given to it")
        if self._error is not None and not self.counts.pictures:
            raise self._error

    def take(self, most: int, timeout_s: float, max_age_s: float = 0.0) -> list[LiveFrame | LiveEvent] | None:
        """What has come, in order, up to `most` samples; None at the end. Of samples older than `max_age_s` (0: any age) all but
        the newest are dropped. Raises what ended the reading."""
        items = self._box.take(most, timeout_s, time.monotonic() - max_age_s if max_age_s else 0.0)
        if items:
            return items
        if self._box.closed:
            if self._error is not None:
                raise self._error
            return None
        silent_s = time.monotonic() - self._last_at
        if silent_s > self._config.stall_s and not self._stalled and self.address.kind != "network":
            self._stalled = True  # a network's is noticed by who reads it
            return [self._event("stall", f"no picture for {silent_s:.1f} s; waiting for more")]
        return []

    def close(self) -> None:
        """End reading; a read that is under way in the system is not waited for."""
        self._stop.set()
        self._box.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            container: InputContainer | None = self._first_opened()
            self._opened.set()
            while container is not None:
                with container:
                    ending = self._play(container)
                self._flush()
                if self._stop.is_set():
                    return
                if self.counts.pictures == self.counts.left_out and not self.can_return:
                    raise VideoError(
                        f"{self.address.name}: no picture could be decoded: {ending.words}{self.address.hint}"
                    )
                self._box.put(ending)
                container = self._reopened(ending) if self.can_return else None
        except BaseException as error:
            self._error = error  # for `take`, which raises it where somebody listens
        finally:
            self._box.close()
            self._opened.set()

    def _first_opened(self) -> InputContainer:
        container = self.address.open(self._config.stall_s)
        is_file = self.address.kind in ("file", "pipe") or self.address.is_file_elsewhere(container)
        self.can_return = not is_file
        self.is_live = self._config.live or not is_file
        self._box.drops = self.is_live if self._config.drop == "auto" else self._config.drop == "newest"
        self._last_at = time.monotonic()
        return container

    def _reopened(self, ending: LiveEvent) -> InputContainer | None:
        limit, began = self._config.reconnects, time.monotonic()
        while self._num_tries < limit:
            pause_s = min(MOST_PAUSE_S, FIRST_PAUSE_S * 2**self._num_tries)
            self._num_tries += 1
            if self._stop.wait(pause_s):
                return None
            try:
                container = self.address.open(self._config.stall_s)
            except VideoError:
                continue
            self.counts.reconnects += 1
            self._offset_s = None
            away_s = time.monotonic() - began
            self._box.put(self._event("reconnected", f"after {away_s:.1f} s, try {self._num_tries} of {limit}"))
            return container
        raise VideoError(f"{self.address.name}: {ending.words}; {limit} tries to open it again brought no picture")

    def _play(self, container: InputContainer) -> LiveEvent:
        """Read to the end of what comes; how it ended."""
        stream = video_of(container)
        assert stream is not None
        self._display.begin(stream)
        stream.thread_type = "SLICE" if self.is_live else "AUTO"  # whole frames in threads come late
        # Pictures that FFmpeg would patch up (greying, smearing) are errors here, as for files.
        stream.codec_context.options = {"err_detect": "explode"}
        frame_s = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        by_decoding = container.format.name in DECODE_CLOCK
        next_s = 0.0
        packets = _Packets(container, stream)
        for frame in self._decoded(packets):
            stamp = frame.dts if by_decoding else frame.pts
            stamp_s = next_s if stamp is None else stamp * float(stream.time_base or 0)
            next_s = stamp_s + frame_s
            self._receive(frame, stamp_s, frame_s)
            if self._stop.is_set():
                break
        return self._ending(container, packets.ended)

    def _ending(self, container: InputContainer, error: Exception | None) -> LiveEvent:
        if isinstance(error, ExitError):
            return self._event("stall", f"nothing came for {self._config.stall_s:g} s")
        announced_s, stream = (container.duration or 0) / av.time_base, video_of(container)
        if error is None and not self.can_return:
            reached_s = 0.0 if self._last is None else self._last.end_s - self._began_s
            if container.format.name in END_NOT_LENGTH and stream is not None:
                announced_s -= float((stream.start_time or 0) * (stream.time_base or 0))
            if self._stretch == 0 and reached_s < announced_s - JUMP_S / 10:
                return self._event(
                    "cut", f"its pictures end at {reached_s:.2f} s of the {announced_s:.2f} s it announces"
                )
            return self._event("end", "the end of the stream")
        return self._event("cut", f"it broke off ({'no more data' if error is None else in_its_words(error)})")

    def _decoded(self, packets: _Packets) -> Iterator[VideoFrame]:
        """Sound pictures in the order of showing."""
        num_to_pass, num_bad = MOST_WITHOUT_KEY, packets.num_bad
        for packet in packets:
            try:
                frames = [] if packet.is_corrupt else packet.decode()
                is_bad = packet.is_corrupt
            except FFmpegError:
                frames, is_bad = [], True
            if is_bad:
                packets.num_bad += 1
                num_to_pass = MOST_WITHOUT_KEY
            for frame in frames:
                self.counts.pictures += 1
                if frame.key_frame and not frame.is_corrupt:
                    num_to_pass = 0
                if frame.is_corrupt or num_to_pass:
                    num_to_pass = max(0, num_to_pass - 1)
                    self.counts.left_out += 1
                    continue
                if packets.num_bad > num_bad:
                    bad, num_bad = packets.num_bad - num_bad, packets.num_bad
                    self.counts.bad_packets += bad
                    self._box.put(
                        self._event("damaged", f"{bad} packets could not be decoded; it goes on at a key frame")
                    )
                yield frame
        self.counts.bad_packets += packets.num_bad - num_bad

    def _receive(self, frame: VideoFrame, stamp_s: float, frame_s: float) -> None:
        """One picture: what was shown before it fills the moments up to it."""
        geometry = self._display.geometry(frame)
        self._note_size(shown_size(frame.width, frame.height, geometry.aspect))
        last = self._last
        if self._offset_s is not None and last is not None:
            step_s = stamp_s + self._offset_s - last.time_s
            if -BACK_S < step_s <= 0:
                self.counts.left_out += 1
                return
            if not 0 < step_s <= JUMP_S:
                self._flush()
                self._offset_s = None
                self._box.put(self._event("clock", f"its times jumped by {step_s:+.2f} s; windows begin anew"))
        if self._offset_s is None:
            self._begin(stamp_s)
        assert self._offset_s is not None
        time_s = stamp_s + self._offset_s
        due_at = self._wall_began + time_s
        if self._config.live and self._stop.wait(max(0.0, due_at - time.monotonic())):
            return
        self._fill(time_s)
        self._last_at, self._stalled, self._num_tries = time.monotonic(), False, 0
        lasts_s = frame.duration * float(frame.time_base) if frame.duration and frame.time_base else frame_s
        self._last = _Shown(
            frame, geometry, time_s, time_s + min(lasts_s, JUMP_S), due_at if self._config.live else self._last_at
        )

    def _note_size(self, size: tuple[int, int]) -> None:
        if self._size not in (size, (0, 0)):
            was = f"{self._size[0]}x{self._size[1]}"
            self._box.put(self._event("size", f"its pictures are {size[0]}x{size[1]} px now, not {was}"))
        self._size = size

    def _begin(self, stamp_s: float) -> None:
        """A new stretch of steady moments from this picture on; a live stream's clock goes on by the time it was away."""
        self._began_s = 0.0 if self._last is None else self._last.end_s
        if self._last is not None and self.is_live and not self._config.live:
            self._began_s = max(self._began_s, self._last.time_s + time.monotonic() - self._last_at)
        self._offset_s = self._began_s - stamp_s
        self._stretch, self._place = self._stretch + 1, 0
        self._last = None
        if self._stretch == 0:
            self._wall_began = time.monotonic()

    def _fill(self, until_s: float) -> None:
        """Hand over what has been shown at each steady moment before `until_s`."""
        shown = self._last
        while shown is not None:
            moment_s = self._began_s + (self._place + 0.5) * self._spacing_s
            if moment_s + SAME_S >= until_s or self._stop.is_set():
                return
            if shown.picture is None:
                shown.picture = self._prepare(rgb_of_pixels(self._display.pixels(shown.frame, shown.geometry)))
            self._box.put(LiveFrame(moment_s, self._stretch, self._place, shown.picture, shown.arrived))
            self._place += 1

    def _flush(self) -> None:
        """The moments to the end of what came; a part of the grid that does not fit any more has none, as in `steady_times`."""
        if self._last is not None:
            self._fill(self._last.end_s - self._spacing_s / 2 + 2 * SAME_S)

    def _event(self, kind: EventKind, words: str) -> LiveEvent:
        return LiveEvent(kind, 0.0 if self._last is None else self._last.time_s, words)


@dataclass(eq=False)
class _Shown:
    """The picture that is shown, from when until when, and what the network takes of it once that is asked for."""

    frame: VideoFrame
    geometry: Geometry
    time_s: float
    end_s: float
    arrived: float
    picture: Tensor | None = None


class _Packets:
    """The packets of a stream; what cannot be read is counted and passed over. `ended`: the error that ended it, if one did."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.num_bad = 0
        self.ended: Exception | None = None
        self._container, self._stream = container, stream

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        num_in_a_row = 0
        while True:
            try:
                with closing(packets_of(self._container, self._stream)) as packets:
                    for packet in packets:
                        num_in_a_row = 0
                        yield packet
                return
            except (InvalidData, IndexError) as error:  # IndexError: a new stream turned up midway
                self.num_bad += 1
                num_in_a_row += 1
                if num_in_a_row > MOST_ERRORS:
                    self.ended = error
                    return
            except (FFmpegError, OSError, ValueError) as error:  # ValueError: the caller has closed the file
                self.ended = error
                return
