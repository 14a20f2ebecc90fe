"""Read the packets of a video before any is decoded: which can be left out, and where a run of wanted frames is complete.

A picture that no other picture builds on need not be decoded unless it is itself wanted. Codecs say so in the first bytes of
a picture: H.264 by nal_ref_idc (ITU-T H.264, 7.4.1), HEVC by its NAL unit type (ITU-T H.265, table 7-1), AV1 by refreshing
none of its references (AV1 specification, 5.9.2), MPEG-1, -2 and -4 by being a B-picture. In AV1 everything that one frame
hands to another travels in the references. VP8 and VP9 adapt their probabilities and motion vectors from every frame to the
next, so nothing can be left out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from av.packet import Packet
from av.video.stream import VideoStream

SAME_S = 1e-6
"""The difference in seconds up to which two times are the same; containers round times to a clock tick."""
MOST_AHEAD = 32
"""The most packets that are read ahead of the decoder; no codec reorders pictures by more than 16 positions."""
START_CODE = b"\x00\x00\x01"
"""The bytes that begin each unit of a stream without lengths (H.264 and HEVC in Annex B format, MPEG)."""
H264_SLICE, H264_REFRESH, H264_BESIDE = 1, 5, frozenset({6, 9, 12})
"""Types of NAL units: a slice of a picture that is no instant refresh; one of an instant refresh; information, delimiter and filler
beside them."""
HEVC_FIRST_PARAMETERS, HEVC_BESIDE = 32, frozenset({35, 38, 39, 40})
"""Types of NAL units: the video parameter set, which the sequence parameter set follows; delimiter, filler and information."""
AV1_SEQUENCE, AV1_DELIMITER, AV1_FRAME_HEADER, AV1_TILES, AV1_METADATA, AV1_FRAME = 1, 2, 3, 4, 5, 6
"""Types of open bitstream units (AV1 specification, 6.2.2)."""
AV1_HEADER_BYTES = 64
"""The bytes of a unit that are read: a sequence header and the first fields of a frame header fit into them."""
AV1_SHOWN_INTER = 0b0011
"""The first bits of the header of a frame that is new (0), predicted from others (01) and shown (1). Only such can be left out."""
SELECT = 2
"""The value in an AV1 sequence header that leaves a choice to each frame header."""

Test = Callable[[bytes], bool]
"""A function of a packet's bytes that returns whether no other picture builds on its picture."""


