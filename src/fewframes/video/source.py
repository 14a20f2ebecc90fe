"""Open any kind of video, and return the frames shown at given timestamps, with their true times.

Times are seconds from the start of the video, that is from its first decodable picture. The frame shown at time t is the last one
that begins at t or before.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import TypeIs

from fewframes.core.storage import as_path, is_address, open_far
from fewframes.errors import MissingVideo, VideoError
from fewframes.results import Clip, ClockStep, Work
from fewframes.video.clock import Choose, shows_gap, times_around
from fewframes.video.decode.container import BLOCK_BYTES, NO_LIMITS, Limits, check_readable
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.picture_source import PictureVideo, is_image, open_folder, open_image, steady_times
from fewframes.video.pictures.arrays import CHANNELS, Prepare, pixels_of_image
from fewframes.video.times import checked_range

VIDEO_SUFFIXES = frozenset(
    ".264 .265 .3g2 .3gp .3gpp .amv .apng .asf .av1 .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ismv .ivf .m1v .m2t .m2ts "
    ".m2v .m4v .mjpeg .mjpg .mk3d .mkv .mod .mov .mp4 .mp4v .mpe .mpeg .mpg .mpv .mts .mxf .nut .ogg .ogm .ogv .qt .rm .rmvb "
    ".tod .ts .vob .webm .wmv .wtv .xvid .y4m".split()
)
"""The file name endings of videos in a folder that is searched. A file that is named itself may have any ending."""

STORE_SUFFIX = ".frames"
"""The file name ending of frame stores (inference/frame_store), which hold embeddings and no pictures."""

DEFAULT_FPS = 25.0
"""The frame rate of inputs that have none of their own: a folder of images, a list of arrays, the pages of a TIFF."""

BackendName = Literal["pyav", "torchcodec"]


class TensorLike(Protocol):
    """A tensor of a framework, as far as it is used here. No framework is imported for that."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __array__(self) -> NDArray[Any]: ...


Source: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | Sequence[Any] | NDArray[np.uint8] | TensorLike"
"""An input: a path, a URL (fsspec), a folder of images, the bytes of a file, or an open binary file. Frames may also be given as a
list of PIL images or arrays, or as one array or tensor with the frames on its first axis. A file is a video or an image, and an
image may be an animation, the pages of a TIFF, or one picture."""


class OpenVideo(Protocol):
    """An open video: a file that is decoded, or pictures that are read one by one."""

    name: str
    """The name of the video in messages."""
    duration_s: float
    """The length of the video, in seconds."""

    def frames_at(self, times_s: ArrayLike, prepare: Prepare | None = None, tolerance_s: float = 0.0) -> Clip:
        """Return the frames shown at timestamps (T,), and when each was first shown.

        Args:
            times_s: timestamps (T,) in seconds, in any order.
            prepare: a function that is applied to each frame (C, H, W) as soon as it is decoded.
            tolerance_s: the most seconds by which a timestamp may move to where a frame is cheaper to read.

        Raises:
            VideoError: if a frame cannot be decoded.
        """

    def span_s(self, times_s: ArrayLike) -> float:
        """Return about how many seconds of the video are decoded for the frames at timestamps (T,)."""

    def work(self, times_s: ArrayLike, tolerance_s: float = 0.0) -> Work:
        """Return about what `frames_at` reads for these timestamps, the picture that each jump begins with too.

        Args:
            times_s: timestamps (T,) in seconds, in any order.
            tolerance_s: the most seconds by which a timestamp may move.
        """

    def steps(self) -> tuple[ClockStep, ...]:
        """Return the gaps in the video's timestamps, found from its packets; nothing is decoded."""

    def check(self, start_s: float, end_s: float) -> None:
        """Decode every picture that is shown between two times, in seconds. Raises VideoError if one cannot be decoded."""

    def close(self) -> None:
        """Close the file. A file that the caller opened stays open."""


