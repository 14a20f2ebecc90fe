"""Decode what a model would see of a sample, and keep what its videos are compared by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from fewframes.core.cache import content_key
from fewframes.core.storage import is_address
from fewframes.data.copies.footprint import Footprint
from fewframes.data.samples import Sample
from fewframes.data.scenes.groups import middle_of
from fewframes.errors import MissingVideo, VideoError
from fewframes.sampling import centre_times
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import OpenVideo, open_video
from fewframes.video.times import checked_range

LAST_S = 1e-3
"""The time before the end of a video at which its last frame is asked for, in seconds."""


@dataclass(frozen=True, kw_only=True)
class SampleCheck:
    """The result of decoding a sample: its range in seconds and what was found, or the error."""

    start_s: float = 0.0
    end_s: float = 0.0
    num_distinct: int = 0
    """Number of distinct frames that a model would see."""
    content: str = ""
    """Key of the file's bytes; the address itself for a URL."""
    error: str = ""
    """The reason why the sample cannot be decoded; empty if it can."""
    missing: bool = False
    """True if the error is that there is no such file."""
    thumbnail: Pixels | None = field(default=None, compare=False, repr=False)
    """A thumbnail of the middle frame, by which scenes are found; None if they are not looked for."""
    footprint: Footprint | None = field(default=None, compare=False, repr=False)
    """The footprint by which copies are found; None if they are not looked for."""


def check_file(
    samples: Sequence[Sample],
    num_frames: int,
    *,
    thorough: bool,
    scenes: bool = False,
    look: Callable[[OpenVideo, Sample, str], Footprint | None] | None = None,
) -> list[SampleCheck]:
    """Decode the samples of one file, and return a check of each. A file that cannot be read gives the error of each.

    Args:
        samples: Samples of one file.
        num_frames: Frames that a model takes from each.
        thorough: Decode every frame of each sample.
        scenes: Keep a thumbnail of each sample's middle frame.
        look: A function that makes the footprint of a sample in a file of this content; None keeps no footprints.
    """
    path = samples[0].path
    try:
        content = path if is_address(path) else content_key(path)
        with closing(open_video(path, threads=1)) as video:
            checks = [_check_sample(video, sample, num_frames, thorough=thorough) for sample in samples]
            if scenes:
                checks = [
                    check if check.error else replace(check, thumbnail=middle_of(video, sample))
                    for check, sample in zip(checks, samples, strict=True)
                ]
            if look is not None and not is_address(path):
                checks = [
                    check if check.error else replace(check, footprint=look(video, sample, content))
                    for check, sample in zip(checks, samples, strict=True)
                ]
    except VideoError as error:
        return [_failed(path, error)] * len(samples)
    except OSError as error:
        return [SampleCheck(error=f"cannot be read ({error.strerror or error})")] * len(samples)
    return [replace(check, content=content) for check in checks]


def _check_sample(video: OpenVideo, sample: Sample, num_frames: int, *, thorough: bool) -> SampleCheck:
    try:
        start_s, end_s = checked_range(video.duration_s, sample.start_s, sample.end_s)
        centres_T = centre_times(video.duration_s, num_frames, start_s=start_s, end_s=end_s)
        # The last frame too: a file that was cut short fails at its end, which no centre reaches.
        last_1 = np.maximum(centres_T[-1:], end_s - LAST_S)
        clip = video.frames_at(np.concatenate([centres_T, last_1]), _one_pixel)
        if thorough:
            video.check(start_s, end_s)
    except ValueError as error:
        return SampleCheck(error=str(error))
    except VideoError as error:
        return _failed(sample.path, error)
    return SampleCheck(start_s=start_s, end_s=end_s, num_distinct=len(np.unique(clip.times_s[:num_frames])))


def _failed(path: str, error: VideoError) -> SampleCheck:
    return SampleCheck(error=str(error).removeprefix(f"{path}: "), missing=isinstance(error, MissingVideo))


def _one_pixel(frame_CHW: Pixels) -> Pixels:
    """Return one pixel of a frame. Frames are decoded whole, but none is held in memory."""
    return frame_CHW[:, :1, :1].copy()
