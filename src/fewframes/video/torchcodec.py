"""Decode videos with torchcodec, an optional package: with NVDEC on a GPU, with the system's FFmpeg libraries elsewhere.

On a CPU `decode.decoder.FileVideo` decodes less for the same frames. This module is for GPUs, and for comparison.
"""

from __future__ import annotations

import os
from contextlib import closing
from tempfile import TemporaryDirectory
from typing import IO, Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import ArrayLike

from fewframes.core.guards import Guard, keep_in_forks
from fewframes.core.storage import unbroken
from fewframes.errors import MissingDependency, VideoError, needed
from fewframes.results import Clip, ClockStep, Reading, Work
from fewframes.video.clock import steps_of
from fewframes.video.decode.container import MAX_PIXELS, NO_LIMITS, Limits, VideoFile
from fewframes.video.decode.opening import in_its_words
from fewframes.video.decode.packets import SAME_S
from fewframes.video.pictures.arrays import FrameStack, Prepare
from fewframes.video.pictures.display import Display

PROBE_SIZE, PROBE_FRAMES = 256, 4
"""The side in pixels and the number of frames of the video that is decoded to see whether torchcodec works."""


class TorchcodecVideo:
    """An open video file that torchcodec decodes: an `OpenVideo`."""

    def __init__(
        self, file: str | bytes | IO[bytes], name: str, threads: int, device: str, limits: Limits = NO_LIMITS
    ) -> None:
        """Open a video file.

        Args:
            file: a path, the bytes of a file, or an open binary file.
            name: what messages call the file.
            threads: the threads of the decoder; 0 is one a core.
            device: the device that decodes, such as `cuda`.
            limits: the largest frames and the longest video that are decoded.

        Raises:
            VideoError: if torchcodec cannot read the file.
            TooLarge: if the video is above the limits.
            MissingDependency: if torchcodec cannot be loaded.
        """
        decoder_class = _decoder_class()
        self.name, self._device, self._file, self._guard = name, device, file, Guard(name)
        keep_in_forks(self)
        with unbroken(file):
            try:
                # FFmpeg takes whatever follows "file:" as a path, even if its name looks like an address.
                source = f"file:{file}" if isinstance(file, str) else file
                self._decoder: Any = decoder_class(source, num_ffmpeg_threads=threads, device=device)
            except (RuntimeError, ValueError) as error:
                raise VideoError(
                    f"{name}: torchcodec cannot read it ({_first_line(error)}); try the backend pyav"
                ) from None
        metadata = self._decoder.metadata
        self._origin_s = float(metadata.begin_stream_seconds)
        self.duration_s = float(metadata.end_stream_seconds) - self._origin_s
        self._num_read = 0
        limits.check_size(name, metadata.width or 0, metadata.height or 0)
        limits.check_length(name, self.duration_s)

    def frames_at(self, times_s: ArrayLike, prepare: Prepare | None = None, tolerance_s: float = 0.0) -> Clip:  # noqa: ARG002
        """Return a clip as `OpenVideo.frames_at` does. No timestamp moves. Raises VideoError if a frame cannot be decoded."""
        clamped_s = np.minimum(np.asarray(times_s, np.float64), self.duration_s - SAME_S)
        wanted_s, indices_T = np.unique(clamped_s, return_inverse=True)
        with self._guard, unbroken(self._file):
            try:
                batch = self._decoder.get_frames_played_at((self._origin_s + wanted_s).tolist())
            except (RuntimeError, ValueError, IndexError) as error:
                raise VideoError(f"{self.name}: cannot be decoded ({_first_line(error)})") from None
        stack = FrameStack(len(wanted_s), prepare)
        for frame_CHW in batch.data:  # each goes to the CPU by itself, so that whole videos do not pile up there
            stack.add(frame_CHW.permute(1, 2, 0).cpu().numpy())
        shown_s = (batch.pts_seconds.cpu().numpy().astype(np.float64) - self._origin_s)[indices_T]
        self._num_read += len(wanted_s)
        reading = Reading(self._num_read, 0, 0, 0)
        return stack.clip(indices_T.tolist(), shown_s.tolist(), self.duration_s, self.name, reading)

    def span_s(self, times_s: ArrayLike) -> float:  # noqa: ARG002
        """Return the length of the whole video, because torchcodec does not say what it decodes."""
        return self.duration_s

    def work(self, times_s: ArrayLike, tolerance_s: float = 0.0) -> Work:  # noqa: ARG002
        """Return the length of the whole video, as `span_s` does. torchcodec does not count bytes."""
        return Work(self.span_s(times_s), 0.0)

    def steps(self) -> tuple[ClockStep, ...]:
        """Return the gaps in the video's timestamps. A file that the caller opened is not searched."""
        return steps_of(VideoFile(self._file, self.name, 0), self._origin_s) if isinstance(self._file, str) else ()

    def check(self, start_s: float, end_s: float) -> None:
        """Decode every picture that is shown between two times, in seconds. Raises VideoError if one cannot be decoded."""
        with self._guard, unbroken(self._file):
            try:
                self._decoder.get_frames_played_in_range(self._origin_s + start_s, self._origin_s + end_s)
            except (RuntimeError, ValueError) as error:
                raise VideoError(f"{self.name}: cannot be decoded ({_first_line(error)})") from None

    def close(self) -> None:
        """Close the file, and end the decoder with its threads."""
        if self._guard.close():
            self._decoder = None


