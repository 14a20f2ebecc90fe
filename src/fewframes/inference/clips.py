"""A video, or a part of one -> what a model looks at of it: all clips at once, or one clip stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from fewframes.core.arguments import check_time_range, whole_number
from fewframes.core.settings import MOST_FRAMES
from fewframes.errors import VideoError
from fewframes.results import Clip, ClockStep
from fewframes.video.decode.clock import times_around
from fewframes.video.decode.container import NO_LIMITS, Limits
from fewframes.video.sampling import Views
from fewframes.video.source import DEFAULT_FPS, BackendName, OpenVideo, Source, open_video
from fewframes.video.transforms import crops_of
from fewframes.video.view import ViewConfig

WORTH_STAGES = 0.5
"""Share of the decoding for all stages, up to which the first stage is read alone: a later one may have to go back, which
costs a video with few key frames more than reading all at once."""


@dataclass(frozen=True)
class ClipRequest:
    """What is looked at of a video: which views, with how many frames each, between which seconds; `fps` is the rate of inputs
    that have none of their own."""

    views: Views
    num_frames: int
    start_s: float = 0.0
    end_s: float | None = None
    fps: float = DEFAULT_FPS

    def __post_init__(self) -> None:
        check_time_range(self.start_s, self.end_s, self.fps)
        object.__setattr__(
            self, "num_frames", whole_number("num_frames", self.num_frames, 1, MOST_FRAMES)
        )  # numpy's too
        object.__setattr__(self, "start_s", float(self.start_s))
        object.__setattr__(self, "end_s", None if self.end_s is None else float(self.end_s))


@dataclass(frozen=True, eq=False)
class DecodedClips:
    """The views of one video, and the seconds that decoding and resizing took."""

    clips: tuple[Clip, ...]
    decode_s: float
    transform_s: float


@dataclass(frozen=True)
class ClipReader:
    """How videos are read for a model: its view of a frame, what decodes where, and what at most."""

    view: ViewConfig
    backend: BackendName = "pyav"
    device: str = "cpu"
    limits: Limits = NO_LIMITS

    def open_video(self, source: Source, *, fps: float = DEFAULT_FPS, threads: int = 0) -> OpenVideo:
        """As `video.open_video`."""
        return open_video(
            source, fps=fps, threads=threads, backend=self.backend, device=self.device, limits=self.limits
        )

    def read(self, source: Source, part: ClipRequest, *, threads: int) -> DecodedClips:
        """All clips of this part, one after the other, of each its crops. Raises VideoError."""
        began = time.perf_counter()
        with self.opened(source, part, threads=threads) as video:
            whole = video.look_at_all()
        num_frames = part.num_frames
        clips = tuple(
            replace(whole, frames=crop_TCHW, times_s=times_T)
            for clip_TSCHW, times_T in zip(whole.frames.split(num_frames), whole.times_s.split(num_frames), strict=True)
            for crop_TCHW in clip_TSCHW.unbind(1)
        )
        return DecodedClips(clips, time.perf_counter() - began - video.transform_s, video.transform_s)

    @contextmanager
    def opened(self, source: Source, part: ClipRequest, *, threads: int) -> Iterator[OpenRequest]:
        """The part of the video, opened; closed when the block is left. Raises VideoError."""
        with closing(self.open_video(source, fps=part.fps, threads=threads)) as video:
            try:
                times_CT = part.views.times(video.duration_s, part.num_frames, start_s=part.start_s, end_s=part.end_s)
                slack_s = part.views.tolerance_s(
                    video.duration_s, part.num_frames, start_s=part.start_s, end_s=part.end_s
                )
            except ValueError as error:
                raise VideoError(f"{video.name}: {error}") from None
            yield OpenRequest(video, times_CT.flatten(), slack_s, self.view, part)


class OpenRequest:
    """The moments of an open video that a model may look at: `times_s` (M,), clip after clip."""

    def __init__(self, video: OpenVideo, times_s: Tensor, slack_s: float, view: ViewConfig, part: ClipRequest) -> None:
        self.video, self.times_s = video, times_s
        self.transform_s = 0.0
        """Seconds that making the network's input of frames took so far."""
        self._slack_s, self._view, self._part = slack_s, view, part
        self._all: Clip | None = None
        self._steps: tuple[ClockStep, ...] = ()

    def look_at_all(self) -> Clip:
        """Return the frames of all moments; where pictures come twice, the moments are chosen anew around steps of the clock."""
        whole = self.look(range(len(self.times_s)))
        return self.look(range(len(self.times_s))) if self._goes_around_steps(whole) else whole

    def _goes_around_steps(self, clip: Clip) -> bool:
        """Choose the moments anew, once, where pictures come twice and the clock steps; return whether that was so."""
        if self._steps or len(set(clip.times_s.tolist())) == len(clip.times_s):
            return False
        self._steps, part = self.video.steps(), self._part
        if not self._steps:
            return False

        def centres(duration_s: float, start_s: float, end_s: float | None) -> list[float]:
            return part.views.times(duration_s, part.num_frames, start_s=start_s, end_s=end_s).flatten().tolist()

        moments_s = times_around(self._steps, centres, self.video.duration_s, part.start_s, part.end_s)
        self.times_s, self._all = self.times_s.new_tensor(moments_s), None
        return True

    def look(self, places: Sequence[int]) -> Clip:
        """The frames at these places among the moments, each as its crops: `frames` (N, S, C, crop_px, crop_px)."""
        found = self.video.frames_at(self.times_s[list(places)], self._prepared, self._slack_s)
        return replace(found, steps=self._steps) if self._steps else found

    def look_first(self, places: Sequence[int]) -> Clip:
        """As `look`, where other places may be looked at later: all are read now where going back would cost more. Where pictures
        come twice, the moments are chosen anew as in `look_at_all`."""
        found = self._look_first(places)
        return self._look_first(places) if self._goes_around_steps(found) else found

    def _look_first(self, places: Sequence[int]) -> Clip:
        first_s, all_s = self.video.span_s(self.times_s[list(places)]), self.video.span_s(self.times_s)
        if self._all is None and first_s > WORTH_STAGES * all_s:
            self._all = self.look(range(len(self.times_s)))
        return self.look_again(places)

    def look_again(self, places: Sequence[int]) -> Clip:
        """As `look`, from what was read at first where that was everything."""
        if self._all is None:
            return self.look(places)
        return replace(self._all, frames=self._all.frames[list(places)], times_s=self._all.times_s[list(places)])

    def _prepared(self, frame_CHW: Tensor) -> Tensor:
        began = time.perf_counter()
        crops_SCHW = crops_of(frame_CHW, self._view, self._part.views.num_crops)
        self.transform_s += time.perf_counter() - began
        return crops_SCHW
