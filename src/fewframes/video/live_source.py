"""What a person calls a live source -> what FFmpeg opens: cameras by platform, URLs, paths, pipes."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError

from fewframes.core.storage import as_path, is_address, with_plain_scheme
from fewframes.errors import MissingVideo, VideoError
from fewframes.video.decode.container import in_its_words, open_alone, video_of
from fewframes.video.decode.unreadable import why_unreadable


class Readable(Protocol):
    """An open binary file, or anything that gives bytes."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


LiveSource = str | os.PathLike[str] | Readable
"""`camera`, `camera:1`, `camera:NAME` or /dev/video0; an rtsp, http or other URL of FFmpeg's; a path; `-`, standard input; or an
open binary file, of which only `read` is used."""
PIPE_BYTES = 4096
"""What is read of a pipe at once: waiting for more would make its pictures late."""
OPEN_S = 10.0
"""What a network has for answering, at least."""


@dataclass(frozen=True, eq=False)
class Address:
    """What FFmpeg is told to open, and what messages call it."""

    kind: Literal["camera", "network", "file", "pipe"]
    file: Any
    name: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def hint(self) -> str:
        """What may help when nothing can be decoded."""
        if self.kind != "pipe":
            return ""
        return "; a pipe needs MPEG-TS, Matroska, or MP4 with its index at the front (ffmpeg -movflags faststart)"

    @classmethod
    def of(cls, source: LiveSource) -> Address:
        """Raises MissingVideo and VideoError for a path that cannot be read."""
        if not isinstance(source, str | os.PathLike):
            return cls("pipe", Pipe(source), str(getattr(source, "name", "<pipe>")))
        text = os.fspath(source)
        if text == "-":
            if sys.stdin is None:
                raise VideoError("-: standard input is closed; pipe a video into it, or name a file, camera or address")
            # Unbuffered: a thread that waits inside a buffer holds its lock, which ends the process with an abort.
            return cls("pipe", Pipe(open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)), "<standard input>")
        if text == "camera" or (text.startswith(("camera:", "/dev/video")) and not os.path.isfile(text)):
            return cls._camera(text)
        text = as_path(text)
        if is_address(text):
            text = with_plain_scheme(text)
            try:
                parts = urlsplit(text)
            except ValueError as error:
                raise VideoError(f"{text}: no address ({error}); check it") from None
            shown = text.replace(f"{parts.username}:{parts.password}@", "***@") if parts.password else text
            options = {"rtsp_transport": "tcp"} if parts.scheme.startswith("rtsp") else {}
            return cls("network", text, shown, options=options)
        try:
            with_pipe = stat.S_ISFIFO(os.stat(text).st_mode)
            if not with_pipe:
                with open(text, "rb"):
                    pass
        except FileNotFoundError:
            raise MissingVideo(f"{text}: no such file; check the path, or name a camera:0 or a URL") from None
        except (OSError, ValueError) as error:
            raise VideoError(f"{text!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
        return cls("pipe" if with_pipe else "file", text, text)

    def open(self, silent_s: float) -> InputContainer:
        """The source opened, with a video stream in it; a network that is silent for so many seconds ends. Raises VideoError."""
        try:
            container = self._container(silent_s)
        except (FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{self.name}: {self._why_not(error)}") from None
        stream = video_of(container)
        if stream is None or stream.codec_context is None:
            container.close()
            known = self._known() or "no video stream that can be decoded here; name another source"
            raise VideoError(f"{self.name}: {known}")
        return container

    def _container(self, silent_s: float) -> InputContainer:
        if self.kind in ("file", "pipe"):
            return open_alone(self.file, self.options, PIPE_BYTES if self.kind == "pipe" else 32768)
        return av.open(
            self.file,
            "r",
            format=self.format,
            options=self.options,
            timeout=(max(silent_s, OPEN_S), silent_s) if self.kind == "network" else None,
            metadata_errors="replace",
        )

    def _why_not(self, error: Exception) -> str:
        words = in_its_words(error)
        if self.kind == "camera":
            return f"no camera can be opened there ({words}){_cameras()}"
        if known := self._known():
            return known
        if self.kind == "pipe" and isinstance(error, ArgumentError):  # its format is not among those allowed
            words = "a playlist, which opens no other files here"
        if self.kind == "network" and urlsplit(self.file).path.lower().endswith(".mpd"):
            words += "; a DASH manifest cannot be played here, name the HLS playlist (.m3u8) of the same stream"
        return f"cannot be opened as a stream ({words}){self.hint}"

    def _known(self) -> str:
        """Return what is known of a file that is no video; empty for others."""
        return why_unreadable(self._bytes, os.path.getsize(self.file), self.name) if self.kind == "file" else ""

    def _bytes(self, offset: int, size: int) -> bytes:
        with open(self.file, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def is_file_elsewhere(self, container: InputContainer) -> bool:
        """Whether what was opened is a file somewhere, with an end, and not a stream."""
        return self.kind == "network" and container.duration is not None

    @classmethod
    def _camera(cls, text: str) -> Address:
        name = text.partition(":")[2] or "0"
        if sys.platform == "darwin":
            return cls("camera", name, text, "avfoundation", {"framerate": "30"})
        if sys.platform == "win32":
            return cls("camera", f"video={name}", text, "dshow")
        return cls("camera", text if text.startswith("/") else f"/dev/video{name}", text, "v4l2")


def _cameras() -> str:
    """Return which cameras this machine has, as far as it tells, and what else can be named."""
    others = "or name an rtsp:// or http:// address, or a file"
    if sys.platform == "darwin":
        return f"; allow this program the camera in the system's settings, try camera:1, {others}"
    if sys.platform == "win32":
        return f"; name it as the system does, such as camera:Integrated Camera, {others}"
    found = sorted(glob.glob("/dev/video*"))
    if not found:
        return (
            f"; this machine shows no /dev/video* at all: plug one in, give a container --device=/dev/video0, {others}"
        )
    return f"; there are {', '.join(found)}: take another, join the group video to be permitted, {others}"


class Pipe:
    """An open file of which only `read` is used, a little at a time, so that pictures are not late."""

    def __init__(self, file: Readable) -> None:
        self._read: Callable[[int], bytes] = getattr(file, "read1", file.read)

    def read(self, size: int) -> bytes:
        """Some bytes, at most `size`; none at the end."""
        return self._read(size)
