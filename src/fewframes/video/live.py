"""Read a camera, a network stream, a file or a pipe as it comes, and give the picture shown at each of steady timestamps.

A thread decodes without a pause; only pictures that a timestamp needs become RGB. Faults on the way (an interruption, a stall,
bytes that are no video, another size, a clock that jumps) are survived where that is possible, and always reported.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import av
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.error import InvalidDataError as InvalidData
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fewframes.core.guards import check_process, keep_in_forks
from fewframes.errors import AccessDenied, VideoError
from fewframes.video.decode.container import DECODE_CLOCK, DECODE_ERRORS, END_NOT_LENGTH, MAX_PIXELS, packets_of
from fewframes.video.decode.opening import in_its_words, video_of
from fewframes.video.live_clock import JUMP_S, SteadyFrames
from fewframes.video.live_queue import LiveCounts, LiveEvent, LiveFrame, LiveQueue
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import Address, LiveSource
from fewframes.video.pictures.arrays import Prepare
from fewframes.video.pictures.display import Display
from fewframes.video.recording.recorder import Recorder

FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 10.0
"""The first pause before a source is opened again, and the longest; each pause is twice the one before."""
POLL_S = 0.25
"""The interval in seconds at which a waiting thread wakes up, so that it notices signals."""
MOST_WITHOUT_KEY = 300
"""The most pictures that are left out at the start and after damage while a key frame is awaited. Some streams have only one."""
MOST_DENIED = 3
"""The most times in a row that a password is refused before a source counts as lost. Cameras lock out who goes on trying."""
MOST_ERRORS = 100
"""The most packets in a row that cannot be read before the source counts as interrupted."""


class LiveReader:
    """A live source that is read in a thread of its own, as frames at steady timestamps. Later failures come out of `take`."""

    def __init__(
        self,
        source: LiveSource,
        config: StreamConfig,
        interval_s: float,
        prepare: Prepare,
        *,
        waits: bool = True,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Open a source and begin to read it. Raises VideoError if it cannot be opened.

        Args:
            source: the source (see `LiveSource`).
            config: the settings.
            interval_s: the seconds between two timestamps.
            prepare: a function that makes the network's input of an RGB picture (C, H, W).
            waits: False does not wait until the source is open, and tries again if a camera or network cannot be opened. Errors
                then come out of `take`.
            wake: called, from the reading thread, whenever something has come.
        """
        self.address = Address.of(source)
        self._recorder = self.address.recorder
        self.counts = LiveCounts()
        self._config = config
        self._stop, self._process_id = threading.Event(), os.getpid()
        self._error: BaseException | None = None
        self._display = Display(self.address.name, MAX_PIXELS)
        self._num_tries = self._num_denied = 0
        self._is_away = True
        """True while the source is not open."""
        self.can_return = False
        """True if the source is opened again when it breaks off."""
        self._waits, self._queue = waits, LiveQueue(self.counts, wake=wake)
        self._steady = SteadyFrames(config, interval_s, prepare, self._display, self._queue, self.counts, self._stop)
        self._stalled_at: float | None = None
        """The last picture's time of arrival (time.monotonic) for which a stall was reported."""
        began = time.monotonic()
        self._opened = threading.Event()
        keep_in_forks(self)
        # The thread also opens the source, because opening a silent pipe cannot be interrupted.
        self._thread = threading.Thread(target=self._run, daemon=True, name="fewframes-live")
        self._thread.start()
        while waits and not self._opened.wait(POLL_S):  # short waits, so that signals are noticed
            waited_s = time.monotonic() - began
            if config.open_s is not None and waited_s > config.open_s:
                self._stop.set()
                raise VideoError(f"{self.address.name}: not open after {waited_s:.1f} s, its time limit; allow more")
        if waits and not self.counts.pictures:
            self._raise()

    def take(self, most: int, timeout_s: float, max_age_s: float = 0.0) -> list[LiveFrame | LiveEvent] | None:
        """Return what has come, in order, with at most `most` frames; None at the end. Raises the error that ended the reading.

        Of frames older than `max_age_s` (0 allows any age) all but the newest are dropped."""
        check_process(self._process_id, self.address.name)
        items = self._queue.take(most, timeout_s, time.monotonic() - max_age_s if max_age_s else 0.0)
        if items:
            return items
        if self._queue.closed:
            self._raise()
            return None
        last_at = self._steady.last_at
        # A silent network ends FFmpeg's reading (`_ending`), unless pictures come and all are left out.
        is_network = self.address.kind == "network"
        silent_s, limit_s = self.silent_s, self._config.stall_s * (2 if is_network else 1)
        if silent_s > limit_s and self._stalled_at != last_at and not (is_network and self._is_away):
            self._stalled_at = last_at
            why = "; pictures come, but their times do not go on" if is_network else "; waiting for more"
            return [self._steady.event("stall", f"no picture for {silent_s:.1f} s{why}")]
        return []

    def _raise(self) -> None:
        """Raise the error of the thread, if there is one.

        An error holds the calls that it came through, and so this object. Were it still held by this object, both would live until
        Python collects.
        """
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    @property
    def silent_s(self) -> float:
        """Return the seconds since the last picture came, or since the source was opened."""
        return time.monotonic() - self._steady.last_at

    @property
    def is_live(self) -> bool:
        """Return whether the pictures come at their own pace."""
        return self._steady.is_live

    def close(self) -> None:
        """End the reading. A read that the system has not finished is not waited for."""
        if self._process_id != os.getpid():
            return  # a fork has no thread to end, which may have held the queue's lock
        self._stop.set()
        self._queue.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        """Read the source to its end, and open it again where that helps: the work of the thread."""
        try:
            container = self._first_opened()
            self._opened.set()
            while container is not None:
                self._is_away = False
                with container:
                    ending = self._play(container)
                self._is_away = True
                if self._recorder is not None:
                    self._recorder.end()
                self._steady.flush()
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

    def _first_opened(self) -> InputContainer | None:
        """Open the source, and note what kind of source it is. Return None if the reader was closed meanwhile."""
        self.can_return = not self._waits and self.address.kind in ("camera", "network")
        container = self._opened_soon() if self.can_return else self._open()
        if container is None:
            return None
        is_file = self.address.kind in ("file", "pipe") or self.address.is_file_elsewhere(container)
        self.can_return = not is_file
        self._steady.is_live = self._config.live or not is_file
        self._queue.drops = self._steady.is_live if self._config.drop == "auto" else self._config.drop == "newest"
        self._steady.last_at = time.monotonic()
        return container

    def _opened_soon(self) -> InputContainer | None:
        """Open the source, now or after pauses. Return None if the reader was closed. Raises VideoError after the last try."""
        try:
            return self._open()
        except VideoError as error:
            return self._tried_again(str(error), str(error))

    def _open(self) -> InputContainer:
        """Open the source, and count refusals in a row. Raises VideoError."""
        try:
            container = self.address.open(self._config.stall_s)
        except AccessDenied:
            self._num_denied += 1
            raise
        self._num_denied = 0
        return container

    def _reopened(self, ending: LiveEvent) -> InputContainer | None:
        """Open the source again after pauses. Return None if the reader was closed. Raises VideoError after the last try."""
        began = time.monotonic()
        container = self._tried_again(f"{self.address.name}: {ending.words}")
        if container is not None:
            self.counts.reconnects += 1
            self._steady.begin_anew()
            limit = self._config.reconnects
            tries = f"try {self._num_tries}" + ("" if limit is None else f" of {limit}")
            self._queue.put(self._steady.event("reconnected", f"after {time.monotonic() - began:.1f} s, {tries}"))
        return container

    def _tried_again(self, why: str, reason: str = "") -> InputContainer | None:
        """Open the source after pauses. Return None if the reader was closed. Raises VideoError after the last try.

        Args:
            why: why the source has to be opened, for the error.
            reason: why it could not be opened just now, if that was tried. Each reason is told once.
        """
        limit = self._config.reconnects
        if reason:
            self._queue.put(self._steady.event("away", f"{reason}; trying again"))
        while limit is None or self._num_tries < limit:
            pause_s = min(MOST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._num_tries, 10))
            self._num_tries += 1
            if self._stop.wait(pause_s):
                return None
            try:
                return self._open()
            except VideoError as error:
                if self._num_denied >= MOST_DENIED:
                    raise
                if str(error) != reason:
                    reason = str(error)
                    self._queue.put(self._steady.event("away", f"{reason}; trying again"))
        raise VideoError(f"{why}; {count_of_tries(limit)} to open it again brought no picture")

    def _play(self, container: InputContainer) -> LiveEvent:
        """Read a container to its end. Return how it ended."""
        stream = video_of(container)
        assert stream is not None
        self._display.begin(stream)
        stream.thread_type = (
            "SLICE" if self._steady.is_live else "AUTO"
        )  # threads for whole frames hand pictures out late
        # Pictures that FFmpeg would patch up (by greying or smearing) are errors here, as for files.
        stream.codec_context.options = {"err_detect": "explode"}
        frame_s = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        by_decoding = container.format.name in DECODE_CLOCK
        next_s = 0.0
        wanted = (stream,) if self._recorder is None else self._recorder.begin(container, stream)
        packets = _Packets(container, stream, wanted, self._recorder)
        for frame in self._decoded(packets):
            stamp = frame.dts if by_decoding else frame.pts
            stamp_s = next_s if stamp is None else stamp * float(stream.time_base or 0)
            next_s = stamp_s + frame_s
            self._steady.receive(frame, stamp_s, frame_s)
            if self._recorder is not None:
                self._recorder.place(stamp, self._steady.offset_s, (frame.width, frame.height))
            self._num_tries = 0
            if self._stop.is_set():
                break
        return self._ending(container, packets.ended)

    def _ending(self, container: InputContainer, error: Exception | None) -> LiveEvent:
        """Return how a container ended: by an error, too early, or at its end."""
        if isinstance(error, ExitError):
            return self._steady.event("stall", f"nothing came for {self._config.stall_s:g} s")
        announced_s, stream = (container.duration or 0) / av.time_base, video_of(container)
        if error is None and not self.can_return:
            reached_s = self._steady.reached_s
            if container.format.name in END_NOT_LENGTH and stream is not None:
                announced_s -= float((stream.start_time or 0) * (stream.time_base or 0))
            if self._steady.is_in_one_piece and reached_s < announced_s - JUMP_S / 10:
                return self._steady.event(
                    "cut", f"its pictures end at {reached_s:.2f} s of the {announced_s:.2f} s it announces"
                )
            return self._steady.event("end", "the end of the stream")
        return self._steady.event("cut", f"it broke off ({'no more data' if error is None else in_its_words(error)})")

    def _decoded(self, packets: _Packets) -> Iterator[VideoFrame]:
        """Yield the pictures that are not damaged, in the order of showing."""
        num_to_pass, num_bad = MOST_WITHOUT_KEY, packets.num_bad
        for packet in packets:
            try:
                frames = [] if packet.is_corrupt else packet.decode()
                is_bad = packet.is_corrupt
            except DECODE_ERRORS:
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
                        self._steady.event("damaged", f"{bad} packets could not be decoded; it goes on at a key frame")
                    )
                yield frame
        self.counts.bad_packets += packets.num_bad - num_bad


