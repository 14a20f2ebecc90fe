"""Times of frames: seconds from frame numbers and back, by the timestamps in the video itself wherever it can be read."""

from __future__ import annotations

import math
import os
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.core.storage import is_address
from fewframes.data.exchange.spans import VideoSpan
from fewframes.errors import DataError, VideoError
from fewframes.video.decode.container import OpenContainer, VideoFile, packets_of
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.source import DEFAULT_FPS, open_video

WITH_A_TABLE = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "avi"})
"""Containers whose header lists all frames, so that its mean rate is that of the frames."""


@dataclass(frozen=True, eq=False)
class FrameClock:
    """The time of each frame of a video, counted from 0."""

    fps: float
    bounds_s: NDArray[np.float64] | None = None
    """The starts of the frames and the end of the last one (N + 1,), in seconds; None if each lasts equally long."""

    def start_s(self, frame: int) -> float:
        """Return when a frame begins, in seconds. Frames beyond the last one go on at the mean rate."""
        if self.bounds_s is None or frame < 0:
            return frame / self.fps
        last = len(self.bounds_s) - 1
        return float(self.bounds_s[min(frame, last)]) + max(0, frame - last) / self.fps

    def nearest(self, time_s: float) -> int:
        """Return the frame whose start is nearest to a time; the number of frames for a time near the end."""
        if self.bounds_s is None:
            return round(time_s * self.fps)
        after = int(np.searchsorted(self.bounds_s, time_s))
        if after == len(self.bounds_s):
            return after - 1 + round((time_s - float(self.bounds_s[-1])) * self.fps)
        return after - 1 if after and time_s - self.bounds_s[after - 1] < self.bounds_s[after] - time_s else after

    def frames_of(self, start_s: float, end_s: float) -> tuple[int, int]:
        """Return the first frame of a span, and the first one after it; a span has at least one frame."""
        first = self.nearest(start_s)
        return first, max(first + 1, self.nearest(end_s))


@dataclass(frozen=True, eq=False)
class VideoFacts:
    """The length, the picture and the frames of a video file."""

    duration_s: float
    width_px: int
    height_px: int
    clock: FrameClock

    @property
    def num_frames(self) -> int:
        """Return the number of frames."""
        return self.clock.nearest(self.duration_s)


class Videos:
    """The videos that an export names. Each is opened once, and only if something of it has to be known."""

    def __init__(self, fps: float | None = None) -> None:
        """Note the frame rate to count with, whatever the videos say; None to ask them."""
        self.fps = fps
        self._known: dict[str, VideoFacts | VideoError] = {}

    def facts(self, path: str) -> VideoFacts:
        """Return the facts of a video. Raises VideoError if it cannot be read."""
        if path not in self._known:
            try:
                self._known[path] = facts_of(path)
            except VideoError as error:
                self._known[path] = error
        known = self._known[path]
        if isinstance(known, VideoError):
            raise known
        return known

    def clock(self, path: str, told_fps: float | None = None) -> FrameClock:
        """Return the clock by which an export counts the frames of a video.

        Args:
            path: The video. The timestamps in it count first.
            told_fps: The frame rate that the export tells; None if it tells none.

        Raises:
            DataError: The video cannot be read, and no frame rate is told.
        """
        if self.fps is not None:
            return FrameClock(self.fps)
        try:
            return self.facts(path).clock
        except VideoError as error:
            if told_fps is not None:
                return FrameClock(told_fps)
            raise DataError(
                f"{path}: its labels count frames, and nothing says how many there are a second ({error}); name the folder of "
                "the videos (--videos), or convert it with `fewframes data convert --fps`"
            ) from None

    def steady_clock(self, path: str, told_fps: float | None = None) -> FrameClock:
        """Return the clock of an export that counts at one rate, which it may tell. Raises as `clock`."""
        if self.fps is None and told_fps is not None:
            return FrameClock(told_fps)
        return FrameClock(self.clock(path).fps)

    def range_of(self, span: VideoSpan) -> tuple[float, float]:
        """Return the start and the end of a span in seconds. Raises DataError if only its video would say the end."""
        if span.end_s is not None:
            return span.start_s, span.end_s
        try:
            return span.start_s, self.facts(span.path).duration_s
        except VideoError as error:
            raise DataError(
                f"{span.path}: {span.label!r} lasts to the end of the video, which is not known ({error}); name the folder of the "
                "videos (--videos), or give the span an end"
            ) from None


def facts_of(path: str) -> VideoFacts:
    """Return the facts of a video. Nothing is decoded but its first picture.

    All packets are listed for the times of the frames, unless the header says that they are even.

    Raises VideoError if it cannot be read.
    """
    if is_address(path):
        raise VideoError(f"{path}: behind an address, and is not fetched for its frame rate")
    with closing(open_video(path)) as video:
        duration_s = video.duration_s
        if not isinstance(video, FileVideo):
            height_px, width_px = video.frames_at([0.0]).frames.shape[-2:]
            return VideoFacts(duration_s, width_px, height_px, FrameClock(DEFAULT_FPS))
    opened = VideoFile(path, path, os.path.getsize(path)).open()
    with closing(opened.container):
        context = opened.stream.codec_context
        clock = FrameClock(1 / opened.frame_s) if _is_even(opened) else _listed_clock(opened, duration_s)
        return VideoFacts(duration_s, context.width, context.height, clock)


def _is_even(opened: OpenContainer) -> bool:
    """Return True if the header of a file says that all frames last equally long: the mean of all is the rate of the first."""
    rates = opened.stream.average_rate, opened.stream.base_rate
    return opened.format in WITH_A_TABLE and rates[0] is not None and rates[0] == rates[1]


def _listed_clock(opened: OpenContainer, duration_s: float) -> FrameClock:
    """Return the clock of the timestamps of all packets; an even one if some have none, or two have the same."""
    stamps = [
        packet.pts for packet in packets_of(opened.container, opened.stream) if packet.size and not packet.is_discard
    ]
    fps = 1 / opened.frame_s
    known = sorted(stamp for stamp in stamps if stamp is not None)
    if len(known) < 2 or len(set(known)) < len(stamps):
        return FrameClock(fps)
    starts_s = (np.array(known, np.float64) - known[0]) * opened.tick_s
    end_s = max(duration_s, float(starts_s[-1]) + 0.1 / fps)
    mean_fps = len(known) / end_s
    return FrameClock(fps if math.isclose(fps, mean_fps, rel_tol=0.02) else mean_fps, np.append(starts_s, end_s))
