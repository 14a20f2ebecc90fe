"""The features of examples from which a read-out is solved again: their moments while they are few, else coordinates.

Up to `DIRECT_ROWS` views, the moments themselves are kept, and every change is solved as if nothing had been known before. Of more
views, only coordinates are kept: their products with a thousand of them, which span nearly all that the others differ in. The mean
and the spread of the moments are fixed then. An example that is added brings a direction of its own.

Letters in shapes: B videos, V views of each, M = B*V, P moments of a view, R directions, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fewframes.models.moments import SOLVED_MOMENTS, Floats, Indices
from fewframes.models.read_out.problem import inverse_root
from fewframes.models.read_out.solve import Loss, SolvedMoments, solve_rows, standard_of

DIRECT_ROWS = 1024
"""The most views whose moments are kept and solved from directly, and the number of directions that more views begin with."""
MOST_DIRECTIONS = 2048
"""The most directions. Examples that are taught after that are seen in these directions alone."""
MOST_ROWS = 10_000
"""The most views that are kept, as long as each example has one. Of more examples, fewer views of each are kept."""
JITTER = 1e-5
"""The fraction of the mean square length that is added to that of each direction, so that two equal views harm nothing."""
LEAST_OWN = 1e-3
"""The least fraction of an example's square length that must be its own, if it brings a direction."""
AT_ONCE = 1024
"""The number of views whose moments are standardised together."""


@dataclass(frozen=True, eq=False)
class Space:
    """Directions in the space of standardised moments, in which examples have coordinates."""

    mean: NDArray[np.float32]
    """The mean of each moment (P,)."""
    scale: NDArray[np.float32]
    """The factor of each moment (P,)."""
    vectors: NDArray[np.float16]
    """The moments of the views that span the directions (R, P)."""
    root: NDArray[np.float32]
    """The matrix (R, R) that makes coordinates of the products with these views: the inverse of a lower triangular one."""

    @classmethod
    def of(cls, vectors_RP: NDArray[np.float16], mean_P: Floats, scale_P: Floats) -> Space:
        """Return the space that these views span."""
        mean, scale = mean_P.astype(np.float32), scale_P.astype(np.float32)
        scaled_RP = (vectors_RP - mean) * scale
        products_RR = (scaled_RP @ scaled_RP.T).astype(np.float64)
        products_RR[np.diag_indices(len(products_RR))] += JITTER * products_RR.diagonal().mean()
        return cls(mean, scale, vectors_RP, inverse_root(products_RR).astype(np.float32))

    @cached_property
    def scaled(self) -> Floats:
        """Return the standardised moments (R, P) of the views that span the directions."""
        scaled_RP = self.vectors - self.mean
        scaled_RP *= self.scale
        return scaled_RP

    def coordinates(self, moments_MP: Floats) -> Floats:
        """Return the coordinates (M, R) of views."""
        scaled_RP, parts = self.scaled, []
        for first in range(0, len(moments_MP), AT_ONCE):
            scaled_MP = (moments_MP[first : first + AT_ONCE] - self.mean) * self.scale
            parts.append((scaled_MP @ scaled_RP.T) @ self.root.T)
        return np.concatenate(parts)

    def grown(self, moments_MP: NDArray[np.float16]) -> Space:
        """Return the space with a direction for each view that has something of its own, as long as there is room."""
        vectors, root, scaled_RP = [], self.root.astype(np.float64), self.scaled
        for moments_P in moments_MP:
            if len(root) >= MOST_DIRECTIONS:
                break
            scaled_P = (moments_P - self.mean) * self.scale
            own = root @ (scaled_RP @ scaled_P)
            square = float(scaled_P @ scaled_P)
            rest = square * (1 + JITTER) - float(own @ own)
            if rest < LEAST_OWN * square:
                continue
            # A row more of the triangular matrix; its inverse follows from the inverse that is known.
            row = np.append(-own @ root, 1.0) / np.sqrt(rest)
            root = np.block([[root, np.zeros((len(root), 1))], [row[None]]])
            scaled_RP = np.concatenate([scaled_RP, scaled_P[None]])
            vectors.append(moments_P)
        if not vectors:
            return self
        return Space(self.mean, self.scale, np.concatenate([self.vectors, np.stack(vectors)]), root.astype(np.float32))


