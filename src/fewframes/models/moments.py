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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.integer[Any]]
Loss = Callable[[Floats, Floats], float]
"""A function that returns the loss of logits (M, K) for targets (M, K) in 0-1."""

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
RIDGE = 0.1
"""The strength of regularisation, as a fraction of the mean of the kernel's diagonal."""
STD_FLOOR = 0.3
"""The fraction of the mean spread that is added to the spread of each channel before a division, so that nearly constant channels
are not blown up."""
GAINS = tuple(range(1, 41))
"""The scales of the logits that are tried."""
IN_CACHE = 4
"""The videos whose moments are computed together. Their embeddings stay in the processor's cache, which halves the time."""
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


@dataclass(frozen=True, eq=False)
class SolvedMoments:
    """A solved read-out: logits = moments @ weight.T + bias. It comes with the logits of videos whose group was left out."""

    weight: NDArray[np.float32]
    """The weights (K, P)."""
    bias: NDArray[np.float32]
    """The bias (K,)."""
    gain: float
    """The scale of the logits: the one of `GAINS` with the smallest loss on left-out groups, as far as it was not divided."""
    left_out: NDArray[np.float32]
    """The logits (N, V, K) of videos, each computed without all videos of its own group."""
    indices: Indices
    """The indices (N,) of these videos."""
    share_of_text: float = 0.0
    """The share of the logits of words that was added to those of the examples (training/solved/words.py)."""

    def divided(self, temperature: float) -> SolvedMoments:
        """Return the read-out with all logits divided by a number."""
        return replace(
            self,
            weight=(self.weight / temperature).astype(np.float32),
            bias=(self.bias / temperature).astype(np.float32),
            gain=self.gain / temperature,
            left_out=(self.left_out / temperature).astype(np.float32),
        )


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


def solve_moments(
    embeddings_BVTD: Floats,
    targets_BK: Floats,
    loss: Loss,
    *,
    groups_B: Indices | None = None,
    left_out_groups: Sequence[int] | None = None,
    moments: MomentSet = "slow",
) -> SolvedMoments:
    """Solve the ridge regression of targets on moments, and choose the scale of the logits by the loss on left-out groups.

    With more views than moments, the P x P products of the moments are summed piece by piece, so that memory does not grow with
    the number of videos. With fewer views, the M x M products of the views are the smaller matrix. The predictions for a group
    from all other groups are exact in both forms, and nothing is solved anew for them unless the group is large.

    Args:
        embeddings_BVTD: the frame embeddings of V views of each video.
        targets_BK: the targets in 0-1.
        loss: computes the loss from logits and targets.
        groups_B: the group of each video; None makes each video its own group.
        left_out_groups: the groups that are predicted from all others; None is all of them. A group is left out of the mean
            moments and of the mean targets as well. The spread of the moments and the strength of the regularisation are those of
            all videos: they depend on no label.
        moments: the set of moments.
    """
    embeddings_BVTD = np.asarray(embeddings_BVTD)
    problem = _problem_of(embeddings_BVTD, np.asarray(targets_BK, np.float64), moments)
    return _solved(problem, np.asarray(targets_BK, np.float64), loss, groups_B, left_out_groups)


def solve_rows(
    rows_BVP: Floats, targets_BK: Floats, loss: Loss, *, groups_B: Indices, moments: MomentSet | None
) -> SolvedMoments:
    """Solve the same regression on moments that were computed before, or on other features that are standardised already.

    Args:
        rows_BVP: the moments, or features, of V views of each video.
        targets_BK: the targets in 0-1.
        loss: computes the loss from logits and targets.
        groups_B: the group of each video.
        moments: the set of moments. None takes the rows as they are, but for their mean.
    """
    targets_BK = np.asarray(targets_BK, np.float64)
    problem = _row_problem(rows_BVP, targets_BK, None if moments is None else MOMENT_WEIGHTS[moments])
    return _solved(problem, targets_BK, loss, groups_B, None)


def standard_of(rows_BVP: Floats, moments: MomentSet) -> tuple[Floats, Floats]:
    """Return the mean of each moment (P,) over all views of videos, and the factor (P,) by which it is standardised."""
    problem = _row_problem(rows_BVP, np.zeros((len(rows_BVP), 1)), MOMENT_WEIGHTS[moments])
    return problem.mean_P, problem.scale_P


