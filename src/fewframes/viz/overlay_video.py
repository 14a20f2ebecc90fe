"""Write a video with text and boxes drawn over its pictures. Its sound is copied."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from fewframes.core.files import whole, writing
from fewframes.core.storage import as_path, is_address, open_far
from fewframes.errors import ConfigError, OutputError, VideoError
from fewframes.video.decode.container import BLOCK_BYTES
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.decode.opening import in_its_words, open_alone
from fewframes.video.pictures.display import HD_WIDTH_PX, SD_HEIGHT_PX, Pixels
from fewframes.video.recording.packets import takes
from fewframes.video.source import open_video
from fewframes.viz.overlay import Overlay, drawn

log = logging.getLogger("fewframes")

SUFFIXES = (".mp4", ".mkv")
TICKS = 60_000
"""Ticks of a second in the video that is written: the times of 24, 25, 29.97, 30, 50 and 60 pictures a second are exact."""
ENCODERS = ("libx264", "mpeg4")
"""The encoders, the best first. Not every build of FFmpeg has the first one."""
OPTIONS = {
    "libx264": {"crf": "20", "preset": "veryfast", "bf": "0"},
    "mpeg4": {"flags": "+qscale", "global_quality": "354"},
}
"""Their options. B-pictures of uneven lengths would make MP4 state a length that is too short. 354 is quality 3 for FFmpeg."""


FRAGMENT_PICTURES = 10
"""The pictures from one key frame to the next of a video that grows: so many are lost if the process is killed."""
NOT_HELD = {
    "libx264": {"g": str(FRAGMENT_PICTURES), "tune": "zerolatency"},
    "mpeg4": {"g": str(FRAGMENT_PICTURES)},
}
"""Options of the encoders for a video that grows. Else the first one looks ahead, over twenty pictures and more."""

GROWING = {
    ".mp4": {"movflags": "frag_keyframe+empty_moov+default_base_moof"},
    ".mkv": {"cluster_time_limit": "2000"},
}
"""Options with which each part of a file can be played without what comes after it."""


def check_target(path: Path, option: str) -> None:
    """Raise ConfigError if the name of a video to be written has no ending of `SUFFIXES`. `option` is named in the error."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{option} {path}: needs a name that ends in {' or '.join(SUFFIXES)}")


