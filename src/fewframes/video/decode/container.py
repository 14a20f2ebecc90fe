"""Open a file that holds a video, choose its video stream, and read what the container says of it. Nothing is decoded.

Containers differ in what they know: where key frames are, how long the pictures last, whether the header can be believed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import IO, cast

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from fewframes.core.text import count_of
from fewframes.errors import TooLarge, VideoError
from fewframes.video.decode.gifs import is_cut
from fewframes.video.decode.opening import in_its_words, open_alone, other_streams, video_of
from fewframes.video.decode.unreadable import looks_like, why_unreadable
from fewframes.video.pictures.display import check_pixels

log = logging.getLogger("fewframes")

MAX_PIXELS = 16384 * 8640
"""The most pixels of a frame. It leaves room for 16K, and refuses a header that asks for terabytes."""
CODED_FACTOR, CODED_PIXELS = 1.25, 2**16
"""The factor and the pixels by which a decoder's pictures may be larger than shown, because they are coded in whole blocks."""
LISTED_AT_THE_END = "matroska,webm"
"""The container whose list of key frames stands at its end, where FFmpeg reads it only after a jump."""
SCAN_LIMIT_BYTES = 64 * 2**20
"""The largest size of a file whose packets are listed where its header does not say how long the pictures last."""
LOOSE_END_S = 1.0
"""The seconds by which the pictures may end before the whole file, which is not cut short then. Sound often ends later."""
SCANNED_END_S = 0.25
"""The seconds that stand in for `LOOSE_END_S` where all packets were listed, those of the sound too."""
JOINED_AS_THEY_ARE = frozenset({"mpegts"})
"""Containers whose header tells the length, but of a file put together from several only that of one: the clock is looked at."""
MOST_BACK_S = 0.5
"""The seconds by which times of decoding may go back before they count as another clock; smaller ones are mistakes of writers."""
END_NOT_LENGTH = frozenset({"matroska,webm", "flv"})
"""Containers whose header gives the time at which the last picture ends, where others give the length of the file."""
STILL_KINDS = frozenset({"heic", "heix", "mif1", "avif"})
"""Brands of MP4 files that hold a photograph. Phones cut it into tiles, and FFmpeg takes each tile for a video."""
NOT_VIDEO = frozenset({"tty", "lrc", "srt", "ass", "webvtt", "microdvd", "subviewer"})
"""Formats that FFmpeg takes plain text for."""
GIF_END = b"\x00;"
"""The last bytes of a GIF as most writers leave it. A GIF that ends otherwise is read to its end (gifs.py)."""

READ_ERRORS = (FFmpegError, IndexError)
"""The errors that end reading early. PyAV 18 raises IndexError at the end of a file in which a new stream turned up midway."""
DECODE_ERRORS = (FFmpegError, ValueError)
"""The errors for a packet that cannot be decoded. PyAV 19 raises ValueError where the decoder could not be opened before."""
FROM_THE_START = frozenset({"mpeg"})
"""Containers with a time on some packets only. After a jump the times of the others would be guesses; the length is one too."""
BLOCK_BYTES = 2**17
"""The number of bytes of a remote file that are fetched at once: enough for some frames, so that little is fetched in vain."""
DECODE_CLOCK = frozenset({"avi"})
"""Containers without presentation times. Their frames are shown in the order and at the pace of decoding."""


@dataclass(frozen=True)
class Limits:
    """The limits of what is decoded.

    The header is checked before anything is decoded. What comes out is checked as well, because a header may lie.
    """

    max_pixels: int = MAX_PIXELS
    """The most pixels of a frame."""
    max_s: float = math.inf
    """The most seconds of a video."""

    @property
    def coded_pixels(self) -> int:
        """Return the most pixels that a decoder may allocate for a frame, should the size of the video change midway."""
        return int(self.max_pixels * CODED_FACTOR) + CODED_PIXELS

    def check_size(self, name: str, width_px: int, height_px: int) -> None:
        """Raise TooLarge if frames of this size are above the limit."""
        check_pixels(name, width_px, height_px, self.max_pixels)

    def check_length(self, name: str, duration_s: float) -> None:
        """Raise TooLarge if a video of this length is above the limit."""
        if duration_s > self.max_s:
            raise TooLarge(f"{name}: {duration_s:.1f} s long; the limit is {self.max_s:g} s; cut it")


