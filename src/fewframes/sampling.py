"""Choose the timestamps at which a video is sampled: arithmetic on seconds, without videos or frame rates."""

from __future__ import annotations

import math
import re
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Positive, settings_from
from fewframes.core.text import count_of
from fewframes.errors import ConfigError
from fewframes.video.times import checked_range

Times = NDArray[np.float64]

CLIP_S = 16 * 5 / 30
"""The length of a clip in other methods, in seconds: 16 frames, every fifth of a video of 30 frames per second."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Views:
    """The views of a video that a model sees: clips in time by crops of the frame. The scores of all views are averaged."""

    num_clips: Annotated[int, Field(ge=1, le=100)] = 1
    """The number of clips, spread evenly over the video. One clip is the whole video unless `clip_s` says otherwise."""
    num_crops: Annotated[int, Field(ge=1, le=10)] = 1
    """The number of squares along the long side of the frame, spread evenly from end to end. One square is the centre."""
    clip_s: Positive | None = None
    """The length of a clip in seconds. None is the whole video for one clip, and `CLIP_S` for several."""

    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The fraction of the interval between frames by which each timestamp may move to a frame that is cheaper to decode."""

    @classmethod
    def parse(cls, text: str, clip_s: float | None = None, tolerance: float = 0.0) -> Views:
        """Return the views for a text of clips x crops, such as `10x3`. Raises ConfigError for other texts.

        Args:
            text: the text.
            clip_s: the length of a clip, in seconds.
            tolerance: the fraction of the interval between frames by which a timestamp may move.
        """
        match = re.fullmatch(r"(\d+)x(\d+)", text, re.ASCII)
        if match is None:
            raise ConfigError(f"views {text!r}: needs clips x crops, such as 1x1, 1x3 or 10x3")
        num_clips, num_crops = map(int, match.groups())
        values = {"num_clips": num_clips, "num_crops": num_crops, "clip_s": clip_s, "tolerance": tolerance}
        return settings_from(cls, values, f"views {text!r}")

    @property
    def span_s(self) -> float | None:
        """Return the length of a clip in seconds; None is the whole video."""
        return CLIP_S if self.clip_s is None and self.num_clips > 1 else self.clip_s

    def __len__(self) -> int:
        return self.num_clips * self.num_crops

    def times(self, duration_s: float, num_frames: int, *, start_s: float = 0.0, end_s: float | None = None) -> Times:
        """Return the timestamps of each clip: (num_clips, T) float64 seconds.

        Args:
            duration_s: the length of the video, in seconds.
            num_frames: the number of frames per clip, T.
            start_s: the start of the part of the video to sample.
            end_s: the end of that part; None is the end of the video.

        Raises:
            ValueError: if that part is empty or outside the video.
        """
        if self.span_s is None:
            return centre_times(duration_s, num_frames, start_s=start_s, end_s=end_s)[None]
        start_s, end_s = checked_range(duration_s, start_s, end_s)
        return clip_times(start_s, end_s, num_frames, num_clips=self.num_clips, clip_s=self.span_s)

    def tolerance_s(
        self, duration_s: float, num_frames: int, *, start_s: float = 0.0, end_s: float | None = None
    ) -> float:
        """Return how far each timestamp may move, in seconds. The arguments and errors are those of `times`."""
        start_s, end_s = checked_range(duration_s, start_s, end_s)
        length_s = end_s - start_s if self.span_s is None else min(self.span_s, end_s - start_s)
        return self.tolerance * length_s / num_frames

    def describe(self, num_frames: int) -> str:
        """Return the sampling in words, such as "one pass over 16 uniform frames"."""
        moved = f", each moved by up to {self.tolerance:g} of the interval between them" if self.tolerance else ""
        return self._views(num_frames) + moved

    def _views(self, num_frames: int) -> str:
        """Return the clips and crops in words."""
        crops = f"{self.num_crops} crops"
        if self.span_s is None:
            frames = count_of(num_frames, "uniform frame")
            return f"one pass over {frames}" if self.num_crops == 1 else f"{crops} of {frames}, scores averaged"
        clips = f"{count_of(self.num_clips, 'clip')} of {self.span_s:.2f} s and {count_of(num_frames, 'frame')}"
        views = clips if self.num_crops == 1 else f"{clips} x {crops}"
        return views if len(self) == 1 else f"{views}, scores averaged"


ONE_PASS = Views()
"""The paper's sampling: uniform frames of the whole video, once."""


