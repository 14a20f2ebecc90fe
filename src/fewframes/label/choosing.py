"""Choose the windows whose labels would teach most, from compressed features of all windows. Numpy alone.

Letters in shapes: W windows, F numbers of a compressed feature, P moments of a window, K labels, L labelled windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.label.values import MomentReason
from fewframes.models.moments import MOMENT_WEIGHTS, SOLVED_MOMENTS
from fewframes.runtime.protocol import Floats

FEATURES = 256
"""F, the numbers of a compressed feature."""
AT_ONCE = 16384
"""Windows that are compared with the labelled ones together."""


@dataclass(frozen=True)
class Choice:
    """A window to label, by its index, and the reason for it."""

    index: int
    reason: MomentReason
    value: float


@lru_cache(maxsize=2)
def projection(width: int) -> NDArray[np.float32]:
    """Return a fixed random projection (P, F) of the weighted moments of frames whose embeddings have this width."""
    weights = np.repeat(np.sqrt(MOMENT_WEIGHTS[SOLVED_MOMENTS]), width)
    drawn_PF = np.random.default_rng(0).standard_normal((len(weights), FEATURES), dtype=np.float32)
    return (drawn_PF * weights[:, None] / np.sqrt(FEATURES)).astype(np.float32)


def compress(moments_WP: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
    """Return the compressed features (W, F) of windows by their moments: rows of length 1."""
    width = moments_WP.shape[1] // len(MOMENT_WEIGHTS[SOLVED_MOMENTS])
    features_WF = moments_WP.astype(np.float32) @ projection(width)
    length_W = np.linalg.norm(features_WF, axis=1, keepdims=True)
    return (features_WF / np.maximum(1e-6, length_W)).astype(np.float16)


def next_windows(
    features_WF: NDArray[np.float16],
    scores_WK: Floats | None,
    examples_LF: Floats,
    open_W: NDArray[np.bool_],
    num: int,
) -> list[Choice]:
    """Return the windows to label next, the most useful first.

    Args:
        features_WF: The compressed features of all windows.
        scores_WK: The scores of all windows; None if nothing was learned yet.
        examples_LF: The compressed features of the labelled windows.
        open_W: True for the windows that may be offered.
        num: The most windows that are returned.
    """
    distance_W = 1 - _nearest(features_WF, examples_LF)
    if scores_WK is None:
        value_W = distance_W
    else:
        ordered_WK = np.sort(scores_WK, axis=1)
        value_W = (1 - (ordered_WK[:, -1] - ordered_WK[:, -2])) * np.sqrt(np.maximum(0, distance_W))
    value_W = np.where(open_W, value_W, -np.inf)
    found = np.argsort(-value_W, kind="stable")[:num]
    reason: MomentReason = "new" if len(examples_LF) else "first"
    return [
        Choice(index, reason if scores_WK is None else "uncertain", float(value_W[index]))
        for index in found.tolist()
        if open_W[index]
    ]


def likeness_order(features_WF: NDArray[np.float16]) -> NDArray[np.intp]:
    """Return an order of windows (W,) in which neighbours look alike."""
    centred_WF = features_WF.astype(np.float32)
    centred_WF -= centred_WF.mean(axis=0)
    _, vectors_FF = np.linalg.eigh(centred_WF.T @ centred_WF)
    return np.argsort(centred_WF @ vectors_FF[:, -1], kind="stable")


def _nearest(features_WF: NDArray[np.float16], examples_LF: Floats) -> NDArray[np.float32]:
    """Return the largest cosine (W,) of each window with a labelled one; 0 if there are none."""
    if not len(examples_LF):
        return np.zeros(len(features_WF), np.float32)
    parts = []
    for start in range(0, len(features_WF), AT_ONCE):
        some_wF = features_WF[start : start + AT_ONCE].astype(np.float32)
        parts.append((some_wF @ examples_LF.astype(np.float32).T).max(axis=1))
    return np.concatenate(parts)
