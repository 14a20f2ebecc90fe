"""A ring of the last packets of a source, from a key frame on, with the times of their pictures on the stream's clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

from fewframes.video.decode.packets import SAME_S
from fewframes.video.recording.packets import VIDEO, SourceStreams, StoredPacket


class PacketRing:
    """The last packets of a stretch of a source in which nothing jumps: its clock, and the size of its pictures.

    It begins with a key frame. The oldest packets are forgotten, up to the next key frame each time.
    """

    def __init__(self, streams: SourceStreams) -> None:
        """Begin a ring.

        Args:
            streams: The parameters of the source's streams.
        """
        self.streams = streams
        self.offset_s: float | None = None
        """The difference of the stream's clock to the source's, in seconds; None before the first picture."""
        self.is_over = False
        """True if no packet will follow."""
        self.num_bytes = 0
        self.known_to = -1
        """The number of the last packet that is known to belong to this stretch, because a picture came out of the decoder."""
        self._packets: deque[StoredPacket] = deque()
        self._keys: deque[StoredPacket] = deque()
        self._newest_s = Fraction(0)

    def append(self, packet: StoredPacket) -> None:
        """Add a packet. Packets before the first key frame are of no use, and are left out."""
        is_key = packet.stream == VIDEO and packet.is_key
        if not self._keys and not is_key:
            return
        self._packets.append(packet)
        self.num_bytes += len(packet.content)
        if is_key:
            self._keys.append(packet)
        if packet.stream == VIDEO:
            self._newest_s = packet.dts * self.streams.ticks_s[VIDEO]

    def split(self, number: int) -> PacketRing:
        """Move the packets from a number on to a new ring, and return that. This ring is over."""
        rest: list[StoredPacket] = []
        while self._packets and self._packets[-1].number >= number:
            rest.append(self._packets.pop())
        self.num_bytes -= sum(len(packet.content) for packet in rest)
        last = next((packet for packet in reversed(self._packets) if packet.stream == VIDEO), None)
        self._newest_s = Fraction(0) if last is None else last.dts * self.streams.ticks_s[VIDEO]
        while self._keys and self._keys[-1].number >= number:
            self._keys.pop()
        self.end()
        following = PacketRing(self.streams)
        for packet in reversed(rest):
            following.append(packet)
        return following

    def end(self) -> None:
        """Let no packet follow. All that are here belong together."""
        self.is_over = True
        if self._packets:
            self.known_to = self._packets[-1].number

    def trim(self, most_s: float, needed_from: float) -> None:
        """Forget packets before the last key frame that is older than `most_s`, as seen from the newest packet.

        Packets of the number `needed_from` and later are kept in any case.
        """
        tick_s = self.streams.ticks_s[VIDEO]
        while (
            len(self._keys) > 1
            and self._keys[1].number <= needed_from
            and self._newest_s - self._keys[1].dts * tick_s >= most_s
        ):
            self.forget_oldest()

    def forget_oldest(self) -> None:
        """Forget the oldest key frame and what follows it up to the next one, or everything if there is no other."""
        self._keys.popleft()
        first = self._keys[0].number if self._keys else None
        while self._packets and (first is None or self._packets[0].number < first):
            self.num_bytes -= len(self._packets.popleft().content)

    def __len__(self) -> int:
        return len(self._packets)

    @property
    def first_number(self) -> int | None:
        """Return the number of the oldest packet, which is a key frame; None if there is none."""
        return self._packets[0].number if self._packets else None

    @property
    def start_s(self) -> float | None:
        """Return the time of the oldest picture on the stream's clock; None if it is not known."""
        return self.time_s(self._packets[0]) if self._packets and self.offset_s is not None else None

    @property
    def end_s(self) -> float | None:
        """Return the time at which the newest packet is decoded on the stream's clock; None if it is not known."""
        return None if self.offset_s is None else float(self._newest_s) + self.offset_s

    def time_s(self, packet: StoredPacket, *, decoded: bool = False) -> float:
        """Return when a packet is shown, or decoded, in seconds on the stream's clock."""
        assert self.offset_s is not None
        ticks = packet.dts if decoded else packet.pts
        return ticks * float(self.streams.ticks_s[packet.stream]) + self.offset_s

    def key_before(self, time_s: float) -> StoredPacket | None:
        """Return the last key frame that is shown at a time or before, else the first one; None if there is none at all."""
        earlier = [key for key in self._keys if self.time_s(key) <= time_s + SAME_S]
        return earlier[-1] if earlier else next(iter(self._keys), None)

    def known_from(self, number: int) -> Iterator[StoredPacket]:
        """Yield the packets from a number on that are known to belong to this stretch."""
        num_newer = next(
            (index for index, packet in enumerate(reversed(self._packets)) if packet.number < number),
            len(self._packets),
        )
        for packet in islice(self._packets, len(self._packets) - num_newer, None):
            if packet.number > self.known_to:
                return
            yield packet