class Feed:
    """An iterator over the packets that a decoder needs for the wanted timestamps, from where the container stands.

    Packets come in the order of decoding. Once all that is wanted has gone out, `None` follows and ends the iteration: it makes
    the decoder give its last frames, and nothing more is decoded.

    `wanted_s` are ascending timestamps on the container's clock, between which no jump is worth it. Where it is empty, all
    packets come. If a packet does not say when its picture is shown, or says a time before that of its decoding, all packets
    come from there on.
    """

    def __init__(self, packets: Iterator[Packet[VideoStream]], tick_s: float, left_out: Test | None) -> None:
        """Begin at the next packet.

        Args:
            packets: the packets of the stream.
            tick_s: the unit of their times, in seconds.
            left_out: the test for packets that no other packet needs; None where none can be left out.
        """
        self.wanted_s: Sequence[float] = ()
        self.num_left_out = 0
        self._packets, self._tick_s, self._left_out = packets, tick_s, left_out
        self._ahead: deque[tuple[Packet[VideoStream], float | None]] = deque()
        """The packets that were read and not given out yet, each with the time at which its picture is shown."""
        self._seen_s: list[float] = []
        """The times at which the pictures of all packets read so far are shown, ascending."""
        self._sent_s: set[float] = set()
        """The times at which the pictures of the packets given out so far are shown."""
        self._complete_for: Sequence[float] | None = None
        """The value of `wanted_s` for which everything has gone out."""
        self._needed: tuple[Sequence[float], set[float]] = (), set()
        """A value of `wanted_s`, and the times at which its pictures begin to be shown, once all of them are known."""
        self._decode_s: float | None = None
        """The decoding time of the last packet read. Pictures of later packets are not shown before it."""
        self._ended = self._untrusted = False

    def __iter__(self) -> Iterator[Packet[VideoStream] | None]:
        while self._ahead or self._read():
            packet, stamp_s = self._ahead.popleft()
            if stamp_s is None or self._untrusted or not self.wanted_s:
                if stamp_s is not None:
                    self._sent_s.add(stamp_s)
                if self._left_out is not None and packet.is_keyframe:
                    self._left_out(bytes(packet))  # for AV1 the test learns from it how to read the packets that follow
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
        """Return whether the iteration has ended because all that was wanted then has gone out."""
        return self._complete_for is not None

    @property
    def complete(self) -> bool:
        """Return whether the iteration has ended because all that is wanted now has gone out."""
        return self._complete_for is self.wanted_s

    def shown_s(self, time_s: float) -> float | None:
        """Return when the picture that is shown at `time_s` begins to be shown; None where that is not known yet."""
        before = bisect_right(self._seen_s, time_s + SAME_S)
        if before == 0 or self._untrusted or not self._knows_up_to(time_s + SAME_S):
            return None
        return self._seen_s[before - 1]

    def can_go(self, packet: Packet[VideoStream]) -> bool:
        """Return whether no other picture needs that of this packet. A packet marked as corrupt stays, because the mark says
        that more than itself may be lost.
        """
        return self._left_out is not None and not packet.is_corrupt and self._left_out(bytes(packet))

    def _useless(self, packet: Packet[VideoStream], stamp_s: float) -> bool:
        """Return whether no other picture needs that of this packet, and it is shown at no wanted timestamp."""
        if not self.can_go(packet):
            return False
        index = bisect_left(self.wanted_s, stamp_s - SAME_S)
        next_wanted_s = self.wanted_s[index] if index < len(self.wanted_s) else float("inf")
        if next_wanted_s < float("inf"):
            # The picture is not wanted if another one replaces it before the next wanted timestamp.
            while not self._next_is_known(stamp_s) and self._read():
                pass
            following = bisect_right(self._seen_s, stamp_s)
            if following == len(self._seen_s) or self._seen_s[following] > next_wanted_s:
                return False
        return not self._untrusted

    def _next_is_known(self, stamp_s: float) -> bool:
        """Return whether the picture shown after `stamp_s` has been read, and no packet to come is shown before it."""
        following = bisect_right(self._seen_s, stamp_s)
        return following < len(self._seen_s) and self._knows_up_to(self._seen_s[following])

    def _has_all(self) -> bool:
        """Return whether the packets of all wanted pictures have gone out, and no other packet can belong to them."""
        last_s = self.wanted_s[-1] + SAME_S
        while (
            self._decode_s is None or self._decode_s <= last_s
        ):  # this runs for each packet, so nothing is called twice
            if not self._read():
                if self._ended:
                    break
                return False
        if self._ended:  # the end empties the decoder anyway, and `Cursor` checks whether it came too early
            return False
        if self._needed[0] is not self.wanted_s:
            shown_s = {self.shown_s(time_s) for time_s in self.wanted_s}
            needed_s = {one_s for one_s in shown_s if one_s is not None}
            if len(needed_s) < len(shown_s):
                return False
            self._needed = self.wanted_s, needed_s
        return self._needed[1] <= self._sent_s

    def _knows_up_to(self, time_s: float) -> bool:
        """Return whether all packets whose pictures are shown up to `time_s` have been read.

        This follows from the decoding time of the last packet, because no picture is shown before it is decoded.
        """
        return self._ended or (self._decode_s is not None and self._decode_s > time_s)

    def _read(self) -> bool:
        """Read one more packet ahead. Return False if there is none, or enough packets wait."""
        if len(self._ahead) >= MOST_AHEAD or self._ended:
            return False
        packet = next(self._packets, None)
        if packet is None:
            self._ended = True
            return False
        stamp_s = None if packet.pts is None else packet.pts * self._tick_s
        self._ahead.append((packet, stamp_s))
        if packet.size == 0:
            self._ended = True  # PyAV gives an empty packet at the end
        elif stamp_s is None or (packet.dts is not None and packet.dts * self._tick_s > stamp_s):
            self._untrusted = True
        else:
            insort(self._seen_s, stamp_s)
            if packet.dts is not None:  # the first packets of Matroska have no decoding time
                self._decode_s = packet.dts * self._tick_s
        return True


