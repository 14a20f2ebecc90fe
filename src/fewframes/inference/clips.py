"""Decode the frames of a video that a model needs: all clips at once, or one clip stage by stage for an early exit.

No network runs here; the frames come out as the model's view has them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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
from fewframes.video.clock import times_around
from fewframes.video.decode.container import NO_LIMITS, Limits
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import DEFAULT_FPS, BackendName, OpenVideo, Source, open_video
from fewframes.video.torchcodec import why_not
from fewframes.video.transforms import crops_of
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

    @contextmanager
    def opened(self, source: Source, request: ClipRequest, *, threads: int) -> Iterator[OpenRequest]:
        """Open a video for a request, and close it when the block is left. Raises VideoError."""
        with closing(self.open_video(source, fps=request.fps, threads=threads)) as video:
            try:
                times_CT = request.views.times(
                    video.duration_s, request.num_frames, start_s=request.start_s, end_s=request.end_s
                )
                tolerance_s = request.views.tolerance_s(
                    video.duration_s, request.num_frames, start_s=request.start_s, end_s=request.end_s
                )
            except ValueError as error:
                raise VideoError(f"{video.name}: {error}") from None
            yield OpenRequest(video, np.asarray(times_CT).reshape(-1), tolerance_s, self.view, request)


class OpenRequest:
    """An open video and the timestamps that a request asks for: `times_s` (M,), clip after clip."""

    def __init__(
        self,
        video: OpenVideo,
        times_s: NDArray[np.float64],
        tolerance_s: float,
        view: ViewConfig,
        request: ClipRequest,
    ) -> None:
        self.video, self.times_s = video, times_s
        self.transform_s = 0.0
        """Seconds spent so far on making the network's input from frames."""
        self._tolerance_s, self._view, self._request = tolerance_s, view, request
        self._all: Clip | None = None
        self._steps: tuple[ClockStep, ...] = ()

    def decode_all(self) -> Clip:
        """Decode the frames of all timestamps.

        Where frames come twice, the timestamps are chosen anew around steps of the video's clock.
        """
        whole = self.decode(range(len(self.times_s)))
        return self.decode(range(len(self.times_s))) if self._goes_around_steps(whole) else whole

    def _goes_around_steps(self, clip: Clip) -> bool:
        """Choose the timestamps anew, once, if frames come twice and the clock steps; return True if that was so.

        A frame that comes twice may also be one that is shown for long.
        """
        if self._steps or len(set(clip.times_s.tolist())) == len(clip.times_s):
            return False
        self._steps, request = self.video.steps(), self._request
        if not self._steps:
            return False

        def centres(duration_s: float, start_s: float, end_s: float | None) -> list[float]:
            return request.views.times(duration_s, request.num_frames, start_s=start_s, end_s=end_s).flatten().tolist()

        times_s = times_around(self._steps, centres, self.video.duration_s, request.start_s, request.end_s)
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
        found = self._decode_first(indices, at_once)
        return self._decode_first(indices, at_once) if self._goes_around_steps(found) else found

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
        crops_SCHW = crops_of(frame_CHW, self._view, self._request.views.num_crops)
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
