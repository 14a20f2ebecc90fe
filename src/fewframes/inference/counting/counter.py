"""Find repetitions by dynamic programming over their ends and lengths, frame by frame.

A repetition earns the more the better it fits the one before, and the longer it is. The fit compares the distance of both
at equal phases with that of a repetition to itself at shifted phases. So a still picture, a movement that goes on, and two
repetitions taken for one fit nothing: there, shifted phases are as alike as equal ones. A part of the distance that is the same at
all phases (other light, another place in the picture) is forgiven up to a limit. The best chain of repetitions is what is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.inference.counting.candidates import PHASES, Candidates
from fewframes.inference.counting.distances import RecentDistances
from fewframes.runtime.protocol import Floats

LEAST_FIT = 0.23
"""The fit (at most 1) above which a repetition counts in favour of its chain (docs/guide/count.md says how it was chosen)."""
WORTH, WORTH_EXPONENT = 2.5, 0.7
"""A repetition of n frames earns so much times n to this power, times its fit above the least. The power below 1 prefers more and
shorter repetitions of equal fit, and the growth keeps a few frames that look alike from outweighing a long movement."""
STRETCH_COST = 6.0
"""The cost of each chain of repetitions, so that no two moments that look alike by chance are one."""
PAUSE_COST = 0.05
"""The cost of each frame of a pause."""
STILL_FRACTION = 0.03
"""Squared change, as a fraction of the squared size of an embedding, that the noise of a camera and a codec may make."""
OFFSET_FRACTION = 0.5
"""The part of the variance within a repetition up to which a constant distance from the one before is forgiven. Of a movement that
only goes on, everything would be forgiven by 6."""
NO_FIT = -9.0
BLOCK_FRAMES = 256
NEW, NONE = -2, -1


@dataclass(frozen=True)
class FoundRepetition:
    """A repetition from frame `start` up to `end`, not included; `fit` is how well it fits the one before (at most 1)."""

    start: int
    end: int
    fit: float


class RepetitionCounter:
    """Count repetitions frame by frame. Memory is constant, apart from four bytes a length and frame for `found`."""

    def __init__(self, plan: Candidates, least_fit: float = LEAST_FIT, *, keeps_path: bool = True) -> None:
        """Prepare to count.

        Args:
            plan: The candidates.
            least_fit: The fit above which a repetition counts in favour of its chain.
            keeps_path: True if `found` will be asked for.
        """
        self._plan, self._keeps_path, self._least_fit = plan, keeps_path, least_fit
        self._distances, self._num_lags = RecentDistances(plan.num_lags), plan.num_lags
        # Rows of distances: `_reach` before the block, which repetitions that end in it look back to, and the block.
        self._reach = int(plan.lengths[-1])
        self._back = max(plan.most_back, self._reach)
        self._rows_NL = np.full((self._reach + BLOCK_FRAMES, self._num_lags), np.inf, np.float32)
        num_rows, num_lengths = self._back + 1 + BLOCK_FRAMES, len(plan.lengths)
        # What the best chain that ends with a repetition of each length has earned, and how many it has counted.
        self._earned_NK = np.full((num_rows, num_lengths), -np.inf)
        self._counts_NK = np.zeros((num_rows, num_lengths), np.int64)
        # The same for the best account of all frames up to each.
        self._best_N, self._best_counts_N = np.zeros(num_rows), np.zeros(num_rows, np.int64)
        self._pair_PR = (self._reach - plan.back) * self._num_lags + plan.lag
        self._self_PSK = (self._reach - plan.self_back) * self._num_lags + plan.self_lag
        # Sums of the distances of all pairs among the last n frames (n ascending from 0), for each frame.
        self._pairs_NL = np.zeros((num_rows, self._num_lags + 1))
        self._behind_R = plan.lengths[plan.now] + plan.pauses
        self._span_R = self._behind_R + plan.lengths[plan.before]
        self._worth_R = WORTH * plan.lengths[plan.now] ** WORTH_EXPONENT
        self._areas_R = plan.lengths[plan.now] * plan.lengths[plan.before]
        self._each_K = np.arange(num_lengths)
        self._place = 0
        self.num_frames = 0
        """Frames seen so far."""
        self.last: FoundRepetition | None = None
        """The last repetition of the best account so far."""
        self.stretch_count = 0
        """Repetitions of the last chain in the best account so far."""
        self._stretch_counts_NK = np.zeros((num_rows, num_lengths), np.int64)
        self._chosen: list[int] = []
        self._pairs: list[NDArray[np.int16]] = []
        self._fits: list[NDArray[np.float16]] = []

    @property
    def count(self) -> int:
        """Return the repetitions up to the last frame."""
        return int(self._best_counts_N[self._back + self._place])

    def push(self, embeddings_ND: Floats) -> Floats:
        """Add the embeddings (n, D) of the next frames, and return their squared distances (n, L) to the frames before."""
        distances_NL = self._distances.push(embeddings_ND)
        squares_N = np.einsum("nd,nd->n", embeddings_ND, embeddings_ND)
        for distances_L, square in zip(distances_NL, squares_N.tolist(), strict=True):
            if self._place == BLOCK_FRAMES:
                self._shift()
            self._rows_NL[self._reach + self._place] = distances_L
            self._place += 1
            self.num_frames += 1
            row = self._back + self._place
            sums_L = np.where(np.isfinite(distances_L), distances_L, 0).cumsum(dtype=np.float64)
            self._pairs_NL[row, 1:] = self._pairs_NL[row - 1, :-1] + sums_L
            self._step(STILL_FRACTION * square)
        return distances_NL

    def found(self) -> list[list[FoundRepetition]]:
        """Return the chains of repetitions of the best account, in the order of time."""
        plan, chains, end = self._plan, [], self.num_frames
        while end > 0:
            length = self._chosen[end - 1]
            if length == NONE:
                end -= 1
                continue
            chain: list[FoundRepetition] = []
            while True:
                pair, fit = int(self._pairs[end - 1][length]), float(self._fits[end - 1][length])
                start = end - int(plan.lengths[length])
                chain.append(FoundRepetition(start, end, fit))
                if pair == NEW:
                    break
                end, length = start - int(plan.pauses[pair]), int(plan.before[pair])
            # The first repetition has none before it: it fits as the second does.
            chain[-1] = FoundRepetition(chain[-1].start, chain[-1].end, chain[-2].fit if len(chain) > 1 else 0.0)
            chains.append(chain[::-1])
            end = chain[-1].start
        return chains[::-1]

    def _shift(self) -> None:
        """Make room for another block of frames."""
        for rows in (self._rows_NL, self._earned_NK, self._counts_NK, self._stretch_counts_NK, self._pairs_NL):
            rows[:-BLOCK_FRAMES] = rows[BLOCK_FRAMES:]
        for row in (self._best_N, self._best_counts_N):
            row[:-BLOCK_FRAMES] = row[BLOCK_FRAMES:]
        self._place = 0

    def _step(self, still: float) -> None:
        """Account for repetitions that end with the newest frame."""
        plan, row = self._plan, self._back + self._place
        fits_R = self._fits_of(still)
        ends_R = row - self._behind_R
        earned_R = self._earned_NK[ends_R, plan.before]
        earned_R = earned_R + self._worth_R * (fits_R - self._least_fit) - PAUSE_COST * plan.pauses
        pairs_K = _best_of_each(earned_R, plan.starts)
        begun_K = row - plan.lengths
        new_K = np.where(plan.lengths <= self.num_frames, self._best_N[begun_K] - STRETCH_COST, -np.inf)
        goes_on_K = earned_R[pairs_K] > new_K
        self._earned_NK[row] = np.where(goes_on_K, earned_R[pairs_K], new_K)
        ends_K, before_K = ends_R[pairs_K], plan.before[pairs_K]
        self._counts_NK[row] = 1 + np.where(goes_on_K, self._counts_NK[ends_K, before_K], self._best_counts_N[begun_K])
        self._stretch_counts_NK[row] = 1 + np.where(goes_on_K, self._stretch_counts_NK[ends_K, before_K], 0)
        fits_K = np.where(goes_on_K, fits_R[pairs_K], 0.0)
        length = int(self._earned_NK[row].argmax())
        is_better = bool(self._earned_NK[row, length] > self._best_N[row - 1])
        self._best_N[row] = self._earned_NK[row, length] if is_better else self._best_N[row - 1]
        self._best_counts_N[row] = self._counts_NK[row, length] if is_better else self._best_counts_N[row - 1]
        if is_better:
            start = self.num_frames - int(plan.lengths[length])
            self.last = FoundRepetition(start, self.num_frames, float(fits_K[length]))
            self.stretch_count = int(self._stretch_counts_NK[row, length])
        if self._keeps_path:
            self._chosen.append(length if is_better else NONE)
            self._pairs.append(np.where(goes_on_K, pairs_K, NEW).astype(np.int16))
            self._fits.append(fits_K.astype(np.float16))

    def _fits_of(self, still: float) -> NDArray[np.float64]:
        """Return how well both repetitions of each pair fit (R,): at most 1, and 0 or less where nothing repeats."""
        plan = self._plan
        rows = self._rows_NL.ravel()[self._place * self._num_lags :]
        apart_R = rows.take(self._pair_PR).sum(axis=0) / PHASES
        shifted_K = (rows.take(self._self_PSK).sum(axis=0) / PHASES).min(axis=0)
        with np.errstate(invalid="ignore"):
            fits_R = (shifted_K[plan.now] - apart_R + self._forgiven()) / (shifted_K[plan.now] + still)
        return np.where(np.isfinite(fits_R), fits_R.clip(max=1), NO_FIT)

    def _forgiven(self) -> NDArray[np.float64]:
        """Return the part of the distance of both repetitions of each pair that is forgiven (R,): that of their means.

        The squared distance of two means is the mean distance of all frames of one and all of the other, less half of the mean
        distance within each.
        """
        plan, row = self._plan, self._back + self._place
        rows_NL, begun_R, ended_R = self._pairs_NL, row - plan.lengths[plan.now], row - self._behind_R
        across_R = (
            rows_NL[row, self._span_R]
            - rows_NL[row, self._behind_R]
            - rows_NL[begun_R, self._span_R - plan.lengths[plan.now]]
            + rows_NL[begun_R, plan.pauses]
        )
        within_R = 2 * rows_NL[row, plan.lengths[plan.now]] / plan.lengths[plan.now] ** 2
        before_R = 2 * rows_NL[ended_R, plan.lengths[plan.before]] / plan.lengths[plan.before] ** 2
        offset_R = across_R / self._areas_R - (within_R + before_R) / 2
        forgiven_R: NDArray[np.float64] = offset_R.clip(0, OFFSET_FRACTION * np.minimum(within_R, before_R))
        return forgiven_R


def _best_of_each(values_R: NDArray[np.float64], starts_K: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the largest value of each group (K,); groups begin at `starts_K`."""
    most_K = np.maximum.reduceat(values_R, starts_K)
    sizes_K = np.diff(starts_K, append=len(values_R))
    hits = np.flatnonzero(values_R == np.repeat(most_K, sizes_K))
    return hits[np.searchsorted(hits, starts_K)]