def left_out_test(stream: VideoStream) -> Test | None:
    """Return the test for a stream's codec.

    Returns None if nothing can be left out, or the stream's headers do not say how to tell.
    """
    context = stream.codec_context
    extradata = bytes(context.extradata or b"")
    # A configuration record begins with 1, and says by how many bytes the length of a unit is written. Without such a record
    # units are separated by start codes, which the length 0 stands for.
    if context.name == "h264":
        length = _h264_length_bytes(extradata)
        return lambda data: _h264_unused(data, length)
    if context.name == "hevc":
        length = (extradata[21] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 21 else 0
        layers = _hevc_layers(extradata, length)
        return None if layers is None else lambda data: _hevc_unused(data, length, layers)
    if context.name in {"av1", "libdav1d"}:
        return _Av1Test(extradata[4:])  # the sequence header stands behind four bytes of configuration
    if context.name == "mpeg4":
        return _mpeg4_unused
    return _mpeg2_unused if context.name in {"mpeg1video", "mpeg2video"} else None


def begins_open(stream: VideoStream, data: bytes) -> bool:
    """Return whether a key frame of H.264 is no instant refresh, so that pictures behind it may still speak of ones before it."""
    length = _h264_length_bytes(bytes(stream.codec_context.extradata or b""))
    return all(not unit or unit[0] & 31 != H264_REFRESH for unit in _units(data, length))


def _h264_length_bytes(extradata: bytes) -> int:
    return (extradata[4] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 4 else 0


def _units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yield the first five bytes of each unit of a packet.

    Args:
        data: the packet.
        length_bytes: the number of bytes in which the length before each unit is written; 0 if start codes separate units.
    """
    if not length_bytes:
        position = data.find(START_CODE)
        while position >= 0:
            yield data[position + 3 : position + 8]
            position = data.find(START_CODE, position + 3)
        return
    position = 0
    while position + length_bytes < len(data):
        start = position + length_bytes
        yield data[start : start + 5]
        position = start + int.from_bytes(data[position:start], "big")


def _h264_unused(data: bytes, length_bytes: int) -> bool:
    """Return whether an H.264 packet holds nothing but slices of a picture with nal_ref_idc 0."""
    slices = 0
    for unit in _units(data, length_bytes):
        kind = unit[0] & 31 if unit else 0
        if kind == H264_SLICE and not unit[0] >> 5 & 3:
            slices += 1
        elif kind not in H264_BESIDE:
            return False
    return slices > 0


def _hevc_layers(extradata: bytes, length_bytes: int) -> int | None:
    """Return the number of temporal layers of an HEVC stream, or None if its headers do not say it.

    Args:
        extradata: the stream's configuration record, or its parameter sets behind start codes.
        length_bytes: the number of bytes of a unit's length; 0 if there is no configuration record.
    """
    if length_bytes:
        return extradata[21] >> 3 & 7 or None
    found = [
        unit[2] for unit in _units(extradata, 0) if len(unit) > 2 and unit[0] >> 1 & 63 == HEVC_FIRST_PARAMETERS + 1
    ]
    return (found[0] >> 1 & 7) + 1 if found else None


def _hevc_unused(data: bytes, length_bytes: int, layers: int) -> bool:
    """Return whether an HEVC packet holds nothing but slices of a picture of the highest layer that no other refers to."""
    slices = 0
    for unit in _units(data, length_bytes):
        if len(unit) < 2:
            return False
        kind, layer = unit[0] >> 1 & 63, unit[1] & 7
        # Even types below 16 are not referred to within their temporal layer, and the highest layer has none above it.
        if kind < 16 and kind % 2 == 0 and layer >= layers:
            slices += 1
        elif kind not in HEVC_BESIDE:
            return False
    return slices > 0


def _mpeg4_unused(data: bytes) -> bool:
    """Return whether an MPEG-4 packet holds one B-picture and no header."""
    kinds = [unit[1] >> 6 for unit in _units(data, 0) if len(unit) > 1 and unit[0] == 0xB6]
    headers = any(unit and 0x20 <= unit[0] < 0x30 for unit in _units(data, 0))
    return kinds == [2] and not headers  # a packet with two pictures holds a B-picture and one that it builds on


def _mpeg2_unused(data: bytes) -> bool:
    """Return whether a packet of MPEG-1 or MPEG-2 holds nothing but B-pictures and no header."""
    units = [unit for unit in _units(data, 0) if unit]
    kinds = {unit[2] >> 3 & 7 for unit in units if unit[0] == 0 and len(unit) > 2}
    return kinds == {3} and not any(unit[0] in {0xB3, 0xB8} for unit in units)


class _Bits:
    """A reader of the bits of some bytes, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next `count` bits as a number. Raises EOFError where there are fewer."""
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._value >> self._left & (1 << count) - 1


class _Av1Test:
    """The test for AV1. It learns the layout of frame headers from the last sequence header that it was given."""

    def __init__(self, first_units: bytes) -> None:
        self.readable = False
        """True if a sequence header with a known layout was given."""
        self(first_units)

    def __call__(self, data: bytes) -> bool:
        """Return whether a temporal unit holds nothing but frames that refresh no reference."""
        frames = others = 0
        try:
            for kind, payload in _av1_units(data):
                if kind == AV1_SEQUENCE:
                    self._read_sequence(_Bits(payload))
                if kind in {AV1_FRAME, AV1_FRAME_HEADER}:
                    if not self.readable or not payload or self._refreshes(payload):
                        return False
                    frames += 1
                else:
                    others += kind not in {AV1_DELIMITER, AV1_TILES, AV1_METADATA}
        except EOFError:
            return False
        return frames > 0 and not others

    def _read_sequence(self, bits: _Bits) -> None:
        """Read from a sequence header how frame headers are laid out (AV1 specification, 5.5.1)."""
        bits.take(4)  # profile, still picture
        is_still, is_timed, is_delayed, points = bits.take(1), bits.take(1), bits.take(1), bits.take(5)
        self.readable = not (is_still or is_timed or points)  # other layouts are rare and longer, so they are not read
        if not self.readable:
            return
        bits.take(12)  # operating point
        if bits.take(5) > 7:  # level; above 7 its tier follows
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

    def _refreshes(self, header: bytes) -> bool:
        """Return whether a frame refreshes a reference, or may, by its header (AV1 specification, 5.9.2)."""
        if header[0] >> 4 != AV1_SHOWN_INTER:
            return True
        bits = _Bits(header[:16])
        bits.take(4)
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
    """Yield the type and the first bytes of each open bitstream unit (AV1 specification, 5.3).

    Raises EOFError where the size of a unit is cut off.
    """
    position = 0
    while position < len(data):
        header = data[position]
        position += 2 if header & 4 else 1  # a second byte names the layer
        size, shift = len(data) - position, 0
        if header & 2:  # the size follows in groups of seven bits, the lowest group first
            size = 0
            while True:
                if position >= len(data):
                    raise EOFError
                byte = data[position]
                size |= (byte & 127) << shift
                position, shift = position + 1, shift + 7
                if not byte & 128:
                    break
        yield header >> 3 & 15, data[position : position + min(size, AV1_HEADER_BYTES)]
        position += size