def count_of_tries(count: int) -> str:
    """Return a number of tries in words."""
    return "1 try" if count == 1 else f"{count} tries"


class _Packets:
    """The packets of a stream. Packets that cannot be read are counted and skipped; `ended` is the error that ended the stream."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, wanted: tuple[Stream, ...], recorder: Recorder | None
    ) -> None:
        self.num_bad = 0
        self.ended: Exception | None = None
        self._container, self._stream, self._wanted, self._recorder = container, stream, wanted, recorder

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        num_in_a_row = 0
        while True:
            try:
                with closing(packets_of(self._container, *self._wanted)) as packets:
                    for packet in packets:
                        num_in_a_row = 0
                        if self._recorder is not None:
                            self._recorder.add(packet)
                        if packet.stream_index == self._stream.index:
                            yield packet
                return
            except (InvalidData, IndexError) as error:  # IndexError: a new stream turned up midway
                self.num_bad += 1
                num_in_a_row += 1
                if num_in_a_row > MOST_ERRORS:
                    self._end(error)
                    return
            except (FFmpegError, OSError, ValueError) as error:  # ValueError: the caller has closed the file
                self._end(error)
                return

    def _end(self, error: Exception) -> None:
        """Note the error that ended the stream, without the calls that it came through.

        These hold this object, and so the decoder with its pictures: each connection that breaks off would leave one behind until
        Python collects.
        """
        self.ended = error.with_traceback(None)