NO_LIMITS = Limits()


@dataclass(frozen=True)
class ContainerIndex:
    """The key frames and the end of a video by its packets or its header, in seconds on the container's clock."""

    origin_s: float
    """The time at which the first picture is shown, as far as it was known when this index was made."""
    key_times_s: list[float] | None
    """The times of the key frames, ascending; None if they are not known."""
    end_s: float
    """The time at which the last picture ends."""
    tolerance_s: float
    """The seconds by which the pictures may end before `end_s`, while the file does not count as cut short."""
    by_decoding: bool = False
    """True if `key_times_s` says when key frames are decoded. The first time is right even so; the other key frames may be shown
    somewhat later."""
    has_moved: bool = False
    """True if a file that the caller opened no longer stands where it stood."""
    has_jumped: bool = False
    """True if the container no longer stands where it stood."""


@dataclass(frozen=True)
class OpenContainer:
    """An open container and its video stream."""

    container: InputContainer
    stream: VideoStream
    codec: str
    """FFmpeg's name of the decoder. PyAV 19 ends the process where a decoder that could not be opened is asked for its name."""
    is_cut: bool
    """True if an AVI is shorter than its first chunk says. Then some of its last pictures may be missing."""

    @property
    def format(self) -> str:
        """Return FFmpeg's name of the container format."""
        return self.container.format.name

    @property
    def tick_s(self) -> float:
        """Return the unit of the stream's times, in seconds."""
        return float(self.stream.time_base or Fraction(1, 1000))

    @property
    def frame_s(self) -> float:
        """Return how long a picture is shown where it does not say so itself, in seconds."""
        return float(1 / (self.stream.average_rate or self.stream.guessed_rate or Fraction(25)))


