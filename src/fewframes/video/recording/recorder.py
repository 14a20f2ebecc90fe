"""Keep the last packets of a live source while it is read, and write clips of it while they go on.

The thread that reads the source adds packets, and says of each picture that came out of the decoder when it is shown. A thread of
the recorder writes, so that a slow disk delays no picture.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from fewframes.errors import VideoError
from fewframes.video.decode.opening import in_its_words
from fewframes.video.recording.clip_file import ClipFile
from fewframes.video.recording.packets import VIDEO, SourceStreams, StoredPacket
from fewframes.video.recording.ring import PacketRing

MOST_BYTES = 64 * 2**20
"""The most bytes of packets that are kept of a source by default: half a minute at 17 Mbit/s."""
MOST_CLIP_S = 300.0
"""The most seconds of a clip by default."""
MOST_DELAYED = 256
"""The most packets whose pictures are awaited. Decoders hold back some dozens; those of damaged packets never come."""
Size = tuple[int, int]


@dataclass(eq=False)
class ClipRecording:
    """A clip that is written while it goes on. Its picture at t seconds was shown at `start_s` + t on the stream's clock."""

    path: Path
    """The file. It is there once `is_done` is True and `error` is empty."""
    start_s: float
    """The time of its first picture, a key frame, on the stream's clock."""
    most_s: float
    """The most seconds of it."""
    end_s: float | None = None
    """The time of its end on the stream's clock; None while that is not known."""
    num_pictures: int = 0
    num_bytes: int = 0
    is_done: bool = False
    shortened: str = ""
    """The reason for which it ends before `end_s`; empty if it does not."""
    error: str = ""
    """The reason for which it could not be written; empty if it could."""


@dataclass(eq=False)
class _Writing:
    """A clip, the ring that it is cut from, and its file once that is begun."""

    clip: ClipRecording
    ring: PacketRing
    key: StoredPacket
    next_number: int
    on_done: Callable[[ClipRecording], None] | None
    file: ClipFile | None = None