def _row_problem(rows_BVP: Floats, targets_BK: Floats, weights: tuple[float, ...] | None) -> _Problem:
    """Return the regression of targets on moments that were computed before."""

    exact_BVP = np.asarray(rows_BVP, np.float32)

    def rows_of(some: Indices) -> NDArray[np.float32]:
        return exact_BVP[some].reshape(-1, rows_BVP.shape[-1])

    return _Problem(rows_of, rows_BVP.shape[1], targets_BK - targets_BK.mean(axis=0), weights)


def _solved(
    problem: _Problem,
    targets_BK: Floats,
    loss: Loss,
    groups_B: Indices | None,
    left_out_groups: Sequence[int] | None,
) -> SolvedMoments:
    rows_of = _rows_of(np.arange(len(targets_BK)) if groups_B is None else np.asarray(groups_B), left_out_groups)
    prior_K = targets_BK.mean(axis=0)
    weight_KP, left_out_NVK = problem.solve(rows_of)
    indices_N, num_views = np.concatenate(rows_of), problem.num_views
    centred_MK = (left_out_NVK + prior_K - 0.5).reshape(-1, len(prior_K))
    wanted_MK = targets_BK[indices_N].repeat(num_views, axis=0)
    gain = _best_gain(lambda gain: loss(gain * centred_MK, wanted_MK))
    weight_KP = gain * weight_KP * problem.scale_P
    return SolvedMoments(
        weight=weight_KP.astype(np.float32),
        bias=(gain * (prior_K - 0.5) - weight_KP @ problem.mean_P).astype(np.float32),
        gain=float(gain),
        left_out=(gain * centred_MK).reshape(-1, num_views, len(prior_K)).astype(np.float32),
        indices=indices_N,
    )


def _best_gain(loss: Callable[[int], float]) -> int:
    """Return the scale of `GAINS` with the smallest loss. The loss of scaled logits is convex, so halving the range finds it."""
    low, high = 0, len(GAINS) - 1
    while low < high:
        middle = (low + high) // 2
        if loss(GAINS[middle]) <= loss(GAINS[middle + 1]):
            high = middle
        else:
            low = middle + 1
    return GAINS[low]


def products_of_views(embeddings_BVTD: Floats, moments: MomentSet) -> Floats:
    """Return the products (M, M) of the standardised moments of all views with each other, from which read-outs can be solved.

    Moments are standardised over all these videos, which depends on no label.
    """
    problem = _problem_of(np.asarray(embeddings_BVTD), np.zeros((len(embeddings_BVTD), 1)), moments)
    pieces = [
        problem.scaled(rows) for rows in np.array_split(np.arange(len(embeddings_BVTD)), len(embeddings_BVTD) // 64 + 1)
    ]
    scaled_MP = np.concatenate(pieces)
    products_MM: Floats = scaled_MP @ scaled_MP.T
    return products_MM


def cross_entropy(logits_MK: Floats, targets_MK: Floats) -> float:
    """Return the cross entropy of one choice among K classes, mean over rows."""
    shifted_MK = logits_MK - logits_MK.max(axis=1, keepdims=True)
    log_scores_MK = shifted_MK - np.log(np.exp(shifted_MK).sum(axis=1, keepdims=True))
    return float(-(targets_MK * log_scores_MK).sum(axis=1).mean())


def binary_cross_entropy(logits_MK: Floats, targets_MK: Floats) -> float:
    """Return the cross entropy of K binary choices, mean over rows and classes."""
    return float((np.logaddexp(0, logits_MK) - targets_MK * logits_MK).mean())


def _rows_of(groups_B: Indices, left_out_groups: Sequence[int] | None) -> list[Indices]:
    """Return the indices of the videos of each left-out group, in the order in which the groups were asked for."""
    names_G, group_B = np.unique(groups_B, return_inverse=True)
    sorted_B = np.argsort(group_B, kind="stable")
    rows_G: list[Indices] = list(np.split(sorted_B, np.cumsum(np.bincount(group_B))[:-1]))
    if left_out_groups is None:
        return rows_G
    number_of = {int(name): number for number, name in enumerate(names_G)}
    return [rows_G[number_of[int(name)]] for name in left_out_groups]


def _problem_of(embeddings_BVTD: Floats, targets_BK: Floats, moments: MomentSet) -> _Problem:
    """Return the regression of targets on the moments of embeddings, which are computed piece by piece."""

    def rows_of(some: Indices) -> NDArray[np.float32]:
        some_BVTD = embeddings_BVTD[some]
        return moment_features(some_BVTD.reshape(-1, *some_BVTD.shape[2:]), moments)

    return _Problem(rows_of, embeddings_BVTD.shape[1], targets_BK - targets_BK.mean(axis=0), MOMENT_WEIGHTS[moments])


class _Problem:
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
