"""Copies of a source's packets and of the parameters of its streams, which outlive the source."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from fewframes.errors import VideoError
from fewframes.video.decode.container import DECODE_CLOCK

VIDEO, SOUND = 0, 1
"""The indices of the streams that are kept."""
UNCOMPRESSED = "rawvideo"
MOST_REORDERED = 17
"""The most pictures by which a packet is decoded before it is shown, and one more."""
PLAYED_EVERYWHERE, TAKES_ALL = "mp4", "matroska"
"""FFmpeg's names of the containers of clips: the one that browsers play, and the one for codecs that it does not take."""
SUFFIXES = {PLAYED_EVERYWHERE: ".mp4", TAKES_ALL: ".mkv"}


@dataclass(frozen=True, slots=True, eq=False)
class StoredPacket:
    """A copy of a packet, with its times in ticks of its stream."""

    number: int
    """The number of the packet since the source was opened."""
    content: bytes
    stream: int
    """VIDEO or SOUND."""
    pts: int
    dts: int
    duration: int
    is_key: bool


class SourceStreams:
    """The parameters of the streams that are kept of a source: its video, and its sound if clips can hold it."""

    def __init__(self, container: InputContainer, video: VideoStream) -> None:
        """Copy the parameters. Raises VideoError, with the reason, where clips cannot be cut out of this source.

        Args:
            container: The open source.
            video: Its video stream.
        """
        name = video.codec_context.name
        if name == UNCOMPRESSED:
            raise VideoError("its pictures are not compressed; take a camera that gives H.264 or MJPEG")
        if container.format.name in DECODE_CLOCK and video.codec_context.has_b_frames:
            raise VideoError(
                f"{container.format.name.upper()} does not say when B-pictures are shown; take MP4, Matroska or MPEG-TS"
            )
        self._holder = _parameters(TAKES_ALL)
        played = _parameters(PLAYED_EVERYWHERE)
        self.format = PLAYED_EVERYWHERE if name in played.supported_codecs else TAKES_ALL
        self.by_decoding = container.format.name in DECODE_CLOCK
        """True if the time of a picture is that of its decoding."""
        self.left_out = ""
        """The codec of sound that clips cannot hold; empty if there is none."""
        sound = container.streams.best("audio")
        kept: list[Stream] = [video]
        if sound is not None:
            if takes(self.format, [video, sound]):
                kept.append(sound)
            else:
                self.left_out = sound.codec_context.name if sound.codec_context is not None else "that codec"
        if len(kept) == 1 and not takes(self.format, [video]):
            raise VideoError(f"clips cannot hold {name}; take a camera that gives H.264 or MJPEG")
        self.indices = {one.index: number for number, one in enumerate(kept)}
        """VIDEO and SOUND by the index of a stream in the source."""
        self.wanted = tuple(kept)
        """The streams of the open source whose packets are kept. They are of no use after it was closed."""
        self._copies: list[Any] = [self._holder.add_stream_from_template(one, opaque=True) for one in kept]
        self.ticks_s = [one.time_base or Fraction(1, 1000) for one in kept]
        """The unit of each stream's times, in seconds."""

    def release(self) -> None:
        """Forget the streams of the open source."""
        self.wanted = ()

    @property
    def suffix(self) -> str:
        """Return the ending of the name of a clip."""
        return SUFFIXES[self.format]

    def stored(self, packet: Packet[Any], number: int, last_dts: int | None) -> StoredPacket | None:
        """Return a copy of a packet; None for one without content, of another stream, or without a time.

        Args:
            packet: The packet.
            number: Its number.
            last_dts: The time of decoding of its stream's packet before; None for the first one.
        """
        stream = self.indices.get(packet.stream_index)
        if stream is None or not packet.size:
            return None
        pts = packet.dts if self.by_decoding else packet.pts
        if pts is None:
            return None
        dts = packet.dts
        if dts is None:  # the first packets of Matroska have no time of decoding
            dts = pts - MOST_REORDERED * max(1, packet.duration or 0) if last_dts is None else last_dts + 1
        return StoredPacket(number, bytes(packet), stream, pts, dts, packet.duration or 0, packet.is_keyframe)

    def add_to(self, container: OutputContainer) -> list[Any]:
        """Add streams of these parameters to a container that is written. Return them."""
        return [container.add_stream_from_template(copy, opaque=True) for copy in self._copies]


def takes(form: str, streams: Sequence[Stream]) -> bool:
    """Return True if a container of this format begins with such streams."""
    trial = _parameters(form)
    try:
        for stream in streams:
            trial.add_stream_from_template(stream, opaque=True)
        trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    finally:
        trial.close()
    return True


def _parameters(form: str) -> OutputContainer:
    """Return a container that is never written. It holds parameters of streams, and knows the codecs of its format."""
    return av.open(io.BytesIO(), "w", format=form)
