"""Packets of a video, before any is decoded: which can be left out, and where a stretch of wanted frames is complete.

A picture that no other picture builds on need not be decoded unless it is itself wanted. Codecs say so in the first bytes of
a picture: H.264 by nal_ref_idc (ITU-T H.264, 7.4.1), HEVC by its type of slice (ITU-T H.265, table 7-1), AV1 by refreshing
none of its references (AV1 specification, 5.9.2; all that one frame hands to another travels in those), MPEG-1, -2 and -4 by
being a B-picture. VP8 and VP9 adapt their probabilities and motion vectors from every frame to the next: nothing can be left out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from av.packet import Packet
from av.video.stream import VideoStream

SAME_S = 1e-6
"""Times nearer than this are the same: containers round theirs to a clock tick."""
MOST_AHEAD = 32
"""Packets read ahead of the decoder, at most: pictures are never moved by more than 16 places."""
START_CODE = b"\x00\x00\x01"
H264_SLICE, H264_REFRESH, H264_BESIDE = 1, 5, frozenset({6, 9, 12})
"""NAL units of a picture that is no instant refresh, and of one that is; information, delimiter and filler beside them."""
HEVC_FIRST_PARAMETERS, HEVC_BESIDE = 32, frozenset({35, 38, 39, 40})
AV1_SEQUENCE, AV1_DELIMITER, AV1_FRAME_HEADER, AV1_TILES, AV1_METADATA, AV1_FRAME = 1, 2, 3, 4, 5, 6
SELECT = 2
"""An AV1 sequence header's value for "each frame says"."""

Test = Callable[[bytes], bool]
"""Whether nothing is built on the picture of these bytes."""


class Feed:
    """The packets of a stream from where its container stands, in the order of decoding, without those that `wanted_s` has no
    use for; `None` where it has all that is wanted, so that the decoder is emptied and nothing more decoded.

    `wanted_s` are moments on the container's clock, ascending, between which no jump is worth it; empty: all packets come.
    Where a packet does not say when its picture is shown, or says before it is decoded, all packets come from there on.
    """

    def __init__(self, packets: Iterator[Packet[VideoStream]], tick_s: float, left_out: Test | None) -> None:
        self.wanted_s: Sequence[float] = ()
        self.num_left_out = 0
        self._packets, self._tick_s, self._left_out = packets, tick_s, left_out
        self._ahead: deque[tuple[Packet[VideoStream], float | None]] = deque()
        self._seen_s: list[float] = []
        self._sent_s: set[float] = set()
        self._complete_for: Sequence[float] | None = None
        self._decode_s: float | None = None
        self._ended = self._untrusted = False

    def __iter__(self) -> Iterator[Packet[VideoStream] | None]:
        while self._ahead or self._read():
            packet, stamp_s = self._ahead.popleft()
            if stamp_s is None or self._untrusted or not self.wanted_s:
                if stamp_s is not None:
                    self._sent_s.add(stamp_s)
                if self._left_out is not None and packet.is_keyframe:
                    self._left_out(bytes(packet))  # which may say how those after it are to be read
                yield packet
            elif self._useless(packet, stamp_s):
                self.num_left_out += 1
                continue
            else:
                self._sent_s.add(stamp_s)
                yield packet
            if self.wanted_s and not self._untrusted and self._has_all():
                self._complete_for = self.wanted_s
                yield None
                return

    @property
    def stopped(self) -> bool:
        """Whether nothing else will come: all that was wanted then has gone out."""
        return self._complete_for is not None

    @property
    def complete(self) -> bool:
        """Whether all that is wanted now has gone out, and nothing else will come."""
        return self._complete_for is self.wanted_s

    def shown_s(self, time_s: float) -> float | None:
        """The time of the picture that is shown at `time_s`; None where that is not known yet."""
        before = bisect_right(self._seen_s, time_s + SAME_S)
        if before == 0 or self._untrusted or not self._knows_up_to(time_s + SAME_S):
            return None
        return self._seen_s[before - 1]

    def can_go(self, packet: Packet[VideoStream]) -> bool:
        """Whether no other picture needs this one. The mark of a corrupt one says that more than itself may be lost."""
        return self._left_out is not None and not packet.is_corrupt and self._left_out(bytes(packet))

    def _useless(self, packet: Packet[VideoStream], stamp_s: float) -> bool:
        """Whether no other picture needs this one, and it is shown at no wanted moment."""
        if not self.can_go(packet):
            return False
        place = bisect_left(self.wanted_s, stamp_s - SAME_S)
        next_wanted_s = self.wanted_s[place] if place < len(self.wanted_s) else float("inf")
        if next_wanted_s < float("inf"):
            # Not wanted when another picture takes its place before the next wanted moment.
            while not self._next_is_known(stamp_s) and self._read():
                pass
            following = bisect_right(self._seen_s, stamp_s)
            if following == len(self._seen_s) or self._seen_s[following] > next_wanted_s:
                return False
        return not self._untrusted

    def _next_is_known(self, stamp_s: float) -> bool:
        following = bisect_right(self._seen_s, stamp_s)
        return following < len(self._seen_s) and self._knows_up_to(self._seen_s[following])

    def _has_all(self) -> bool:
        last_s = self.wanted_s[-1] + SAME_S
        while not self._knows_up_to(last_s):
            if not self._read():
                return False
        if self._ended:  # which empties the decoder by itself, and whether it came too early is not judged here
            return False
        shown_s = {self.shown_s(time_s) for time_s in self.wanted_s}
        return None not in shown_s and shown_s <= self._sent_s

    def _knows_up_to(self, time_s: float) -> bool:
        """Whether every picture shown up to `time_s` has been seen: none is shown before it is decoded."""
        return self._ended or (self._decode_s is not None and self._decode_s > time_s)

    def _read(self) -> bool:
        """One more packet into the row of those that wait; False where there is none, or the row is long enough."""
        if len(self._ahead) >= MOST_AHEAD or self._ended:
            return False
        packet = next(self._packets, None)
        if packet is None:
            self._ended = True
            return False
        stamp_s = None if packet.pts is None else packet.pts * self._tick_s
        self._ahead.append((packet, stamp_s))
        if packet.size == 0:
            self._ended = True  # the container's own sign of the end
        elif stamp_s is None or (packet.dts is not None and packet.dts * self._tick_s > stamp_s):
            self._untrusted = True
        else:
            insort(self._seen_s, stamp_s)
            if packet.dts is not None:  # Matroska has none on the first packets
                self._decode_s = packet.dts * self._tick_s
        return True


