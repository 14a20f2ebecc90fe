"""Follow persons or things from picture to picture: a detector finds boxes, and boxes that overlap most are one track."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fewframes.errors import needed
from fewframes.video.pictures.display import Pixels
from fewframes.video.regions.boxes import AROUND_S, PATIENCE_S, Box, Floats64, Track, track_of

LEAST_OVERLAP = 0.2
"""The overlap, intersection over union, from which a box continues a track."""
LEAST_BOXES = 3
"""The fewest boxes of a track: fewer are a mistake of the detector more often than a person."""


class Detector(Protocol):
    """Anything that finds persons or things in a picture."""

    def boxes(self, picture_HWC: Pixels, time_s: float) -> Sequence[Box]:
        """Return the boxes of what is in a picture (H, W, C) uint8 RGB, in its pixels. Pictures come in the order of time."""


@dataclass
class _Trail:
    """A track so far: its number, times and boxes (x0, y0, x1, y1), and how fast each side moves, in pixels a second."""

    number: int
    times_s: list[float] = field(default_factory=list)
    boxes: list[Floats64] = field(default_factory=list)
    speed: Floats64 = field(default_factory=lambda: np.zeros(4))
    num_boxes: int = 0

    def expected(self, time_s: float, most_s: float = np.inf) -> Floats64:
        """Return where its box is expected at a time, if it moves on as it did, for at most `most_s` seconds."""
        return self.boxes[-1] + self.speed * min(most_s, time_s - self.times_s[-1])

    def add(self, time_s: float, box: Floats64) -> None:
        """Add its box at a later time. Its speed is the mean of that so far and of the last step."""
        if self.times_s:
            step = (box - self.boxes[-1]) / (time_s - self.times_s[-1])
            self.speed = step if len(self.times_s) == 1 else (self.speed + step) / 2
        self.times_s.append(time_s)
        self.boxes.append(box)
        self.num_boxes += 1

    def forget(self, before_s: float) -> None:
        """Forget the boxes before a time. The last one stays."""
        first = next((number for number, time_s in enumerate(self.times_s) if time_s >= before_s), len(self.times_s))
        del self.times_s[: min(first, len(self.times_s) - 1)], self.boxes[: min(first, len(self.boxes) - 1)]


class Tracker:
    """Numbers boxes picture after picture, so that those of one person or thing have one number.

    Boxes are given to tracks so that the sum of overlaps with where the tracks are expected is largest. A track that has no box for
    longer than `patience_s` is over; who comes back later has a new number.
    """

    def __init__(self, patience_s: float = PATIENCE_S, least_overlap: float = LEAST_OVERLAP) -> None:
        """Make a tracker. Boxes that overlap by less than `least_overlap` are never one track."""
        self._match = needed("scipy.optimize", "people", "following boxes needs scipy").linear_sum_assignment
        self._patience_s, self._least_overlap = patience_s, least_overlap
        self._alive: list[_Trail] = []
        self._trails: list[_Trail] = []
        self._num_trails, self._last_s = 0, -np.inf

    def update(self, time_s: float, boxes: Sequence[Box]) -> list[int]:
        """Return the number of the track of each box of a picture, from 1. `time_s` is later than all before.

        Raises ValueError for an earlier time.
        """
        if time_s <= self._last_s:
            raise ValueError(f"time_s = {time_s:g}: needs to be later than the picture before, at {self._last_s:g} s")
        self._last_s = time_s
        self._alive = [trail for trail in self._alive if time_s - trail.times_s[-1] <= self._patience_s]
        sides_B4 = np.array([box[:4] for box in boxes], np.float64).reshape(-1, 4)
        expected_A4 = np.array([trail.expected(time_s) for trail in self._alive]).reshape(-1, 4)
        overlap_AB = overlaps(expected_A4, sides_B4)
        found: dict[int, _Trail] = {}
        # Overlaps below the least count as none, so that a good pair is not given up for two bad ones.
        for track, number in zip(
            *self._match(np.where(overlap_AB >= self._least_overlap, overlap_AB, 0.0), maximize=True), strict=True
        ):
            if overlap_AB[track, number] >= self._least_overlap:
                found[int(number)] = self._alive[track]
        for number, box in enumerate(sides_B4):
            if number not in found:
                self._num_trails += 1
                found[number] = _Trail(self._num_trails)
                self._trails.append(found[number])
                self._alive.append(found[number])
            found[number].add(time_s, box)
        return [found[number].number for number in range(len(boxes))]

    def now(self, time_s: float, most_s: float) -> list[Track]:
        """Return who is there at a time, with the boxes of the last `AROUND_S` and the one that is expected now.

        Tracks that are over are forgotten, and so are earlier boxes: a stream runs in constant memory.

        Args:
            time_s: A time that is not earlier than the last picture.
            most_s: The most seconds for which a box moves on after the last one that was found.
        """
        self._alive = [trail for trail in self._alive if time_s - trail.times_s[-1] <= self._patience_s]
        self._trails = list(self._alive)
        found = []
        for trail in self._alive:
            trail.forget(time_s - AROUND_S)
            if trail.num_boxes >= LEAST_BOXES:
                times_s, boxes = np.array([*trail.times_s, time_s]), [*trail.boxes, trail.expected(time_s, most_s)]
                found.append(Track(str(trail.number), times_s, np.array(boxes)))
        return found

    def tracks(self, *, in_pixels: bool = True) -> list[Track]:
        """Return the tracks so far that have `LEAST_BOXES` or more, in the order in which they began."""
        return [
            track_of(str(trail.number), trail.times_s, [box.tolist() for box in trail.boxes], in_pixels=in_pixels)
            for trail in self._trails
            if trail.num_boxes >= LEAST_BOXES
        ]


def tracks_of(found: Iterable[tuple[float, Sequence[Box]]], *, in_pixels: bool = True) -> list[Track]:
    """Return the tracks of boxes at ascending times."""
    tracker = Tracker()
    for time_s, boxes in found:
        tracker.update(time_s, boxes)
    return tracker.tracks(in_pixels=in_pixels)


def overlaps(boxes_A4: Floats64, boxes_B4: Floats64) -> NDArray[np.float64]:
    """Return the intersection over union of each pair of boxes (A, 4) and (B, 4): (A, B), from 0 to 1."""
    shared_AB, areas_A1, areas_1B = _areas(boxes_A4, boxes_B4)
    union_AB = areas_A1 + areas_1B - shared_AB
    return np.divide(shared_AB, union_AB, out=np.zeros_like(shared_AB), where=union_AB > 0)


def shared_part(boxes_A4: Floats64, boxes_B4: Floats64) -> NDArray[np.float64]:
    """Return the part of the smaller box that lies in the other one, for each pair of boxes (A, 4) and (B, 4): (A, B), 0 to 1."""
    shared_AB, areas_A1, areas_1B = _areas(boxes_A4, boxes_B4)
    smaller_AB = np.minimum(areas_A1, areas_1B)
    return np.divide(shared_AB, smaller_AB, out=np.zeros_like(shared_AB), where=smaller_AB > 0)


def _areas(boxes_A4: Floats64, boxes_B4: Floats64) -> tuple[Floats64, Floats64, Floats64]:
    """Return the areas that pairs of boxes share (A, B), and those of the boxes, (A, 1) and (1, B)."""
    low_AB2 = np.maximum(boxes_A4[:, None, :2], boxes_B4[None, :, :2])
    high_AB2 = np.minimum(boxes_A4[:, None, 2:], boxes_B4[None, :, 2:])
    areas_A, areas_B = (np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=-1) for boxes in (boxes_A4, boxes_B4))
    return np.clip(high_AB2 - low_AB2, 0, None).prod(axis=-1), areas_A[:, None], areas_B[None]
