"""List the candidates for repetitions: lengths in frames, and pairs of lengths with a pause between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

SHORTEST_FRAMES = 4
"""Frames of the shortest repetition: of fewer, a sampled movement cannot be told from noise."""
LENGTH_RATIO = 1.08
"""Ratio of one candidate length to the one before, above lengths at which that is less than a frame."""
PHASES = 16
"""Positions within a repetition at which two of them are compared."""
PAUSE_STEPS = 8
"""Steps of a pause during the length of a repetition: a repetition that begins a twelfth of its length late still fits."""
SHIFTS = (1 / 2, 1 / 3, 1 / 4)
"""Shifts, in repetitions, by which a repetition must differ from itself: else it is two, three or four of them, or none."""
NEARBY = (0.94, 1.0, 1.06)
"""Factors of each shift that are tried too: repetitions within one taken for one need not be equally long."""
LEAST_SHIFT_FRAMES = 2.0
"""Frames of the smallest shift, since neighbouring frames are always alike."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidate repetitions that end at one frame, as indices into the frames and lags before it.

    There are K `lengths` of repetitions, and R pairs: a repetition of length number `before` (R,), a pause of `pauses` (R,) frames,
    and one of length number `now` (R,). Pairs are in the order of `now`; those of each length begin at `starts` (K,). At each of P
    phases, the two repetitions of a pair are compared at the frame `back` (P, R) before the end with the frame `lag` (P, R)
    earlier. `self_back` and `self_lag` (P, S, K) do the same for a repetition and itself, at each of S shifts.
    """

    lengths: Indices
    before: Indices
    now: Indices
    pauses: Indices
    starts: Indices
    back: Indices
    lag: Indices
    self_back: Indices
    self_lag: Indices

    @property
    def num_lags(self) -> int:
        """Return the frames that two repetitions and the pause between them take at most."""
        return int((self.lengths[self.before] + self.pauses + self.lengths[self.now]).max())

    @property
    def most_back(self) -> int:
        """Return the frames before an end at which the earliest repetition before it may have ended."""
        return int((self.lengths[self.now] + self.pauses).max())


@lru_cache(maxsize=8)
def candidates(shortest: int, longest: int, pause: int, speed_ratio: float) -> Candidates:
    """Return the candidates for repetitions of `shortest` to `longest` frames.

    Args:
        shortest: Frames of the shortest repetition.
        longest: Frames of the longest.
        pause: Frames of the longest pause between two repetitions.
        speed_ratio: Largest ratio of the lengths of two neighbouring repetitions.
    """
    each_length = _lengths(max(SHORTEST_FRAMES, shortest), max(SHORTEST_FRAMES, longest))
    rows = [
        (before, now, wait)
        for now, length in enumerate(each_length)
        for before, other in enumerate(each_length)
        if max(length / other, other / length) <= speed_ratio
        for wait in range(0, pause + 1, max(1, other // PAUSE_STEPS))
    ]
    before_R, now_R, pauses_R = np.array(rows, np.int64).T
    lengths = np.array(each_length, np.int64)
    earlier_R, length_R = lengths[before_R], lengths[now_R]
    phases_P1 = ((np.arange(PHASES) + 0.5) / PHASES)[:, None]
    place_PR, earlier_PR = (np.floor(phases_P1 * numbers).astype(np.int64) for numbers in (length_R, earlier_R))
    shifts_SK = np.array([[_shift(shift * factor, n) for n in each_length] for shift in SHIFTS for factor in NEARBY])
    first_PSK = np.floor(phases_P1[..., None] * lengths).astype(np.int64)
    second_PSK = np.floor((phases_P1[..., None] + shifts_SK) % 1 * lengths).astype(np.int64)
    return Candidates(
        lengths,
        before_R,
        now_R,
        pauses_R,
        np.searchsorted(now_R, np.arange(len(lengths))),
        length_R - place_PR,
        place_PR - earlier_PR + pauses_R + earlier_R,
        lengths - np.maximum(first_PSK, second_PSK),
        np.abs(first_PSK - second_PSK),
    )


def _shift(shift: float, length: int) -> float:
    """Return a shift as a fraction of a repetition of this many frames; half of it in place of one that is too small."""
    return shift if shift * length >= LEAST_SHIFT_FRAMES else 0.5


def _lengths(shortest: int, longest: int) -> list[int]:
    """Return candidate lengths: every number of frames at first, then each `LENGTH_RATIO` times the one before."""
    lengths = [shortest]
    while (longer := max(lengths[-1] + 1, round(lengths[-1] * LENGTH_RATIO))) <= longest:
        lengths.append(longer)
    return lengths
