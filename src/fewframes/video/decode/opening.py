"""Open a container so that it reads no other file than the one it was given."""

from __future__ import annotations

from typing import IO, Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

LEADING_ELSEWHERE = frozenset("concat dash hls imf lavfi rtp rtsp sap sdp vobsub webm_dash_manifest".split())
"""Formats whose files name other files or addresses, which FFmpeg would then open."""
SELF_CONTAINED = ",".join(sorted(av.formats_available - LEADING_ELSEWHERE))
"""All other formats, in the form of FFmpeg's option."""
UNREADABLE_WORDS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""The argument of `av.open` with which a title that is not UTF-8 is no error. PyAV 19 does without, and has no such argument."""


def other_streams(container: InputContainer) -> list[tuple[str, tuple[object, ...]]]:
    """Return the streams of a container without a video to decode, each kind with its name in the singular, for an error."""
    streams = container.streams
    return [
        ("audio stream", tuple(streams.audio)),
        ("cover picture", tuple(streams.video)),
        ("subtitle stream", tuple(streams.subtitles)),
        ("data stream", tuple(streams.data)),
    ]


def open_alone(
    file: str | IO[bytes] | Any, options: dict[str, str] | None = None, buffer_size: int = 32768
) -> InputContainer:
    """Open one file, and nothing that it names.

    A playlist opens no other files, and no name is taken for an address or a pattern.

    Args:
        file: a path, or an open binary file.
        options: further options of FFmpeg.
        buffer_size: the number of bytes that FFmpeg reads at once.

    Raises:
        FFmpegError, ValueError: if FFmpeg cannot read it.
    """
    is_path = isinstance(file, str)
    alone = {
        "protocol_whitelist": "file" if is_path else "none",
        "format_whitelist": SELF_CONTAINED,
        "pattern_type": "none",  # img%03d.png is the file of that name, not img001.png and its followers
    }
    return av.open(
        # FFmpeg takes whatever follows "file:" as a path. Without it 10:00.mp4 and concat:a|b would be taken for addresses.
        f"file:{file}" if is_path else file,
        "r",
        options=alone | (options or {}),
        buffer_size=buffer_size,
        **UNREADABLE_WORDS,
    )


def video_of(container: InputContainer) -> VideoStream | None:
    """Return the video stream to decode, or None if there is none; a cover picture is no video."""
    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in streams else next(iter(streams), None)


def in_its_words(error: Exception) -> str:
    """Return the text of an error of FFmpeg or the system, without its number or a full stop."""
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