def centre_times(duration_s: float, num_frames: int, *, start_s: float = 0.0, end_s: float | None = None) -> Times:
    """Return the centres of `num_frames` equal parts of [start_s, end_s]: (T,) float64 seconds, ascending.

    This is the paper's uniform sampling, used for inference.

    Args:
        duration_s: the length of the video, in seconds.
        num_frames: the number of parts, T.
        start_s: the start of the range.
        end_s: the end of the range; None is the end of the video.

    Raises:
        ValueError: if the range is empty or outside the video.
    """
    start_s, end_s = checked_range(duration_s, start_s, end_s)
    return _inside_parts(start_s, end_s, np.full(num_frames, 0.5))


def jittered_times(
    duration_s: float, fractions_T: ArrayLike, *, start_s: float = 0.0, end_s: float | None = None
) -> Times:
    """Return a timestamp in each of T equal parts of [start_s, end_s], at a random fraction of it: (T,) float64 seconds, ascending.

    This is uniform sampling for training.

    Args:
        duration_s: the length of the video, in seconds.
        fractions_T: random numbers (T,) in [0, 1), one for each part.
        start_s: the start of the range.
        end_s: the end of the range; None is the end of the video.

    Raises:
        ValueError: if the range is empty or outside the video.
    """
    start_s, end_s = checked_range(duration_s, start_s, end_s)
    return _inside_parts(start_s, end_s, np.asarray(fractions_T, np.float64))


def clip_times(start_s: float, end_s: float, num_frames: int, *, num_clips: int, clip_s: float) -> Times:
    """Return the timestamps of clips in a range: (num_clips, T) float64 seconds.

    The first clip begins with the range, the last one ends with it, and the others lie evenly between. A single clip lies in the
    middle. A clip that is longer than the range is the range. The frames of a clip are the centres of T equal parts of it.

    Args:
        start_s: the start of the range, in seconds.
        end_s: the end of the range.
        num_frames: the number of frames per clip, T.
        num_clips: the number of clips.
        clip_s: the length of a clip, in seconds.
    """
    length_s = min(clip_s, end_s - start_s)
    spare_s = end_s - start_s - length_s
    along_C = np.linspace(0, 1, num_clips) if num_clips > 1 else np.array([0.5])
    offsets_T = (np.arange(num_frames) + 0.5) * (length_s / num_frames)
    times_CT: Times = start_s + spare_s * along_C[:, None] + offsets_T
    return times_CT


def steady_times(start_s: float, end_s: float, interval_s: float) -> Times:
    """Return timestamps at a fixed interval, the centres of the parts of a range: (N,) float64 seconds, ascending.

    Any T neighbouring timestamps are the `centre_times` of the T parts around them. So windows over a long video, over a live
    stream and a video by itself use the same timestamps.

    Args:
        start_s: the start of the range, in seconds.
        end_s: the end of the range. A last part that does not fit has no timestamp.
        interval_s: the length of a part, in seconds.

    Raises:
        ValueError: if that length is not above 0.
    """
    if not interval_s > 0:
        raise ValueError(f"interval_s = {interval_s:g}: needs to be above 0")
    num_parts = math.floor((end_s - start_s) / interval_s + 1e-9)  # a part that fits but for rounding counts
    times_N: Times = start_s + (np.arange(num_parts, dtype=np.float64) + 0.5) * interval_s
    return times_N


def window_indices(num_frames: int, window_frames: int, *, stride: int = 1, interval: int = 1) -> NDArray[np.int64]:
    """Return the indices of the frames in each window over a sequence of frames: (W, T).

    W is 0 if the sequence is too short for a window.

    Args:
        num_frames: the number of frames in the sequence.
        window_frames: the number of frames in a window, T.
        stride: the step from one frame of a window to the next.
        interval: the step from the start of one window to that of the next.
    """
    num_windows = max(0, (num_frames - (window_frames - 1) * stride - 1) // interval + 1)
    starts_W = np.arange(num_windows) * interval
    return starts_W[:, None] + np.arange(window_frames) * stride


def _inside_parts(start_s: float, end_s: float, offsets_T: Times) -> Times:
    """Return a timestamp in each of T equal parts of a range, at a fraction (T,) of the length of its part."""
    parts_T = np.arange(len(offsets_T))
    times_T: Times = start_s + (parts_T + offsets_T) * ((end_s - start_s) / len(offsets_T))
    return times_T
