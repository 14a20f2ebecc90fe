"""The examples that a model learns from, and the parts of it that are fitted to them without steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewframes.models.stam import STAM
from fewframes.training.steps.loader import TokenExamples, VideoExamples


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The examples that a model learns from, their targets (B, K) in 0-1, their names in error texts, and the scores (B, K) of a
    teacher, if there is one, at the temperature of the run."""

    examples: TokenExamples | VideoExamples
    targets: Tensor
    names: Sequence[str]
    teacher_scores: Tensor | None = None


def solve(
    model: STAM, embeddings_BVTD: Tensor, targets_BK: Tensor, seed: int, groups: Sequence[str] | None = None
) -> None:
    """Fit in place the parts of a model that are not trained by steps: the reduction of motion tokens, and the moment head.

    A reduction that was kept together with a trained temporal encoder stays as it is.

    Args:
        model: the model.
        embeddings_BVTD: the frame embeddings of V views of each video.
        targets_BK: the targets in 0-1.
        seed: draws the videos that the reduction is fitted to, and the groups that are left out to choose a scale.
        groups: the group of each video; None makes each video its own group.
    """
    generator = torch.Generator().manual_seed(seed)
    motion = model.temporal_encoder.motion
    if motion is not None and not motion.kept:
        motion.fit(embeddings_BVTD.flatten(0, 1), generator)
    if model.moment_head is not None:
        model.moment_head.fit(embeddings_BVTD, targets_BK, model.loss, generator, groups)


def solve_moments(
    model: STAM, embeddings_BVTD: Tensor, targets_BK: Tensor, seed: int, groups: Sequence[str] | None = None
) -> None:
    """Fit the moment head of a model in place, if it has one. The reduction of motion tokens stays as it is.

    The arguments are those of `solve`.
    """
    if model.moment_head is not None:
        generator = torch.Generator().manual_seed(seed)
        model.moment_head.fit(embeddings_BVTD, targets_BK, model.loss, generator, groups)


def needs_solving(model: STAM) -> bool:
    """Return True if `solve` has anything to fit."""
    motion = model.temporal_encoder.motion
    return model.moment_head is not None or (motion is not None and not motion.kept)


@torch.no_grad()
def token_examples(model: STAM, embeddings_BVTD: Tensor) -> TokenExamples:
    """Return the tokens that the temporal encoder is trained on. They are computed once, since no part before it learns."""
    views = [model.temporal_encoder.tokens(view_BTD) for view_BTD in embeddings_BVTD.unbind(1)]
    return TokenExamples(torch.stack(views, dim=1))


def class_weights(targets_BK: Tensor) -> Tensor:
    """Return weights (K,) in proportion to 1 / videos of each class, scaled to a mean of 1 over the labels of the videos.

    `targets_BK` (B, K) are in 0-1.
    """
    counts_K = targets_BK.sum(dim=0).clamp(min=1)
    weights_K = 1 / counts_K
    return weights_K * (targets_BK.sum() / (weights_K * targets_BK.sum(dim=0)).sum())
