"""Follow a person or a thing by its boxes: a smooth square around it, cut out of every picture in which it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import arrays_key
from fewframes.errors import VideoError
from fewframes.video.regions.zone import LEAST_PX, Rectangle

AROUND_S = 0.5
"""Seconds before and after a time whose boxes the square holds too, so that it does not tremble as boxes do."""
MARGIN = 1.2
"""The side of the square over the longer side of these boxes: an arm that is stretched out lies beside many a box."""
PATIENCE_S = 1.0
"""The longest time between two boxes of a track in which it is taken to be there, between them."""
LEAST_S = 0.5
"""The shortest stretch, in seconds, that is judged."""
Floats64 = NDArray[np.float64]


class Box(NamedTuple):
    """A box around a person or a thing in pixels of its picture, (0, 0) is the top left corner; `score` says how sure it is."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float = 1.0


@dataclass(frozen=True, eq=False)
class Track:
    """A person or a thing that is followed: boxes (N, 4) of x0, y0, x1, y1 at ascending `times_s` (N,).

    The boxes are in pixels, or in fractions of the picture. The square that is cut out holds the boxes of `AROUND_S` before and
    after, with a margin, and is moved into the picture where it reaches beyond.
    """

    name: str
    times_s: Floats64
    boxes: Floats64
    in_pixels: bool = True

    @property
    def kind(self) -> Literal["track"]:
        """Return `track`."""
        return "track"

    @cached_property
    def _interval_s(self) -> float:
        """Return the usual seconds from one box to the next."""
        return float(np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else 0.0

    def stretches(self, start_s: float, end_s: float) -> list[tuple[float, float]]:
        """Return the parts of a range in which it is there, without pauses above `PATIENCE_S`, each `LEAST_S` or longer."""
        ends = np.flatnonzero(np.diff(self.times_s) > PATIENCE_S)
        firsts, lasts = self.times_s[np.r_[0, ends + 1]], self.times_s[np.r_[ends, len(self.times_s) - 1]]
        half_s = min(self._interval_s, PATIENCE_S) / 2  # a box stands for half an interval on either side
        found = [
            (max(start_s, first_s - half_s), min(end_s, last_s + half_s))
            for first_s, last_s in zip(firsts.tolist(), lasts.tolist(), strict=True)
        ]
        return [(first_s, last_s) for first_s, last_s in found if last_s - first_s >= LEAST_S]

    def box_at(self, time_s: float) -> Floats64 | None:
        """Return its box (4,) at a time, between two boxes moved from one to the other; None while it is not there."""
        if not any(start_s <= time_s <= end_s for start_s, end_s in self.stretches(-np.inf, np.inf)):
            return None
        return self._now(time_s)

    def rectangle(self, time_s: float, height: int, width: int) -> Rectangle:
        """Return the square around it, or less where the picture is narrower. Raises VideoError if no box lies in the picture."""
        x0, y0, x1, y1 = self._around(time_s) * (1.0 if self.in_pixels else np.array([width, height, width, height]))
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise VideoError(
                f"track {self.name} is outside of the picture at {time_s:.2f} s: {x0:.0f},{y0:.0f} to {x1:.0f},{y1:.0f} in a "
                f"picture of {width} x {height}; are its boxes those of another video, or of another size of it?"
            )
        side = max(LEAST_PX, MARGIN * max(x1 - x0, y1 - y0))
        left, right = _inside((x0 + x1) / 2, side, width)
        top, bottom = _inside((y0 + y1) / 2, side, height)
        return Rectangle(left, top, right, bottom)

    def _around(self, time_s: float) -> Floats64:
        """Return the box that holds those of `AROUND_S` before and after a time; between two boxes they are taken to move."""
        near = np.abs(self.times_s - time_s) <= AROUND_S
        boxes = np.concatenate([self._now(time_s)[None], self.boxes[near]])
        return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])

    def _now(self, time_s: float) -> Floats64:
        return np.array([np.interp(time_s, self.times_s, side_N) for side_N in self.boxes.T])

    def key(self) -> Mapping[str, object]:
        arrays = arrays_key({"times_s": self.times_s, "boxes": self.boxes})
        return {"track": arrays, "in_pixels": self.in_pixels, "around_s": AROUND_S, "margin": MARGIN}

    def __repr__(self) -> str:
        return (
            f"Track({self.name!r}: {len(self.times_s)} boxes from {self.times_s[0]:.2f} s to {self.times_s[-1]:.2f} s)"
        )


def track_of(name: str, times_s: Sequence[float], boxes: Sequence[Sequence[float]], *, in_pixels: bool = True) -> Track:
    """Return a track of boxes (x0, y0, x1, y1) at times in any order; of several boxes at one time the last one counts."""
    by_time = dict(sorted(zip(times_s, boxes, strict=True), key=lambda pair: pair[0]))
    return Track(name, np.array(list(by_time), np.float64), np.array([box[:4] for box in by_time.values()]), in_pixels)


def _inside(centre: float, side: float, length: int) -> tuple[int, int]:
    """Return the pixels, from first to last, of a side around a centre, moved into a picture that is so many pixels long."""
    size = min(length, round(side))
    first = min(max(0, round(centre - size / 2)), length - size)
    return first, first + size
