"""The network of the detector in numpy: convolutions over time, then a pyramid of ever coarser times.

At each time of each level it gives how likely an action is going on, which, and how far its start and its end are. The design
follows anchor-free detectors on frozen features (ActionFormer, arXiv 2202.07925), with convolutions in place of attention.
Training builds the same network in torch (training/boundaries/network.py).

Letters in shapes: N times, F features, H hidden width, K actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

HIDDEN = 64
"""H, the width of the network."""
DILATIONS = (1, 2, 4, 8)
"""The distances in frames between the three inputs of each convolution before the pyramid."""
NUM_LEVELS = 6
"""The levels of the pyramid. Times of level l lie 2**l frames apart."""
EPS = 1e-5


@dataclass(frozen=True, eq=False)
class LevelOutput:
    """The output of one level at N times, `stride` frames apart; time n is the centre of frames n * stride to (n + 1) * stride."""

    stride: int
    happening: Floats
    """The logits (N,) of an action going on."""
    labels: Floats
    """The logits (N, K) of each action."""
    distances: Floats
    """The distances (N, 2) to its start and its end, in frames."""


def shapes_of(num_features: int, num_labels: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of the network, by its name in torch."""
    shapes: dict[str, tuple[int, ...]] = {"enter.weight": (HIDDEN, num_features, 3), "enter.bias": (HIDDEN,)}
    for name in (*(f"blocks.{n}" for n in range(len(DILATIONS))), *(f"levels.{n}" for n in range(NUM_LEVELS))):
        shapes |= {
            f"{name}.norm.weight": (HIDDEN,), f"{name}.norm.bias": (HIDDEN,),
            f"{name}.over_time.weight": (HIDDEN, HIDDEN, 3), f"{name}.over_time.bias": (HIDDEN,),
            f"{name}.within.weight": (HIDDEN, HIDDEN, 1), f"{name}.within.bias": (HIDDEN,),
        }  # fmt: skip
    for name, width in (("happening", 1), ("labels", num_labels), ("distances", 2)):
        shapes |= {f"{name}.weight": (width, HIDDEN, 3), f"{name}.bias": (width,)}
    return shapes | {"scales": (NUM_LEVELS,)}


def run_network(features_NF: Floats, weights: Mapping[str, Floats]) -> list[LevelOutput]:
    """Return the output of each level for the features (N, F) of frames that follow each other in time.

    Args:
        features_NF: The features.
        weights: The weights, as `shapes_of` describes them.
    """
    hidden_NH = _convolved(features_NF.astype(np.float32), weights, "enter")
    for number, dilation in enumerate(DILATIONS):
        hidden_NH = _block(hidden_NH, weights, f"blocks.{number}", dilation)
    outputs = []
    for level in range(NUM_LEVELS):
        hidden_NH = _block(_halved(hidden_NH) if level else hidden_NH, weights, f"levels.{level}", 1)
        raw_N2 = _convolved(hidden_NH, weights, "distances") + weights["scales"][level]
        outputs.append(
            LevelOutput(
                stride=2**level,
                happening=_convolved(hidden_NH, weights, "happening")[:, 0],
                labels=_convolved(hidden_NH, weights, "labels"),
                distances=np.logaddexp(0, raw_N2) * 2**level,
            )
        )
    return outputs


def _block(hidden_NH: Floats, weights: Mapping[str, Floats], name: str, dilation: int) -> Floats:
    mean, spread = hidden_NH.mean(axis=1, keepdims=True), hidden_NH.var(axis=1, keepdims=True)
    normed = (hidden_NH - mean) / np.sqrt(spread + EPS) * weights[f"{name}.norm.weight"] + weights[f"{name}.norm.bias"]
    inner = np.maximum(0, _convolved(normed, weights, f"{name}.over_time", dilation))
    return hidden_NH + _convolved(inner, weights, f"{name}.within")


def _convolved(rows: Floats, weights: Mapping[str, Floats], name: str, dilation: int = 1) -> Floats:
    """Return the convolution over time of rows (N, I), with zeros before the first and after the last: (N, O)."""
    kernel_OIW = weights[f"{name}.weight"]
    width = kernel_OIW.shape[2]
    reach = dilation * (width // 2)
    padded = np.pad(rows, ((reach, reach), (0, 0)))
    found = sum(padded[tap * dilation : tap * dilation + len(rows)] @ kernel_OIW[:, :, tap].T for tap in range(width))
    return np.asarray(found + weights[f"{name}.bias"])


def _halved(rows: Floats) -> Floats:
    """Return the means of pairs of rows; a last row without a partner stays as it is."""
    pairs = rows[: len(rows) // 2 * 2].reshape(-1, 2, rows.shape[1]).mean(axis=1)
    return np.concatenate([pairs, rows[-1:]]) if len(rows) % 2 else pairs
