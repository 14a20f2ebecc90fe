"""Damage in a stream of packets: which decoded pictures are built on it.

Pictures leave a decoder in the order of showing, errors in the order of decoding: a key frame may come out after the error of a
packet behind it. So each picture is held against the packets up to its own in the order of decoding, from the last clean entry on.
FFmpeg hands the mark of a packet on to its frame. It does so for one thread only here: PyAV takes marks back under Python's lock,
for which a decoder's threads must not wait while they are being ended.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

WHOLE = frozenset({PictureType.I, PictureType.NONE})
"""Kinds of pictures that nothing is needed for; a key frame of another kind refreshes the picture by and by."""


KINDS_UNSAID = frozenset({"svq1"})
"""Decoders that say of no picture that it is a key frame, but do say its kind; those that say neither call all kinds NONE."""


class _Place:
    """A packet in the order of decoding: its number, when its picture is shown, in ticks, and whether the container calls it a key
    frame."""

    def __init__(self, number: int, stamp: int | None, *, is_key: bool = False) -> None:
        self.number, self.stamp, self.is_key = number, stamp, is_key
        self.has_frame = False


class Damage:
    """What went wrong with the packets of a decoder with one thread, since it began at a key frame."""

    def __init__(self, codec: str) -> None:
        """`codec` is FFmpeg's name of the decoder."""
        self.num_packets = 0
        self._is_unsaid = codec in KINDS_UNSAID
        self._last = self._first = _Place(0, None)
        self._entries: list[_Place] = []
        self._bad: list[_Place] = []

    def add(self, packet: Packet[VideoStream], stamp: int | None) -> None:
        """Note the packet that is decoded next."""
        self._last = _Place(self.num_packets, stamp, is_key=bool(packet.is_keyframe))
        if self.num_packets == 0:
            self._first = self._last
            self._entries.append(self._last)  # until its picture shows otherwise
        packet.opaque = self._last
        self.num_packets += 1
        if packet.is_corrupt:
            self.blame()

    def blame(self) -> None:
        """Note that the last packet could not be decoded, or not all of it."""
        self._blame(self._last)

    def taints(self, frame: VideoFrame) -> bool:
        """Whether a frame that came out is damaged, or built on what is."""
        place = frame.opaque if isinstance(frame.opaque, _Place) else self._last
        place.has_frame = True
        if not (self._bad or place is self._first or frame.is_corrupt or frame.key_frame or place.is_key):
            return False  # almost always: this is asked of every frame
        is_unsaid = self._is_unsaid or frame.pict_type == PictureType.NONE  # then the container's word counts
        is_entry = (frame.key_frame or (is_unsaid and place.is_key)) and frame.pict_type in WHOLE
        if frame.is_corrupt or (place is self._first and not is_entry):
            self._blame(place)
        # Without stamps nothing says where in time decoding goes on after a loss.
        is_clean = place not in self._bad and (place.stamp is not None or not self._bad)
        if is_entry and is_clean and place is not self._first:
            insort(self._entries, place, key=_number)
        entry = self._entries[bisect_right(self._entries, place.number, key=_number) - 1]
        since = self._bad[bisect_left(self._bad, entry.number, key=_number) :]
        return any(bad.number <= place.number and not _leads(bad, entry) for bad in since)

    @property
    def lost_start(self) -> bool:
        """Whether no picture came of the first packet, and something went wrong."""
        return bool(self._bad) and not self._first.has_frame

    @property
    def start(self) -> int | None:
        """When the picture of the first packet is shown, in ticks."""
        return self._first.stamp

    def lost(self, after: float, up_to: float) -> bool:
        """Whether a picture that should be shown later than the one time and not later than the other, in ticks, did not come."""
        return any(bad.stamp is not None and after < bad.stamp <= up_to and not bad.has_frame for bad in self._bad)

    def _blame(self, place: _Place) -> None:
        if place not in self._bad:
            insort(self._bad, place, key=_number)


def _number(place: _Place) -> int:
    return place.number


def _leads(place: _Place, entry: _Place) -> bool:
    """Whether a picture is shown before the entry point that it is decoded after: nothing that is shown later builds on it."""
    return place.stamp is not None and entry.stamp is not None and place.stamp < entry.stamp
