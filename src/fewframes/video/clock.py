"""Find the gaps in a video's timestamps: jumps ahead during which nothing was recorded.

A camera whose clock is set, or that was switched off, may leave an hour between two pictures that belong to one second. Timestamps
spread evenly over such a gap would all show the picture before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import ArrayLike

from fewframes.results import ClockStep
from fewframes.video.decode.container import DECODE_CLOCK, READ_ERRORS, VideoFile
from fewframes.video.decode.packets import SAME_S

log = logging.getLogger("fewframes")

STEP_S = 10.0
"""The least length of a gap in seconds, as for streams (live_clock.JUMP_S) and as in FFmpeg's -dts_delta_threshold."""
STEP_FRAMES = 50
"""The least length of a gap as a multiple of the usual time between pictures. In a slide show every picture is shown for long, and
that is no gap."""

Choose = Callable[[float, float, float | None], list[float]]
"""A function of a duration, a start and an end in seconds that returns timestamps between start and end."""


def steps_of(file: VideoFile, origin_s: float) -> tuple[ClockStep, ...]:
    """Return the gaps in a video's timestamps, in seconds from its start. All packets are read, and nothing is decoded.

    A remote file is not searched, because all of it would have to be fetched.

    Args:
        file: the video file.
        origin_s: when the first picture is shown, in seconds on the container's clock.
    """
    if file.is_far:
        return ()
    opened, times_s = file.open(), []
    by_decoding = opened.format in DECODE_CLOCK
    with closing(opened.container):
        try:
            for packet in opened.container.demux(opened.stream):
                stamp = packet.dts if by_decoding or packet.pts is None else packet.pts
                if stamp is not None:
                    times_s.append(stamp * opened.tick_s - origin_s)
        except READ_ERRORS as error:
            log.debug("%s: listing its packets stopped: %s", file.name, error)
    times_s.sort()
    gaps = [(before_s, after_s - before_s) for before_s, after_s in pairwise(times_s)]
    usual_s = median(gap_s for _, gap_s in gaps) if gaps else 0.0
    least_s = max(STEP_S, STEP_FRAMES * usual_s)
    return tuple(ClockStep(before_s + usual_s, gap_s - usual_s) for before_s, gap_s in gaps if gap_s >= least_s)


def times_around(
    steps: Sequence[ClockStep], centres: Choose, duration_s: float, start_s: float, end_s: float | None
) -> list[float]:
    """Return timestamps that are spread over a video as if it had no gaps, so that none lies in a gap.

    Args:
        steps: the gaps, ascending.
        centres: a function that chooses timestamps.
        duration_s: the length of the video in seconds, gaps included.
        start_s: the start of the part to sample.
        end_s: the end of that part; None is the end of the video.

    Raises:
        ValueError: if the part lies in a gap, or is empty.
    """
    end_without_s = None if end_s is None else _without(steps, end_s)
    start_without_s = _without(steps, start_s)
    around = step_at(steps, start_s)
    if around is not None and end_without_s is not None and end_without_s <= start_without_s + SAME_S:
        raise ValueError(f"between {start_s:g} s and {end_s:g} s {nothing_recorded(around)}; take another part")
    times_s = centres(_without(steps, duration_s), start_without_s, end_without_s)
    return [_with(steps, time_s) for time_s in times_s]


def nothing_recorded(step: ClockStep) -> str:
    """Return what is said of a gap."""
    return f"nothing was recorded: its timestamps jump by {step.by_s:.2f} s at {step.at_s:.2f} s"


def step_at(steps: Sequence[ClockStep], time_s: float) -> ClockStep | None:
    """Return the gap in which a timestamp lies; None if there was a picture then."""
    return next((step for step in steps if step.at_s <= time_s < step.at_s + step.by_s), None)


def shows_gap(wanted_s: ArrayLike, shown_s: ArrayLike) -> bool:
    """Return whether a picture is shown so long after its beginning that there may be a gap.

    Args:
        wanted_s: timestamps (T,), in seconds.
        shown_s: when their pictures are first shown (T,).
    """
    return bool((np.asarray(wanted_s) - np.asarray(shown_s) >= STEP_S).any())


def _without(steps: Sequence[ClockStep], time_s: float) -> float:
    """Return a timestamp on a clock without the gaps."""
    return time_s - sum(min(step.by_s, max(0.0, time_s - step.at_s)) for step in steps)


def _with(steps: Sequence[ClockStep], time_s: float) -> float:
    """Return the timestamp that `_without` turns into `time_s`. The gaps must be ascending."""
    for step in steps:
        if time_s >= step.at_s:
            time_s += step.by_s
    return time_s
