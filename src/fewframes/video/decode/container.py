"""A file with a video in it: opened, its video stream chosen, and what its index says; nothing is decoded.

Containers differ in what they know: where key frames are, how long the pictures last, whether the header can be believed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import IO, Any, cast

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from fewframes.errors import TooLarge, VideoError
from fewframes.video.decode.gifs import is_cut
from fewframes.video.decode.unreadable import looks_like, why_unreadable
from fewframes.video.pictures.display import check_pixels

log = logging.getLogger("fewframes")

MAX_PIXELS = 16384 * 8640
"""Pixels per frame above which a file is refused: room for 16K, not for a header that asks for terabytes."""
CODED_SHARE, CODED_PIXELS = 1.25, 2**16
"""How much larger than shown a decoder's pictures may be: they are coded in whole blocks."""
LISTED_AT_THE_END = "matroska,webm"
"""The container with a list of its key frames that is only read after a jump."""
SCAN_LIMIT_BYTES = 64 * 2**20
"""Up to this size, a file whose header does not say how long its pictures last has its packets listed."""
LOOSE_END_S = 1.0
"""How much earlier than the whole file its pictures may end before it counts as cut short: sound often ends later."""
SCANNED_END_S = 0.25
"""The same where all packets, sound too, were listed."""
JOINED_AS_THEY_ARE = frozenset({"mpegts"})
"""Containers whose header tells the length, but of a file put together from several only that of one: the clock is looked at."""
MOST_BACK_S = 0.5
"""How far times of decoding may go back before it is another clock: writers' mistakes of some pictures are passed over here."""
END_NOT_LENGTH = frozenset({"matroska,webm", "flv"})
"""Containers whose header has the end of the last picture where others have how long the whole file lasts."""
STILL_KINDS = frozenset({"heic", "heix", "mif1", "avif"})
"""What an MP4 calls itself that holds a photograph: phones cut it into tiles, which FFmpeg takes for as many videos."""
NOT_VIDEO = frozenset({"tty", "lrc", "srt", "ass", "webvtt", "microdvd", "subviewer"})
"""What FFmpeg takes plain text for."""
LEADING_ELSEWHERE = frozenset("concat dash hls imf lavfi rtp rtsp sap sdp vobsub webm_dash_manifest".split())
"""Formats that open what a file names: other files, addresses, the network."""
SELF_CONTAINED = ",".join(sorted(av.formats_available - LEADING_ELSEWHERE))
"""The others, as FFmpeg takes them."""
GIF_END = b"\x00;"
"""The last bytes of a GIF as most writers leave it; others are read for it (gifs.py)."""

READ_ERRORS = (FFmpegError, IndexError)
"""What ends reading early; PyAV 18 raises IndexError at the end of a file in which a new stream turned up midway."""
FROM_THE_START = frozenset({"mpeg"})
"""Containers with a time on some packets only: after a jump the others' would be guesses, and their length is one."""
DECODE_CLOCK = frozenset({"avi"})
"""Containers without presentation times: their frames are shown in the order and at the pace of decoding."""


@dataclass(frozen=True)
class Limits:
    """What is decoded at most: pixels of a frame, and seconds of a video. By the header before anything is decoded, and by what
    comes out of it, for a header may lie."""

    max_pixels: int = MAX_PIXELS
    max_s: float = math.inf

    @property
    def coded_pixels(self) -> int:
        """What a decoder may be asked for, where a video's size changes midway."""
        return int(self.max_pixels * CODED_SHARE) + CODED_PIXELS

    def check_size(self, name: str, width_px: int, height_px: int) -> None:
        """Raise TooLarge for larger frames."""
        check_pixels(name, width_px, height_px, self.max_pixels)

    def check_length(self, name: str, duration_s: float) -> None:
        """TooLarge for a longer video."""
        if duration_s > self.max_s:
            raise TooLarge(f"{name}: {duration_s:.1f} s long; the limit is {self.max_s:g} s; cut it")


NO_LIMITS = Limits()


