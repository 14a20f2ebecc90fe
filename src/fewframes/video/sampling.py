"""Which moments of a video to look at: arithmetic on seconds, no video and no frame rate in sight."""

from __future__ import annotations

import math
import re
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fewframes.core.settings import STRICT, Positive, settings_from
from fewframes.errors import ConfigError
from fewframes.video.times import checked_range, part_centres

CLIP_S = 16 * 5 / 30
"""What a clip of other methods spans: 16 frames, every fifth of a video of 30 a second."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Views:
    """How often a video is looked at, clips by crops; the scores of all views are averaged."""

    num_clips: Annotated[int, Field(ge=1, le=100)] = 1
    """Stretches of time, spread evenly over the video; one is the whole video unless `clip_s` says otherwise."""
    num_crops: Annotated[int, Field(ge=1, le=10)] = 1
    """Squares along the long side of the picture, spread evenly from end to end; one is the centre."""
    clip_s: Positive | None = None
    """Seconds that a clip spans; None is the whole video for one clip, `CLIP_S` for several."""

    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the spacing between frames by which each moment may move to a frame that is cheaper to decode."""

    @classmethod
    def parse(cls, text: str, clip_s: float | None = None, tolerance: float = 0.0) -> Views:
        """Clips x crops as people write them, `10x3`; ConfigError for anything else."""
        match = re.fullmatch(r"(\d+)x(\d+)", text, re.ASCII)
        if match is None:
            raise ConfigError(f"views {text!r}: needs clips x crops, such as 1x1, 1x3 or 10x3")
        num_clips, num_crops = map(int, match.groups())
        values = {"num_clips": num_clips, "num_crops": num_crops, "clip_s": clip_s, "tolerance": tolerance}
        return settings_from(cls, values, f"views {text!r}")

    @property
    def span_s(self) -> float | None:
        """Seconds that a clip spans; None is the whole video."""
        return CLIP_S if self.clip_s is None and self.num_clips > 1 else self.clip_s

    def __len__(self) -> int:
        return self.num_clips * self.num_crops

    def times(self, duration_s: float, num_frames: int, *, start_s: float = 0.0, end_s: float | None = None) -> Tensor:
        """The moments of each clip: (num_clips, T) float64 seconds. Raises as `centre_times`."""
        if self.span_s is None:
            return centre_times(duration_s, num_frames, start_s=start_s, end_s=end_s)[None]
        start_s, end_s = checked_range(duration_s, start_s, end_s)
        return clip_times(start_s, end_s, num_frames, num_clips=self.num_clips, clip_s=self.span_s)

    def slack_s(self, duration_s: float, num_frames: int, *, start_s: float = 0.0, end_s: float | None = None) -> float:
        """How far each moment may move, in seconds. Raises as `centre_times`."""
        start_s, end_s = checked_range(duration_s, start_s, end_s)
        length_s = end_s - start_s if self.span_s is None else min(self.span_s, end_s - start_s)
        return self.tolerance * length_s / num_frames

    def describe(self, num_frames: int) -> str:
        """The protocol in words."""
        moved = f", each moved by up to {self.tolerance:g} of their spacing" if self.tolerance else ""
        return self._views(num_frames) + moved

    def _views(self, num_frames: int) -> str:
        crops = f"{self.num_crops} crops"
        if self.span_s is None:
            frames = f"{num_frames} uniform frames"
            return f"one pass over {frames}" if self.num_crops == 1 else f"{crops} of {frames}, scores averaged"
        clips = f"{self.num_clips} clip{'s' * (self.num_clips > 1)} of {self.span_s:.2f} s and {num_frames} frames"
        views = clips if self.num_crops == 1 else f"{clips} x {crops}"
        return views if len(self) == 1 else f"{views}, scores averaged"


ONE_PASS = Views()
"""The paper's protocol: uniform frames of the whole video, once."""


def centre_times(duration_s: float, num_frames: int, *, start_s: float = 0.0, end_s: float | None = None) -> Tensor:
    """The centre of each of `num_frames` equal parts of [start_s, end_s]: (T,) float64 seconds, ascending.

    The paper's uniform sampling, used for inference. `end_s` None is the end of the video. Raises ValueError when the
    range is empty or outside the video.
    """
    start_s, end_s = checked_range(duration_s, start_s, end_s)
    return torch.tensor(part_centres(start_s, end_s, num_frames), dtype=torch.float64)


def jittered_times(
    duration_s: float, num_frames: int, generator: torch.Generator, *, start_s: float = 0.0, end_s: float | None = None
) -> Tensor:
    """A random moment in each of `num_frames` equal parts of [start_s, end_s]: (T,) float64 seconds, ascending.

    Uniform sampling for training. Raises as `centre_times`.
    """
    start_s, end_s = checked_range(duration_s, start_s, end_s)
    offsets = torch.rand(num_frames, generator=generator, dtype=torch.float64)
    return _inside_parts(start_s, end_s, offsets)


def clip_times(start_s: float, end_s: float, num_frames: int, *, num_clips: int, clip_s: float) -> Tensor:
    """Moments of clips between two seconds: (num_clips, T) float64 seconds.

    The first clip begins with the range, the last ends with it, the others lie evenly between; one alone lies in the middle.
    A clip's frames are the centres of T equal parts of it. A clip longer than the range is the range.
    """
    length_s = min(clip_s, end_s - start_s)
    spare_s = end_s - start_s - length_s
    shares_C = torch.linspace(0, 1, num_clips, dtype=torch.float64) if num_clips > 1 else torch.tensor([0.5]).double()
    offsets_T = (torch.arange(num_frames, dtype=torch.float64) + 0.5) * (length_s / num_frames)
    return start_s + spare_s * shares_C[:, None] + offsets_T


def steady_times(start_s: float, end_s: float, spacing_s: float) -> Tensor:
    """The centre of each part of `spacing_s` that fits between two seconds: (N,) float64, ascending.

    Any T of them in a row are the `centre_times` of the T parts that they stand for, so that windows over a long video, a
    live stream and a video by itself look at the same moments.
    """
    if not spacing_s > 0:
        raise ValueError(f"spacing_s = {spacing_s:g}: needs to be above 0")
    num_parts = math.floor((end_s - start_s) / spacing_s + 1e-9)
    return start_s + (torch.arange(num_parts, dtype=torch.float64) + 0.5) * spacing_s


def window_places(num_frames: int, window_frames: int, *, stride: int = 1, hop: int = 1) -> Tensor:
    """Which of a row of frames each window over it takes: (W, T) places; none where the row is too short for one.

    A window takes `window_frames`, every `stride`-th; the next one begins `hop` frames later.
    """
    num_windows = max(0, (num_frames - (window_frames - 1) * stride - 1) // hop + 1)
    starts_W = torch.arange(num_windows) * hop
    return starts_W[:, None] + torch.arange(window_frames) * stride


def _inside_parts(start_s: float, end_s: float, offsets_T: Tensor) -> Tensor:
    parts_T = torch.arange(len(offsets_T), dtype=torch.float64)
    return start_s + (parts_T + offsets_T) * ((end_s - start_s) / len(offsets_T))
