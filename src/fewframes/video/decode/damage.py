"""Find the decoded pictures that build on damaged packets.

Pictures leave a decoder in the order of showing, errors in the order of decoding: a key frame may come out after the error of a
packet behind it. So each picture is compared with the packets up to its own in the order of decoding, from the last clean entry
point on. FFmpeg copies the mark of a packet (`opaque`) to its frame. Here it does so with one thread only, because PyAV takes marks
back under Python's lock, and a decoder's threads must not wait for that lock while they are being ended.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

WHOLE = frozenset({PictureType.I, PictureType.NONE})
"""Types of pictures that need no other picture. A key frame of another type refreshes the picture bit by bit."""

KINDS_UNSAID = frozenset({"svq1"})
"""Decoders that mark no picture as a key frame, but do say its type. Decoders that say neither call every type NONE."""


class _PacketRecord:
    """The record of a packet: its number in the order of decoding, when its picture is shown (`stamp`, in ticks; None if unknown),
    whether the container calls it a key frame, and whether its picture has come out.
    """

    __slots__ = ("has_frame", "is_key", "number", "stamp")  # one is made for each packet

    def __init__(self, number: int, stamp: int | None, *, is_key: bool = False) -> None:
        self.number, self.stamp, self.is_key = number, stamp, is_key
        self.has_frame = False


class Damage:
    """The damage in the packets of a decoder with one thread, since it began at a key frame."""

    def __init__(self, codec: str) -> None:
        """Begin with no packet; `codec` is FFmpeg's name of the decoder."""
        self.num_packets = 0
        self._is_unsaid = codec in KINDS_UNSAID
        self._last = self._first = _PacketRecord(0, None)
        self._entries: list[_PacketRecord] = []
        """The clean entry points: key frames at which damage before them ends."""
        self._bad: list[_PacketRecord] = []
        """The damaged packets."""

    def add(self, packet: Packet[VideoStream], stamp: int | None) -> None:
        """Note the packet that is decoded next, whose picture is shown at `stamp`, in ticks."""
        self._last = _PacketRecord(self.num_packets, stamp, is_key=bool(packet.is_keyframe))
        if self.num_packets == 0:
            self._first = self._last
            self._entries.append(self._last)  # it counts as clean until its picture shows otherwise
        packet.opaque = self._last
        self.num_packets += 1
        if packet.is_corrupt:
            self.blame()

    def blame(self) -> None:
        """Note that the last packet could not be decoded, or not all of it."""
        self._blame(self._last)

    def taints(self, frame: VideoFrame) -> bool:
        """Return whether a frame that came out is damaged, or builds on a damaged one."""
        mark = frame.opaque
        record = mark if isinstance(mark, _PacketRecord) else self._last
        record.has_frame = True
        if not (self._bad or record is self._first or frame.is_corrupt or frame.key_frame or record.is_key):
            return False  # a short cut for nearly every frame of a sound video
        # Where the decoder does not say what is a key frame, the container's word counts.
        is_unsaid = self._is_unsaid or frame.pict_type == PictureType.NONE
        is_entry = is_whole(frame) or (is_unsaid and record.is_key and frame.pict_type in WHOLE)
        if frame.is_corrupt or (record is self._first and not is_entry):
            self._blame(record)
        # Without a stamp, nothing says where in time decoding goes on after a loss.
        is_clean = record not in self._bad and (record.stamp is not None or not self._bad)
        if is_entry and is_clean and record is not self._first:
            insort(self._entries, record, key=_number)
        entry = self._entries[bisect_right(self._entries, record.number, key=_number) - 1]
        since = self._bad[bisect_left(self._bad, entry.number, key=_number) :]
        return any(bad.number <= record.number and not _leads(bad, entry) for bad in since)

    @property
    def lost_start(self) -> bool:
        """Return whether the first packet gave no picture, and some packet was damaged."""
        return bool(self._bad) and not self._first.has_frame

    @property
    def start(self) -> int | None:
        """Return when the picture of the first packet is shown, in ticks; None if it is not known."""
        return self._first.stamp

    def lost(self, after: float, up_to: float) -> bool:
        """Return whether a picture is missing that should be shown later than `after` and not later than `up_to`, in ticks."""
        return any(bad.stamp is not None and after < bad.stamp <= up_to and not bad.has_frame for bad in self._bad)

    def _blame(self, record: _PacketRecord) -> None:
        """Note a damaged packet."""
        if record not in self._bad:
            insort(self._bad, record, key=_number)


def is_whole(frame: VideoFrame) -> bool:
    """Return whether a frame is a key frame that builds on no other picture."""
    return bool(frame.key_frame) and frame.pict_type in WHOLE


def _number(record: _PacketRecord) -> int:
    return record.number


def _leads(record: _PacketRecord, entry: _PacketRecord) -> bool:
    """Return whether a picture is decoded after an entry point but shown before it.

    No picture that is shown after the entry point builds on such a picture.
    """
    return record.stamp is not None and entry.stamp is not None and record.stamp < entry.stamp
