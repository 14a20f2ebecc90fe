"""Choose the windows whose labels would teach most, from compressed features of all windows. Numpy alone.

Nothing here reads a file. Once something was learned, the window with the smallest margin between its two best scores is chosen.
Before that it is the one whose label would tell most about all windows (docs/decisions/2026-11-29-next-moment.md). The prior
covariance of two windows is the product of their features.

Letters in shapes: W windows, F numbers of a compressed feature, P moments of a window, K labels, L labelled windows, N windows that
a compression is fitted to, S windows of the shortlist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.label.values import MomentReason
from fewframes.models.moments import MOMENT_WEIGHTS, SOLVED_MOMENTS, STD_FLOOR

Floats = NDArray[np.floating[Any]]
Features = NDArray[np.float16]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

FEATURES = 256
"""F, the most numbers of a compressed feature."""
FITTED = 512
"""N, the most windows that a compression is fitted to. More are thinned out evenly."""
NOISE = 0.1
"""The variance of a label, where the prior variance of a window is 1."""
NEW = 0.75
"""The variance that the labelled windows left, from which a window is called new."""
SHORTLIST = 1024
"""S, the most windows that are compared with each other: those with the smallest margin, or evenly spread ones without scores."""
CHAINED = 2048
"""The most windows that are chained by likeness together."""


@dataclass(frozen=True)
class Choice:
    """A window to label, by its index, and the reason for it."""

    index: int
    reason: MomentReason
    value: float


@dataclass(frozen=True, eq=False)
class Compression:
    """A linear map of moments to features. It keeps the products of standardised moments as well as so few numbers can."""

    mean: Singles
    """The mean of the moments (P,)."""
    weight: Singles
    """The map (P, F), which standardises too."""

    @classmethod
    def fit(cls, moments_NP: Floats) -> Compression:
        """Return the compression for windows like these.

        Its directions are those in which these windows differ most, so there are at most as many of them as windows.
        """
        moments_NP = moments_NP[np.linspace(0, len(moments_NP) - 1, min(FITTED, len(moments_NP))).astype(np.intp)]
        moments_NP = np.asarray(moments_NP, np.float32)
        mean_P, weights_M = moments_NP.mean(axis=0), np.array(MOMENT_WEIGHTS[SOLVED_MOMENTS])
        spread_MD = moments_NP.std(axis=0).reshape(len(weights_M), -1)
        spread_MD += STD_FLOOR * spread_MD.mean(axis=1, keepdims=True)
        scale_P = (np.sqrt(weights_M)[:, None] / np.maximum(1e-6, spread_MD)).astype(np.float32).ravel()
        scaled_NP = (moments_NP - mean_P) * scale_P
        values_N, vectors_NN = np.linalg.eigh(scaled_NP @ scaled_NP.T)
        kept = np.flatnonzero(values_N > 1e-4 * max(1e-6, values_N[-1]))[::-1][:FEATURES]
        weight_PF = scaled_NP.T @ (vectors_NN[:, kept] / np.sqrt(values_N[kept])).astype(np.float32)
        return cls(mean_P, scale_P[:, None] * weight_PF)

    def compress(self, moments_WP: Floats) -> Features:
        """Return the features (W, F) of windows by their moments: rows of length 1."""
        features_WF = (np.asarray(moments_WP, np.float32) - self.mean) @ self.weight
        length_W = np.linalg.norm(features_WF, axis=1, keepdims=True)
        return (features_WF / np.maximum(1e-6, length_W)).astype(np.float16)


def next_windows(
    features_WF: Features, scores_WK: Floats | None, examples_LF: Floats, open_W: Bools, num: int
) -> list[Choice]:
    """Return the windows to label next, the most useful first, at most `num`.

    The value of a window is 1 minus the margin between its two best scores. Without scores it is by how much its label lowers the
    variance of all windows of the shortlist. After each choice the variance is what it would be with that label, and the value of
    windows like it is lowered by as much.

    Args:
        features_WF: The compressed features of all windows.
        scores_WK: The scores (0-1) of all windows, summing to 1; None if nothing was learned yet.
        examples_LF: The compressed features of the labelled windows.
        open_W: True for the windows that may be offered.
        num: The most windows that are returned.
    """
    margin_W = None if scores_WK is None else _margins(scores_WK)
    rows_S = _shortlist(margin_W, open_W)
    features_SF = features_WF[rows_S].astype(np.float32)
    covariance_SS = _covariance(features_SF, np.asarray(examples_LF, np.float32))
    before_S = covariance_SS.diagonal() + NOISE
    is_free_S = np.ones(len(rows_S), bool)
    found: list[Choice] = []
    for _ in range(min(num, len(rows_S))):
        variance_S = covariance_SS.diagonal() + NOISE
        if margin_W is None:
            value_S = np.square(covariance_SS).sum(axis=1) / variance_S
        else:
            value_S = (1 - margin_W[rows_S]) * variance_S / before_S
        best = int(np.where(is_free_S, value_S, -1).argmax())
        reason: MomentReason = "uncertain"
        if margin_W is None or variance_S[best] > NEW + NOISE:
            reason = "new" if len(examples_LF) or found else "first"
        found.append(Choice(int(rows_S[best]), reason, float(value_S[best])))
        is_free_S[best] = False
        if len(found) < num:
            shared_S = covariance_SS[best] / np.sqrt(variance_S[best])
            covariance_SS = covariance_SS - np.outer(shared_S, shared_S)
    return found


def likeness_order(features_WF: Features) -> Indices:
    """Return an order of windows (W,) in which neighbours look alike.

    Windows are halved along the direction in which they differ most until at most `CHAINED` are left. Those are chained: the next
    one is always the one most like the last.
    """
    singles_WF = np.asarray(features_WF, np.float32)
    parts, done = [np.arange(len(singles_WF))], []
    while parts:
        rows = parts.pop()
        if len(rows) <= CHAINED:
            done.append(rows[_chain(singles_WF[rows])] if len(rows) else rows)
            continue
        centred = singles_WF[rows] - singles_WF[rows].mean(axis=0)
        along = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
        ordered = rows[np.argsort(along, kind="stable")]
        parts += [ordered[len(rows) // 2 :], ordered[: len(rows) // 2]]
    return np.concatenate(done)


def _margins(scores_WK: Floats) -> Singles:
    """Return by how much the best score of each window is above its second (W,); the score itself if there is one label."""
    best_W, second_W = np.zeros((2, len(scores_WK)), np.float32)
    for score_W in scores_WK.T:  # many times as fast as sorting a short last axis
        second_W = np.maximum(second_W, np.minimum(best_W, score_W))
        best_W = np.maximum(best_W, score_W)
    return np.asarray(best_W - second_W, np.float32)


def _shortlist(margin_W: Singles | None, open_W: Bools) -> Indices:
    """Return the open windows (S,) that are looked at closely."""
    rows = np.flatnonzero(open_W)
    if len(rows) <= SHORTLIST:
        return rows
    if margin_W is None:
        return rows[np.linspace(0, len(rows) - 1, SHORTLIST).astype(np.intp)]
    return rows[np.argpartition(margin_W[rows], SHORTLIST)[:SHORTLIST]]


def _covariance(features_SF: Singles, examples_LF: Singles) -> Singles:
    """Return the covariance (S, S) of windows after the examples were labelled."""
    precision_FF = examples_LF.T @ examples_LF / NOISE + np.eye(features_SF.shape[1], dtype=np.float32)
    rooted_FS = np.linalg.solve(np.linalg.cholesky(precision_FF), features_SF.T)
    return np.asarray(rooted_FS.T @ rooted_FS, np.float32)


def _chain(features_WF: Singles) -> Indices:
    """Return the rows in the order in which each is the most like the last of those that are left."""
    likeness_WW = features_WF @ features_WF.T
    free_W = np.zeros(len(features_WF), np.float32)
    order = [int(likeness_WW.sum(axis=1).argmin())]
    for _ in range(len(features_WF) - 1):
        free_W[order[-1]] = -np.inf
        order.append(int((likeness_WW[order[-1]] + free_W).argmax()))
    return np.array(order, np.intp)
