"""Videos through torchcodec, an optional package: on a GPU its decoder (NVDEC), elsewhere FFmpeg's libraries of this system.

On a CPU `decoder.FileVideo` decodes less for the same frames; this is for GPUs, and for comparing.
"""

from __future__ import annotations

import os
from contextlib import closing
from tempfile import TemporaryDirectory
from typing import IO, Any

import av
import numpy as np
import torch
from av.error import FFmpegError
from torch import Tensor

from fewframes.core.storage import unbroken
from fewframes.errors import MissingDependency, VideoError, needed
from fewframes.results import Clip, ClockStep, Reading
from fewframes.video.decode.clock import steps_of
from fewframes.video.decode.container import MAX_PIXELS, NO_LIMITS, Limits, VideoFile, in_its_words
from fewframes.video.decode.packets import SAME_S
from fewframes.video.pictures.display import Display
from fewframes.video.pictures.tensors import Prepare

PROBE_SIZE, PROBE_FRAMES = 256, 4


class TorchcodecVideo:
    """An open video file, decoded by torchcodec on `device`: an `OpenVideo`."""

    def __init__(
        self, file: str | bytes | IO[bytes], name: str, threads: int, device: str, limits: Limits = NO_LIMITS
    ) -> None:
        decoder_class = _decoder_class()
        self.name, self._device, self._file = name, device, file
        with unbroken(file):
            try:
                # After file: stands a path as it is, whatever its name looks like.
                source = f"file:{file}" if isinstance(file, str) else file
                self._decoder = decoder_class(source, num_ffmpeg_threads=threads, device=device)
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

    def frames_at(self, times_s: Tensor, prepare: Prepare | None = None, slack_s: float = 0.0) -> Clip:  # noqa: ARG002
        """The frames shown at these moments (T,), in any order, and when each was first shown; no moment is moved. Raises
        VideoError when one cannot be decoded."""
        wanted_s = sorted(set(times_s.double().clamp(max=self.duration_s - SAME_S).tolist()))
        with unbroken(self._file):
            try:
                batch = self._decoder.get_frames_played_at([self._origin_s + time_s for time_s in wanted_s])
            except (RuntimeError, ValueError, IndexError) as error:
                raise VideoError(f"{self.name}: cannot be decoded ({_first_line(error)})") from None
        prepare = prepare or Tensor.contiguous
        frames = [prepare(frame_CHW) for frame_CHW in batch.data]
        places = torch.searchsorted(
            torch.tensor(wanted_s, dtype=torch.float64), times_s.double().clamp(max=self.duration_s - SAME_S)
        )
        shown_s = (batch.pts_seconds.double() - self._origin_s)[places]
        self._num_read += len(frames)
        reading = Reading(self._num_read, 0, 0, 0)
        return Clip(
            torch.stack([frames[place] for place in places.tolist()]), shown_s, self.duration_s, self.name, reading
        )

    def span_s(self, times_s: Tensor) -> float:  # noqa: ARG002
        """The whole video's length: what is decoded is torchcodec's own affair."""
        return self.duration_s

    def steps(self) -> tuple[ClockStep, ...]:
        """Return where its clock steps on; not looked for in a file that the caller opened."""
        return steps_of(VideoFile(self._file, self.name, 0), self._origin_s) if isinstance(self._file, str) else ()

    def check(self, start_s: float, end_s: float) -> None:
        """Decode every picture that is shown between these moments; VideoError where one cannot be."""
        with unbroken(self._file):
            try:
                self._decoder.get_frames_played_in_range(self._origin_s + start_s, self._origin_s + end_s)
            except (RuntimeError, ValueError) as error:
                raise VideoError(f"{self.name}: cannot be decoded ({_first_line(error)})") from None

    def close(self) -> None:
        """Give back the file."""
        del self._decoder


def shows_as_stored(file: str | IO[bytes], name: str, size_bytes: int) -> bool:
    """Return whether the first picture is shown as it is decoded. Orientation, long pixels and fields are what each version of
    torchcodec treats in its own way, or not at all. Raises VideoError."""
    position = None if isinstance(file, str) else file.tell()  # torchcodec reads on from here
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
    """Why torchcodec cannot be used on this device, in a line; empty where it can: a small video is decoded to see."""
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
    try:
        return needed("torchcodec.decoders", "torchcodec", "torchcodec is not installed").VideoDecoder
    except (RuntimeError, OSError) as error:
        raise MissingDependency(
            f"torchcodec does not load ({_first_line(error)}); it needs FFmpeg's shared libraries"
        ) from None


def _write_probe(path: str) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = PROBE_SIZE, PROBE_SIZE, "yuv420p"
        for number in range(PROBE_FRAMES):
            pixels_HWC = np.full((PROBE_SIZE, PROBE_SIZE, 3), 50 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")))
        container.mux(stream.encode())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__
