"""The decoder: a video file -> the frames shown at given moments, exactly, from as few packets as it can.

A jump to a key frame is only trusted once the key frame has been decoded and found not to lie after the wanted moment,
so that neither a container's index nor an open group of pictures can put a wrong frame in. Frames that FFmpeg marks as
damaged, or that stand between an error and the next key frame, are refused rather than returned.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import IO

import av
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor
from torch.nn import functional as F

from fewframes.clip import Clip
from fewframes.errors import VideoError
from fewframes.pictures import rgb_of_frame

log = logging.getLogger("fewframes")

MAX_PIXELS = 16384 * 8640
"""Pixels per frame above which a file is refused: room for 16K, not for a header that asks for terabytes."""
SCAN_LIMIT_BYTES = 64 * 2**20
"""Up to this size, a file whose header does not say how long its pictures last has its packets listed."""
JUMP_S = 10.0
"""Without a list of key frames, a moment this far ahead is jumped to, a nearer one decoded towards."""
SAME_S = 1e-6
"""Times nearer than this are the same: containers round theirs to a clock tick."""
LOOSE_END_S = 1.0
"""How much earlier than the whole file its pictures may end before it counts as cut short: sound often ends later."""
SCANNED_END_S = 0.25
"""The same where all packets, sound too, were listed."""
MAX_LEADING_FRAMES = 300
"""Frames before the first key frame that are passed over (a recording cut in the middle) before it is done without."""
END_NOT_LENGTH = frozenset({"matroska,webm", "flv"})
"""Containers whose header has the end of the last picture where others have how long the whole file lasts."""
DECODE_CLOCK = frozenset({"avi"})
"""Containers without presentation times: their frames are shown in the order and at the pace of decoding."""
FROM_THE_START = frozenset({"mpeg"})
"""Containers with a time on some packets only: after a jump the others' would be guesses, and their length is one."""
NOT_VIDEO = frozenset({"tty", "lrc", "srt", "ass", "webvtt", "microdvd", "subviewer"})
"""What FFmpeg takes plain text for."""

GIF_END = b"\x00;"
"""The last bytes of a GIF; its decoder does not notice when the last picture is cut."""
READ_ERRORS = (FFmpegError, IndexError)
"""What ends reading early; PyAV 18 raises IndexError at the end of a file in which a new stream turned up midway."""

Prepare = Callable[[Tensor], Tensor]
"""Applied to each full-size frame (C, H, W) as soon as it is decoded, so that full-size frames are not piled up."""


@dataclass(frozen=True)
class _Index:
    """What the packets or the header say, in seconds on the container's clock."""

    key_times_s: list[float] | None
    """Key frames, ascending; None when not known."""
    end_s: float
    """When the last picture ends."""
    slack_s: float
    """How much earlier the pictures may end and the file still count as whole."""


@dataclass(frozen=True)
class _Shown:
    """A decoded frame and the time it is shown, in seconds on the container's clock."""

    start_s: float
    end_s: float
    frame: VideoFrame
    damaged: bool