@dataclass(frozen=True)
class ContainerIndex:
    """What the packets or the header say, in seconds on the container's clock."""

    key_times_s: list[float] | None
    """Key frames, ascending; None when not known."""
    end_s: float
    """When the last picture ends."""
    slack_s: float
    """How much earlier the pictures may end and the file still count as whole."""
    by_decoding: bool = False
    """Whether key frames stand there with the times at which they are decoded: the first one's is right, the others may be shown
    somewhat later."""
    has_moved: bool = False
    """Whether a file that the caller opened no longer stands where it stood."""
    has_jumped: bool = False
    """Whether the container stands somewhere else than before."""


@dataclass(frozen=True)
class OpenContainer:
    """A container at the start of its file, and its video stream."""

    container: InputContainer
    stream: VideoStream
    is_cut: bool
    """Whether an AVI is shorter than its first chunk says: its last pictures may lack some between them."""

    @property
    def format(self) -> str:
        """FFmpeg's name of the container."""
        return self.container.format.name

    @property
    def tick_s(self) -> float:
        """What the stream counts time in, in seconds."""
        return float(self.stream.time_base or Fraction(1, 1000))

    @property
    def frame_s(self) -> float:
        """How long a picture is shown when nothing else is said, in seconds."""
        return float(1 / (self.stream.average_rate or self.stream.guessed_rate or Fraction(25)))