def write_overlay(
    source: str,
    target: Path,
    overlay_at: Callable[[float], Overlay],
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> None:
    """Write a video with an overlay over each picture, whole or not at all. Its pictures keep their times.

    Args:
        source: The video: a path or an address.
        target: The file to be written.
        overlay_at: Returns the overlay for a time in seconds from the start of the video.
        start_s: The time at which the new video begins.
        end_s: The time at which it ends; None for the end of the video.
        progress: Called with the seconds that are done, and those of the new video.

    Raises:
        VideoError: The video cannot be decoded, or is a set of pictures.
        OutputError: The new video cannot be written.
    """
    with closing(open_video(source)) as video:
        if not isinstance(video, FileVideo):
            raise VideoError(f"{source}: pictures without times of their own; --draw needs a video file")
        with _written(target) as container, ExitStack() as stack:
            writer = stack.enter_context(OverlayWriter(container))
            sound = _sound_of(source, stack, container)
            length_s = min(video.duration_s, math.inf if end_s is None else end_s) - start_s
            # Not up to the stated length, which may be less than there is.
            for time_s, shown_s, pixels_HWC in video.pictures(start_s, math.inf if end_s is None else end_s):
                writer.add(drawn(pixels_HWC, overlay_at(time_s)), time_s, shown_s)
                sound.copy(video.origin_s + (writer.origin_s or 0.0), video.origin_s + time_s + shown_s)
                if progress is not None:
                    progress(time_s - start_s, length_s)


@contextmanager
def _written(target: Path) -> Iterator[OutputContainer]:
    """Yield a container whose file stands at `target` once the block has ended without an error. Raises OutputError."""
    options = {"movflags": "faststart"} if target.suffix.lower() == ".mp4" else {}
    with writing(target.parent), whole(target) as part, av.open(str(part), "w", options=options) as container:
        try:
            yield container
        except FFmpegError as error:
            raise OutputError(f"{target}: cannot be written ({in_its_words(error)}); take another file") from None


class GrowingVideo:
    """A video of pictures that come one by one. What is written of it can be played at any time, even if the process is killed.

    After an error nothing more is written, and the error is told once: what makes the pictures goes on.
    """

    def __init__(self, target: Path, tell: Callable[[str], None]) -> None:
        """Begin the file. A file of that name is replaced.

        Args:
            target: The file.
            tell: Called with an error, once.

        Raises:
            OutputError: The file cannot be begun.
        """
        self._target, self._tell = target, tell
        options = GROWING[target.suffix.lower()] | {"flush_packets": "1"}
        with writing(target.parent):
            self._container: OutputContainer | None = av.open(str(target), "w", options=options)
        self._writer = OverlayWriter(self._container, is_growing=True)
        self.num_pictures = 0
        """Pictures that were written."""

    def add(self, pixels_HWC: Pixels, time_s: float, shown_s: float) -> None:
        """Add a picture. The arguments are those of `OverlayWriter.add`."""
        if self._container is None:
            return
        try:
            self._writer.add(pixels_HWC, time_s, shown_s)
            self.num_pictures += 1
        except (FFmpegError, OSError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Tell an error, and write nothing more."""
        container, self._container = self._container, None
        self._tell(f"{self._target}: cannot be written ({in_its_words(error)}); the rest is not drawn")
        if container is not None:
            with suppress(FFmpegError, OSError):  # the same error once more
                container.close()

    def close(self) -> None:
        """End the file."""
        container = self._container
        if container is None:
            return
        try:
            self._writer.__exit__(None)
            container.close()
        except (FFmpegError, OSError) as error:
            self._fail(error)
        self._container = None


class OverlayWriter:
    """A video that pictures are added to. Its size is that of the first picture."""

    def __init__(self, container: OutputContainer, *, is_growing: bool = False) -> None:
        """Prepare to write.

        Args:
            container: The container that is written. The caller closes it after this object.
            is_growing: True for a video that is played before it is ended: a key frame in every `FRAGMENT_PICTURES` pictures, and
                none held back.
        """
        self._container = container
        self.origin_s: float | None = None
        """The time of the first picture; None before it."""
        self._last = -1
        codec = next(name for name in ENCODERS if name in av.codecs_available)
        stream = container.add_stream(codec, rate=25, options=OPTIONS[codec] | (NOT_HELD[codec] if is_growing else {}))
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._size = (0, 0)

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None and self.origin_s is not None:
            self._container.mux(self._stream.encode(None))

    def add(self, pixels_HWC: Pixels, time_s: float, shown_s: float) -> None:
        """Add a picture.

        Args:
            pixels_HWC: The picture. One of another size than the first is scaled to its size.
            time_s: The time at which it is shown.
            shown_s: How long it is shown, in seconds.
        """
        if self.origin_s is None:
            self.origin_s = time_s
            self._begin(pixels_HWC.shape[1], pixels_HWC.shape[0])
        frame = VideoFrame.from_ndarray(_even(pixels_HWC), format="rgb24").reformat(
            width=self._size[0],
            height=self._size[1],
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709 if self._is_hd else Colorspace.ITU601,
        )
        frame.pts = max(self._last + 1, round((time_s - self.origin_s) * TICKS))
        frame.time_base, frame.duration = Fraction(1, TICKS), max(1, round(shown_s * TICKS))
        self._last = frame.pts
        self._container.mux(self._stream.encode(frame))

    @property
    def _is_hd(self) -> bool:
        """Return True for a size whose colours players read as those of HD."""
        return self._size[0] >= HD_WIDTH_PX or self._size[1] > SD_HEIGHT_PX

    def _begin(self, width_px: int, height_px: int) -> None:
        """Set the size of the pictures, which both codecs want to be even."""
        self._size = (width_px + width_px % 2, height_px + height_px % 2)
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)


def _even(pixels_HWC: Pixels) -> Pixels:
    """Return a picture with an even width and height. A last row or column is repeated for that."""
    height_px, width_px, _ = pixels_HWC.shape
    if height_px % 2 == width_px % 2 == 0:
        return pixels_HWC
    return np.pad(pixels_HWC, ((0, height_px % 2), (0, width_px % 2), (0, 0)), mode="edge")


class _Sound:
    """The sound of a video, which is copied into another one in step with its pictures."""

    def __init__(self, source: InputContainer, container: OutputContainer) -> None:
        """Prepare to copy. Sound that the new video cannot hold is left out, and logged.

        Args:
            source: The video, opened for this alone.
            container: The new video.
        """
        self._container = container
        self._packets: Iterator[Packet[Any]] = iter(())
        self._held: Packet[Any] | None = None
        stream = source.streams.best("audio")
        if stream is None:
            return
        if not takes(container.format.name, [stream]):
            log.warning("%s: its sound is left out, because %s cannot hold it", source.name, container.format.name)
            return
        self._tick_s = stream.time_base or Fraction(1, 1000)
        self._copy = container.add_stream_from_template(stream, opaque=True)
        self._packets = (packet for packet in source.demux(stream) if packet.pts is not None and packet.size)

    def copy(self, begin_s: float, until_s: float) -> None:
        """Copy the sound up to `until_s` that was not copied yet.

        Args:
            begin_s: The time at which the new video begins, on the source's clock.
            until_s: The time up to which sound is copied, on the source's clock.
        """
        while (packet := self._held or next(self._packets, None)) is not None:
            self._held, pts = packet, packet.pts or 0
            if pts * self._tick_s >= until_s:
                return
            self._held, base = None, round(begin_s / self._tick_s)
            if pts >= base:
                packet.pts, packet.dts, packet.stream = pts - base, pts - base, self._copy
                self._container.mux(packet)


def _sound_of(source: str, stack: ExitStack, container: OutputContainer) -> _Sound:
    """Open a video once more, for its sound."""
    path = as_path(source)
    file: Any = path
    if is_address(path):
        file, _ = open_far(path, BLOCK_BYTES)
        stack.callback(file.close)
    return _Sound(stack.enter_context(open_alone(file)), container)
