"""Decoding from where a container stands: its packets -> frames in the order of showing, with their times, and what is damaged.

A decoder with one thread gives every frame, and says which are damaged (`Damage`). With several, errors come out of step with the
frames, or get lost: at the first sign of damage it is given up (`Unsure`), for one with one thread.
"""

from __future__ import annotations

import logging
import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fewframes.video.decode.complaints import Complaints
from fewframes.video.decode.container import DECODE_CLOCK, READ_ERRORS, OpenContainer, packets_of
from fewframes.video.decode.damage import Damage
from fewframes.video.decode.packets import Feed, begins_open, left_out_test
from fewframes.video.pictures.display import Display, Geometry

log = logging.getLogger("fewframes")

JOINED_AFTER = 2
"""Within so many packets another recording begins behind one that is marked for it: FFmpeg's parsers are a picture late."""
MAX_LEADING_PACKETS = 300
"""Packets before the first key frame that are passed over (a recording cut in the middle) before it is done without."""

_Heard: TypeAlias = "tuple[Packet[VideoStream] | None, bool]"
"""A packet, None at the end, and whether FFmpeg logged anything of what it lies among."""


class UnreliableOutput(Exception):
    """What came out of the decoder cannot be trusted, or is not what the packets promised."""


@dataclass(frozen=True)
class ShownFrame:
    """A decoded frame and the time it is shown, in seconds on the container's clock."""

    start_s: float
    end_s: float
    frame: VideoFrame
    geometry: Geometry
    damaged: bool


@dataclass
class DecodeCounts:
    """What all decodings of a video did, and what they met."""

    decoded: int = 0
    undecodable: int = 0
    bytes: int = 0
    key_delays: list[int] = field(default_factory=list)
    """How much later than decoded each key frame that was met is shown, in ticks."""
    repeats_until_s: float = -math.inf
    """Until when packets without content have the picture before them shown."""