class Recorder:
    """The last packets of one live source, and the clips that are cut out of it."""

    def __init__(
        self, keep_s: float, most_bytes: int = MOST_BYTES, on_note: Callable[[str], None] | None = None
    ) -> None:
        """Prepare to record.

        Args:
            keep_s: The seconds that are kept, and those since the key frame before them.
            most_bytes: The most bytes that are kept.
            on_note: Called with a line about what cannot be recorded.
        """
        self._keep_s, self._most_bytes, self._on_note = keep_s, most_bytes, on_note
        self._changed = threading.Condition()
        self._rings: deque[PacketRing] = deque()
        self._streams: SourceStreams | None = None
        """The streams of the open source; None if nothing is recorded."""
        self._refused = "the source is not open yet"
        """The reason for which nothing is recorded; empty if something is."""
        self._said: set[str] = set()
        self._awaited: deque[StoredPacket] = deque(maxlen=MOST_DELAYED)
        self._number = 0
        self._last_dts: list[int | None] = [None, None]
        self._size: Size | None = None
        self._clips: list[_Writing] = []
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def begin(self, container: InputContainer, video: VideoStream) -> tuple[Stream, ...]:
        """Begin to record a source that was opened, or opened again. Return the streams whose packets are wanted."""
        with self._changed:
            self._end()
            try:
                streams = SourceStreams(container, video)
            except VideoError as error:
                self._refuse(str(error))
                return (video,)
            if streams.left_out:
                self._say(f"clips are without sound: they cannot hold {streams.left_out}")
            self._refused = ""
            self._streams, self._size, self._last_dts = streams, None, [None, None]
            self._rings.append(PacketRing(streams))
            return streams.wanted

    def add(self, packet: Packet[Any]) -> None:
        """Keep a packet that was read."""
        streams = self._streams
        if streams is None:
            return
        stream = streams.indices.get(packet.stream_index, VIDEO)
        stored = streams.stored(packet, self._number, self._last_dts[stream])
        if stored is None:
            if packet.size and packet.stream_index in streams.indices and stream == VIDEO:
                with self._changed:
                    self._end()
                    self._refuse("its packets do not say when their pictures are shown; take MP4, Matroska or MPEG-TS")
            return
        with self._changed:
            ring = self._rings[-1]
            if ring.is_over:
                return
            self._number += 1
            self._last_dts[stream] = stored.dts
            ring.append(stored)
            if stored.stream == VIDEO:
                self._awaited.append(stored)
            self._forget()

    def place(self, stamp: int | None, offset_s: float | None, size: Size) -> None:
        """Note that a picture came out of the decoder.

        Args:
            stamp: Its time in ticks of the source's video, as the packet had it.
            offset_s: The difference of the stream's clock to the source's, in seconds.
            size: Its width and height in pixels.
        """
        if self._streams is None or offset_s is None:
            return
        with self._changed:
            packet = next((packet for packet in self._awaited if packet.pts == stamp), None)
            ring = self._rings[-1]
            if packet is None or ring.is_over:
                return
            self._awaited.remove(packet)
            if ring.offset_s is not None and (ring.offset_s != offset_s or self._size != size):
                ring = ring.split(packet.number)
                self._rings.append(ring)
            ring.offset_s, self._size = offset_s, size
            ring.known_to = max(ring.known_to, packet.number)
            if self._clips:
                self._changed.notify_all()

    def end(self) -> None:
        """Note that the source ended, or broke off."""
        with self._changed:
            self._end()

    def cut(
        self,
        stem: Path,
        event_s: float,
        before_s: float = 0.0,
        *,
        end_s: float | None = None,
        most_s: float = MOST_CLIP_S,
        on_done: Callable[[ClipRecording], None] | None = None,
    ) -> ClipRecording:
        """Begin to write a clip around an event. It begins with a key frame, and goes on until its end is known and was read.

        Args:
            stem: The path of the file without its ending, which follows from the codec.
            event_s: The time of the event on the stream's clock.
            before_s: The seconds that are wanted before that.
            end_s: The end of the clip, if it is known already; else `set_end` tells it.
            most_s: The most seconds of the clip.
            on_done: Called in the thread that writes, once the clip is done or has failed.

        Raises:
            VideoError: Nothing of the event is kept.
        """
        with self._changed:
            ring = self._ring_at(event_s)
            key = None if ring is None else ring.key_before(event_s - before_s)
            if ring is None or key is None:
                raise VideoError(
                    f"no clip of {event_s:.2f} s can be cut: {self._refused or 'no key frame of that time is kept'}"
                )
            path = stem.with_name(stem.name + ring.streams.suffix)
            clip = ClipRecording(path, ring.time_s(key), most_s, end_s)
            self._clips.append(_Writing(clip, ring, key, key.number, on_done))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="fewframes-clips")
                self._thread.start()
            self._changed.notify_all()
            return clip

    def set_end(self, clip: ClipRecording, end_s: float) -> None:
        """Tell at which time of the stream's clock a clip ends."""
        with self._changed:
            clip.end_s = end_s
            self._changed.notify_all()

    def close(self) -> None:
        """Finish the clips with what was read, and end. Raises the error that ended the writing, if there is one."""
        with self._changed:
            self._end()
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    @property
    def num_bytes(self) -> int:
        """Return the bytes of packets that are kept."""
        return sum(ring.num_bytes for ring in self._rings)

    def _end(self) -> None:
        """Let no packet follow in the newest ring."""
        if self._rings:
            self._rings[-1].end()
        if self._streams is not None:
            self._streams.release()
        self._streams = None
        self._awaited.clear()
        self._changed.notify_all()

    def _refuse(self, reason: str) -> None:
        """Record nothing more of the open source, for a reason that is told."""
        self._refused = reason
        self._say(f"no clips can be cut: {reason}")

    def _say(self, words: str) -> None:
        """Tell something once."""
        if self._on_note is not None and words not in self._said:
            self._said.add(words)
            self._on_note(words)

    def _forget(self) -> None:
        """Forget what is too old, and the oldest of what is too much."""
        newest = self._rings[-1]
        needed = [writing.next_number for writing in self._clips if writing.ring is newest]
        newest.trim(self._keep_s, min(needed, default=math.inf))
        while len(self._rings) > 1 and (self._is_old(self._rings[0]) or self.num_bytes > self._most_bytes):
            self._rings.popleft()
        while newest.num_bytes > self._most_bytes:
            newest.forget_oldest()
            self._say(
                f"the last {self._keep_s:.0f} s are more than {self._most_bytes / 1e6:.0f} MB; clips begin later than asked for"
            )

    def _is_old(self, ring: PacketRing) -> bool:
        """Return True for a ring of long ago, or of which nothing can be cut."""
        reached_s, end_s = self._rings[-1].end_s, ring.end_s
        return end_s is None or not len(ring) or (reached_s is not None and reached_s - end_s > self._keep_s)

    def _ring_at(self, event_s: float) -> PacketRing | None:
        """Return the ring that holds a time of the stream's clock: the last one that begins before it."""
        held = [(ring, ring.start_s) for ring in self._rings]
        begun = [ring for ring, start_s in held if start_s is not None and start_s <= event_s]
        return begun[-1] if begun else next((ring for ring, start_s in held if start_s is not None), None)

    def _run(self) -> None:
        """Write clips until the recorder is closed: the work of the thread."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: (self._is_closing and not self._clips) or any(map(self._is_due, self._clips))
                    )
                    if not self._clips:
                        return
                    due = [(writing, self._packets_for(writing)) for writing in self._clips if self._is_due(writing)]
                for writing, packets in due:
                    self._advance(writing, packets)
        except BaseException as error:
            self._failure = error  # `close` raises it in the caller's thread

    def _is_due(self, writing: _Writing) -> bool:
        """Return True if there is something to write, or nothing more will come."""
        return writing.ring.is_over or writing.ring.known_to >= writing.next_number

    def _packets_for(self, writing: _Writing) -> list[StoredPacket]:
        """Return the packets that a clip needs next. Those that were forgotten meanwhile are missing at the front."""
        return list(writing.ring.known_from(writing.next_number))

    def _advance(self, writing: _Writing, packets: list[StoredPacket]) -> None:
        """Write packets to a clip, and finish it if that is all of it."""
        clip, ring = writing.clip, writing.ring
        try:
            if writing.file is None:  # the key frame is written even if the ring has forgotten it by now
                writing.file = ClipFile(clip.path, ring.streams, writing.key)
                packets = [writing.key, *(packet for packet in packets if packet.number > writing.key.number)]
            ended = self._write(writing, writing.file, packets)
            clip.num_bytes = writing.file.num_bytes
            if ended is None and ring.is_over and writing.next_number > ring.known_to:
                ended = (
                    ""
                    if clip.end_s is not None and self._reached_s(writing) >= clip.end_s
                    else "the source ended there"
                )
            if ended is None:
                return
            clip.shortened = ended
            if clip.end_s is None or ended:
                clip.end_s = self._reached_s(writing)
            writing.file.finish()
            clip.num_pictures, clip.num_bytes = writing.file.num_pictures, clip.path.stat().st_size
        except (OSError, FFmpegError) as error:
            clip.error = f"{clip.path}: cannot be written ({in_its_words(error)}); make room or take another folder"
            if writing.file is not None:
                writing.file.abandon()
        with self._changed:
            self._clips.remove(writing)
            clip.is_done = True
        if writing.on_done is not None:
            writing.on_done(clip)

    def _write(self, writing: _Writing, file: ClipFile, packets: list[StoredPacket]) -> str | None:
        """Write packets up to the end of a clip. Return None if that was not reached, else the reason, empty for its end."""
        clip, ring = writing.clip, writing.ring
        if packets and packets[0].number > writing.next_number and file.num_pictures:
            return "the disk was too slow to write it while it was kept"
        for packet in packets:
            if packet.stream == VIDEO:
                # A picture that is shown after those before it ends the clip; pictures in between are still to come before that.
                end_s = math.inf if clip.end_s is None else clip.end_s
                limit_s = min(end_s, clip.start_s + clip.most_s)
                if ring.time_s(packet, decoded=True) > limit_s and packet.pts > file.last_pts:
                    return "" if limit_s == end_s else f"longer than {clip.most_s:g} s"
            file.write(packet)
            writing.next_number = packet.number + 1
        return None

    def _reached_s(self, writing: _Writing) -> float:
        """Return the time on the stream's clock of the last picture that was written."""
        assert writing.file is not None
        assert writing.ring.offset_s is not None
        return writing.file.last_pts * float(writing.ring.streams.ticks_s[VIDEO]) + writing.ring.offset_s
