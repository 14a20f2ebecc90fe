"""Find the frames of an AV1 stream on which no wanted one builds, by its frame headers (AV1 specification, 5.9.2).

A decoder of AV1 keeps eight pictures in as many slots. The header of a frame names the slots that it is predicted from, and those
into which it is put. All that one frame hands to another travels in the slots: pixels, motion, probabilities, grain. So a frame is
needed only if it is wanted, or if it lies in a slot from which a needed frame is predicted.

A packet holds one frame that is shown and often some that are not shown yet. Each can be cut out of the packet by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fewframes.video.decode.codecs.bits import Bits

SEQUENCE, FRAME_HEADER, TILES, FRAME, COPIED_HEADER = 1, 3, 4, 6, 7
"""Types of open bitstream units (6.2.2)."""
KEY, INTRA_ONLY, SWITCH = 0, 2, 3
"""Types of frames (6.8.2)."""
SELECT = 2
"""The value in a sequence header that leaves a choice to each frame header."""
NUM_SLOTS, NUM_REFERENCES = 8, 7
ALL_SLOTS = 2**NUM_SLOTS - 1
HEADER_BYTES = 64
"""The bytes of a unit that are read. A sequence header fits into them, and a frame header up to its references into half."""


class CodedFrame(NamedTuple):
    """A frame in a packet: its bytes from `start` to `end`. Slots are bits of a number, slot 0 the lowest."""

    start: int
    end: int
    is_shown: bool
    put_in: int
    """The slots into which the frame is put."""
    builds_on: int
    """The slots that the frame may be predicted from; where one decoded before is shown, the slot of that."""


class CodedPacket(NamedTuple):
    """A packet: its bytes, and the frames in it."""

    data: bytes
    frames: Sequence[CodedFrame]
    is_whole: bool
    """True if the packet is always needed as it is, because parameters stand in it too."""


def needed(packets: Sequence[CodedPacket | None], wanted: Sequence[bool], *, is_end: bool) -> list[bytes | None]:
    """Return of each packet what a decoder needs for the wanted frames: its bytes without the other frames, or None.

    Args:
        packets: the packets in the order of decoding; None for one that was not understood. It counts as needed, with all that it
            may build on, although None is returned for it too.
        wanted: of each packet, whether the frame that it shows is wanted.
        is_end: whether no wanted frame follows these packets. If one may, the pictures in all slots are needed.
    """
    kept: list[bytes | None] = []
    slots = 0 if is_end else ALL_SLOTS
    for packet, is_wanted in zip(reversed(packets), reversed(wanted), strict=True):
        data: bytes | None = None
        if packet is None:
            slots = ALL_SLOTS
        else:
            slots, without = _walked_back(packet, slots, is_wanted=is_wanted)
            if packet.is_whole or len(without) < len(packet.frames):
                data = packet.data
                for frame in without:
                    data = data[: frame.start] + data[frame.end :]
        kept.append(data)
    return kept[::-1]


def _walked_back(packet: CodedPacket, slots: int, *, is_wanted: bool) -> tuple[int, list[CodedFrame]]:
    """Walk back over the frames of a packet, behind which the pictures in `slots` are needed.

    Returns the slots in which pictures are needed before it, and the frames that are not needed, the last one first.
    """
    without: list[CodedFrame] = []
    for frame in reversed(packet.frames):
        if packet.is_whole or (is_wanted and frame.is_shown) or frame.put_in & slots:
            slots = slots & ~frame.put_in | frame.builds_on
        else:
            without.append(frame)
    return slots, without


class Av1Headers:
    """The headers of an AV1 stream, read in the order of decoding.

    The layout of frame headers is learnt from the last sequence header.
    """

    def __init__(self, first_units: bytes) -> None:
        """Read the units that stand before the first packet."""
        self._is_readable = False
        """True if a sequence header with a known layout was read."""
        self._key_slots = ALL_SLOTS
        """The slots in which a key frame may lie that was not shown. When it is shown later, it is put into all slots."""
        self.read(first_units)

    def read(self, data: bytes) -> CodedPacket | None:
        """Return the frames of the next packet; None if they are not understood."""
        frames: list[CodedFrame] = []
        has_parameters = False
        try:
            for kind, start, header, end in _units(data):
                if kind == SEQUENCE:
                    self._read_sequence(Bits(data[header : header + HEADER_BYTES]))
                    has_parameters = True
                elif kind in {FRAME, FRAME_HEADER}:
                    frames.append(self._frame(Bits(data[header : min(end, header + HEADER_BYTES // 2)]), start, end))
                elif kind in {TILES, COPIED_HEADER}:  # they belong to the frame before them
                    frames[-1] = frames[-1]._replace(end=end)
        except (EOFError, IndexError, _UnknownLayout):
            self._key_slots = ALL_SLOTS
            return None
        return CodedPacket(data, frames, has_parameters)

    def _read_sequence(self, bits: Bits) -> None:
        """Read from a sequence header how frame headers are laid out (5.5.1)."""
        bits.take(4)  # profile, still picture
        is_still, is_timed, is_delayed, points = bits.take(1), bits.take(1), bits.take(1), bits.take(5)
        self._is_readable = not (
            is_still or is_timed or points
        )  # other layouts are rare and longer, so they are not read
        if not self._is_readable:
            return
        bits.take(12)  # operating point
        if bits.take(5) > 7:  # level; above 7 its tier follows
            bits.take(1)
        if is_delayed and bits.take(1):
            bits.take(4)
        width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
        bits.take(width_bits + height_bits)
        self._id_bits = self._less_bits = 0
        if bits.take(1):
            self._less_bits = bits.take(4) + 2
            self._id_bits = bits.take(3) + self._less_bits + 1
        bits.take(3 + 4)  # tools that frame headers do not mention
        has_order = bits.take(1)
        if has_order:
            bits.take(2)
        self._screen_content = SELECT if bits.take(1) else bits.take(1)
        self._integer_vectors = SELECT
        if self._screen_content and not bits.take(1):
            self._integer_vectors = bits.take(1)
        self._order_bits = bits.take(3) + 1 if has_order else 0

    def _frame(self, bits: Bits, start: int, end: int) -> CodedFrame:
        """Return the frame from `start` to `end` of a packet, by its header. Fields are read together, because many are read."""
        if not self._is_readable:
            raise _UnknownLayout
        first = bits.take(4)
        if first & 0b1000:  # it shows one that was decoded before
            slot = 1 << (first & 0b111)
            if slot & self._key_slots:
                raise _UnknownLayout
            return CodedFrame(start, end, True, 0, slot)
        kind, is_shown = first >> 1, bool(first & 1)
        is_full_reset = kind == SWITCH or (kind == KEY and is_shown)
        # A hidden frame says whether it may be shown later, and one that is no reset whether it is resilient.
        modes = bits.take((not is_shown) + (not is_full_reset) + 1)
        is_resilient = is_full_reset or bool(modes & 0b10)
        screen_content = bits.take(1) if self._screen_content == SELECT else self._screen_content
        if screen_content and self._integer_vectors == SELECT:
            bits.take(1)
        is_inter = kind not in {KEY, INTRA_ONLY}
        bits.take(self._id_bits + (kind != SWITCH) + self._order_bits + (3 if is_inter and not is_resilient else 0))
        put_in = ALL_SLOTS if is_full_reset else bits.take(NUM_SLOTS)
        self._key_slots = self._key_slots & ~put_in | (put_in if kind == KEY and not is_shown else 0)
        return CodedFrame(start, end, is_shown, put_in, self._references(bits, is_resilient) if is_inter else 0)

    def _references(self, bits: Bits, is_resilient: bool) -> int:
        """Return the slots that a frame is predicted from; the reader stands behind the slots that it is put into.

        All slots are returned where the header makes a decoder compare them, or derives the references from all of them.
        """
        if self._order_bits and (is_resilient or bits.take(1)):
            return ALL_SLOTS
        slots, width = 0, 3 + self._less_bits
        references = bits.take(NUM_REFERENCES * width)
        for shift in range(self._less_bits, NUM_REFERENCES * width, width):
            slots |= 1 << (references >> shift & 0b111)
        return slots


class _UnknownLayout(Exception):
    """A header has a layout that is not read here."""


def _units(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the type of each open bitstream unit, and where it, its payload and the next one begin (5.3).

    Raises EOFError where a unit is cut off.
    """
    position = 0
    while position < len(data):
        start, header = position, data[position]
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
        if position + size > len(data):
            raise EOFError
        yield header >> 3 & 15, start, position, position + size
        position += size