def shows_as_stored(file: str | IO[bytes], name: str, size_bytes: int) -> bool:
    """Return whether the first picture is shown as it is decoded. Raises VideoError.

    Each version of torchcodec treats orientation, pixels that are not square and fields in its own way, or not at all.

    Args:
        file: a path, or an open binary file, which stays where it stands.
        name: what messages call the file.
        size_bytes: the size of the file.
    """
    position = None if isinstance(file, str) else file.tell()  # torchcodec goes on reading from here
    opened, display = VideoFile(file, name, size_bytes).open(), Display(name, MAX_PIXELS)
    with closing(opened.container), unbroken(file):
        display.begin(opened.stream)
        try:
            frame = next(opened.container.decode(opened.stream), None)
        except FFmpegError as error:
            raise VideoError(f"{name}: cannot be decoded ({in_its_words(error)})") from None
        is_plain = frame is None or display.shows_as_stored(frame, display.geometry(frame))
    if position is not None and not isinstance(file, str):
        file.seek(position)
    return is_plain


def why_not(device: str) -> str:
    """Return why torchcodec cannot be used on a device, in one line; empty if it can. A small video is decoded to see."""
    try:
        decoder_class = _decoder_class()
    except MissingDependency as error:
        return str(error)
    with TemporaryDirectory(prefix="fewframes-") as folder:
        path = os.path.join(folder, "probe.mp4")
        _write_probe(path)
        try:
            frames = decoder_class(path, device=device).get_frames_played_at([0.0, 0.1]).data
        except (RuntimeError, ValueError, OSError) as error:
            return f"{_first_line(error)}; it needs FFmpeg's shared libraries"
    return "" if frames.shape == (2, 3, PROBE_SIZE, PROBE_SIZE) else f"it decoded a test video to {tuple(frames.shape)}"


def _decoder_class() -> Any:
    """Return torchcodec's class for decoding. Raises MissingDependency."""
    try:
        return needed("torchcodec.decoders", "torchcodec", "torchcodec is not installed").VideoDecoder
    except (RuntimeError, OSError) as error:
        raise MissingDependency(
            f"torchcodec does not load ({_first_line(error)}); it needs FFmpeg's shared libraries"
        ) from None


def _write_probe(path: str) -> None:
    """Write a small video to decode."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = PROBE_SIZE, PROBE_SIZE, "yuv420p"
        for number in range(PROBE_FRAMES):
            pixels_HWC = np.full((PROBE_SIZE, PROBE_SIZE, 3), 50 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")))
        container.mux(stream.encode())


def _first_line(error: Exception) -> str:
    """Return the first sentence of an error, or the name of its class if it has no text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__
