"""Decode from where a container stands: its packets become frames in the order of showing, with their times and any damage.

A careful decoder says which frames are damaged (`Damage`). Any other raises `UnreliableOutput` at the first sign of damage, and a
careful one takes over: with several threads errors come out of step with the frames, or get lost.
"""

from __future__ import annotations

import logging
import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fewframes.video.decode.codecs.av1 import Av1Headers
from fewframes.video.decode.codecs.unused import begins_open, left_out_test
from fewframes.video.decode.complaints import Complaints
from fewframes.video.decode.container import DECODE_CLOCK, DECODE_ERRORS, READ_ERRORS, OpenContainer, packets_of
from fewframes.video.decode.damage import Damage, is_whole
from fewframes.video.decode.packets import Feed
from fewframes.video.pictures.display import Display, Geometry

log = logging.getLogger("fewframes")

JOINED_AFTER = 2
"""Within so many packets another recording begins behind one that is marked for it: FFmpeg's parsers are a picture late."""
MAX_LEADING_PACKETS = 300
"""The most packets that are passed over while a key frame is awaited (in a recording cut in the middle). After that, decoding
begins without one."""

AV1_DECODERS = frozenset({"av1", "libdav1d"})
"""FFmpeg's names of the decoders of AV1."""

_Heard: TypeAlias = "tuple[Packet[VideoStream] | None, bool]"
"""A packet, None at the end, and whether FFmpeg logged anything of what it lies among."""


class UnreliableOutput(Exception):
    """The output of a decoder cannot be trusted, or differs from what the packets announced."""


class ShownFrame(NamedTuple):
    """A decoded frame, and when it is shown, in seconds on the container's clock."""

    start_s: float
    end_s: float
    frame: VideoFrame
    geometry: Geometry
    damaged: bool
    """True if the frame is damaged, or builds on a damaged one."""


@dataclass
class DecodeCounts:
    """The counts of all passes over a video since it was opened."""

    decoded: int = 0
    """The number of frames that were decoded."""
    undecodable: int = 0
    """The number of packets that could not be decoded."""
    bytes: int = 0
    """The number of bytes of the packets that were read."""
    key_delays: list[int] = field(default_factory=list)
    """The delay from decoding to showing of each key frame that was met, in ticks."""
    repeats_until_s: float = -math.inf
    """The time until which packets without content repeat the picture before them."""