class FileVideo:
    """An open video file: its length, and the frames shown at given moments."""

    def __init__(self, file: str | IO[bytes], name: str, size_bytes: int, threads: int = 0) -> None:
        self.name = name
        self._file, self._size_bytes, self._threads = file, size_bytes, threads
        self._opened: InputContainer | None = None
        self._frames: Iterator[_Shown]
        self._current: _Shown
        self._ahead: _Shown | None
        self._index: _Index
        self._starts_whole = False
        self._num_undecodable = 0
        try:
            self._rewind()
            self._origin_s = self._current.start_s
            self._index = self._read_index()
        except BaseException:
            self.close()
            raise
        self.duration_s = self._index.end_s - self._origin_s

    def close(self) -> None:
        """Give back the file (one that the caller opened stays open)."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def frames_at(self, times_s: Tensor, prepare: Prepare | None = None) -> Clip:
        """The frames shown at these moments (T,), in any order, and when each was first shown.

        Raises VideoError when a wanted frame is damaged, or the file ends before it.
        """
        wanted_s = times_s.tolist()
        prepared: dict[float, tuple[Tensor, float]] = {}
        last: tuple[_Shown, Tensor] | None = None
        for time_s in sorted(set(wanted_s)):
            shown = self._frame_at(self._origin_s + time_s)
            if last is None or shown is not last[0]:
                if last is not None:
                    self._check_order(last[0], shown)
                rgb_CHW = rgb_of_frame(shown.frame)
                last = shown, rgb_CHW.contiguous() if prepare is None else prepare(rgb_CHW)
            prepared[time_s] = last[1], max(0.0, shown.start_s - self._origin_s)
        frames = stack_frames([prepared[time_s][0] for time_s in wanted_s])
        shown_s = torch.tensor([prepared[time_s][1] for time_s in wanted_s], dtype=torch.float64)
        return Clip(frames, shown_s, self.duration_s, self.name)

    def check(self, start_s: float, end_s: float) -> None:
        """Decode every picture that is shown between these moments.

        Raises VideoError for a damaged one, a packet that cannot be decoded, or where the file ends before.
        """
        self._frame_at(self._origin_s + start_s)
        num_before = self._num_undecodable
        while True:
            if self._ahead is None:
                self._ahead = next(self._frames, None)
            if self._ahead is None:
                self._check_end(self._origin_s + end_s)
                break
            if self._ahead.start_s > self._origin_s + end_s - SAME_S:
                break
            self._frame_at(self._ahead.start_s)
        if self._num_undecodable > num_before:
            raise VideoError(
                f"{self.name}: {self._num_undecodable - num_before} packets between {start_s:.2f} s and {end_s:.2f} s cannot "
                "be decoded; copy the file again or re-encode it"
            )

    def _frame_at(self, time_s: float) -> _Shown:
        """The frame shown at `time_s` of the container's clock."""
        if self._worth_a_jump(time_s):
            self._jump(time_s)
        while True:
            if self._ahead is None:
                self._ahead = next(self._frames, None)
            if self._ahead is None:
                self._check_end(time_s)
                break
            if self._ahead.start_s > time_s + SAME_S:
                break
            self._check_order(self._current, self._ahead)
            self._current, self._ahead = self._ahead, None
        if self._current.damaged:
            at_s = self._current.start_s - self._origin_s
            raise VideoError(
                f"{self.name}: the picture at {at_s:.2f} s is damaged; copy the file again, re-encode it, "
                "or leave that part out with a start and an end"
            )
        return self._current

    def _check_order(self, before: _Shown, after: _Shown) -> None:
        if after.start_s < before.start_s - SAME_S:
            raise VideoError(
                f"{self.name}: its times run backwards after {before.start_s - self._origin_s:.2f} s (joined from parts, "
                "or damaged); write it anew, for example with ffmpeg"
            )

    def _worth_a_jump(self, time_s: float) -> bool:
        if time_s < self._current.start_s - SAME_S:
            return True
        position_s = self._current.end_s if self._ahead is None else self._ahead.end_s
        if self._index.key_times_s is None:
            return time_s > position_s + JUMP_S
        keys_up_to = bisect_right(self._index.key_times_s, time_s + SAME_S)
        return keys_up_to > 0 and self._index.key_times_s[keys_up_to - 1] > position_s

    def _jump(self, time_s: float) -> None:
        """Go on decoding at a key frame that is shown at or before `time_s`."""
        back_s = 0.0
        while time_s - back_s > self._origin_s and self._format not in FROM_THE_START:
            offset = int((time_s - back_s) / self._tick_s)
            try:
                self._container.seek(offset, stream=self._stream)
            except FFmpegError:
                break  # a stream that cannot be entered in the middle
            self._frames = self._decode(from_start=False)
            for shown in self._frames:
                if shown.start_s > time_s + SAME_S:
                    break
                if shown.frame.key_frame:
                    self._current, self._ahead = shown, None
                    return
            back_s = 2 * back_s or 1.0
        self._rewind()

    def _rewind(self) -> None:
        """Open the file (again) and decode its first sound picture.

        In a recording that was cut, pictures before the first key frame lack what they build on and are passed over.
        """
        self._frames = self._open()
        for _, shown in zip(range(MAX_LEADING_FRAMES), self._frames, strict=False):
            if shown.frame.key_frame or (self._starts_whole and not shown.damaged):
                break
        else:
            self._frames = self._open()
            first = next(self._frames, None)
            if first is None:
                raise VideoError(
                    f"{self.name}: its video stream ({self._stream.codec_context.name}) holds no picture that can be "
                    "decoded; copy the file again or re-encode it"
                )
            shown = first
        self._current, self._ahead = shown, None

    def _open(self) -> Iterator[_Shown]:
        self.close()
        self._container, self._stream = self._open_container()
        self._opened = self._container
        self._format = self._container.format.name
        self._is_cut = self._is_cut_avi()
        time_base = self._stream.time_base or Fraction(1, 1000)
        self._tick_s = float(time_base)
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self._frame_s = float(1 / rate)
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = self._threads
        # Pictures that FFmpeg would patch up (greying, smearing, holding back) are errors here.
        self._stream.codec_context.options = {"err_detect": "explode"}
        return self._decode(from_start=True)

    def _open_container(self) -> tuple[InputContainer, VideoStream]:
        """A fresh container at the start of the file, and its video stream."""
        if not isinstance(self._file, str):
            self._file.seek(0)
        try:
            container = av.open(self._file, "r", metadata_errors="replace")
        except (FFmpegError, ValueError) as error:
            raise VideoError(
                f"{self.name}: not a video that FFmpeg can read ({self._looks_like()}; {_short(error)})"
            ) from None
        try:
            return container, self._video_stream(container)
        except VideoError:
            container.close()
            raise

    def _video_stream(self, container: InputContainer) -> VideoStream:
        if container.format.name in NOT_VIDEO:
            raise VideoError(f"{self.name}: not a video but {self._looks_like()}")
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            found = [f"{len(kind)} {what}" for what, kind in _other_streams(container) if kind] or ["nothing"]
            raise VideoError(f"{self.name}: no video stream (found: {', '.join(found)}); pass a file with pictures")
        best = container.streams.best("video")
        stream = best if best in streams else streams[0]
        if container.format.name == "gif" and self._bytes(-2, os.SEEK_END, 2) != GIF_END:
            raise VideoError(f"{self.name}: cut short (a GIF without its end mark); copy the file again")
        context = stream.codec_context
        if context is None:
            raise VideoError(
                f"{self.name}: FFmpeg here has no decoder for its video; re-encode it, to H.264 for example"
            )
        if context.width * context.height > MAX_PIXELS:
            raise VideoError(
                f"{self.name}: frames of {context.width}x{context.height} px; the limit is {MAX_PIXELS / 1e6:.0f} "
                "million pixels; scale the video down"
            )
        return stream

    def _bytes(self, offset: int, whence: int, size: int) -> bytes:
        """Some bytes of the file as it is."""
        with nullcontext(self._file) if not isinstance(self._file, str) else open(self._file, "rb") as file:
            position = file.tell()  # an open container reads on from here
            file.seek(offset, whence)
            content = file.read(size)
            file.seek(position)
            return content

    def _looks_like(self) -> str:
        start = self._bytes(0, os.SEEK_SET, 64)
        text = start.decode("utf-8", errors="replace")
        readable = sum(character.isprintable() or character.isspace() for character in text) > 0.95 * len(text)
        kind = "text" if readable and "\ufffd" not in text[:-1] else "data"
        return f"{self._size_bytes} bytes of {kind} that begin {start[:16]!r}"

    def _decode(self, *, from_start: bool) -> Iterator[_Shown]:
        """Frames in the order of showing, from where the container stands."""
        last_s = -self._frame_s if from_start else None  # a frame without a time follows the one before it
        damaged = False
        for number, packet in enumerate(self._packets()):
            if number == 0 and from_start:
                self._starts_whole = packet.is_keyframe
            try:
                frames = packet.decode()
            except FFmpegError:
                damaged = True
                self._num_undecodable += 1
                continue
            damaged = damaged or packet.is_corrupt
            for frame in frames:
                if frame.key_frame:
                    damaged = packet.is_corrupt
                time_s = self._time_of(frame, last_s)
                if time_s is None:
                    continue  # nothing says when it is shown
                damaged = damaged or (self._is_cut and frame.dts is None)
                duration_s = frame.duration * self._tick_s if frame.duration else self._frame_s
                last_s = time_s
                yield _Shown(time_s, time_s + duration_s, frame, damaged or frame.is_corrupt)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets up to the end of what can be read; an unreadable rest shows as a video that ends too early."""
        try:
            yield from self._container.demux(self._stream)
        except READ_ERRORS as error:
            log.debug("%s: reading stopped: %s", self.name, error)

    def _time_of(self, frame: VideoFrame, last_s: float | None) -> float | None:
        stamp = frame.dts if self._format in DECODE_CLOCK else frame.pts
        if stamp is None:
            return None if last_s is None else last_s + self._frame_s
        return stamp * self._tick_s

    def _read_index(self) -> _Index:
        header_s = self._header_end_s()
        if header_s is not None:
            return _Index(self._listed_key_times(), header_s, 2 * self._frame_s + 0.1)
        whole_end_s = self._container.duration / av.time_base if self._container.duration else None
        if whole_end_s is not None and self._format not in END_NOT_LENGTH:
            whole_end_s += self._origin_s
        if whole_end_s is not None and self._size_bytes > SCAN_LIMIT_BYTES:
            return _Index(None, whole_end_s, LOOSE_END_S)
        return self._scan(whole_end_s)

    def _is_cut_avi(self) -> bool:
        """Whether an AVI is shorter than its first chunk says: its last pictures may lack some between them."""
        return self._format == "avi" and int.from_bytes(self._bytes(4, os.SEEK_SET, 4), "little") + 8 > self._size_bytes

    def _header_end_s(self) -> float | None:
        """When the pictures end by the header, where it tells of the pictures and not only of the whole file."""
        if self._stream.duration is None or self._stream.duration <= 0 or self._format in FROM_THE_START:
            return None
        start = self._stream.start_time
        dts_clock = self._format in DECODE_CLOCK
        start_s = self._origin_s if start is None or dts_clock else start * self._tick_s
        # Of an AVI that was cut FFmpeg shortens the length to what is there, but not the count in its header.
        counted_s = self._stream.frames * self._frame_s if self._is_cut else 0.0
        return start_s + max(self._stream.duration * self._tick_s, counted_s)

    def _listed_key_times(self) -> list[float] | None:
        """Key frames by the container's own index, moved to the clock of presentation; None when it has none."""
        entries = list(self._stream.index_entries)
        if not entries:
            return None
        first = entries[0].timestamp
        return [self._origin_s + (entry.timestamp - first) * self._tick_s for entry in entries if entry.is_keyframe]

    def _scan(self, announced_end_s: float | None) -> _Index:
        """Key frames and end from all packets, without decoding one."""
        container, stream = self._open_container()
        keys_s: list[float] = []
        end_s, whole_end_s, num_packets = self._origin_s, 0.0, 0
        try:
            for packet in container.demux():
                stamp = packet.pts if packet.pts is not None else packet.dts
                if packet.size:
                    num_packets += packet.stream_index == stream.index
                if stamp is None or packet.time_base is None:
                    continue
                start_s = float(stamp * packet.time_base)
                whole_end_s = max(whole_end_s, start_s + float((packet.duration or 0) * packet.time_base))
                if packet.stream_index != stream.index:
                    continue
                end_s = max(end_s, start_s + (float((packet.duration or 0) * packet.time_base) or self._frame_s))
                if packet.is_keyframe:
                    keys_s.append(start_s)
        except READ_ERRORS as error:
            log.debug("%s: listing its packets stopped: %s", self.name, error)
        finally:
            container.close()
            if not isinstance(self._file, str):
                self._rewind()  # the scan moved the shared file
        if end_s <= self._origin_s:  # a raw stream: no times at all, so packets are counted
            end_s = self._origin_s + num_packets * self._frame_s
            return _Index(None, end_s, LOOSE_END_S)
        if announced_end_s is not None and whole_end_s < announced_end_s - SCANNED_END_S:
            self._raise_cut_short(end_s - self._origin_s, announced_end_s - self._origin_s)
        return _Index(sorted(keys_s), end_s, 2 * self._tick_s)

    def _check_end(self, time_s: float) -> None:
        """Raise VideoError when the file ended before the frame of `time_s` could be decoded."""
        if time_s > self._current.end_s + self._index.slack_s:
            self._raise_cut_short(self._current.end_s - self._origin_s, self.duration_s)

    def _raise_cut_short(self, found_s: float, announced_s: float) -> None:
        raise VideoError(
            f"{self.name}: its pictures end at {found_s:.2f} s of the {announced_s:.2f} s it announces: cut short or "
            f"damaged; copy it again, or use what is there with an end of {max(0.0, found_s - 0.01):.2f} s"
        )


def stack_frames(frames: list[Tensor]) -> Tensor:
    """Frames (C, H, W) as one tensor (T, C, H, W); any of another size (a stream that changes it) take the first's."""
    size = frames[0].shape[-2:]
    same = [
        frame
        if frame.shape[-2:] == size
        else F.interpolate(frame[None], size=size, mode="bilinear", antialias=True).squeeze(0)
        for frame in frames
    ]
    return torch.stack(same)


def _other_streams(container: InputContainer) -> list[tuple[str, tuple[object, ...]]]:
    streams = container.streams
    return [
        ("audio streams", tuple(streams.audio)),
        ("cover pictures", tuple(streams.video)),
        ("subtitle streams", tuple(streams.subtitles)),
        ("data streams", tuple(streams.data)),
    ]


def _short(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
