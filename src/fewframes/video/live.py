"""Read a camera, a network stream, a file or a pipe as it comes, and give the picture shown at each of steady timestamps.

A thread decodes without a pause; only pictures that a timestamp needs become RGB. Faults on the way (an interruption, a stall,
bytes that are no video, another size, a clock that jumps) are survived where that is possible, and always reported.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
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

from fewframes.core.guards import keep_in_forks
from fewframes.errors import VideoError
from fewframes.video.decode.container import DECODE_CLOCK, END_NOT_LENGTH, MAX_PIXELS, packets_of
from fewframes.video.decode.opening import in_its_words, video_of
from fewframes.video.decode.packets import SAME_S
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import Address, LiveSource
from fewframes.video.pictures.arrays import Prepare, frame_of_pixels
from fewframes.video.pictures.display import Display, Geometry, Pixels, shown_size

EventKind = Literal["size", "clock", "damaged", "stall", "cut", "reconnected", "end"]

WAITING = 8
"""The most frames that wait for the network (the model)."""
JUMP_S = 10.0
"""The largest step in seconds from one picture to the next. After a larger one (the clock jumped, or the source was away) windows
begin anew."""
BACK_S = 1.0
"""A picture that is up to this many seconds earlier than the one before it is late and left out. A picture that is earlier still
means a new clock."""
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 10.0
"""The first pause before a source is opened again, and the longest; each pause is twice the one before."""
POLL_S = 0.25
"""The interval in seconds at which a waiting thread wakes up, so that it notices signals."""
MOST_WITHOUT_KEY = 300
"""The most pictures that are left out at the start and after damage while a key frame is awaited. Some streams have only one."""
MOST_ERRORS = 100
"""The most packets in a row that cannot be read before the source counts as interrupted."""


@dataclass(frozen=True)
class LiveEvent:
    """An event in a stream: the size of its pictures changed (`size`), its timestamps jumped (`clock`), a part could not be decoded
    (`damaged`), nothing comes (`stall`), it broke off (`cut`), it was opened again (`reconnected`), or it ended (`end`)."""

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
    `drops`; else the reading thread waits."""

    def __init__(self, counts: LiveCounts, *, drops: bool = False) -> None:
        self.closed, self.drops = False, drops
        self._counts = counts
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

    def _num_frames(self) -> int:
        return sum(isinstance(item, LiveFrame) for item in self._items)

    def _drop_oldest(self) -> None:
        index = next(index for index, item in enumerate(self._items) if isinstance(item, LiveFrame))
        del self._items[index]
        self._counts.dropped += 1


