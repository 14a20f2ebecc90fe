"""Moments of frame embeddings over time, and a linear read-out of them that is solved in closed form. Numpy alone.

This is ours, not the paper's. Moments are meant in the sense of statistics. u_t in 0-1 is the time of frame t as a fraction of the
duration. The waves are means over t of f_t cos(pi k u_t): k = 0 is the mean of the frames, and k = 1 already tells a video from its
reverse. There are two sets (`MomentSet`):

- `slow`: the waves for k = 0..3, and the means of |f_t - f_(t-1)| and of |f_t - mean over frames|.
- `motion`: the waves for k = 0..2; the means of |f_t - f_(t-1)|, of |f_t - f_(t-2)| and of the deviation |f_t - mean over frames|;
  the largest |f_t - f_(t-1)|; and the waves of the deviation for k = 1 and 2. Its read-out trusts changes more than content.

Letters in shapes: B videos, V views of each, M = B*V, T frames, D width, P all moments of a view, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.integer[Any]]

MomentSet = Literal["slow", "motion"]
MOMENT_WEIGHTS: dict[MomentSet, tuple[float, ...]] = {
    "slow": (1.0,) * 6,
    "motion": (0.2, 0.2, 0.2, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2),
}
"""The weight of each moment of a set in the products of videos, from which the read-out is solved. The content of the frames has
less weight than their changes, because another place changes it more (docs/decisions)."""
SOLVED_MOMENTS: MomentSet = "motion"
"""The set of a read-out that is solved by itself."""
NUM_MOMENTS = len(MOMENT_WEIGHTS["slow"])
"""The number of slow moments, which the judge of unknown videos compares."""
STD_FLOOR = 0.3
"""The fraction of the mean spread that is added to the spread of each channel before a division, so that nearly constant channels
are not blown up."""
IN_CACHE = 4
"""The videos whose moments are computed together. Their embeddings stay in the processor's cache, which halves the time."""


def moment_features(embeddings_BTD: Floats, moments: MomentSet = "slow") -> NDArray[np.float32]:
    """Return the moments of each video: (B, T, D) -> (B, P), where P is D times the number of moments of the set."""
    num_videos, _, width = embeddings_BTD.shape
    found_BP = np.empty((num_videos, len(MOMENT_WEIGHTS[moments]) * width), np.float32)
    for first in range(0, num_videos, IN_CACHE):
        part = slice(first, first + IN_CACHE)
        np.concatenate(_moments(embeddings_BTD[part], moments), axis=1, out=found_BP[part], casting="same_kind")
    return found_BP


def _moments(embeddings_BTD: Floats, moments: MomentSet) -> list[Floats]:
    """Return each moment of the set by itself (B, D), for a few videos."""
    deviation_BTD = np.abs(embeddings_BTD - embeddings_BTD.mean(axis=1, keepdims=True))
    deviation_BD = deviation_BTD.mean(axis=1)
    changeTD = np.abs(np.diff(embeddings_BTD, axis=1))
    if moments == "slow":
        return [*_waves(embeddings_BTD, range(4)), _mean(changeTD), deviation_BD]
    change2_BTD = np.abs(embeddings_BTD[:, 2:] - embeddings_BTD[:, :-2])
    return [
        *_waves(embeddings_BTD, range(3)),
        _mean(changeTD),
        _mean(change2_BTD),
        deviation_BD,
        changeTD.max(axis=1, initial=0.0),
        *_waves(deviation_BTD, (1, 2)),
    ]


class WindowMoments:
    """The moments of windows of frame embeddings. Each set is computed once, when it is first asked for."""

    def __init__(self, windows_BTD: NDArray[np.float32]) -> None:
        self.windows_BTD = windows_BTD
        self._found: dict[MomentSet, NDArray[np.float32]] = {}

    def of(self, moments: MomentSet) -> NDArray[np.float32]:
        """Return the moments (B, P) of this set."""
        if moments not in self._found:
            self._found[moments] = moment_features(self.windows_BTD, moments)
        return self._found[moments]

    @cached_property
    def change(self) -> Floats:
        """Return the mean change from frame to frame (B,), as a fraction of the size of the embeddings."""
        return change_of(self.windows_BTD)


def change_of(embeddings_BTD: Floats) -> Floats:
    """Return the mean change from frame to frame (B,), as a fraction of the size of the embeddings."""
    num_videos, num_frames, _ = embeddings_BTD.shape
    if num_frames == 1:
        return np.full(num_videos, np.inf, np.float32)  # nothing is known of one frame
    steps_B, sizes_B = np.empty((2, num_videos), np.float32)
    for first in range(0, num_videos, IN_CACHE):
        part = slice(first, first + IN_CACHE)
        steps_B[part] = _sizes(np.diff(embeddings_BTD[part], axis=1)).mean(axis=1)
        sizes_B[part] = _sizes(embeddings_BTD[part]).mean(axis=1)
    return steps_B / np.maximum(1e-6, sizes_B)


def _sizes(rows_BTD: Floats) -> Floats:
    """Return the Euclidean norm of each row (B, T), without an array of squares."""
    sizes_BT: Floats = np.sqrt(np.einsum("btd,btd->bt", rows_BTD, rows_BTD))
    return sizes_BT


def _waves(rows_BTD: Floats, orders: Iterable[int]) -> Iterator[Floats]:
    """Yield the means over t of the rows times cos(pi k u_t), each (B, D), for each order k."""
    num_frames = rows_BTD.shape[1]
    times_T = (np.arange(num_frames) + 0.5) / num_frames
    for order in orders:
        yield np.cos(np.pi * order * times_T).astype(np.float32) @ rows_BTD / np.float32(num_frames)


def _mean(rows_BTD: Floats) -> Floats:
    """Return the mean over time (B, D); zeros if there are no rows."""
    mean_BD: Floats = rows_BTD.sum(axis=1) / max(1, rows_BTD.shape[1])
    return mean_BD