@dataclass(frozen=True)
class Backend:
    """The choice of what decodes video files."""

    name: BackendName = "pyav"
    """The decoder: `pyav` (decode/decoder.py) or `torchcodec` (torchcodec.py)."""
    threads: int = 0
    """The threads of the decoder; 0 is one a core."""
    device: str = "cpu"
    """The device on which torchcodec decodes."""
    limits: Limits = NO_LIMITS
    """The largest frames and the longest video that are decoded."""

    def open(
        self, file: str | IO[bytes], name: str, size_bytes: int, bytes_fetched: Callable[[], int] | None = None
    ) -> OpenVideo:
        """Open a video file with this backend.

        torchcodec leaves to PyAV what it would not show as players do: turned pictures, long pixels, fields.

        Args:
            file: a path, or an open binary file.
            name: what messages call the file.
            size_bytes: the size of the file.
            bytes_fetched: for a remote file, a function that returns how many bytes of it were fetched so far.

        Raises:
            VideoError: if the file holds no video that can be decoded.
            MissingDependency: if torchcodec is not installed.
        """
        if self.name == "torchcodec":
            from fewframes.video.torchcodec import TorchcodecVideo, shows_as_stored  # late: seldom used

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
    """Open a video from any input; use it with `contextlib.closing`.

    Args:
        source: the input (see `Source`).
        fps: the frame rate of inputs that have none of their own.
        threads: the threads of the decoder; 0 is one a core.
        backend: what decodes video files.
        device: the device on which torchcodec decodes.
        limits: the largest frames and the longest video that are decoded.

    Raises:
        VideoError: if the input cannot be read; the text names it, what was found and what helps.
    """
    decode = Backend(backend, threads, device, limits)
    if isinstance(source, bytes | bytearray | memoryview):
        return _open_file(decode, io.BytesIO(source), f"<{len(source)} bytes>", len(source), fps)
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
    return _open_file(decode, source, str(getattr(source, "name", "<file>")), _size_of_file(source), fps)


def read_frames(source: Source, times_s: ArrayLike, *, fps: float = DEFAULT_FPS, tolerance_s: float = 0.0) -> Clip:
    """Return the frames of a video shown at timestamps (T,), with their true times.

    Args:
        source: the input (see `Source`).
        times_s: timestamps (T,) in seconds from the start of the video, in any order.
        fps: the frame rate of inputs that have none of their own.
        tolerance_s: the most seconds by which a timestamp may move to where a frame is cheaper to read.

    Raises:
        VideoError: if the input cannot be read, or a frame cannot be decoded.
    """
    with closing(open_video(source, fps=fps)) as video:
        return video.frames_at(times_s, tolerance_s=tolerance_s)


def range_in(video: OpenVideo, start_s: float, end_s: float | None) -> tuple[float, float]:
    """Return a range in seconds with its end cut to that of the video. Raises VideoError if nothing is left of it."""
    try:
        return checked_range(video.duration_s, start_s, end_s)
    except ValueError as error:
        raise VideoError(f"{video.name}: {error}") from None


def recorded_frames(
    video: OpenVideo, choose: Choose, start_s: float, end_s: float | None, prepare: Prepare | None = None
) -> Clip:
    """Return frames at timestamps that are chosen, and chosen anew around the gaps of a clock that steps.

    Args:
        video: the video.
        choose: a function that chooses timestamps.
        start_s: the start of the part to sample, in seconds.
        end_s: its end; None is the end of the video.
        prepare: a function that is applied to each frame (C, H, W) as soon as it is decoded.

    Raises:
        VideoError: if a frame cannot be decoded, or nothing is left of the part.
    """
    times_s = times_in(video, choose, start_s, end_s)
    try:
        clip = video.frames_at(times_s, prepare)
    except VideoError:  # the picture before a gap may be damaged, and timestamps in the gap would show it
        steps = video.steps()
        if not steps:
            raise
    else:
        steps = video.steps() if shows_gap(times_s, clip.times_s) else ()
        if not steps:
            return clip
    return replace(video.frames_at(times_in(video, choose, start_s, end_s, steps), prepare), steps=steps)


def times_in(
    video: OpenVideo, choose: Choose, start_s: float, end_s: float | None, steps: Sequence[ClockStep] = ()
) -> list[float]:
    """Return timestamps that are chosen in a part of a video, around gaps. Raises VideoError if nothing is left of the part."""
    try:
        return times_around(steps, choose, video.duration_s, start_s, end_s)
    except ValueError as error:
        raise VideoError(f"{video.name}: {error}") from None


