"""The ridge regression of a read-out: solved for all videos, and for each group from all others. Numpy alone.

Letters in shapes: B videos, V views of each, M = B*V, P all moments of a view, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.models.moments import STD_FLOOR, Floats, Indices

RIDGE = 0.1
"""The strength of regularisation, as a fraction of the mean of the kernel's diagonal."""
MAX_AT_ONCE = 2048
"""The most views whose moments are in memory together. A group with more views is left out by solving without it."""
SUMMED_ROWS = 64
"""The rows that are summed as float32."""
BLOCK_SIDE = 2048
"""The number of rows of a symmetric matrix that are summed together, each from the diagonal on."""
TRIANGLE_SIDE = 256
"""The most rows of a triangular matrix that is inverted as any other matrix."""
DOUBLE_SIDE = 4096
"""The most rows of a matrix that is solved in float64. Larger ones are float32, which halves their memory."""


class Problem:
    """A ridge regression of centred targets (B, K) on the standardised moments of all views of B videos.

    Args:
        moments_of: returns the moments (M, P) of all views of some videos, video after video.
        num_views: V.
        wanted_BK: the centred targets.
        weights: the weight of each moment of the set; None for features that are standardised already.
    """

    def __init__(
        self,
        moments_of: Callable[[Indices], NDArray[np.float32]],
        num_views: int,
        wanted_BK: Floats,
        weights: tuple[float, ...] | None,
    ) -> None:
        self._moments, self.num_views, self.wanted_BK, self._weights = moments_of, num_views, wanted_BK, weights
        self.num_rows = len(wanted_BK) * self.num_views
        self.mean_P, self.scale_P = self._mean_and_scale()

    def solve(self, rows_of: list[Indices]) -> tuple[Floats, Floats]:
        """Return the weights (K, P), and the predictions (N, V, K) for the videos of each group from all other groups.

        `rows_of` has the indices of the videos of each of these groups.
        """
        by_moments = self.num_rows > len(self.mean_P)
        weight_KP, left_out = self._by_moments(rows_of) if by_moments else self._by_views(rows_of)
        return weight_KP, np.concatenate(left_out).reshape(-1, self.num_views, self.wanted_BK.shape[1])

    def _by_views(self, rows_of: list[Indices]) -> tuple[Floats, list[Floats]]:
        """Solve by the M x M products of the views with each other."""
        scaled_MP = self.scaled(np.arange(len(self.wanted_BK)))
        kernel_MM = (scaled_MP @ scaled_MP.T).astype(_precision(self.num_rows), copy=False)
        ridge = RIDGE * max(1e-6, float(kernel_MM.diagonal().mean()))
        kernel_MM[np.diag_indices(self.num_rows)] += ridge
        inverse_MM = np.linalg.inv(kernel_MM)
        dual_MK = inverse_MM @ self._wanted(slice(None))
        # The residual of a left-out group is its dual variables, solved by its diagonal block of the inverse. A free mean
        # takes 1 / (M ridge) from that block: in the direction of equal entries, the inverse is 1 / ridge.
        mean_part = 1 / (self.num_rows * ridge)
        left_out = []
        for rows in rows_of:
            views = (rows[:, None] * self.num_views + np.arange(self.num_views)).ravel()
            block = inverse_MM[np.ix_(views, views)].astype(np.float64) - mean_part
            left_out.append(self._wanted(rows) - np.linalg.solve(block, dual_MK[views]))
        return dual_MK.T @ scaled_MP, left_out

    def _by_moments(self, rows_of: list[Indices]) -> tuple[Floats, list[Floats]]:
        """Solve by the P x P products of the moments with each other, summed over pieces of the videos."""
        gram_PP, answers_PK = self._products(np.arange(len(self.wanted_BK)))
        ridge = RIDGE * max(1e-6, float(np.trace(gram_PP)) / self.num_rows)
        gram_PP[np.diag_indices(len(gram_PP))] += ridge
        is_large = [len(rows) * self.num_views > MAX_AT_ONCE for rows in rows_of]
        root_PP = inverse_root(gram_PP)
        weights_PK = root_PP.T @ (root_PP @ answers_PK)
        mean_part = 1 / self.num_rows
        predictions: dict[int, Floats] = {}
        small = [number for number, large in enumerate(is_large) if not large]
        for some in self._together(small, rows_of):
            rows_N = np.concatenate([rows_of[number] for number in some])
            scaled_MP = self.scaled(rows_N)
            roots_PM = _lower_times(root_PP, scaled_MP.T)
            wanted_MK = self._wanted(rows_N)
            residual_MK = wanted_MK - scaled_MP @ weights_PK
            first = 0
            for number in some:
                part = slice(first, first + len(rows_of[number]) * self.num_views)
                # A group's own influence on its predictions is taken from the identity, and its residual is solved by the rest.
                roots = roots_PM[:, part].astype(np.float64)
                own = np.eye(roots.shape[1]) - roots.T @ roots - mean_part
                predictions[number] = wanted_MK[part] - np.linalg.solve(own, residual_MK[part])
                first = part.stop
        for number, large in enumerate(is_large):
            if large:
                predictions[number] = self._without(rows_of[number], gram_PP, answers_PK)
        return weights_PK.T, [predictions[number] for number in range(len(rows_of))]

    def _without(self, rows: Indices, gram_PP: Floats, answers_PK: Floats) -> Floats:
        """Return the predictions for a large group, solved anew from the products of all other videos.

        Args:
            rows: the indices of the group's videos.
            gram_PP: the products of the moments of all videos, and the ridge. Entries below the diagonal are not used.
            answers_PK: the products of the moments of all videos with the targets.
        """
        own_PP, own_PK = self._products(rows)
        rest_PP, rest_PK = gram_PP - own_PP, answers_PK - own_PK
        sums_P, wanted_K = np.zeros(len(self.mean_P)), self._wanted(rows).sum(axis=0)
        for some in self._pieces(rows):
            sums_P += self.scaled(some).sum(axis=0, dtype=np.float64)
        num_rest = self.num_rows - len(rows) * self.num_views
        # Moments and targets of all videos are centred, so the sums over the rest are minus those over the group.
        mean_P, mean_K = -sums_P / num_rest, -wanted_K / num_rest
        rest_PP -= num_rest * np.outer(mean_P, mean_P).astype(rest_PP.dtype)
        rest_PK -= num_rest * np.outer(mean_P, mean_K)
        root_PP = inverse_root(rest_PP)
        weights_PK = root_PP.T @ (root_PP @ rest_PK)
        return np.concatenate([(self.scaled(some) - mean_P) @ weights_PK + mean_K for some in self._pieces(rows)])

    def _products(self, rows: Indices) -> tuple[Floats, Floats]:
        """Return the products of the moments of some videos with each other (P, P), and with the targets (P, K).

        Blocks below the diagonal stay zero.
        """
        side = len(self.mean_P)
        gram_PP = np.zeros((side, side), _precision(side))
        answers_PK = np.zeros((side, self.wanted_BK.shape[1]))
        for some in self._pieces(rows):
            scaled_MP = self.scaled(some)
            for first in range(0, side, BLOCK_SIDE):
                part = slice(first, first + BLOCK_SIDE)
                gram_PP[part, first:] += scaled_MP[:, part].T @ scaled_MP[:, first:]
            answers_PK += scaled_MP.T @ self._wanted(some)
        return gram_PP, answers_PK

    def _mean_and_scale(self) -> tuple[Floats, Floats]:
        """Return the mean of each moment, and the factor that gives it a spread of 1 times the root of its weight, both (P,)."""
        shift_P: Floats | None = None
        sums_P = squares_P = np.zeros(())
        for some in self._pieces(np.arange(len(self.wanted_BK))):
            moments_MP = self._moments(some)
            # The mean of the first piece is subtracted from all, so that the variance is a difference of small numbers and loses
            # no digits. Few rows are summed in float32 at once, for the same reason.
            shift_P = moments_MP.mean(axis=0) if shift_P is None else shift_P
            for first in range(0, len(moments_MP), SUMMED_ROWS):
                shifted_MP = moments_MP[first : first + SUMMED_ROWS] - shift_P
                sums_P = sums_P + shifted_MP.sum(axis=0).astype(np.float64)
                squares_P = squares_P + np.square(shifted_MP).sum(axis=0).astype(np.float64)
        assert shift_P is not None
        mean_P = shift_P + sums_P / self.num_rows
        if self._weights is None:
            return mean_P, np.ones_like(mean_P)
        variance_P = np.maximum(0, squares_P - np.square(sums_P) / self.num_rows) / (self.num_rows - 1)
        weights_M = np.array(self._weights)
        spread_MD = np.sqrt(variance_P).reshape(len(weights_M), -1)
        spread_MD += STD_FLOOR * spread_MD.mean(axis=1, keepdims=True)
        scale_MD = np.sqrt(weights_M)[:, None] / np.maximum(1e-6, spread_MD)
        return mean_P, scale_MD.ravel()

    def _pieces(self, rows: Indices) -> Iterator[Indices]:
        """Yield the videos in pieces of at most `MAX_AT_ONCE` views."""
        at_once = max(1, MAX_AT_ONCE // self.num_views)
        for first in range(0, len(rows), at_once):
            yield rows[first : first + at_once]

    def _together(self, numbers: list[int], rows_of: list[Indices]) -> Iterator[list[int]]:
        """Yield the numbers of groups that have at most `MAX_AT_ONCE` views together."""
        some: list[int] = []
        num_views = 0
        for number in numbers:
            own = len(rows_of[number]) * self.num_views
            if some and num_views + own > MAX_AT_ONCE:
                yield some
                some, num_views = [], 0
            some, num_views = [*some, number], num_views + own
        if some:
            yield some

    def scaled(self, rows: Indices) -> Floats:
        """Return the standardised moments (M, P) of all views of some videos."""
        kind = _precision(len(self.mean_P))
        scaled_MP: Floats = self._moments(rows) - self.mean_P.astype(kind)
        scaled_MP *= self.scale_P.astype(kind)
        return scaled_MP

    def _wanted(self, rows: Indices | slice) -> Floats:
        """Return the centred targets (M, K) of all views of some videos."""
        wanted_MK: Floats = self.wanted_BK[rows].repeat(self.num_views, axis=0)
        return wanted_MK


def _precision(side: int) -> type[np.floating[Any]]:
    """Return the type of numbers of a square matrix with this many rows."""
    return np.float64 if side <= DOUBLE_SIDE else np.float32


def inverse_root(upper_PP: Floats) -> Floats:
    """Return R such that R.T @ R is the inverse of a symmetric positive matrix, of which only the upper half is read.

    R is the inverse of the lower Cholesky factor. It costs a third of what inverting the matrix does, and loses fewer digits.
    """
    return _inverse_of_lower(np.linalg.cholesky(upper_PP.T))


def _inverse_of_lower(lower_PP: Floats) -> Floats:
    """Return the inverse of a lower triangular matrix. Its quarters are inverted, so that most of the work is products."""
    side = len(lower_PP)
    if side <= TRIANGLE_SIDE:
        return np.linalg.inv(lower_PP)
    half = side // 2
    inverse_PP = np.zeros_like(lower_PP)
    inverse_PP[:half, :half] = upper = _inverse_of_lower(lower_PP[:half, :half])
    inverse_PP[half:, half:] = lower = _inverse_of_lower(lower_PP[half:, half:])
    inverse_PP[half:, :half] = -lower @ (lower_PP[half:, :half] @ upper)
    return inverse_PP


def _lower_times(lower_PP: Floats, values_PM: Floats) -> Floats:
    """Return the product of a lower triangular matrix with another, without most of the products with its zeros."""
    side = len(lower_PP)
    if side <= 2 * TRIANGLE_SIDE:
        return lower_PP @ values_PM
    half = side // 2
    first_PM, last_PM = values_PM[:half], values_PM[half:]
    below_PM = lower_PP[half:, :half] @ first_PM + _lower_times(lower_PP[half:, half:], last_PM)
    return np.concatenate([_lower_times(lower_PP[:half, :half], first_PM), below_PM])
