"""Decode the frames of a video that a model needs: all clips at once, or one clip stage by stage for an early exit.

No network runs here; the frames come out as the model's view has them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewframes.core.arguments import check_time_range, whole_number
from fewframes.core.settings import MOST_FRAMES
from fewframes.errors import ConfigError, MissingDependency, VideoError, nearest
from fewframes.results import Clip, ClockStep, Work
from fewframes.sampling import Views
from fewframes.video.decode.container import NO_LIMITS, Limits
from fewframes.video.pictures.arrays import Prepare
from fewframes.video.pictures.display import Pixels
from fewframes.video.regions.frames import region_clip
from fewframes.video.regions.zone import Region, fit_regions
from fewframes.video.source import DEFAULT_FPS, BackendName, OpenVideo, Source, open_video, times_in
from fewframes.video.torchcodec import why_not
from fewframes.video.transforms import crops_of, fit_frame
from fewframes.video.view import ViewConfig

BackendChoice = Literal["auto", "pyav", "torchcodec"]
BACKENDS = ("auto", "pyav", "torchcodec")
WORTH_STAGES = 0.5
"""The largest fraction of the whole decoding work up to which the first stage is decoded alone. A later stage may have to go back,
and in a video with few key frames that costs more than decoding everything at once.
"""


@dataclass(frozen=True)
class ClipRequest:
    """A request for frames of a video: the views, the frames of each view, and the seconds they lie between.

    `fps` is the frame rate of inputs that have none of their own.
    """

    views: Views
    num_frames: int
    start_s: float = 0.0
    end_s: float | None = None
    fps: float = DEFAULT_FPS

    def __post_init__(self) -> None:
        check_time_range(self.start_s, self.end_s, self.fps)
        # Numbers of numpy become plain ones; a frozen dataclass is set through `object`.
        object.__setattr__(self, "num_frames", whole_number("num_frames", self.num_frames, 1, MOST_FRAMES))
        object.__setattr__(self, "start_s", float(self.start_s))
        object.__setattr__(self, "end_s", None if self.end_s is None else float(self.end_s))

    def choose(self, duration_s: float, start_s: float, end_s: float | None) -> list[float]:
        """Return the timestamps of all views, clip after clip, between two times of a video. Raises ValueError if nothing is."""
        return self.views.times(duration_s, self.num_frames, start_s=start_s, end_s=end_s).flatten().tolist()


@dataclass(frozen=True, eq=False)
class DecodedClips:
    """The decoded views of one video, with the seconds that decoding and resizing took."""

    clips: tuple[Clip, ...]
    decode_s: float
    transform_s: float


@dataclass(frozen=True)
class ClipReader:
    """A reader of videos for one model: the model's view of a frame, the decoder and its device, and the limits on videos."""

    view: ViewConfig
    backend: BackendName = "pyav"
    device: str = "cpu"
    limits: Limits = NO_LIMITS
    regions: tuple[Region, ...] = ()
    """The parts of the picture that are shown in place of the whole; a clip of each is read."""

    def open_video(self, source: Source, *, fps: float = DEFAULT_FPS, threads: int = 0) -> OpenVideo:
        """Open a video as `fewframes.open_video` does, with this reader's decoder, device and limits."""
        return open_video(
            source, fps=fps, threads=threads, backend=self.backend, device=self.device, limits=self.limits
        )

    def read(self, source: Source, request: ClipRequest, *, threads: int) -> DecodedClips:
        """Decode all clips of a request, one after the other, and all crops of each clip. Raises VideoError."""
        began = time.perf_counter()
        with self.opened(source, request, threads=threads) as video:
            whole = video.decode_all()  # frames (M, S, C, H, W): M frames of all clips, S crops of each
        num_frames = request.num_frames
        clips = tuple(
            replace(
                whole,
                frames=whole.frames[first : first + num_frames, crop],
                times_s=whole.times_s[first : first + num_frames],
            )
            for first in range(0, len(whole.frames), num_frames)
            for crop in range(whole.frames.shape[1])
        )
        return DecodedClips(clips, time.perf_counter() - began - video.transform_s, video.transform_s)

    def frames_at(self, video: OpenVideo, times_s: NDArray[np.float64]) -> Clip:
        """Return the frames of an open video at timestamps (T,) as the model's view has them, or those of the only region."""
        if not self.regions:
            return video.frames_at(times_s, lambda frame_CHW: fit_frame(frame_CHW, self.view))
        (region,) = self.regions
        return region_clip(video, times_s, region, self.view)

    @contextmanager
    def opened(self, source: Source, request: ClipRequest, *, threads: int) -> Iterator[OpenRequest]:
        """Open a video for a request, and close it when the block is left. Raises VideoError."""
        with closing(self.open_video(source, fps=request.fps, threads=threads)) as video:
            times_s = times_in(video, request.choose, request.start_s, request.end_s)
            tolerance_s = request.views.tolerance_s(
                video.duration_s, request.num_frames, start_s=request.start_s, end_s=request.end_s
            )
            yield OpenRequest(video, np.array(times_s), tolerance_s, self._squares(request), request)

    def _squares(self, request: ClipRequest) -> Prepare:
        """Return what makes squares (S, C, crop_px, crop_px) of a frame: of zones, or crops of the whole."""
        if self.regions:
            return lambda frame_CHW: fit_regions(frame_CHW, 0.0, self.regions, self.view)
        return lambda frame_CHW: crops_of(frame_CHW, self.view, request.views.num_crops)