def _is_array(source: object) -> TypeIs[NDArray[np.uint8] | TensorLike]:
    # A tensor exists only if its caller has loaded torch, which is not loaded here just to ask.
    return isinstance(source, np.ndarray) or (
        "torch" in sys.modules and isinstance(source, sys.modules["torch"].Tensor)
    )


def _check_several(shape: tuple[int, ...]) -> None:
    """Raise ValueError if an array of this shape is, or may be, less than several pictures."""
    if len(shape) < 2:
        raise ValueError(f"an array of shape {shape}: no pictures; needs (T, H, W, 3) or (T, 3, H, W)")
    if len(shape) == 2 or (len(shape) == 3 and shape[-1] in CHANNELS):
        raise ValueError(f"an array of shape {shape}: one picture; pass a list of pictures, [array]")
    if len(shape) == 3 and shape[0] == 3:
        raise ValueError(
            f"an array of shape {shape}: one picture with its colours first, or three grey ones; pass [array], or array[:, None]"
        )


def _open_path(path: str, fps: float, decode: Backend) -> OpenVideo:
    """Open a path or an address. Raises VideoError and MissingVideo."""
    path = as_path(path)
    if path.lower().endswith(STORE_SUFFIX):
        raise VideoError(
            f"{path}: a frame store has embeddings and no pictures; `fewframes timeline` and `index` take it, and for all else "
            "name the video"
        )
    if is_address(path):
        file, fetched = open_far(path, BLOCK_BYTES)
        return _open_file(decode, file, path, _size_of_file(file), fps, fetched)
    try:
        if os.path.isdir(path):
            num_videos = sum(os.path.splitext(entry)[1].lower() in VIDEO_SUFFIXES for entry in os.listdir(path))
            return open_folder(Path(path), fps, decode.limits, num_videos)
        size_bytes = os.path.getsize(path)
        if not os.path.isfile(path):  # asked before it is opened, because opening a pipe waits for its writer
            raise VideoError(
                f"{path}: a pipe or device, in which one cannot go back; read it with `fewframes stream`, or save it as a file"
            )
        if size_bytes == 0:
            raise VideoError(f"{path}: the file is empty (0 bytes); copy or download it again")
        with open(path, "rb"):
            pass  # to raise PermissionError; FFmpeg's own error does not tell a forbidden file from a broken one
    except FileNotFoundError:
        raise MissingVideo(f"{path}: {_why_missing(path)}") from None
    except PermissionError:
        raise VideoError(f"{path}: no permission to read it; check its owner and mode") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise VideoError(f"{path!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return _open_file(decode, path, path, size_bytes, fps)


def _why_missing(path: str) -> str:
    """Return why there is no file at a path, and what helps."""
    if os.path.lexists(path):
        return "a link that leads nowhere; check what it links to"
    if "*" in path:
        return "the pattern matches nothing; check it, and quote it for the shell"
    if path.startswith("~"):
        return "no such file; only the shell knows ~ as the home folder, so write that out"
    return "no such file; check the path"


def _open_file(
    decode: Backend,
    file: str | IO[bytes],
    name: str,
    size_bytes: int,
    fps: float,
    fetched: Callable[[], int] | None = None,
) -> OpenVideo:
    """Open a file as an image if it holds one, and with the backend otherwise.

    Args:
        decode: the backend.
        file: a path, or an open binary file.
        name: what messages call the file.
        size_bytes: the size of the file.
        fps: the frame rate of the pages of an image.
        fetched: for a remote file, a function that returns how many bytes of it were fetched so far.
    """
    return (
        open_image(file, name, fps, decode.limits)
        if is_image(file, name)
        else decode.open(file, name, size_bytes, fetched)
    )


def _size_of_file(file: IO[bytes]) -> int:
    """Return the size of an open file in bytes, and leave the file at its start."""
    file.seek(0, io.SEEK_END)
    size_bytes = file.tell()
    file.seek(0)
    return size_bytes