class Decoding:
    """A pass of the decoder over the packets of a stream, from where its container stands."""

    def __init__(
        self,
        source: OpenContainer,
        display: Display,
        counts: DecodeCounts,
        complaints: Complaints,
        damage: Damage | None,
        *,
        from_start: bool,
    ) -> None:
        """Prepare a pass.

        Args:
            source: the open container.
            display: what notes the geometry of each frame.
            counts: the counts that this pass adds to.
            complaints: what FFmpeg logs while it decodes.
            damage: what notes the damage of a careful decoder; None for any other.
            from_start: True at the start of the file, False after a jump.
        """
        self._source, self._stream, self._tick_s = source, source.stream, source.tick_s
        self._display = display
        self._counts, self._complaints, self._from_start = counts, complaints, from_start
        self._num_keys, self._is_by_decoding = 0, source.format in DECODE_CLOCK
        self._is_open = not from_start
        """True if decoding began at an open group of pictures, as after a jump it may."""
        self.damage = damage
        """The damage that a careful decoder met; None for any other."""

    def feed(self) -> Feed:
        """Return the packets to decode.

        The caller holds them. If this object did, each would hold the other, and the decoder's threads would live on.
        """
        headers = None
        # Where something is damaged, frames that nobody wants may be those that show it. So a careful decoder leaves none out.
        if self._source.codec in AV1_DECODERS and self.damage is None:
            # The sequence header stands behind four bytes of configuration.
            headers = Av1Headers(bytes(self._stream.codec_context.extradata or b"")[4:])
        return Feed(self._packets(), self._tick_s, left_out_test(self._stream), headers)

    def frames(self, feed: Feed) -> Iterator[ShownFrame]:
        """Yield frames in the order of showing.

        Raises UnreliableOutput at the first sign of damage in a decoder that is not careful.
        """
        frame_s = self._source.frame_s
        last_s = -frame_s if self._from_start else None  # a frame without a time follows the one before it
        first: Packet[VideoStream] | None = None
        for packet in feed:
            if first is None:
                first = packet
            for frame in self._frames_of(packet):
                geometry = self._display.geometry(frame)
                is_damaged = self._is_damaged(frame, first)
                time_s = self._time_of(frame, last_s, frame_s)
                if time_s is None:
                    continue  # right after a jump, nothing says when such a frame is shown
                last_s = time_s
                yield ShownFrame(
                    time_s, time_s + (frame.duration * self._tick_s or frame_s), frame, geometry, is_damaged
                )

    def _frames_of(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Return the frames that come out when a packet is decoded; None asks for all that are left."""
        if packet is not None and packet.size > 0:
            if packet.is_keyframe and self._num_keys == 0 and self._from_start and self._source.codec == "h264":
                self._is_open = begins_open(self._stream, bytes(packet))
            self._num_keys += packet.is_keyframe
            if self.damage is not None:
                self.damage.add(packet, self._stamp_of(packet))
        try:
            frames = self._stream.codec_context.decode(None) if packet is None else packet.decode()
        except DECODE_ERRORS as error:
            self._complaints.judge()
            if self._complaints.only_of_the_past and self._is_open and self._num_keys == 1:
                return []  # the jump, or the cut where the file begins, led into an open group: the packet needs one before it
            self._blame(f"a packet cannot be decoded: {error}")
            self._counts.undecodable += 1
            return []
        if self._complaints.judge() or (packet is not None and packet.is_corrupt):
            self._blame("a packet is marked as corrupt, or what comes of it was patched up")
        self._counts.decoded += len(frames)
        return frames

    def _blame(self, reason: str) -> None:
        """Note that the last packet is damaged. Raises UnreliableOutput in a decoder that is not careful."""
        if self.damage is None:
            raise UnreliableOutput(reason)
        self.damage.blame()

    def _is_damaged(self, frame: VideoFrame, first: Packet[VideoStream] | None) -> bool:
        """Return whether a frame is damaged; `first` is the first packet of this pass. Raises as `frames`."""
        if self.damage is not None:
            is_damaged = self.damage.taints(frame)
        elif frame.is_corrupt or (first is not None and frame.pts == first.pts and not is_whole(frame)):
            raise UnreliableOutput("a frame is marked as corrupt, or is no key frame where one was announced")
        else:
            is_damaged = False
        # The last frames of a decoder have no decoding time; in a cut AVI some between them may be missing.
        return is_damaged or (self._source.is_cut and frame.dts is None)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Yield packets from the first key frame on, to the end of what can be read.

        At the start of a file at most `MAX_LEADING_PACKETS` are passed over. An unreadable rest shows up as a video that ends too
        early.
        """
        most_passed = MAX_LEADING_PACKETS if self._from_start else sys.maxsize
        num_passed, is_in_pages = 0, self._source.format == "ogg"
        packets = packets_of(self._source.container, self._stream)
        may_be_joined = self._source.format == "mpegts"
        ahead: deque[_Heard] = deque()
        try:
            while True:
                if may_be_joined:
                    packet, is_complained_of = self._next(packets, ahead)
                else:
                    packet, is_complained_of = next(packets, None), self._complaints.judge()
                if packet is None:
                    return
                if is_complained_of and (is_in_pages or not packet.is_keyframe):
                    # Something before this packet is lost that it may build on. In Ogg, where packets are put together from
                    # pages, a part of a key frame itself may be lost.
                    packet.is_corrupt = True
                self._counts.bytes += packet.size
                if packet.size == 0 and self._repeats(packet):
                    continue
                if num_passed == 0 and self._from_start and self._is_listed_as_key(packet):
                    packet.is_keyframe = True  # damage hides that it is one; the video begins here all the same
                if 0 <= num_passed < most_passed and packet.size and not packet.is_keyframe:
                    num_passed += 1
                    continue
                num_passed = -1  # from here on no packet is passed over
                if packet.is_keyframe and packet.pts is not None and packet.dts is not None:
                    self._counts.key_delays.append(packet.pts - packet.dts)
                yield packet
        except READ_ERRORS as error:
            log.debug("%s: reading stopped: %s", self._source.container.name, error)
        finally:
            packets.close()

    def _next(self, packets: Iterator[Packet[VideoStream]], ahead: deque[_Heard]) -> _Heard:
        """Return the next packet of a transport stream, of those that were read ahead first.

        One that is marked for no damage is returned without its mark.
        """
        packet, is_complained_of = ahead.popleft() if ahead else self._read(packets)
        if packet is not None and packet.is_corrupt:
            while len(ahead) < JOINED_AFTER:
                ahead.append(self._read(packets))
            packet.is_corrupt = not self._is_joined([packet, *(one for one, _ in ahead)])
        return packet, is_complained_of

    def _read(self, packets: Iterator[Packet[VideoStream]]) -> _Heard:
        return next(packets, None), self._complaints.judge()

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
        """Return whether the container's index says that the video begins with this packet, a key frame."""
        entries = self._stream.index_entries
        return len(entries) > 0 and entries[0].is_keyframe and entries[0].timestamp in {packet.dts, packet.pts}

    def _repeats(self, packet: Packet[VideoStream]) -> bool:
        """Return whether a packet without content repeats the last picture. A decoder would take such a packet for the end."""
        stamp = self._stamp_of(packet)
        if stamp is not None:
            shown_s = packet.duration * self._tick_s if packet.duration else self._source.frame_s
            self._counts.repeats_until_s = max(self._counts.repeats_until_s, stamp * self._tick_s + shown_s)
        return stamp is not None

    def _stamp_of(self, one: Packet[VideoStream] | VideoFrame) -> int | None:
        """Return when a packet or frame is shown, in ticks; the time of decoding in containers that know no other."""
        return one.dts if self._is_by_decoding else one.pts

    def _time_of(self, frame: VideoFrame, last_s: float | None, frame_s: float) -> float | None:
        """Return when a frame is shown, in seconds on the container's clock, or None if nothing says it.

        Args:
            frame: the frame.
            last_s: when the frame before it is shown; None right after a jump.
            frame_s: how long a frame is shown where nothing else is said.
        """
        stamp = self._stamp_of(frame)
        if stamp is None:
            return None if last_s is None else last_s + frame_s
        return stamp * self._tick_s
