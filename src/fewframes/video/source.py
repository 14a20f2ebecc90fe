"""The front door for video: any input -> the frames shown at given moments, and their true times.

Times are seconds from the start of the video, that is from its first decodable picture. The frame shown at time t is
the last one whose own time is not after t.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeIs

from fewframes.core.storage import as_path, is_address, open_far
from fewframes.errors import MissingVideo, VideoError
from fewframes.results import Clip, ClockStep
from fewframes.video.decode.container import NO_LIMITS, Limits, check_readable
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.picture_source import PictureVideo, is_image, open_folder, open_image, steady_times
from fewframes.video.pictures.arrays import CHANNELS, pixels_of_image
from fewframes.video.times import checked_range

if TYPE_CHECKING:  # exported graphs read videos without torch
    from torch import Tensor

    from fewframes.video.pictures.tensors import Prepare

VIDEO_SUFFIXES = frozenset(
    ".264 .265 .3g2 .3gp .3gpp .amv .apng .asf .av1 .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ismv .ivf .m1v .m2t .m2ts "
    ".m2v .m4v .mjpeg .mjpg .mk3d .mkv .mod .mov .mp4 .mp4v .mpe .mpeg .mpg .mpv .mts .mxf .nut .ogg .ogm .ogv .qt .rm .rmvb "
    ".tod .ts .vob .webm .wmv .wtv .xvid .y4m".split()
)
"""File name endings taken for videos when a folder is searched; a file named outright is tried whatever its ending."""

BLOCK_BYTES = 2**17
"""What is fetched at a time of a file elsewhere: some frames' worth, so that little comes which is not needed."""
DEFAULT_FPS = 25.0
"""Frames per second taken for what has none: a folder of images, a list of arrays, a raw stream."""

BackendName = Literal["pyav", "torchcodec"]
Source: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | Sequence[Any] | NDArray[np.uint8] | Tensor"
"""A path, a URL (fsspec), a folder of images, the bytes of a file, an open binary file, or frames as a list of PIL
images or arrays, or as one array or tensor with the frames on its first axis. A file is a video or an image: an animation,
the pages of a TIFF, one picture."""


class OpenVideo(Protocol):
    """An open video of either kind: a file that is decoded, or pictures that lie ready."""

    name: str
    """What messages call it."""
    duration_s: float
    """How long its pictures last, in seconds."""

    def frames_at(self, times_s: Tensor, prepare: Prepare | None = None, slack_s: float = 0.0) -> Clip:
        """The frames shown at these moments (T,), in any order, and when each was first shown; each moment may move by up to
        `slack_s` to where a frame is cheaper to read."""

    def span_s(self, times_s: Tensor) -> float:
        """How many seconds of the video are decoded, about, for the frames at these moments."""

    def steps(self) -> tuple[ClockStep, ...]:
        """Return where its clock steps on, by its packets; nothing is decoded."""

    def check(self, start_s: float, end_s: float) -> None:
        """Decode every picture that is shown between these moments; VideoError where one cannot be."""

    def close(self) -> None:
        """Give back the file."""


@dataclass(frozen=True)
class Backend:
    """What decodes files: `pyav` (decoder.py), or `torchcodec` on a device; with how many threads (0: one a core)."""

    name: BackendName = "pyav"
    threads: int = 0
    device: str = "cpu"
    limits: Limits = NO_LIMITS

    def open(
        self, file: str | IO[bytes], name: str, size_bytes: int, bytes_fetched: Callable[[], int] | None = None
    ) -> OpenVideo:
        """The file opened by it. Raises VideoError and MissingDependency."""
        if self.name == "torchcodec":
            from fewframes.video.torchcodec import TorchcodecVideo, shows_as_stored  # late: it loads torch

            check_readable(file, name, size_bytes, self.limits)
            video = TorchcodecVideo(file, name, self.threads, self.device, self.limits)
            if shows_as_stored(file, name, size_bytes):
                return video
            video.close()
        return FileVideo(file, name, size_bytes, self.threads, bytes_fetched, self.limits)


