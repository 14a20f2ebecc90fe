"""Where the clock of a recording steps on: seconds that pass between two pictures and in which nothing was recorded.

A camera that is set anew, or was away, leaves an hour between two pictures of a second. Moments spread evenly over that would all
show the picture before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise
from statistics import median

from fewframes.results import ClockStep
from fewframes.video.decode.container import DECODE_CLOCK, READ_ERRORS, VideoFile

log = logging.getLogger("fewframes")

STEP_S = 10.0
"""Pictures further apart may be a step of the clock, as for streams (live.JUMP_S) and FFmpeg's own -dts_delta_threshold."""
STEP_FRAMES = 50
"""They are one when they are also this many times further apart than usual: a slide show has long pictures and no steps."""


def steps_of(file: VideoFile, origin_s: float) -> tuple[ClockStep, ...]:
    """Return the steps in seconds from the first picture, at `origin_s`; the packets are all read, nothing is decoded.

    Of a file elsewhere there are none: all of it would have to come here.
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


def moments_around(
    steps: Sequence[ClockStep], centres: Callable[[float, float, float | None], list[float]], duration_s: float,
    start_s: float, end_s: float | None,
) -> list[float]:  # fmt: skip
    """Return what `centres(duration, start, end)` gives on a clock without the steps, on the clock with them."""
    ends_s = None if end_s is None else _without(steps, end_s)
    moments_s = centres(_without(steps, duration_s), _without(steps, start_s), ends_s)
    return [_with(steps, moment_s) for moment_s in moments_s]


def _without(steps: Sequence[ClockStep], time_s: float) -> float:
    return time_s - sum(min(step.by_s, max(0.0, time_s - step.at_s)) for step in steps)


def _with(steps: Sequence[ClockStep], time_s: float) -> float:
    for step in steps:  # ascending
        if time_s >= step.at_s:
            time_s += step.by_s
    return time_s