class VideoFile:
    """A file by path, or one that the caller opened; one that `is_far` is read as little of as possible."""

    def __init__(
        self,
        file: str | IO[bytes],
        name: str,
        size_bytes: int,
        *,
        is_far: bool = False,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self.file, self.name, self.size_bytes, self.is_far = file, name, size_bytes, is_far
        self.limits = limits

    def open(self) -> OpenContainer:
        """The file opened afresh. Raises VideoError where there is no video in it that can be decoded here."""
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
            return OpenContainer(container, self._video_stream(container), self._is_cut_avi(container.format.name))
        except VideoError:
            container.close()
            raise

    def _video_stream(self, container: InputContainer) -> VideoStream:
        if container.format.name in NOT_VIDEO:
            known = why_unreadable(self._bytes, self.size_bytes, self.name)
            raise VideoError(f"{self.name}: not a video but {known or looks_like(self._bytes, self.size_bytes)}")
        stream = video_of(container)
        if stream is None:
            if known := why_unreadable(self._bytes, self.size_bytes, self.name):
                raise VideoError(f"{self.name}: {known}")
            found = [f"{len(kind)} {what}" for what, kind in _other_streams(container) if kind] or ["nothing"]
            raise VideoError(f"{self.name}: no video stream (found: {', '.join(found)}); pass a file with pictures")
        if container.format.name == "gif" and self._is_cut_gif():
            raise VideoError(f"{self.name}: cut short (a GIF that ends within a picture); copy the file again")
        context = stream.codec_context
        if context is None:
            raise VideoError(
                f"{self.name}: FFmpeg here has no decoder for its video; re-encode it, to H.264 for example"
            )
        contexts = [one.codec_context for one in container.streams.video if one.codec_context is not None]
        tiles = [one for one in contexts if (one.width, one.height) == (context.width, context.height)]
        if len(tiles) > 1 and container.metadata.get("major_brand", "").strip() in STILL_KINDS:
            raise VideoError(
                f"{self.name}: a photograph in {len(tiles)} tiles, which are not put together here; save it as JPEG or PNG"
            )
        self.limits.check_size(self.name, context.width, context.height)
        if container.duration:
            self.limits.check_length(self.name, container.duration / av.time_base)
        return stream

    def _bytes(self, offset: int, size: int) -> bytes:
        """Return some bytes of the file as it is, from there on."""
        with nullcontext(self.file) if not isinstance(self.file, str) else open(self.file, "rb") as file:
            position = file.tell()  # an open container reads on from here
            file.seek(offset)
            content = file.read(size)
            file.seek(position)
            return content

    def _is_cut_gif(self) -> bool:
        if self._bytes(self.size_bytes - 2, 2) == GIF_END:
            return False  # a file elsewhere is not fetched for it
        with nullcontext(self.file) if not isinstance(self.file, str) else open(self.file, "rb") as file:
            position = file.tell()
            cut = is_cut(file)
            file.seek(position)
            return cut

    def index(self, opened: OpenContainer, origin_s: float) -> ContainerIndex:
        """Where key frames and the end are, in seconds on the container's clock, on which the first picture is shown at
        `origin_s`; from the header, or by listing all packets. Raises VideoError where the file is found cut short."""
        header_s = _header_end_s(opened, origin_s)
        if header_s is not None:
            keys_s = _listed_key_times(opened.stream, opened.tick_s, origin_s)
            is_listed = opened.format in JOINED_AS_THEY_ARE and not self.is_far and self.size_bytes <= SCAN_LIMIT_BYTES
            if is_listed:
                self._check_clock(self._listing(opened, origin_s), origin_s)
            return ContainerIndex(keys_s, header_s, 2 * opened.frame_s + 0.1, by_decoding=True, has_jumped=is_listed)
        whole_end_s = opened.container.duration / av.time_base if opened.container.duration else None
        if whole_end_s is not None and opened.format not in END_NOT_LENGTH:
            whole_end_s += origin_s
        if whole_end_s is not None and self.is_far:
            return ContainerIndex(_key_times_after_jump(opened, origin_s), whole_end_s, LOOSE_END_S, has_jumped=True)
        has_jumped = opened.format == LISTED_AT_THE_END
        if has_jumped:
            keys_s, found = self._after_last_key(opened, origin_s, whole_end_s)
            if found is not None:
                return replace(self._index_of(found, keys_s, origin_s, whole_end_s), has_jumped=True)
        if whole_end_s is not None and self.size_bytes > SCAN_LIMIT_BYTES:
            return ContainerIndex(None, whole_end_s, LOOSE_END_S, has_jumped=has_jumped)
        again = self.open()
        with closing(again.container):
            found = self._listing(again, origin_s)
        index = self._index_of(found, found.keys_s, origin_s, whole_end_s)
        return replace(index, has_moved=True, has_jumped=has_jumped)

    def _is_cut_avi(self, format_name: str) -> bool:
        return format_name == "avi" and int.from_bytes(self._bytes(4, 4), "little") + 8 > self.size_bytes

    def _index_of(
        self, found: _Listing, keys_s: list[float], origin_s: float, announced_end_s: float | None
    ) -> ContainerIndex:
        """What packets say of the file: all of them, or those after the last key frame. Raises as `index`."""
        self._check_clock(found, origin_s)
        if found.end_s <= origin_s:  # a raw stream: no times at all, so packets are counted
            end_s = origin_s + found.num_packets * found.frame_s
            return ContainerIndex(None, end_s, LOOSE_END_S)
        if announced_end_s is not None and found.whole_end_s < announced_end_s - SCANNED_END_S:
            raise cut_short(self.name, found.end_s - origin_s, announced_end_s - origin_s)
        return ContainerIndex(sorted(keys_s), found.end_s, 2 * found.tick_s)

    def _check_clock(self, found: _Listing, origin_s: float) -> None:
        if found.back_s is not None:
            raise goes_back(self.name, found.back_s - origin_s)

    def _after_last_key(
        self, opened: OpenContainer, origin_s: float, announced_end_s: float | None
    ) -> tuple[list[float], _Listing | None]:
        """Matroska's list of key frames, and the packets after the last of them; None where there is no list, or it is damaged,
        or what follows says that all packets must be looked at: more key frames, or an end before the announced one (which the
        packets of a subtitle may hold that began long before)."""
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
        """What the packets say from where the container stands."""
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


def packets_of(container: InputContainer, stream: VideoStream) -> Generator[Packet[VideoStream], None, None]:
    """Return the packets of a stream. Close them where they are left before their end.

    PyAV's generator keeps about 150 bytes for as long as the process lives when it is only dropped.
    """
    return cast("Generator[Packet[VideoStream], None, None]", container.demux(stream))


@dataclass
class _Listing:
    """What packets say, as they come: key frames, when the last picture ends, and when the last of pictures and sound."""

    end_s: float
    frame_s: float
    tick_s: float
    whole_end_s: float = 0.0
    num_packets: int = 0
    keys_s: list[float] = field(default_factory=list)
    back_s: float | None = None
    """After when the clock first goes back."""
    decoded_s: float = -math.inf

    def add_decoding(self, decode_s: float) -> None:
        """Note when a picture is decoded, which is later for each."""
        if self.back_s is None and decode_s < self.decoded_s - MOST_BACK_S:
            self.back_s = self.decoded_s
        self.decoded_s = decode_s

    def add(self, start_s: float, shown_s: float, is_picture: bool, is_key: bool) -> None:
        self.whole_end_s = max(self.whole_end_s, start_s + shown_s)
        if is_picture:
            self.end_s = max(self.end_s, start_s + (shown_s or self.frame_s))
            if is_key:
                self.keys_s.append(start_s)


def cut_short(name: str, found_s: float, announced_s: float) -> VideoError:
    """What to say of a video whose pictures end too early, in seconds from its start."""
    return VideoError(
        f"{name}: its pictures end at {found_s:.2f} s of the {announced_s:.2f} s it announces: cut short or "
        f"damaged; copy it again, or use what is there with an end of {max(0.0, found_s - 0.01):.2f} s"
    )


def goes_back(name: str, after_s: float) -> VideoError:
    """What to say of a video whose clock goes back, after so many seconds from its start."""
    return VideoError(
        f"{name}: its times run backwards after {after_s:.2f} s (joined from parts, or damaged); write it anew, for example with "
        "ffmpeg"
    )


def _header_end_s(opened: OpenContainer, origin_s: float) -> float | None:
    """When the pictures end by the header, where it tells of the pictures and not only of the whole file."""
    stream = opened.stream
    if stream.duration is None or stream.duration <= 0 or opened.format in FROM_THE_START:
        return None
    start = stream.start_time
    start_s = origin_s if start is None or opened.format in DECODE_CLOCK else start * opened.tick_s
    # Of an AVI that was cut FFmpeg shortens the length to what is there, but not the count in its header.
    counted_s = stream.frames * opened.frame_s if opened.is_cut else 0.0
    return start_s + max(stream.duration * opened.tick_s, counted_s)


def _listed_key_times(stream: VideoStream, tick_s: float, origin_s: float) -> list[float] | None:
    """Key frames by the container's own index, moved to the clock of presentation; None when it has none."""
    entries = stream.index_entries
    if len(entries) == 0:
        return None
    first, keys_s = entries[0].timestamp, []
    place = entries.search_timestamp(first, backward=False)
    while place >= 0:  # from key frame to key frame: a long video has tens of thousands of other entries
        stamp = entries[place].timestamp
        keys_s.append(origin_s + (stamp - first) * tick_s)
        place = entries.search_timestamp(stamp + 1, backward=False)
    return keys_s


def _key_times_after_jump(opened: OpenContainer, origin_s: float) -> list[float] | None:
    """As `_listed_key_times`; a jump makes FFmpeg read the list of key frames that Matroska has at its end."""
    with suppress(FFmpegError):
        opened.container.seek(0)
    return _listed_key_times(opened.stream, opened.tick_s, origin_s)


def _other_streams(container: InputContainer) -> list[tuple[str, tuple[object, ...]]]:
    streams = container.streams
    return [
        ("audio streams", tuple(streams.audio)),
        ("cover pictures", tuple(streams.video)),
        ("subtitle streams", tuple(streams.subtitles)),
        ("data streams", tuple(streams.data)),
    ]


def check_readable(file: str | IO[bytes], name: str, size_bytes: int, limits: Limits) -> None:
    """Raise VideoError where a file holds no video, leads to others, or is above the limits."""
    VideoFile(file, name, size_bytes, limits=limits).open().container.close()
    if not isinstance(file, str):
        file.seek(0)


def open_alone(
    file: str | IO[bytes] | Any, options: dict[str, str] | None = None, buffer_size: int = 32768
) -> InputContainer:
    """Open a path, or an open file, and nothing that it names: no playlist leads on, no name is an address or a pattern.

    Raises FFmpegError and ValueError.
    """
    is_path = isinstance(file, str)
    alone = {
        "protocol_whitelist": "file" if is_path else "none",
        "format_whitelist": SELF_CONTAINED,
        "pattern_type": "none",  # img%03d.png is that file, and not img001.png and those after it
    }
    return av.open(
        # 10:00.mp4 and concat:a|b are names of files: what follows file: is a path, as it stands there.
        f"file:{file}" if is_path else file,
        "r",
        options=alone | (options or {}),
        buffer_size=buffer_size,
        metadata_errors="replace",
    )


def video_of(container: InputContainer) -> VideoStream | None:
    """The video stream to look at: never a cover picture."""
    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in streams else next(iter(streams), None)


def in_its_words(error: Exception) -> str:
    """An error of FFmpeg or the system in its own words."""
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