class VideoFile:
    """A video file, by path or opened by the caller, that can be opened again and again."""

    def __init__(
        self,
        file: str | IO[bytes],
        name: str,
        size_bytes: int,
        *,
        is_far: bool = False,
        limits: Limits = NO_LIMITS,
    ) -> None:
        """Note a path or an open binary file, and what messages call it. As little as possible is read of one that `is_far`."""
        self.file, self.name, self.size_bytes, self.is_far = file, name, size_bytes, is_far
        self.limits = limits

    def open(self) -> OpenContainer:
        """Open the file from its start.

        Raises VideoError if it holds no video that can be decoded here, TooLarge if its header is above the limits.
        """
        if not isinstance(self.file, str):
            self.file.seek(0)
        try:
            container = open_alone(self.file)
        except (FFmpegError, ValueError) as error:
            known = why_unreadable(self._bytes, self.size_bytes, self.name)
            about = f"{looks_like(self._bytes, self.size_bytes)}; {in_its_words(error)}"
            raise VideoError(
                f"{self.name}: {known}" if known else f"{self.name}: not a video that FFmpeg can read ({about})"
            ) from None
        try:
            stream = self._video_stream(container)
            return OpenContainer(container, stream, stream.codec_context.name, self._is_cut_avi(container.format.name))
        except VideoError:
            container.close()
            raise

    def _video_stream(self, container: InputContainer) -> VideoStream:
        """Return the video stream of a container. Raises as `open`."""
        if container.format.name in NOT_VIDEO:
            known = why_unreadable(self._bytes, self.size_bytes, self.name)
            raise VideoError(f"{self.name}: not a video but {known or looks_like(self._bytes, self.size_bytes)}")
        stream = video_of(container)
        if stream is None:
            if known := why_unreadable(self._bytes, self.size_bytes, self.name):
                raise VideoError(f"{self.name}: {known}")
            found = [count_of(len(kind), what) for what, kind in other_streams(container) if kind] or ["nothing"]
            raise VideoError(f"{self.name}: no video stream (found: {', '.join(found)}); pass a file with pictures")
        if container.format.name == "gif" and self._is_cut_gif():
            raise VideoError(f"{self.name}: cut short (a GIF that ends within a picture); copy the file again")
        context = stream.codec_context
        if context is None:
            raise VideoError(
                f"{self.name}: FFmpeg has no decoder for its video here; re-encode it, for example to H.264"
            )
        contexts = [one.codec_context for one in container.streams.video if one.codec_context is not None]
        tiles = [one for one in contexts if (one.width, one.height) == (context.width, context.height)]
        if len(tiles) > 1 and container.metadata.get("major_brand", "").strip() in STILL_KINDS:
            raise VideoError(
                f"{self.name}: a photograph in {len(tiles)} tiles, which are not joined here; save it as JPEG or PNG"
            )
        self.limits.check_size(self.name, context.width, context.height)
        if container.duration:
            self.limits.check_length(self.name, container.duration / av.time_base)
        return stream

    def _bytes(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes of the file from `offset` on."""
        with nullcontext(self.file) if not isinstance(self.file, str) else open(self.file, "rb") as file:
            position = file.tell()  # an open container goes on reading from here
            file.seek(offset)
            content = file.read(size)
            file.seek(position)
            return content

    def _is_cut_gif(self) -> bool:
        """Return whether a GIF ends within a picture."""
        if self._bytes(self.size_bytes - 2, 2) == GIF_END:
            return False  # so that a remote file need not be fetched
        with nullcontext(self.file) if not isinstance(self.file, str) else open(self.file, "rb") as file:
            position = file.tell()
            cut = is_cut(file)
            file.seek(position)
            return cut

    def index(self, opened: OpenContainer, origin_s: float) -> ContainerIndex:
        """Find the key frames and the end of the video, from the header or by listing all packets.

        Args:
            opened: the open container.
            origin_s: when the first picture is shown, in seconds on the container's clock.

        Raises:
            VideoError: if the file is found to be cut short.
        """
        header_s = _header_end_s(opened, origin_s)
        if header_s is not None:
            keys_s = _listed_key_times(opened.stream, opened.tick_s, origin_s)
            is_listed = opened.format in JOINED_AS_THEY_ARE and not self.is_far and self.size_bytes <= SCAN_LIMIT_BYTES
            if is_listed:
                self._check_clock(self._listing(opened, origin_s), origin_s)
            return ContainerIndex(
                origin_s, keys_s, header_s, 2 * opened.frame_s + 0.1, by_decoding=True, has_jumped=is_listed
            )
        whole_end_s = opened.container.duration / av.time_base if opened.container.duration else None
        if whole_end_s is not None and opened.format not in END_NOT_LENGTH:
            whole_end_s += origin_s
        if whole_end_s is not None and self.is_far:
            return ContainerIndex(
                origin_s, _key_times_after_jump(opened, origin_s), whole_end_s, LOOSE_END_S, has_jumped=True
            )
        has_jumped = opened.format == LISTED_AT_THE_END
        if has_jumped:
            keys_s, found = self._after_last_key(opened, origin_s, whole_end_s)
            if found is not None:
                return replace(self._index_of(found, keys_s, origin_s, whole_end_s), has_jumped=True)
        if whole_end_s is not None and self.size_bytes > SCAN_LIMIT_BYTES:
            return ContainerIndex(origin_s, None, whole_end_s, LOOSE_END_S, has_jumped=has_jumped)
        again = self.open()  # a second container, so that the first one does not jump
        with closing(again.container):
            found = self._listing(again, origin_s)
        index = self._index_of(found, found.keys_s, origin_s, whole_end_s)
        return replace(index, has_moved=True, has_jumped=has_jumped)

    def jumps_for_index(self, opened: OpenContainer) -> bool:
        """Return whether `early_index` is worth it: a jump would empty the decoder, and the first picture be decoded twice."""
        return opened.format == LISTED_AT_THE_END and not self.is_far

    def early_index(self, opened: OpenContainer) -> ContainerIndex | None:
        """Return the index as `index` does, before anything is decoded, and leave the container at its start, a key frame.

        Returns None where the start is unusual, or something fails. The container stands anywhere then.
        """
        try:
            first = self._packet_at(opened, None)
            if first is None or not first.is_keyframe or first.pts is None:
                return None
            index = self.index(opened, first.pts * opened.tick_s)
            if index.has_moved and not isinstance(self.file, str):
                return None
            again = self._packet_at(opened, first.pts)
            if again is None or (again.pos, again.pts, again.size) != (first.pos, first.pts, first.size):
                return None
            opened.container.seek(first.pts, stream=opened.stream)
        except (VideoError, *READ_ERRORS) as error:  # what follows will tell
            log.debug("%s: no index before the first picture: %s", self.name, error)
            return None
        return replace(index, has_jumped=False)

    def _packet_at(self, opened: OpenContainer, stamp: int | None) -> Packet[VideoStream] | None:
        """Return the first packet of the stream from where the container stands, or after a jump to `stamp`, in ticks."""
        if stamp is not None:
            opened.container.seek(stamp, stream=opened.stream)
        with closing(packets_of(opened.container, opened.stream)) as packets:
            return next(packets, None)

    def _is_cut_avi(self, format_name: str) -> bool:
        """Return whether an AVI is shorter than its first chunk says."""
        return format_name == "avi" and int.from_bytes(self._bytes(4, 4), "little") + 8 > self.size_bytes

    def _index_of(
        self, found: _Listing, keys_s: list[float], origin_s: float, announced_end_s: float | None
    ) -> ContainerIndex:
        """Return what listed packets say of the video.

        Args:
            found: all packets, or those after the last key frame.
            keys_s: the times of all key frames.
            origin_s: when the first picture is shown, in seconds on the container's clock.
            announced_end_s: when the file ends by its header; None if the header does not say it.

        Raises:
            VideoError: if the packets end before the file should.
        """
        self._check_clock(found, origin_s)
        if found.end_s <= origin_s:  # a raw stream has no times at all, so its packets are counted
            end_s = origin_s + found.num_packets * found.frame_s
            return ContainerIndex(origin_s, None, end_s, LOOSE_END_S)
        if announced_end_s is not None and found.whole_end_s < announced_end_s - SCANNED_END_S:
            raise cut_short(self.name, found.end_s - origin_s, announced_end_s - origin_s)
        return ContainerIndex(origin_s, sorted(keys_s), found.end_s, 2 * found.tick_s)

    def _check_clock(self, found: _Listing, origin_s: float) -> None:
        if found.back_s is not None:
            raise goes_back(self.name, found.back_s - origin_s)

    def _after_last_key(
        self, opened: OpenContainer, origin_s: float, announced_end_s: float | None
    ) -> tuple[list[float], _Listing | None]:
        """Return Matroska's list of key frames, and the packets from the last of them on.

        The packets are None if all must be listed instead: without a list or with a damaged one, where further key frames follow
        the last one, or where the packets end before the announced end. A subtitle that began long before may hold that end.
        """
        keys_s = _key_times_after_jump(opened, origin_s)
        if keys_s is None or len(keys_s) < 2:
            return [], None
        try:
            opened.container.seek(int(keys_s[-1] / opened.tick_s), stream=opened.stream)
        except FFmpegError as error:
            log.debug("%s: its last key frame cannot be jumped to: %s", self.name, error)
            return [], None
        found = self._listing(opened, origin_s)
        is_whole = announced_end_s is None or found.whole_end_s >= announced_end_s - SCANNED_END_S
        is_last = len(found.keys_s) <= 1
        return keys_s, found if found.end_s > origin_s and is_whole and is_last else None

    def _listing(self, opened: OpenContainer, origin_s: float) -> _Listing:
        """List the packets from where the container stands."""
        found = _Listing(origin_s, opened.frame_s, opened.tick_s)
        ticks_s = {one.index: float(one.time_base) for one in opened.container.streams if one.time_base is not None}
        try:
            for packet in opened.container.demux():
                stamp, tick_s = packet.pts if packet.pts is not None else packet.dts, ticks_s.get(packet.stream_index)
                is_picture = packet.stream_index == opened.stream.index
                found.num_packets += is_picture and packet.size > 0
                if is_picture and packet.dts is not None:
                    found.add_decoding(packet.dts * opened.tick_s)
                if stamp is not None and tick_s is not None:
                    found.add(stamp * tick_s, (packet.duration or 0) * tick_s, is_picture, packet.is_keyframe)
        except READ_ERRORS as error:
            log.debug("%s: listing its packets stopped: %s", self.name, error)
        return found


def packets_of(container: InputContainer, *streams: Stream) -> Generator[Packet[VideoStream], None, None]:
    """Return the packets of a video stream, and of others that are named after it. Close them where they are left before their end.

    PyAV's generator keeps about 150 bytes for as long as the process lives when it is only dropped.
    """
    return cast("Generator[Packet[VideoStream], None, None]", container.demux(*streams))


@dataclass
class _Listing:
    """A summary of packets, in seconds on the container's clock; packets are added as they are read."""

    end_s: float
    """The end of the last picture."""
    frame_s: float
    """The time that a picture is shown where its packet does not say so."""
    tick_s: float
    """The unit of the video stream's times."""
    whole_end_s: float = 0.0
    """The end of the last packet of any stream, sound too."""
    num_packets: int = 0
    """The number of packets of the video stream."""
    keys_s: list[float] = field(default_factory=list)
    """The times of the key frames."""
    back_s: float | None = None
    """After when the clock first goes back."""
    decoded_s: float = -math.inf

    def add_decoding(self, decode_s: float) -> None:
        """Note when a picture is decoded, which is later for each."""
        if self.back_s is None and decode_s < self.decoded_s - MOST_BACK_S:
            self.back_s = self.decoded_s
        self.decoded_s = decode_s

    def add(self, start_s: float, shown_s: float, is_picture: bool, is_key: bool) -> None:
        """Add a packet that begins at `start_s` and lasts `shown_s` (0 if it does not say so); `is_picture` if it is video."""
        self.whole_end_s = max(self.whole_end_s, start_s + shown_s)
        if is_picture:
            self.end_s = max(self.end_s, start_s + (shown_s or self.frame_s))
            if is_key:
                self.keys_s.append(start_s)


def cut_short(name: str, found_s: float, announced_s: float) -> VideoError:
    """Return the error for a video whose pictures end at `found_s` instead of `announced_s`, in seconds from its start."""
    return VideoError(
        f"{name}: its pictures end at {found_s:.2f} s of the {announced_s:.2f} s it announces: cut short or "
        f"damaged; copy it again, or use what is there with an end of {max(0.0, found_s - 0.01):.2f} s"
    )


def goes_back(name: str, after_s: float) -> VideoError:
    """Return the error for a video whose clock goes back `after_s` seconds from its start."""
    return VideoError(
        f"{name}: its times run backwards after {after_s:.2f} s (joined from parts, or damaged); write it anew, for example with "
        "ffmpeg"
    )


def _header_end_s(opened: OpenContainer, origin_s: float) -> float | None:
    """Return when the pictures end by the header; None if the header speaks of the whole file only."""
    stream = opened.stream
    if stream.duration is None or stream.duration <= 0 or opened.format in FROM_THE_START:
        return None
    start = stream.start_time
    start_s = origin_s if start is None or opened.format in DECODE_CLOCK else start * opened.tick_s
    # FFmpeg shortens the length of a cut AVI to what is there, but not the count of pictures from the header.
    counted_s = stream.frames * opened.frame_s if opened.is_cut else 0.0
    return start_s + max(stream.duration * opened.tick_s, counted_s)


def _listed_key_times(stream: VideoStream, tick_s: float, origin_s: float) -> list[float] | None:
    """Return the key frames of the container's own index; None if it has none.

    Most containers list times of decoding. The list is shifted so that its first key frame is shown at `origin_s`.
    """
    entries = stream.index_entries
    if len(entries) == 0:
        return None
    first, keys_s = entries[0].timestamp, []
    position = entries.search_timestamp(first, backward=False)
    while position >= 0:  # a search finds key frames only, and a long video has tens of thousands of other entries
        stamp = entries[position].timestamp
        keys_s.append(origin_s + (stamp - first) * tick_s)
        position = entries.search_timestamp(stamp + 1, backward=False)
    return keys_s


def _key_times_after_jump(opened: OpenContainer, origin_s: float) -> list[float] | None:
    """Return the key frames as `_listed_key_times` does, after a jump to the start.

    The jump makes FFmpeg read the list of key frames that Matroska has at its end.
    """
    with suppress(FFmpegError):
        opened.container.seek(0)
    return _listed_key_times(opened.stream, opened.tick_s, origin_s)


def check_readable(file: str | IO[bytes], name: str, size_bytes: int, limits: Limits) -> None:
    """Raise VideoError if a file holds no video, names other files to open, or is above the limits. It is left at its start."""
    VideoFile(file, name, size_bytes, limits=limits).open().container.close()
    if not isinstance(file, str):
        file.seek(0)