class Decoding:
    """A decoder's way through the packets of a stream, from where its container stands."""

    def __init__(
        self, source: OpenContainer, display: Display, counts: DecodeCounts, complaints: Complaints, *, from_start: bool
    ) -> None:
        self._source, self._stream, self._tick_s = source, source.stream, source.tick_s
        self._display = display
        self._counts, self._complaints, self._from_start = counts, complaints, from_start
        self._num_keys, self._is_by_decoding = 0, source.format in DECODE_CLOCK
        self._is_open = not from_start
        """Whether decoding began at an open group of pictures, as a jump may."""
        self.damage = None if complaints.has_threads else Damage(source.stream.codec_context.name)
        """What went wrong in a decoder with one thread."""

    def feed(self) -> Feed:
        """Return the packets to decode. It is not kept here: the two would hold each other, and the decoder with its threads."""
        return Feed(self._packets(), self._tick_s, left_out_test(self._stream))

    def frames(self, feed: Feed) -> Iterator[ShownFrame]:
        """Yield frames in the order of showing. Raises Unsure at the first sign of damage in a decoder with several threads."""
        frame_s, time_base = self._source.frame_s, self._stream.time_base
        last_s = -frame_s if self._from_start else None  # a frame without a time follows the one before it
        first: Packet[VideoStream] | None = None
        for packet in feed:
            first = first or packet
            for frame in self._frames_of(packet):
                frame.time_base = time_base  # those of an emptied decoder have none
                geometry = self._display.geometry(frame)
                is_damaged = self._is_damaged(frame, first)
                time_s = self._time_of(frame, last_s, frame_s)
                if time_s is None:
                    continue  # nothing says when it is shown
                duration_s = frame.duration * self._tick_s if frame.duration else frame_s
                last_s = time_s
                yield ShownFrame(time_s, time_s + duration_s, frame, geometry, is_damaged)

    def _frames_of(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        if packet is not None and packet.size > 0:
            if packet.is_keyframe and self._num_keys == 0 and self._from_start:
                self._is_open = begins_open(self._stream, bytes(packet))
            self._num_keys += packet.is_keyframe
            if self.damage is not None:
                self.damage.add(packet, self._stamp_of(packet))
        try:
            with self._complaints:
                frames = self._stream.codec_context.decode(None) if packet is None else packet.decode()
        except FFmpegError as error:
            if self._complaints.only_of_the_past and self._is_open and self._num_keys == 1:
                return []  # what it misses stands before the jump, or before the cut where the file begins
            self._blame(f"a packet cannot be decoded: {error}")
            self._counts.undecodable += 1
            return []
        if self._complaints.found or (packet is not None and packet.is_corrupt):
            self._blame("a packet is marked as corrupt, or what comes of it was patched up")
        self._counts.decoded += len(frames)
        return frames

    def _blame(self, reason: str) -> None:
        if self.damage is None:
            raise UnreliableOutput(reason)
        self.damage.blame()

    def _is_damaged(self, frame: VideoFrame, first: Packet[VideoStream] | None) -> bool:
        if self.damage is not None:
            is_damaged = self.damage.taints(frame)
        elif frame.is_corrupt or (first is not None and frame.pts == first.pts and not frame.key_frame):
            raise UnreliableOutput("a frame is marked as corrupt, or is no key frame where one was announced")
        else:
            is_damaged = False
        return is_damaged or (self._source.is_cut and frame.dts is None)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets from the first key frame on, or after so many others, up to the end of what can be read; an unreadable rest
        shows as a video that ends too early."""
        most_passed = MAX_LEADING_PACKETS if self._from_start else sys.maxsize
        num_passed, is_in_pages = 0, self._source.format == "ogg"
        packets = packets_of(self._source.container, self._stream)
        ahead: deque[_Heard] = deque()
        try:
            while True:
                packet, is_complained_of = self._next(packets, ahead)
                if packet is None:
                    return
                if is_complained_of and (is_in_pages or not packet.is_keyframe):
                    # Something is lost that it may build on; in Ogg, where packets are put together from pages, of itself too.
                    packet.is_corrupt = True
                self._counts.bytes += packet.size
                if packet.size == 0 and self._repeats(packet):
                    continue
                if num_passed == 0 and self._from_start and self._is_listed_as_key(packet):
                    packet.is_keyframe = True  # it is too damaged to look like one: the video begins here even so
                if packet.size and not packet.is_keyframe and 0 <= num_passed < most_passed:
                    num_passed += 1
                    continue
                num_passed = -1
                if packet.is_keyframe and packet.pts is not None and packet.dts is not None:
                    self._counts.key_delays.append(packet.pts - packet.dts)
                yield packet
        except READ_ERRORS as error:
            log.debug("%s: reading stopped: %s", self._source.container.name, error)
        finally:
            packets.close()

    def _next(self, packets: Iterator[Packet[VideoStream]], ahead: deque[_Heard]) -> _Heard:
        """Return the next packet, of those that were read ahead first; one that is marked for no damage without its mark."""
        packet, is_complained_of = ahead.popleft() if ahead else self._read(packets)
        if packet is not None and packet.is_corrupt and self._source.format == "mpegts":
            while len(ahead) < JOINED_AFTER:
                ahead.append(self._read(packets))
            packet.is_corrupt = not self._is_joined([packet, *(one for one, _ in ahead)])
        return packet, is_complained_of

    def _read(self, packets: Iterator[Packet[VideoStream]]) -> _Heard:
        with self._complaints:
            packet = next(packets, None)
        return packet, self._complaints.found

    def _is_joined(self, packets: Sequence[Packet[VideoStream] | None]) -> bool:
        """Return whether the first of these packets of a transport stream is marked only for another recording that was joined on.

        That counts its packets anew, begins with a key frame, and goes on in time without a gap. Whether the last picture before it
        is whole, its decoder says.
        """
        frame_s = self._source.frame_s
        for before, after in pairwise(packets):
            if before is None or after is None or before.dts is None or after.dts is None:
                return False
            if abs((after.dts - before.dts) * self._tick_s - frame_s) > frame_s / 2 or after.is_corrupt:
                return False
            if after.is_keyframe:
                return True
        return False

    def _is_listed_as_key(self, packet: Packet[VideoStream]) -> bool:
        entries = self._stream.index_entries
        return len(entries) > 0 and entries[0].is_keyframe and entries[0].timestamp in {packet.dts, packet.pts}

    def _repeats(self, packet: Packet[VideoStream]) -> bool:
        """Whether a packet without content has the last picture shown on; a decoder would take it for the end."""
        stamp = self._stamp_of(packet)
        if stamp is not None:
            shown_s = packet.duration * self._tick_s if packet.duration else self._source.frame_s
            self._counts.repeats_until_s = max(self._counts.repeats_until_s, stamp * self._tick_s + shown_s)
        return stamp is not None

    def _stamp_of(self, one: Packet[VideoStream] | VideoFrame) -> int | None:
        return one.dts if self._is_by_decoding else one.pts

    def _time_of(self, frame: VideoFrame, last_s: float | None, frame_s: float) -> float | None:
        stamp = self._stamp_of(frame)
        if stamp is None:
            return None if last_s is None else last_s + frame_s
        return stamp * self._tick_s
