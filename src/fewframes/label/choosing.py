"""Choose the windows whose labels would teach most, from compressed features of all windows. Numpy alone.

Nothing here reads a file. What is compared are compressed moments of frame embeddings: a random projection keeps their angles.

Letters in shapes: W windows, F numbers of a compressed feature, P moments of a window, K labels, L labelled windows, S windows of
the shortlist.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.label.values import MomentReason
from fewframes.models.moments import MOMENT_WEIGHTS, SOLVED_MOMENTS

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

FEATURES = 256
"""F, the numbers of a compressed feature."""
SHORTLIST = 4096
"""S, the most windows that are compared with the labelled ones: half of them the most uncertain, half of them evenly spread."""
CHAINED = 2048
"""The most windows that are chained by likeness together."""


@dataclass(frozen=True)
class Choice:
    """A window to label, by its index, and the reason for it."""

    index: int
    reason: MomentReason
    value: float


@lru_cache(maxsize=2)
def projection(width: int) -> NDArray[np.float32]:
    """Return a fixed random projection (P, F) of the weighted moments of frames whose embeddings have this width."""
    weights_P = np.repeat(np.sqrt(MOMENT_WEIGHTS[SOLVED_MOMENTS]), width)
    drawn_PF = np.random.default_rng(0).standard_normal((len(weights_P), FEATURES), dtype=np.float32)
    return (drawn_PF * weights_P[:, None] / np.sqrt(FEATURES)).astype(np.float32)


def compress(moments_WP: Floats) -> NDArray[np.float16]:
    """Return the compressed features (W, F) of windows by their moments: rows of length 1."""
    width = moments_WP.shape[1] // len(MOMENT_WEIGHTS[SOLVED_MOMENTS])
    features_WF = moments_WP.astype(np.float32) @ projection(width)
    length_W = np.linalg.norm(features_WF, axis=1, keepdims=True)
    return (features_WF / np.maximum(1e-6, length_W)).astype(np.float16)


def next_windows(
    features_WF: NDArray[np.float16], scores_WK: Floats | None, examples_LF: Floats, open_W: Bools, num: int
) -> list[Choice]:
    """Return the windows to label next, the most useful first, at most `num`.

    Args:
        features_WF: The compressed features of all windows.
        scores_WK: The scores (0-1) of all windows; None if nothing was learned yet.
        examples_LF: The compressed features of the labelled windows.
        open_W: True for the windows that may be offered.
        num: The most windows that are returned.
    """
    doubt_W = np.ones(len(features_WF), np.float32) if scores_WK is None else 1 - margins(scores_WK)
    rows_S = _shortlist(doubt_W, open_W)
    features_SF = features_WF[rows_S].astype(np.float32)
    nearest_S = _nearest(features_SF, np.asarray(examples_LF, np.float32))
    doubt_S = doubt_W[rows_S]
    typical_S = features_SF @ features_SF.mean(axis=0) if scores_WK is None and not len(examples_LF) else None
    found = []
    for _ in range(min(num, len(rows_S))):
        value_S = doubt_S * np.sqrt(np.maximum(1e-6, 1 - nearest_S)) if typical_S is None else typical_S
        best = int(value_S.argmax())
        reason: MomentReason = "uncertain" if scores_WK is not None else "new" if typical_S is None else "first"
        found.append(Choice(int(rows_S[best]), reason, float(value_S[best])))
        nearest_S = np.maximum(nearest_S, features_SF @ features_SF[best])
        doubt_S[best], typical_S = -1, None
    return found


def margins(scores_WK: Floats) -> NDArray[np.float32]:
    """Return by how much the best score of each window is above its second (W,); the score itself if there is one label."""
    if scores_WK.shape[1] < 2:
        return np.asarray(scores_WK[:, 0], np.float32)
    best_WK = np.partition(scores_WK, -2, axis=1)[:, -2:]
    return np.asarray(best_WK[:, 1] - best_WK[:, 0], np.float32)


def likeness_order(features_WF: NDArray[np.float16]) -> Indices:
    """Return an order of windows (W,) in which neighbours look alike.

    Windows are halved along the direction in which they differ most until at most `CHAINED` are left. Those are chained: the next
    one is always the one most like the last.
    """
    features_WF = np.asarray(features_WF, np.float32)
    parts, done = [np.arange(len(features_WF))], []
    while parts:
        rows = parts.pop()
        if len(rows) <= CHAINED:
            done.append(rows[_chain(features_WF[rows])] if len(rows) else rows)
            continue
        centred = features_WF[rows] - features_WF[rows].mean(axis=0)
        along = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
        ordered = rows[np.argsort(along, kind="stable")]
        parts += [ordered[len(rows) // 2 :], ordered[: len(rows) // 2]]
    return np.concatenate(done)


def _shortlist(doubt_W: NDArray[np.float32], open_W: Bools) -> Indices:
    """Return the open windows (S,) that are looked at closely: the most uncertain, and others evenly spread over all."""
    open_rows = np.flatnonzero(open_W)
    if len(open_rows) <= SHORTLIST:
        return open_rows
    doubtful = open_rows[np.argpartition(-doubt_W[open_rows], SHORTLIST // 2)[: SHORTLIST // 2]]
    spread = open_rows[np.linspace(0, len(open_rows) - 1, SHORTLIST // 2).astype(np.intp)]
    return np.union1d(doubtful, spread)


def _nearest(features_SF: NDArray[np.float32], examples_LF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest cosine (S,) of each window with a labelled one; 0 if there are none."""
    if not len(examples_LF):
        return np.zeros(len(features_SF), np.float32)
    return np.asarray((features_SF @ examples_LF.T).max(axis=1), np.float32)


def _chain(features_WF: NDArray[np.float32]) -> Indices:
    """Return the rows in the order in which each is the most like the last of those that are left."""
    likeness_WW = features_WF @ features_WF.T
    free_W = np.zeros(len(features_WF), np.float32)
    order = [int(likeness_WW.sum(axis=1).argmin())]
    for _ in range(len(features_WF) - 1):
        free_W[order[-1]] = -np.inf
        order.append(int((likeness_WW[order[-1]] + free_W).argmax()))
    return np.array(order, np.intp)