class OpenRequest:
    """An open video and the timestamps that a request asks for: `times_s` (M,), clip after clip."""

    def __init__(
        self,
        video: OpenVideo,
        times_s: NDArray[np.float64],
        tolerance_s: float,
        squares: Prepare,
        request: ClipRequest,
    ) -> None:
        self.video, self.times_s = video, times_s
        self.transform_s = 0.0
        """Seconds spent so far on making the network's input from frames."""
        self._tolerance_s, self._squares, self._request = tolerance_s, squares, request
        self._all: Clip | None = None
        self._steps: tuple[ClockStep, ...] = ()

    def decode_all(self) -> Clip:
        """Decode the frames of all timestamps.

        Where frames come twice, the timestamps are chosen anew around steps of the video's clock.
        """
        return self._around_steps(lambda: self.decode(range(len(self.times_s))))

    def _around_steps(self, decode: Callable[[], Clip]) -> Clip:
        """Decode frames, and those of other timestamps if these come twice or are damaged, and the clock steps.

        A frame that comes twice may also be one that is shown for long. The damaged frame may be that before a gap, which all
        timestamps in the gap would show.
        """
        try:
            clip = decode()
        except VideoError:
            if not self._goes_around_steps():
                raise
            return decode()
        is_twice = len(set(clip.times_s.tolist())) < len(clip.times_s)
        return decode() if is_twice and self._goes_around_steps() else clip

    def _goes_around_steps(self) -> bool:
        """Choose the timestamps anew, once, if the clock steps; return True if that was so."""
        if self._steps:
            return False
        self._steps, request = self.video.steps(), self._request
        if not self._steps:
            return False
        times_s = times_in(self.video, request.choose, request.start_s, request.end_s, self._steps)
        self.times_s, self._all = np.array(times_s), None
        return True

    def decode(self, indices: Sequence[int]) -> Clip:
        """Decode the frames at these indices of `times_s`, with all crops of each: `frames` (N, S, C, crop_px, crop_px)."""
        found = self.video.frames_at(self.times_s[list(indices)], self._prepared, self._tolerance_s)
        return replace(found, steps=self._steps) if self._steps else found

    def work(self, indices: Sequence[int], tolerance: float | None = None) -> Work:
        """Return about what is still read for the frames at these indices, with another tolerance than the request's if given.

        Nothing is, where everything was decoded before.
        """
        if self._all is not None:
            return Work(0.0, 0.0)
        tolerance_s = self._tolerance_s if tolerance is None else self._reach_s(tolerance)
        return self.video.work(self.times_s[list(indices)], tolerance_s)

    def allow(self, tolerance: float) -> None:
        """Let timestamps move by up to this fraction of the interval between frames from now on."""
        self._tolerance_s = self._reach_s(tolerance)

    def _reach_s(self, tolerance: float) -> float:
        request = self._request
        views = replace(request.views, tolerance=tolerance)
        return views.tolerance_s(
            self.video.duration_s, request.num_frames, start_s=request.start_s, end_s=request.end_s
        )

    def is_one_pass(self, indices: Sequence[int]) -> bool:
        """Return True if most of what all frames need is decoded for these indices, so that going back later would cost more."""
        return self.video.span_s(self.times_s[list(indices)]) > WORTH_STAGES * self.video.span_s(self.times_s)

    def decode_first(self, indices: Sequence[int], *, at_once: bool | None = None) -> Clip:
        """Decode as `decode` does, knowing that other indices may follow.

        Everything is decoded now if `at_once`; by default where going back would cost more. Where frames come twice, the
        timestamps are chosen anew as in `decode_all`.
        """
        return self._around_steps(lambda: self._decode_first(indices, at_once))

    def _decode_first(self, indices: Sequence[int], at_once: bool | None) -> Clip:
        if self._all is None and (self.is_one_pass(indices) if at_once is None else at_once):
            self._all = self.decode(range(len(self.times_s)))
        return self.decode_more(indices)

    def decode_more(self, indices: Sequence[int]) -> Clip:
        """Decode as `decode` does, or take the frames from memory where `decode_first` decoded everything."""
        if self._all is None:
            return self.decode(indices)
        return replace(self._all, frames=self._all.frames[list(indices)], times_s=self._all.times_s[list(indices)])

    def _prepared(self, frame_CHW: Pixels) -> Pixels:
        began = time.perf_counter()
        crops_SCHW = self._squares(frame_CHW)
        self.transform_s += time.perf_counter() - began
        return crops_SCHW


def choose_backend(name: BackendChoice, device: str) -> BackendName:
    """Return the decoder to use with a device.

    Raises:
        ConfigError: there is no such decoder.
        MissingDependency: torchcodec is asked for and cannot be used.
    """
    if name not in BACKENDS:
        raise ConfigError(f"backend {name!r}: {nearest(str(name), BACKENDS)}")
    if name == "pyav" or (name == "auto" and not device.startswith("cuda")):
        return "pyav"  # it decodes fewer frames for the same request than torchcodec (docs/explanation/performance.md)
    reason = why_not(device)
    if reason and name == "torchcodec":
        raise MissingDependency(f"the backend torchcodec cannot be used on {device} ({reason}); take 'auto' or 'pyav'")
    return "pyav" if reason else "torchcodec"
