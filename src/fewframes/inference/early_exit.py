"""Early exit: encode a few frames spread over the whole video first, and stop once the answer is confident enough.

Frame embeddings do not depend on each other, so frames may be encoded in any order and no embedding is computed twice. The stages
are nested subsets of the model's own uniform timestamps, coarse first. After each stage, the embeddings of the timestamps that are
still missing are interpolated in time between their neighbours. The temporal half then answers as always: no part of it knows of
early exits, and after the last stage the answer equals that of the plain model to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewframes.core.metrics import fit_temperature
from fewframes.errors import ConfigError
from fewframes.models.exit_plan import ExitPlan
from fewframes.models.stam import STAM, VideoEncoding

FIRST_FRAMES = 4
"""Frames of the first stage. Fewer frames do not show what changes."""
PERMITTED_LOSS = 0.005
"""The fraction of right answers that may be lost compared with encoding every frame."""
LEAST_THRESHOLD = 0.92
"""The lowest confidence at which a fitted plan stops, however good the fit. Videos from other sources are less reliable than their
confidence says (docs/explanation/performance.md).
"""
MOST_THRESHOLDS = 1000
"""The most thresholds that `fit_plan` tries."""
NEVER = 2.0
"""A threshold that no confidence reaches."""


@dataclass(frozen=True, eq=False)
class ExitResult:
    """The stage at which each video stops (B,), its logits there (B, K), and the number of frames encoded until then (B,)."""

    stages: Tensor
    logits: Tensor
    num_frames: Tensor


@dataclass(frozen=True)
class ExitFigures:
    """The figures of a plan over `num_videos` videos: mean frames encoded, accuracy (0-1), and accuracy with every frame (0-1)."""

    num_videos: int
    mean_frames: float
    top1: float
    top1_all_frames: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "num_videos": self.num_videos,
            "mean_frames": round(self.mean_frames, 2),
            "top1": round(self.top1, 4),
            "top1_all_frames": round(self.top1_all_frames, 4),
        }


def stages_of(num_frames: int) -> tuple[tuple[int, ...], ...]:
    """Return nested frame indices, coarse first: 4 of `num_frames`, then 8, 16, ... and at last all.

    They are symmetrical about the middle, so that a video played backwards is seen at the same timestamps. Each stage adds pairs of
    indices, always the pair that is farthest from those chosen already.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames = {num_frames}: needs at least 1")
    if num_frames <= FIRST_FRAMES:
        return (tuple(range(num_frames)),)
    # The centres of equal parts of the first half; the second half mirrors them.
    centres = [((2 * part + 1) * num_frames - FIRST_FRAMES) // (2 * FIRST_FRAMES) for part in range(FIRST_FRAMES // 2)]
    indices = {*centres, *(num_frames - 1 - index for index in centres)}
    stages, size = [tuple(sorted(indices))], 2 * FIRST_FRAMES
    while size < num_frames:
        while len(indices) < size:
            free = [index for index in range((num_frames + 1) // 2) if index not in indices]
            far = max(free, key=lambda index: min(abs(index - other) for other in indices))
            indices |= {far, num_frames - 1 - far}
        if len(indices) < num_frames:
            stages.append(tuple(sorted(indices)))
        size *= 2
    return (*stages, tuple(range(num_frames)))


def filled(embeddings_BND: Tensor, indices: Sequence[int], num_frames: int) -> Tensor:
    """Fill in the embeddings of all T timestamps from those of N frames: (B, N, D) to (B, T, D).

    Known embeddings stay as they are, to the last bit. Between them, embeddings are interpolated in time; before the first and
    after the last known one they are repeated.

    Args:
        embeddings_BND: Embeddings of the frames that were encoded.
        indices: Their N positions among the T timestamps, ascending.
        num_frames: T.
    """
    if embeddings_BND.shape[1] != len(indices):
        raise ValueError(f"{embeddings_BND.shape[1]} embeddings for {len(indices)} indices: needs one for each")
    if not indices or list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= num_frames:
        raise ValueError(f"indices {tuple(indices)}: needs at least one, ascending, from 0 to {num_frames - 1}")
    known_N = torch.tensor(indices, device=embeddings_BND.device)
    all_T = torch.arange(num_frames, device=embeddings_BND.device)
    # A known index is its own neighbour on both sides: its fraction is then 0, and lerp returns it bit for bit.
    after_T = torch.searchsorted(known_N, all_T).clamp(max=len(indices) - 1)
    before_T = torch.searchsorted(known_N, all_T, right=True).sub(1).clamp(min=0)
    gap_T = (known_N[after_T] - known_N[before_T]).clamp(min=1)
    fraction_T = ((all_T - known_N[before_T]) / gap_T).clamp(0, 1).to(embeddings_BND.dtype)
    return embeddings_BND[:, before_T].lerp(embeddings_BND[:, after_T], fraction_T[:, None])


def with_stages(embeddings_BVTD: Tensor, stages: Sequence[Sequence[int]], num_views: int) -> Tensor:
    """Add views as a model sees them when it stops early: (B, V, T, D) to (B, V + num_views x S', D), for training.

    Each of the first `num_views` views is added once for every stage but the last, `filled` from the frames of that stage. A model
    trained without them is right with four frames far less often (docs/decisions).

    Args:
        embeddings_BVTD: Frame embeddings of V views of each video.
        stages: Frame indices of each stage, as `stages_of` returns them.
        num_views: Views to which stages are added.
    """
    few = [
        filled(view_BTD[:, list(indices)], indices, view_BTD.shape[1])
        for indices in stages[:-1]
        for view_BTD in embeddings_BVTD[:, :num_views].unbind(1)
    ]
    return torch.cat([embeddings_BVTD, *(view_BTD[:, None] for view_BTD in few)], dim=1)


def answer(model: STAM, embeddings_BND: Tensor, indices: Sequence[int]) -> tuple[VideoEncoding, Tensor]:
    """Run the temporal half on the frames encoded so far, with attention.

    Returns the encoding, and the weight (T, N) of each of the N frames in each of the T timestamps; rows sum to 1.

    Args:
        model: The network.
        embeddings_BND: Embeddings of the frames that were encoded.
        indices: Their N positions among the model's T uniform timestamps, ascending.
    """
    num_frames = model.config.num_frames
    with torch.inference_mode():
        encoded = model.encode_video(filled(embeddings_BND, indices, num_frames), with_attention=True)
        return encoded, filled(torch.eye(len(indices), device=embeddings_BND.device)[None], indices, num_frames)[0]


def stage_logits(model: STAM, embeddings_BTD: Tensor, stages: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits of every stage (S, B, K) from the embeddings (B, T, D) of all frames."""
    num_frames = model.config.num_frames
    with torch.inference_mode():
        known = [filled(embeddings_BTD[:, list(indices)], indices, num_frames) for indices in stages]
        return torch.stack([model.encode_video(stage_BTD).logits for stage_BTD in known])


def confidence(logits_BK: Tensor, temperature: float) -> Tensor:
    """Return the calibrated score (0-1) of the likeliest action: (B, K) to (B,)."""
    return (logits_BK / temperature).softmax(dim=1).amax(dim=1)


def leave(plan: ExitPlan, logits_SBK: Tensor) -> ExitResult:
    """Return where each video stops: at the first stage whose confidence reaches the threshold, at the latest at the last one."""
    sure_SB = _confidences(logits_SBK, plan.temperatures) >= plan.threshold
    sure_SB[-1] = True  # there is no later stage to wait for
    stages_B = sure_SB.int().argmax(dim=0)
    sizes_S = torch.tensor([len(indices) for indices in plan.stages])
    return ExitResult(stages_B, logits_SBK[stages_B, torch.arange(len(stages_B))], sizes_S[stages_B])


def figures_of(plan: ExitPlan, logits_SBK: Tensor, targets_B: Tensor) -> ExitFigures:
    """Measure a plan on labelled videos: logits of every stage (S, B, K), index of the true label (B,)."""
    left = leave(plan, logits_SBK)
    return ExitFigures(
        num_videos=len(targets_B),
        mean_frames=float(left.num_frames.double().mean()),
        top1=float((left.logits.argmax(dim=1) == targets_B).double().mean()),
        top1_all_frames=float((logits_SBK[-1].argmax(dim=1) == targets_B).double().mean()),
    )


def fit_plan(
    stages: Sequence[Sequence[int]],
    logits_SBK: Tensor,
    targets_B: Tensor,
    permitted_loss: float = PERMITTED_LOSS,
    least_threshold: float = LEAST_THRESHOLD,
) -> ExitPlan:
    """Fit the plan that encodes the fewest frames and loses at most `permitted_loss` of the right answers on these videos.

    The videos must not be among those that the model was trained on. Right answers that only an early stage gives do not make up
    for lost ones. The chosen threshold is the lowest above which every other threshold keeps to the permitted loss too. Both would
    otherwise be luck that does not carry over to other videos (docs/decisions).

    Args:
        stages: Frame indices of each stage, as `stages_of` returns them.
        logits_SBK: Logits of every stage.
        targets_B: Index of the true label of each video.
        permitted_loss: The fraction (0-1) of right answers that may be lost.
        least_threshold: The threshold is never below this confidence.
    """
    if len(targets_B) == 0 or logits_SBK.shape[:2] != (len(stages), len(targets_B)):
        raise ValueError(
            f"logits {tuple(logits_SBK.shape)} for {len(stages)} stages of {len(targets_B)} videos: needs (S, B, K)"
        )
    if not 0 <= permitted_loss < 1:
        raise ConfigError(
            f"permitted loss {permitted_loss}: needs a fraction from 0 to below 1, such as {PERMITTED_LOSS}"
        )
    temperatures = tuple(fit_temperature(logits_BK, targets_B) for logits_BK in logits_SBK)
    plan = ExitPlan(stages=tuple(map(tuple, stages)), temperatures=temperatures, threshold=NEVER)
    if len(stages) == 1:
        return plan
    sure = _confidences(logits_SBK[:-1], temperatures[:-1]).flatten().unique()  # ascending
    some = torch.linspace(0, len(sure) - 1, min(len(sure), MOST_THRESHOLDS)).round().long()
    right_B = logits_SBK[-1].argmax(dim=1) == targets_B
    # From the highest threshold down, and no further than the first that loses too much: see the docstring.
    for threshold in reversed(sure[some].tolist()):
        lower = replace(plan, threshold=threshold)
        lost_B = right_B & (leave(lower, logits_SBK).logits.argmax(dim=1) != targets_B)
        if int(lost_B.sum()) > permitted_loss * len(targets_B):
            break
        plan = lower
    return replace(plan, threshold=max(plan.threshold, least_threshold))


def _confidences(logits_SBK: Tensor, temperatures: Sequence[float]) -> Tensor:
    return torch.stack([confidence(logits_BK, t) for logits_BK, t in zip(logits_SBK, temperatures, strict=True)])