@dataclass(frozen=True, eq=False)
class ExampleFeatures:
    """The moments of B examples, or their coordinates."""

    rows: NDArray[np.float16]
    """The moments (B, V, P), or the coordinates (B, V, R) if there is a space."""
    space: Space | None = None
    """The space of the coordinates; None if the rows are moments."""

    @classmethod
    def of(cls, moments_BVP: NDArray[np.float16], first: Indices) -> ExampleFeatures:
        """Return the features of examples with these moments.

        Args:
            moments_BVP: The moments.
            first: The examples (B,) in the order in which they are to span the directions, if not all of them can.
        """
        moments_BVP = moments_BVP[:, : views_kept(len(moments_BVP), moments_BVP.shape[1])]
        moments_MP = moments_BVP.reshape(-1, moments_BVP.shape[2])
        if len(moments_MP) <= DIRECT_ROWS:
            return cls(moments_BVP)
        num_views = moments_BVP.shape[1]
        rows = (np.asarray(first)[None, :] * num_views + np.arange(num_views)[:, None]).ravel()[:DIRECT_ROWS]
        mean_P, scale_P = standard_of(moments_BVP, SOLVED_MOMENTS)
        space = Space.of(moments_MP[rows], mean_P, scale_P)
        return cls(_rounded(space.coordinates(moments_MP)).reshape(*moments_BVP.shape[:2], -1), space)

    @property
    def num_views(self) -> int:
        """Return V, the number of views of each example."""
        return int(self.rows.shape[1])

    @property
    def standardised_anew(self) -> bool:
        """Return True if every change is solved as if nothing had been known before."""
        return self.space is None

    def kept(self, indices: Indices) -> ExampleFeatures:
        """Return the features of some examples."""
        return ExampleFeatures(self.rows[indices], self.space)

    def added(self, moments_BVP: NDArray[np.float16]) -> ExampleFeatures:
        """Return the features with those of further examples, of as many views."""
        if self.space is None:
            rows = np.concatenate([self.rows, moments_BVP[:, : self.num_views]])
            return ExampleFeatures.of(rows, np.arange(len(rows))[::-1])
        views = views_kept(len(self.rows) + len(moments_BVP), self.num_views)
        moments_MP = moments_BVP[:, :views].reshape(-1, moments_BVP.shape[2])
        space = self.space.grown(moments_MP)
        new_BVR = _rounded(space.coordinates(moments_MP)).reshape(len(moments_BVP), views, -1)
        old_BVR = self.rows[:, :views]
        missing = new_BVR.shape[2] - old_BVR.shape[2]
        old_BVR = np.concatenate([old_BVR, np.zeros((*old_BVR.shape[:2], missing), np.float16)], axis=2)
        return ExampleFeatures(np.concatenate([old_BVR, new_BVR]), space)

    def solved(self, some: Indices, targets_BK: Floats, loss: Loss, groups_B: Indices) -> SolvedMoments:
        """Solve the read-out of some examples.

        Args:
            some: The indices of the examples.
            targets_BK: The targets of these.
            loss: The loss by which the scale is chosen.
            groups_B: The group of each of them.
        """
        rows_BVR = self.rows[some]
        if self.space is None:
            return solve_rows(rows_BVR, targets_BK, loss, groups_B=groups_B, moments=SOLVED_MOMENTS)
        found = solve_rows(rows_BVR, targets_BK, loss, groups_B=groups_B, moments=None)
        weight_KP = ((found.weight @ self.space.root) @ self.space.scaled) * self.space.scale
        bias_K = found.bias - weight_KP @ self.space.mean
        return SolvedMoments(
            weight_KP.astype(np.float32), bias_K.astype(np.float32), found.gain, found.left_out, found.indices
        )

    def products(self, some: Indices, weights_KD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return products of the mean of the frames with weights (K, D), for each view (B, V, K) of some examples.

        The mean of the frames is the first of the moments. If there is a space, what the examples have outside it is left out.
        """
        rows_BVR, width = self.rows[some].astype(np.float32), weights_KD.shape[1]
        if self.space is None:
            return rows_BVR[:, :, :width] @ weights_KD.T
        space = self.space
        own_RK = space.root @ ((space.scaled[:, :width] / space.scale[:width]) @ weights_KD.T)
        found_BVK: NDArray[np.float32] = rows_BVR @ own_RK + space.mean[:width] @ weights_KD.T
        return found_BVK

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name, for a file."""
        if self.space is None:
            return {"rows": self.rows}
        return {"rows": self.rows, **{name: getattr(self.space, name) for name in SPACE}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> ExampleFeatures:
        """Return the features that `to_arrays` gave."""
        rows = np.asarray(arrays["rows"], np.float16)
        if SPACE[0] not in arrays:
            return cls(rows)
        return cls(
            rows,
            Space(
                np.asarray(arrays["mean"], np.float32),
                np.asarray(arrays["scale"], np.float32),
                np.asarray(arrays["vectors"], np.float16),
                np.asarray(arrays["root"], np.float32),
            ),
        )


SPACE = ("mean", "scale", "vectors", "root")
"""The names of the arrays of a space."""


def views_kept(num_videos: int, num_views: int) -> int:
    """Return how many views of each example are kept."""
    return max(1, min(num_views, MOST_ROWS // max(1, num_videos)))


def _rounded(values: Floats) -> NDArray[np.float16]:
    """Return numbers as float16, none of them infinite."""
    return np.clip(values, -6e4, 6e4).astype(np.float16)