def left_out_test(stream: VideoStream) -> Test | None:
    """The test for a stream's codec; None where nothing can be left out, or the stream does not say how to tell."""
    context = stream.codec_context
    extradata = bytes(context.extradata or b"")
    if context.name == "h264":
        length = _h264_length_bytes(extradata)
        return lambda data: _h264_unused(data, length)
    if context.name == "hevc":
        length = (extradata[21] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 21 else 0
        layers = _hevc_layers(extradata, length)
        return None if layers is None else lambda data: _hevc_unused(data, length, layers)
    if context.name in {"av1", "libdav1d"}:
        return _Av1Test(extradata[4:])
    if context.name == "mpeg4":
        return _mpeg4_unused
    return _mpeg2_unused if context.name in {"mpeg1video", "mpeg2video"} else None


def begins_open(stream: VideoStream, data: bytes) -> bool:
    """Return whether a key frame of H.264 is no instant refresh, so that pictures behind it may still speak of ones before it."""
    context = stream.codec_context
    if context.name != "h264":
        return False
    length = _h264_length_bytes(bytes(context.extradata or b""))
    return all(not unit or unit[0] & 31 != H264_REFRESH for unit in _units(data, length))


def _h264_length_bytes(extradata: bytes) -> int:
    return (extradata[4] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 4 else 0


def _units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """The first bytes of each NAL unit, behind lengths of so many bytes, or behind start codes (0)."""
    if not length_bytes:
        place = data.find(START_CODE)
        while place >= 0:
            yield data[place + 3 : place + 8]
            place = data.find(START_CODE, place + 3)
        return
    place = 0
    while place + length_bytes < len(data):
        start = place + length_bytes
        yield data[start : start + 5]
        place = start + int.from_bytes(data[place:start], "big")


def _h264_unused(data: bytes, length_bytes: int) -> bool:
    slices = 0
    for unit in _units(data, length_bytes):
        kind = unit[0] & 31 if unit else 0
        if kind == H264_SLICE and not unit[0] >> 5 & 3:
            slices += 1
        elif kind not in H264_BESIDE:
            return False
    return slices > 0


def _hevc_layers(extradata: bytes, length_bytes: int) -> int | None:
    """How many temporal layers the stream has, from its configuration record or its parameters; None where not said."""
    if length_bytes:
        return extradata[21] >> 3 & 7 or None
    found = [
        unit[2] for unit in _units(extradata, 0) if len(unit) > 2 and unit[0] >> 1 & 63 == HEVC_FIRST_PARAMETERS + 1
    ]
    return (found[0] >> 1 & 7) + 1 if found else None


def _hevc_unused(data: bytes, length_bytes: int, layers: int) -> bool:
    slices = 0
    for unit in _units(data, length_bytes):
        if len(unit) < 2:
            return False
        kind, layer = unit[0] >> 1 & 63, unit[1] & 7
        # Types below 16 with an even number are not referred to within their layer: the highest has none above it.
        if kind < 16 and kind % 2 == 0 and layer >= layers:
            slices += 1
        elif kind not in HEVC_BESIDE:
            return False
    return slices > 0


def _mpeg4_unused(data: bytes) -> bool:
    kinds = [unit[1] >> 6 for unit in _units(data, 0) if len(unit) > 1 and unit[0] == 0xB6]
    headers = any(unit and 0x20 <= unit[0] < 0x30 for unit in _units(data, 0))
    return kinds == [2] and not headers  # two pictures in a packet: a B-picture with the one it builds on


def _mpeg2_unused(data: bytes) -> bool:
    units = [unit for unit in _units(data, 0) if unit]
    kinds = {unit[2] >> 3 & 7 for unit in units if unit[0] == 0 and len(unit) > 2}
    return kinds == {3} and not any(unit[0] in {0xB3, 0xB8} for unit in units)


class _Bits:
    """Bits of bytes, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._value >> self._left & (1 << count) - 1


class _Av1Test:
    """The test for AV1; how frame headers are laid out it takes from the last sequence header it has met."""

    def __init__(self, first_units: bytes) -> None:
        self.readable = False
        self(first_units)

    def __call__(self, data: bytes) -> bool:
        """Whether a temporal unit holds nothing but frames that refresh no reference."""
        frames = others = 0
        try:
            for kind, payload in _av1_units(data):
                if kind == AV1_SEQUENCE:
                    self._read_sequence(_Bits(payload))
                if kind in {AV1_FRAME, AV1_FRAME_HEADER}:
                    others += not self.readable or self._refreshes(_Bits(payload[:16]))
                    frames += 1
                else:
                    others += kind not in {AV1_DELIMITER, AV1_TILES, AV1_METADATA}
        except EOFError:
            return False
        return frames > 0 and not others

    def _read_sequence(self, bits: _Bits) -> None:
        """AV1 specification, 5.5.1."""
        bits.take(4)  # profile, still picture
        is_still, is_timed, is_delayed, points = bits.take(1), bits.take(1), bits.take(1), bits.take(5)
        self.readable = not (is_still or is_timed or points)  # the others are rare, and their headers longer
        if not self.readable:
            return
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if is_delayed and bits.take(1):
            bits.take(4)
        width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
        bits.take(width_bits + height_bits)
        self.id_bits = 0
        if bits.take(1):
            smaller = bits.take(4) + 2
            self.id_bits = bits.take(3) + smaller + 1
        bits.take(3 + 4)  # tools that frame headers do not mention
        order_hint = bits.take(1)
        if order_hint:
            bits.take(2)
        self.screen_content = SELECT if bits.take(1) else bits.take(1)
        self.integer_vectors = SELECT
        if self.screen_content and not bits.take(1):
            self.integer_vectors = bits.take(1)
        self.order_bits = bits.take(3) + 1 if order_hint else 0

    def _refreshes(self, bits: _Bits) -> bool:
        """AV1 specification, 5.9.2."""
        shows_another, kind, shown = bits.take(1), bits.take(2), bits.take(1)
        if shows_another or kind != 1 or not shown:  # only shown inter frames can go
            return True
        resilient = bits.take(1)
        bits.take(1)
        screen_content = bits.take(1) if self.screen_content == SELECT else self.screen_content
        if screen_content and self.integer_vectors == SELECT:
            bits.take(1)
        bits.take(self.id_bits + 1 + self.order_bits)
        if not resilient:
            bits.take(3)
        return bits.take(8) != 0


def _av1_units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and payload of each unit (AV1 specification, 5.3)."""
    place = 0
    while place < len(data):
        header = data[place]
        place += 2 if header & 4 else 1
        size, shift = len(data) - place, 0
        if header & 2:
            size = 0
            while True:
                if place >= len(data):
                    raise EOFError
                byte = data[place]
                size |= (byte & 127) << shift
                place, shift = place + 1, shift + 7
                if not byte & 128:
                    break
        yield header >> 3 & 15, data[place : place + size]
        place += size