class LiveReader:
    """A live source that is read in a thread of its own, as frames at steady timestamps. Later failures come out of `take`."""

    def __init__(self, source: LiveSource, config: StreamConfig, interval_s: float, prepare: Prepare) -> None:
        """Open a source and begin to read it. Raises VideoError if it cannot be opened.

        Args:
            source: the source (see `LiveSource`).
            config: the settings.
            interval_s: the seconds between two timestamps.
            prepare: a function that makes the network's input of an RGB picture (C, H, W).
        """
        self.address = Address.of(source)
        self.counts = LiveCounts()
        self._config, self._interval_s, self._prepare = config, interval_s, prepare
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._display = Display(self.address.name, MAX_PIXELS)
        self._num_tries = 0
        self._last: _CurrentPicture | None = None
        self._size = (0, 0)
        self._stretch, self._frame_index, self._began_s = -1, 0, 0.0
        self._offset_s: float | None = None
        self._wall_began = time.monotonic()
        self._last_at = self._wall_began
        self._stalled = False
        self.can_return = self.is_live = False
        """Two facts: the source is opened again when it breaks off; its pictures come at their own pace."""
        self._queue = LiveQueue(self.counts)
        self._opened = threading.Event()
        keep_in_forks(self)
        # The thread also opens the source, because opening a silent pipe cannot be interrupted.
        self._thread = threading.Thread(target=self._run, daemon=True, name="fewframes-live")
        self._thread.start()
        while not self._opened.wait(POLL_S):  # short waits, so that signals are noticed
            waited_s = time.monotonic() - self._wall_began
            if config.open_s is not None and waited_s > config.open_s:
                self._stop.set()
                raise VideoError(f"{self.address.name}: not open after {waited_s:.1f} s, its time limit; allow more")
        if self._error is not None and not self.counts.pictures:
            raise self._error

    def take(self, most: int, timeout_s: float, max_age_s: float = 0.0) -> list[LiveFrame | LiveEvent] | None:
        """Return what has come, in order, with at most `most` frames; None at the end. Raises the error that ended the reading.

        Of frames older than `max_age_s` (0 allows any age) all but the newest are dropped."""
        items = self._queue.take(most, timeout_s, time.monotonic() - max_age_s if max_age_s else 0.0)
        if items:
            return items
        if self._queue.closed:
            if self._error is not None:
                raise self._error
            return None
        silent_s = time.monotonic() - self._last_at
        if silent_s > self._config.stall_s and not self._stalled and self.address.kind != "network":
            self._stalled = True  # a silent network ends FFmpeg's reading instead (`_ending`)
            return [self._event("stall", f"no picture for {silent_s:.1f} s; waiting for more")]
        return []

    def close(self) -> None:
        """End the reading. A read that the system has not finished is not waited for."""
        self._stop.set()
        self._queue.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        """Read the source to its end, and open it again where that helps: the work of the thread."""
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
                self._queue.put(ending)
                container = self._reopened(ending) if self.can_return else None
        except BaseException as error:
            self._error = error  # `take` raises it in the caller's thread
        finally:
            self._queue.close()
            self._opened.set()

    def _first_opened(self) -> InputContainer:
        """Open the source, and note what kind of source it is."""
        container = self.address.open(self._config.stall_s)
        is_file = self.address.kind in ("file", "pipe") or self.address.is_file_elsewhere(container)
        self.can_return = not is_file
        self.is_live = self._config.live or not is_file
        self._queue.drops = self.is_live if self._config.drop == "auto" else self._config.drop == "newest"
        self._last_at = time.monotonic()
        return container

    def _reopened(self, ending: LiveEvent) -> InputContainer | None:
        """Open the source again after pauses. Return None if the reader was closed. Raises VideoError after the last try."""
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
            self._queue.put(self._event("reconnected", f"after {away_s:.1f} s, try {self._num_tries} of {limit}"))
            return container
        raise VideoError(f"{self.address.name}: {ending.words}; {limit} tries to open it again brought no picture")

    def _play(self, container: InputContainer) -> LiveEvent:
        """Read a container to its end. Return how it ended."""
        stream = video_of(container)
        assert stream is not None
        self._display.begin(stream)
        stream.thread_type = "SLICE" if self.is_live else "AUTO"  # threads for whole frames hand pictures out late
        # Pictures that FFmpeg would patch up (by greying or smearing) are errors here, as for files.
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
        """Return how a container ended: by an error, too early, or at its end."""
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
        """Yield the pictures that are not damaged, in the order of showing."""
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
                    self._queue.put(
                        self._event("damaged", f"{bad} packets could not be decoded; it goes on at a key frame")
                    )
                yield frame
        self.counts.bad_packets += packets.num_bad - num_bad

    def _receive(self, frame: VideoFrame, stamp_s: float, frame_s: float) -> None:
        """Take in a picture of `stamp_s` (source's clock) that lasts `frame_s`. The one before it fills the timestamps up to it."""
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
                self._queue.put(self._event("clock", f"its timestamps jumped by {step_s:+.2f} s; windows begin anew"))
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
        self._last = _CurrentPicture(
            frame, geometry, time_s, time_s + min(lasts_s, JUMP_S), due_at if self._config.live else self._last_at
        )

    def _note_size(self, size: tuple[int, int]) -> None:
        """Report a picture of another size than the one before."""
        if self._size not in (size, (0, 0)):
            was = f"{self._size[0]}x{self._size[1]}"
            self._queue.put(self._event("size", f"its pictures are {size[0]}x{size[1]} px now, not {was}"))
        self._size = size

    def _begin(self, stamp_s: float) -> None:
        """Begin a new stretch of steady timestamps at a picture. A live stream's clock goes on by the time it was away."""
        self._began_s = 0.0 if self._last is None else self._last.end_s
        if self._last is not None and self.is_live and not self._config.live:
            self._began_s = max(self._began_s, self._last.time_s + time.monotonic() - self._last_at)
        self._offset_s = self._began_s - stamp_s
        self._stretch, self._frame_index = self._stretch + 1, 0
        self._last = None
        if self._stretch == 0:
            self._wall_began = time.monotonic()

    def _fill(self, until_s: float) -> None:
        """Hand over a frame for each steady timestamp before `until_s`."""
        shown = self._last
        while shown is not None:
            time_s = self._began_s + (self._frame_index + 0.5) * self._interval_s
            if time_s + SAME_S >= until_s or self._stop.is_set():
                return
            if shown.picture is None:
                shown.picture = self._prepare(frame_of_pixels(self._display.pixels(shown.frame, shown.geometry)))
            self._queue.put(LiveFrame(time_s, self._stretch, self._frame_index, shown.picture, shown.arrived))
            self._frame_index += 1

    def _flush(self) -> None:
        """Fill the timestamps to the end of what came. A last interval that is not complete has none, as in `steady_times`."""
        if self._last is not None:
            self._fill(self._last.end_s - self._interval_s / 2 + 2 * SAME_S)

    def _event(self, kind: EventKind, words: str) -> LiveEvent:
        """Return an event at the time of the picture that is shown."""
        return LiveEvent(kind, 0.0 if self._last is None else self._last.time_s, words)


@dataclass(eq=False)
class _CurrentPicture:
    """The picture that is shown from `time_s` to `end_s`. `picture` is the network's input, made when it is first needed."""

    frame: VideoFrame
    geometry: Geometry
    time_s: float
    end_s: float
    arrived: float
    picture: Pixels | None = None


class _Packets:
    """The packets of a stream. Packets that cannot be read are counted and skipped; `ended` is the error that ended the stream."""

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
