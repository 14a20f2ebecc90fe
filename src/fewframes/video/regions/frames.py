"""Read the frames of regions from an open video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fewframes.results import Clip
from fewframes.video.regions.zone import Region, fit_region
from fewframes.video.source import OpenVideo
from fewframes.video.view import ViewConfig

WHOLE_FRAMES = 8
"""The most whole pictures that are in memory at a time."""


def region_clip(video: OpenVideo, times_s: NDArray[np.float64], region: Region, view: ViewConfig) -> Clip:
    """Return the frames of a region at timestamps (T,) as squares (T, C, crop_px, crop_px). Raises VideoError."""
    if region.kind == "zone":
        return video.frames_at(
            times_s, lambda frame_CHW: fit_region(frame_CHW, region.rectangle(0.0, *frame_CHW.shape[-2:]), view)
        )
    parts = [
        (
            clip,
            [
                fit_region(frame_CHW, region.rectangle(time_s, *frame_CHW.shape[-2:]), view)
                for frame_CHW, time_s in zip(clip.frames, asked_s.tolist(), strict=True)
            ],
        )
        for asked_s, clip in whole_pictures(video, times_s)
    ]
    return replace(
        parts[-1][0],
        frames=np.stack([square_CHW for _, squares in parts for square_CHW in squares]),
        times_s=np.concatenate([clip.times_s for clip, _ in parts]),
    )


def whole_pictures(video: OpenVideo, times_s: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.float64], Clip]]:
    """Yield timestamps in parts of `WHOLE_FRAMES`, each with the whole pictures that are shown then. Raises VideoError."""
    for first in range(0, len(times_s), WHOLE_FRAMES):
        part_s = times_s[first : first + WHOLE_FRAMES]
        yield part_s, video.frames_at(part_s)
