"""Solve a linear read-out of moments in closed form, and choose the scale of its logits. Numpy alone.

Letters in shapes: B videos, V views of each, M = B*V, T frames, D width, P all moments of a view, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewframes.models.moments import MOMENT_WEIGHTS, Floats, Indices, MomentSet, moment_features
from fewframes.models.read_out.problem import Problem

Loss = Callable[[Floats, Floats], float]
"""A function that returns the loss of logits (M, K) for targets (M, K) in 0-1."""
GAINS = tuple(range(1, 41))
"""The scales of the logits that are tried."""


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


def _row_problem(rows_BVP: Floats, targets_BK: Floats, weights: tuple[float, ...] | None) -> Problem:
    """Return the regression of targets on moments that were computed before."""

    exact_BVP = np.asarray(rows_BVP, np.float32)

    def rows_of(some: Indices) -> NDArray[np.float32]:
        return exact_BVP[some].reshape(-1, rows_BVP.shape[-1])

    return Problem(rows_of, rows_BVP.shape[1], targets_BK - targets_BK.mean(axis=0), weights)


def _problem_of(embeddings_BVTD: Floats, targets_BK: Floats, moments: MomentSet) -> Problem:
    """Return the regression of targets on the moments of embeddings, which are computed piece by piece."""

    def rows_of(some: Indices) -> NDArray[np.float32]:
        some_BVTD = embeddings_BVTD[some]
        return moment_features(some_BVTD.reshape(-1, *some_BVTD.shape[2:]), moments)

    return Problem(rows_of, embeddings_BVTD.shape[1], targets_BK - targets_BK.mean(axis=0), MOMENT_WEIGHTS[moments])


def _solved(
    problem: Problem,
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