def open_video(
    source: Source,
    *,
    fps: float = DEFAULT_FPS,
    threads: int = 0,
    backend: BackendName = "pyav",
    device: str = "cpu",
    limits: Limits = NO_LIMITS,
) -> OpenVideo:
    """An open video from any input (see `Source`); use with `contextlib.closing`.

    `fps` is the rate of inputs that have none of their own; `threads` the decoder's threads (0: one a core); `device` where
    torchcodec decodes; `limits` what PyAV decodes at most. Raises VideoError with the input's name, what was found and what to do.
    """
    decode = Backend(backend, threads, device, limits)
    if isinstance(source, bytes | bytearray | memoryview):
        return _opened(decode, io.BytesIO(source), f"<{len(source)} bytes>", len(source), fps)
    if isinstance(source, str | os.PathLike):
        return _open_path(os.fspath(source), fps, decode)
    if _is_array(source) or isinstance(source, Sequence):
        if _is_array(source):
            _check_several(tuple(source.shape))
        given = list(source)
        if given and isinstance(given[0], str | os.PathLike | bytes):
            raise TypeError("a list of paths: pass one path, or the list to predict_many")
        times = steady_times(len(given), fps)
        return PictureVideo(f"<{len(given)} frames>", *times, lambda index: pixels_of_image(given[index]))
    if not (hasattr(source, "read") and hasattr(source, "seek")):
        raise TypeError(f"a source of type {type(source).__name__}: needs a path, bytes, a binary file or frames")
    return _opened(decode, source, str(getattr(source, "name", "<file>")), _size_of_file(source), fps)


def read_frames(source: Source, times_s: Tensor, *, fps: float = DEFAULT_FPS, slack_s: float = 0.0) -> Clip:
    """The frames shown at these moments (T,), in seconds from the start of the video, and their true times; each moment may
    move by up to `slack_s` to where a frame is cheaper to read."""
    with closing(open_video(source, fps=fps)) as video:
        return video.frames_at(times_s, slack_s=slack_s)


def range_in(video: OpenVideo, start_s: float, end_s: float | None) -> tuple[float, float]:
    """The range in seconds to look at, its end cut to the video's; VideoError when nothing is left of it."""
    try:
        return checked_range(video.duration_s, start_s, end_s)
    except ValueError as error:
        raise VideoError(f"{video.name}: {error}") from None


def _is_array(source: object) -> TypeIs[NDArray[np.uint8] | Tensor]:
    # A tensor can only be where torch has been loaded.
    return isinstance(source, np.ndarray) or (
        "torch" in sys.modules and isinstance(source, sys.modules["torch"].Tensor)
    )


def _check_several(shape: tuple[int, ...]) -> None:
    """Raise ValueError for an array that is one picture or less, or may be."""
    if len(shape) < 2:
        raise ValueError(f"an array of shape {shape}: no pictures; needs (T, H, W, 3) or (T, 3, H, W)")
    if len(shape) == 2 or (len(shape) == 3 and shape[-1] in CHANNELS):
        raise ValueError(f"an array of shape {shape}: one picture; pass a list of pictures, [array]")
    if len(shape) == 3 and shape[0] == 3:
        raise ValueError(
            f"an array of shape {shape}: one picture with its colours first, or three grey ones; pass [array], or array[:, None]"
        )


def _open_path(path: str, fps: float, decode: Backend) -> OpenVideo:
    path = as_path(path)
    if is_address(path):
        file, fetched = open_far(path, BLOCK_BYTES)
        return _opened(decode, file, path, _size_of_file(file), fps, fetched)
    try:
        if os.path.isdir(path):
            num_videos = sum(os.path.splitext(entry)[1].lower() in VIDEO_SUFFIXES for entry in os.listdir(path))
            return open_folder(Path(path), fps, decode.limits, num_videos)
        size_bytes = os.path.getsize(path)
        if not os.path.isfile(path):  # asked first: opening a pipe waits for whoever writes into it
            raise VideoError(
                f"{path}: a pipe or device, in which one cannot go back; read it with `fewframes stream`, or save it as a file"
            )
        if size_bytes == 0:
            raise VideoError(f"{path}: the file is empty (0 bytes); copy or download it again")
        with open(path, "rb"):
            pass  # FFmpeg would say the same of a forbidden file and of a broken one
    except FileNotFoundError:
        raise MissingVideo(f"{path}: {_why_missing(path)}") from None
    except PermissionError:
        raise VideoError(f"{path}: no permission to read it; check its owner and mode") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise VideoError(f"{path!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return _opened(decode, path, path, size_bytes, fps)


def _why_missing(path: str) -> str:
    if os.path.lexists(path):
        return "a link that leads nowhere; check what it links to"
    if "*" in path:
        return "the pattern matches nothing; check it, and quote it for the shell"
    if path.startswith("~"):
        return "no such file; only the shell knows ~ as the home folder, so write that out"
    return "no such file; check the path"


def _opened(
    decode: Backend,
    file: str | IO[bytes],
    name: str,
    size_bytes: int,
    fps: float,
    fetched: Callable[[], int] | None = None,
) -> OpenVideo:
    """Return a file opened by what it holds: an image, or what the backend decodes."""
    return (
        open_image(file, name, fps, decode.limits)
        if is_image(file, name)
        else decode.open(file, name, size_bytes, fetched)
    )


def _size_of_file(file: IO[bytes]) -> int:
    file.seek(0, io.SEEK_END)
    size_bytes = file.tell()
    file.seek(0)
    return size_bytes
