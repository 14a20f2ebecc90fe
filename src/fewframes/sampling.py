"""Which moments of a video to look at: arithmetic on seconds, no video and no frame rate in sight."""

from __future__ import annotations

import torch
from torch import Tensor


def centre_times(duration_s: float, num_frames: int, *, start_s: float = 0.0, end_s: float | None = None) -> Tensor:
    """The centre of each of `num_frames` equal parts of [start_s, end_s]: (T,) float64 seconds, ascending.

    The paper's uniform sampling, used for inference. `end_s` None is the end of the video. Raises ValueError when the
    range is empty or outside the video.
    """
    start_s, end_s = checked_range(duration_s, start_s, end_s)
    offsets = torch.full((num_frames,), 0.5, dtype=torch.float64)
    return _inside_parts(start_s, end_s, offsets)


def jittered_times(
    duration_s: float, num_frames: int, generator: torch.Generator, *, start_s: float = 0.0, end_s: float | None = None
) -> Tensor:
    """A random moment in each of `num_frames` equal parts of [start_s, end_s]: (T,) float64 seconds, ascending.

    Uniform sampling for training. Raises as `centre_times`.
    """
    start_s, end_s = checked_range(duration_s, start_s, end_s)
    offsets = torch.rand(num_frames, generator=generator, dtype=torch.float64)
    return _inside_parts(start_s, end_s, offsets)


def checked_range(duration_s: float, start_s: float, end_s: float | None) -> tuple[float, float]:
    """The range in seconds to look at, its end cut to the video's; ValueError when nothing is left of it."""
    end_s = duration_s if end_s is None else min(end_s, duration_s)
    if not 0 <= start_s < end_s:
        raise ValueError(
            f"nothing to look at between {start_s:g} s and {end_s:g} s: needs 0 <= start < end, "
            f"and the video is {duration_s:.3f} s long"
        )
    return start_s, end_s


def _inside_parts(start_s: float, end_s: float, offsets_T: Tensor) -> Tensor:
    parts_T = torch.arange(len(offsets_T), dtype=torch.float64)
    return start_s + (parts_T + offsets_T) * ((end_s - start_s) / len(offsets_T))
