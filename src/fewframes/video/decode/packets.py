"""Read the packets of a video before any is decoded: which can be left out, and where a run of wanted frames is complete.

A picture that no other picture builds on need not be decoded unless it is itself wanted. Most codecs say of each picture whether
any other builds on it (codecs/unused.py). AV1 says on which others it builds (codecs/av1.py), so that of a whole run of packets
only those are decoded which the wanted frames need.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from av.packet import Packet
from av.video.stream import VideoStream

from fewframes.video.decode.codecs.av1 import Av1Headers, CodedPacket, needed
from fewframes.video.decode.codecs.unused import Test

SAME_S = 1e-6
"""The difference in seconds up to which two times are the same; containers round times to a clock tick."""
MOST_AHEAD = 32
"""The most packets that are read ahead of the decoder; no codec reorders pictures by more than 16 positions."""
MOST_CHOSEN = 256
"""The most packets of AV1 that are read ahead, and chosen from, at once. They are held in memory."""


class _Read(NamedTuple):
    """A packet that was read and not given out yet."""

    packet: Packet[VideoStream]
    stamp_s: float | None
    """The time at which its picture is shown."""
    coded: CodedPacket | None = None
    """The frames in it, where they are known."""


class Feed:
    """An iterator over the packets that a decoder needs for the wanted timestamps, from where the container stands.

    Packets come in the order of decoding. Once all that is wanted has gone out, `None` follows and ends the iteration: it makes
    the decoder give its last frames, and nothing more is decoded.

    `wanted_s` are ascending timestamps on the container's clock, between which no jump is worth it. Where it is empty, all
    packets come. If a packet does not say when its picture is shown, or says a time before that of its decoding, all packets
    come from there on.
    """

    def __init__(
        self,
        packets: Iterator[Packet[VideoStream]],
        tick_s: float,
        left_out: Test | None = None,
        headers: Av1Headers | None = None,
    ) -> None:
        """Begin at the next packet.

        Args:
            packets: the packets of the stream.
            tick_s: the unit of their times, in seconds.
            left_out: the test for packets that no other packet needs; None where none can be left out.
            headers: the headers of an AV1 stream.
        """
        self.wanted_s: Sequence[float] = ()
        self.num_left_out = 0
        self._packets, self._tick_s, self._left_out, self._headers = packets, tick_s, left_out, headers
        self._most_ahead = MOST_AHEAD if headers is None else MOST_CHOSEN
        self._ahead: deque[_Read] = deque()
        """The packets that were read and not given out yet."""
        self._num_chosen = 0
        """The number of the first of them from which frames that nothing needs are cut out already."""
        self._chosen_for: Sequence[float] | None = None
        """The value of `wanted_s` for which frames were cut out; others may need these."""
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
            if self._num_chosen == 0 and self._headers is not None and self.wanted_s:
                self._choose()
                continue
            packet, stamp_s, _ = self._ahead.popleft()
            self._num_chosen = max(0, self._num_chosen - 1)
            if self._left_out is not None and stamp_s is not None and self._useless(packet, stamp_s, self._left_out):
                self.num_left_out += 1
                continue
            if stamp_s is not None:
                self._sent_s.add(stamp_s)
            yield packet
            if self.wanted_s and not self._untrusted and self._has_all():
                self._complete_for = self.wanted_s
                yield None
                return

    @property
    def is_for_others(self) -> bool:
        """Return whether what comes next does not suffice for the timestamps that are wanted now, but did for earlier ones."""
        return any(one is not None and one is not self.wanted_s for one in (self._complete_for, self._chosen_for))

    @property
    def complete(self) -> bool:
        """Return whether the iteration has ended because all that is wanted now has gone out."""
        return self._complete_for is self.wanted_s

    @property
    def last_s(self) -> float:
        """Return the latest time at which a picture of the packets is shown, if frames were cut out of them; else minus infinity.

        Decoded pictures may end before it, and nothing is missing.
        """
        return self._seen_s[-1] if self._chosen_for is not None else -math.inf

    def shown_s(self, time_s: float) -> float | None:
        """Return when the picture that is shown at `time_s` begins to be shown; None where that is not known yet."""
        before = bisect_right(self._seen_s, time_s + SAME_S)
        if before == 0 or self._untrusted or not self._knows_up_to(time_s + SAME_S):
            return None
        return self._seen_s[before - 1]

    def _choose(self) -> None:
        """Cut out of the next packets of AV1 what no wanted frame needs: up to the last wanted one, or the most that are held."""
        last_s = self.wanted_s[-1] + SAME_S
        while not self._knows_up_to(last_s) and self._read():
            pass
        reads = list(self._ahead)
        self._num_chosen = len(reads)
        if self._untrusted:
            return
        indices = [bisect_right(self._seen_s, time_s + SAME_S) - 1 for time_s in self.wanted_s]
        shown_s = {self._seen_s[index] for index in indices if index >= 0}
        kept = needed(
            [one.coded for one in reads],
            [one.stamp_s in shown_s for one in reads],
            is_end=self._knows_up_to(last_s),
        )
        self._ahead.clear()
        for read, data in zip(reads, kept, strict=True):
            if read.coded is None or data is read.coded.data:
                self._ahead.append(read)
            elif data is not None:
                self._ahead.append(read._replace(packet=_with_bytes(read.packet, data)))
                self._chosen_for = self.wanted_s
            else:
                self.num_left_out += 1
                self._chosen_for = self.wanted_s
        self._num_chosen = len(self._ahead)

    def _useless(self, packet: Packet[VideoStream], stamp_s: float, unused: Test) -> bool:
        """Return whether no other picture needs that of this packet, and it is shown at no wanted timestamp."""
        # A packet marked as corrupt stays, because the mark says that more than itself may be lost.
        if self._untrusted or not self.wanted_s or packet.is_corrupt or not unused(bytes(packet)):
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
        if len(self._ahead) >= self._most_ahead or self._ended:
            return False
        packet = next(self._packets, None)
        if packet is None:
            self._ended = True
            return False
        stamp_s = None if packet.pts is None else packet.pts * self._tick_s
        coded = None if self._headers is None else self._headers.read(bytes(packet))
        if packet.is_corrupt or packet.size == 0 or not self._seen_s:
            coded = None  # more than the packet may be lost; it empties the decoder; decoding begins with it
        self._ahead.append(_Read(packet, stamp_s, coded))
        if packet.size == 0:
            self._ended = True  # PyAV gives an empty packet at the end
        elif stamp_s is None or (packet.dts is not None and packet.dts * self._tick_s > stamp_s):
            self._untrusted = True
        else:
            insort(self._seen_s, stamp_s)
            if packet.dts is not None:  # the first packets of Matroska have no decoding time
                self._decode_s = packet.dts * self._tick_s
        return True


def _with_bytes(packet: Packet[VideoStream], data: bytes) -> Packet[VideoStream]:
    """Return a packet with other bytes and the same times."""
    fresh = cast("Packet[VideoStream]", Packet(data))
    fresh.pts, fresh.dts, fresh.duration, fresh.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    fresh.stream, fresh.is_keyframe = packet.stream, packet.is_keyframe
    return fresh
