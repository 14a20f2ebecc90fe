"""Turn what a person calls a live source into what FFmpeg opens: cameras of each platform, URLs, paths, pipes."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError, HTTPForbiddenError, HTTPUnauthorizedError

from fewframes.core.storage import as_path, is_address, with_plain_scheme
from fewframes.errors import AccessDenied, MissingVideo, VideoError
from fewframes.video.decode.opening import UNREADABLE_WORDS, in_its_words, open_alone, video_of
from fewframes.video.decode.unreadable import why_unreadable
from fewframes.video.recording.recorder import Recorder


class Readable(Protocol):
    """An open binary file, or anything that gives bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


Recordable = str | os.PathLike[str] | Readable
"""A live source: `camera`, `camera:1`, `camera:NAME` or /dev/video0; an rtsp, http or other URL that FFmpeg knows; a path; `-` for
standard input; or an open binary file, of which only `read` is used."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """A live source whose packets are recorded while it is read, so that clips can be cut out of it."""

    source: Recordable
    recorder: Recorder


LiveSource = Recordable | Recorded
"""A live source, recorded or not."""
PIPE_BYTES = 4096
"""The number of bytes that are read of a pipe at once. Waiting for more would make its pictures late."""
OPEN_S = 10.0
"""The least number of seconds that a network is given to answer."""


@dataclass(frozen=True, eq=False)
class Address:
    """The address of a live source: what FFmpeg opens, and what messages call it."""

    kind: Literal["camera", "network", "file", "pipe"]
    file: Any
    """A path, URL, name of a camera, or `Pipe`, as FFmpeg takes it."""
    name: str
    """The name in messages, without passwords."""
    format: str | None = None
    """FFmpeg's input format; None lets FFmpeg find it."""
    options: dict[str, str] = field(default_factory=dict)
    """Further options of FFmpeg."""
    recorder: Recorder | None = None
    """The recorder of its packets, if they are recorded."""

    @property
    def hint(self) -> str:
        """Return what may help if nothing can be decoded; empty if nothing is known to help."""
        if self.kind != "pipe":
            return ""
        return "; a pipe needs MPEG-TS, Matroska, or MP4 with its index at the front (ffmpeg -movflags faststart)"

    @classmethod
    def of(cls, source: LiveSource) -> Address:
        """Return the address of a source. Raises MissingVideo and VideoError for a path that cannot be read."""
        if isinstance(source, Recorded):
            return replace(cls._of(source.source), recorder=source.recorder)
        return cls._of(source)

    @classmethod
    def _of(cls, source: Recordable) -> Address:
        """Return the address of a source that is not recorded."""
        if not isinstance(source, str | os.PathLike):
            return cls("pipe", Pipe(source), str(getattr(source, "name", "<pipe>")))
        text = os.fspath(source)
        if text == "-":
            if sys.stdin is None:
                raise VideoError("-: standard input is closed; pipe a video into it, or name a file, camera or address")
            # Unbuffered, because a thread that waits in a buffer holds its lock, and Python then aborts when the process ends.
            return cls("pipe", Pipe(open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)), "<standard input>")
        if text == "camera" or (text.startswith(("camera:", "/dev/video")) and not os.path.isfile(text)):
            return cls._camera(text)
        text = as_path(text)
        if is_address(text):
            text = with_plain_scheme(text)
            try:
                parts = urlsplit(text)
            except ValueError as error:
                raise VideoError(f"{text}: no address that can be read ({error}); check it") from None
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
        """Open the source. Raises VideoError if it holds no video stream that can be decoded, AccessDenied for a wrong password.

        A network that is silent for `silent_s` seconds counts as interrupted.
        """
        try:
            container = self._container(silent_s)
        except (HTTPUnauthorizedError, HTTPForbiddenError) as error:
            raise AccessDenied(f"{self.name}: {self._why_denied()} ({in_its_words(error)})") from None
        except (FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{self.name}: {self._why_not(error)}") from None
        stream = video_of(container)
        if stream is None or stream.codec_context is None:
            container.close()
            known = self._known() or "no video stream that can be decoded here; pass another source"
            raise VideoError(f"{self.name}: {known}")
        return container

    def _container(self, silent_s: float) -> InputContainer:
        """Open the source with FFmpeg, whatever is in it."""
        if self.kind in ("file", "pipe"):
            return open_alone(self.file, self.options, PIPE_BYTES if self.kind == "pipe" else 32768)
        return av.open(
            self.file,
            "r",
            format=self.format,
            options=self.options,
            timeout=(max(silent_s, OPEN_S), silent_s) if self.kind == "network" else None,
            **UNREADABLE_WORDS,
        )

    def _why_denied(self) -> str:
        """Return why a server lets nobody in, and what helps, without the password."""
        scheme = self.file.partition(":")[0]
        if urlsplit(self.file).username is None:
            return f"wants a user and a password; put them into the address: {scheme}://USER:PASSWORD@HOST/..."
        return "refuses the user and password in the address; correct them (write %40 for @, and %3A for :)"

    def _why_not(self, error: Exception) -> str:
        """Return why the source cannot be opened, and what helps."""
        words = in_its_words(error)
        if self.kind == "camera":
            return f"no camera can be opened there ({words}){_cameras()}"
        if known := self._known():
            return known
        if self.kind == "pipe" and isinstance(error, ArgumentError):  # the format is none of those allowed
            words = "a playlist, which is not followed"
        if self.kind == "network" and urlsplit(self.file).path.lower().endswith(".mpd"):
            words += "; DASH manifests cannot be played here, pass the HLS playlist (.m3u8) of the same stream"
        return f"cannot be opened as a stream ({words}){self.hint}"

    def _known(self) -> str:
        """Return why a file is no video, and what helps; empty if that is not known, and for other sources."""
        return why_unreadable(self._bytes, os.path.getsize(self.file), self.name) if self.kind == "file" else ""

    def _bytes(self, offset: int, size: int) -> bytes:
        with open(self.file, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def is_file_elsewhere(self, container: InputContainer) -> bool:
        """Return whether what was opened over the network is a file with an end, and not a stream."""
        return self.kind == "network" and container.duration is not None

    @classmethod
    def _camera(cls, text: str) -> Address:
        """Return the address of a camera, by the names that this system gives to cameras."""
        name = text.partition(":")[2] or "0"
        if sys.platform == "darwin":
            return cls("camera", name, text, "avfoundation", {"framerate": "30"})
        if sys.platform == "win32":
            return cls("camera", f"video={name}", text, "dshow")
        return cls("camera", text if text.startswith("/") else f"/dev/video{name}", text, "v4l2")


def _cameras() -> str:
    """Return the cameras that this machine shows, and what else helps, as the end of an error."""
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
    """An open file of which only `read` is used.

    It reads what is there (`read1`, if the file has that) instead of waiting for more, so that pictures are not late.
    """

    def __init__(self, file: Readable) -> None:
        self._read: Callable[[int], bytes] = getattr(file, "read1", file.read)

    def read(self, size: int) -> bytes:
        """Return some bytes, at most `size`; none at the end."""
        return self._read(size)
