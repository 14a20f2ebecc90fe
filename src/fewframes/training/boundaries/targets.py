"""Targets and loss of the detector: at which times of which level an action is to be found, and how far off the network is.

Letters in shapes: B sequences, N times of a level, K actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewframes.models.boundaries.network import NUM_LEVELS
from fewframes.training.boundaries.compose import FrameSpan
from fewframes.training.boundaries.network import Level

NEAREST, OVERLAPPING = 6.0, 1.1
"""Level 0 finds spans whose farther end is up to this many frames away, each further level twice as far, and a little beyond."""
MIDDLE = 0.3
"""The part of a span around its middle at which it is to be found, to each side."""
FOUND_WEIGHT, FOCUS = 0.4, 2.0
"""The weight of times at which an action is to be found, and how much less times count that are right already."""
LABEL_WEIGHT = 0.5
"""The weight of the actions' own logits in the loss."""

LevelTargets = tuple[Tensor, Tensor, Tensor]
"""The output that a level should give: happening (N,), labels (K, N), and distances (2, N), which count where something happens."""


def targets_of(spans: Sequence[FrameSpan], num_frames: int, num_labels: int) -> list[LevelTargets]:
    """Return the targets of each level for a sequence with these actions."""
    targets: list[LevelTargets] = []
    count = num_frames
    for level in range(NUM_LEVELS):
        stride = 2**level
        times = (np.arange(count) + 0.5) * stride
        happening = np.zeros(count, np.float32)
        labels = np.zeros((num_labels, count), np.float32)
        distances, shortest = np.zeros((2, count), np.float32), np.full(count, np.inf)
        reach = NEAREST * stride * OVERLAPPING if level < NUM_LEVELS - 1 else np.inf
        nearest = NEAREST * stride / 2 / OVERLAPPING**2 if level else 0.0
        for span in spans:
            to_start, to_end = times - span.start, span.end - times
            length, middle = span.end - span.start, (span.start + span.end) / 2
            farther = np.maximum(to_start, to_end)
            here = (np.minimum(to_start, to_end) > 0) & (farther >= nearest) & (farther < reach)
            here &= np.abs(times - middle) <= max(MIDDLE * length, 0.75 * stride)
            labels[span.label, here] = happening[here] = 1
            shorter = here & (length < shortest)  # where spans overlap, the distances are those of the shortest
            shortest[shorter] = length
            distances[0, shorter], distances[1, shorter] = to_start[shorter], to_end[shorter]
        targets.append((torch.from_numpy(happening), torch.from_numpy(labels), torch.from_numpy(distances)))
        count = (count + 1) // 2
    return targets


def detection_loss(outputs: Sequence[Level], targets: Sequence[Sequence[LevelTargets]]) -> Tensor:
    """Return the loss of a batch: focal losses of both kinds of logits, and the DIoU loss of spans, for each time with an action.

    Args:
        outputs: The outputs of each level for B sequences.
        targets: The targets of each sequence.
    """
    total, num_found = torch.zeros(()), 0
    for number, (happening_BN, labels_BKN, distances_B2N) in enumerate(outputs):
        wanted_BN, wanted_BKN, wanted_B2N = (torch.stack([own[number][part] for own in targets]) for part in range(3))
        total = total + _focal(happening_BN, wanted_BN) + LABEL_WEIGHT * _focal(labels_BKN, wanted_BKN)
        found_BN = wanted_BN > 0
        if found_BN.any():
            num_found += int(found_BN.sum())
            total = total + _diou(distances_B2N.transpose(1, 2)[found_BN], wanted_B2N.transpose(1, 2)[found_BN]).sum()
    return total / max(1, num_found)


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the focal loss (arXiv 1708.02002), summed."""
    right = torch.sigmoid(logits) * (2 * wanted - 1) + 1 - wanted
    weights = FOUND_WEIGHT * wanted + (1 - FOUND_WEIGHT) * (1 - wanted)
    losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (weights * (1 - right) ** FOCUS * losses).sum()


def _diou(distances_M2: Tensor, wanted_M2: Tensor) -> Tensor:
    """Return the DIoU losses (M,) of spans around the same times (arXiv 1911.08287)."""
    shared = torch.minimum(distances_M2, wanted_M2).clamp(min=0).sum(1)
    union = distances_M2.sum(1) + wanted_M2.sum(1) - shared
    hull = torch.maximum(distances_M2, wanted_M2).sum(1).clamp(min=1e-6)
    apart = ((distances_M2 - wanted_M2)[:, 1] - (distances_M2 - wanted_M2)[:, 0]) / 2
    return 1 - shared / union.clamp(min=1e-6) + (apart / hull) ** 2
