"""Write packets as they are into a file of a clip, whose times begin at 0."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
from av.error import FFmpegError
from av.packet import Packet

from fewframes.core.files import whole
from fewframes.video.recording.packets import PLAYED_EVERYWHERE, VIDEO, SourceStreams, StoredPacket

AT_THE_FRONT = {"movflags": "faststart"}
"""The index of an MP4 stands at its front, so that a browser plays it before all of it is loaded."""


class _Abandoned(Exception):
    """The reason for which a clip is not kept."""


class ClipFile:
    """A file of a clip that is being written. Nothing stands at its path before `finish`."""

    def __init__(self, path: Path, streams: SourceStreams, key: StoredPacket) -> None:
        """Begin a file. Raises OSError and FFmpegError if it cannot be written.

        Args:
            path: The path of the file.
            streams: The parameters of the source's streams.
            key: The key frame that the clip begins with.
        """
        self._base_s = key.pts * streams.ticks_s[VIDEO]
        self._key, self._ticks_s = key, streams.ticks_s
        self.num_pictures = self.num_bytes = 0
        self.last_pts = key.pts
        """The latest time of a picture, in ticks of the source's video."""
        self._last_dts: list[int | None] = [None] * len(self._ticks_s)
        with ExitStack() as stack:
            part = stack.enter_context(whole(path))
            options = AT_THE_FRONT if streams.format == PLAYED_EVERYWHERE else {}
            self._container = stack.enter_context(av.open(str(part), "w", format=streams.format, options=options))
            self._streams = streams.add_to(self._container)
            self._stack = stack.pop_all()

    def write(self, packet: StoredPacket) -> None:
        """Write a packet. Pictures and sound of the time before the key frame are left out: nothing could be made of them."""
        base = _ticks(self._base_s, self._ticks_s[packet.stream])
        pts, dts, last_dts = packet.pts - base, packet.dts - base, self._last_dts[packet.stream]
        if pts < 0:
            return
        if last_dts is not None:  # a container takes no packet that is decoded before the one before it
            dts = max(dts, last_dts + 1)
        made = Packet(packet.content)
        made.pts, made.dts, made.duration = max(pts, dts), dts, packet.duration
        made.is_keyframe, made.time_base = packet.is_key, self._ticks_s[packet.stream]
        made.stream = self._streams[packet.stream]
        self._container.mux(made)
        self._last_dts[packet.stream] = dts
        self.num_bytes += len(packet.content)
        if packet.stream == VIDEO:
            self.num_pictures += 1
            self.last_pts = max(self.last_pts, packet.pts)

    def finish(self) -> None:
        """Write the index of the file, and put it at its path."""
        self._stack.close()

    def abandon(self) -> None:
        """Leave nothing of the file."""
        try:
            with self._stack:
                raise _Abandoned
        except (_Abandoned, OSError, FFmpegError):  # closing writes too, and fails again where the disk is full
            return


def _ticks(time_s: Fraction, tick_s: Fraction) -> int:
    """Return a time in ticks, rounded."""
    return round(time_s / tick_s)
