"""Early exit: look at a few frames spread over the whole video first, and stop where the answer is sure enough.

Frame embeddings do not depend on each other, so frames may come in any order and what was encoded is kept. The stages are
nested sets of the model's own uniform moments, coarse first. After each stage the moments not looked at yet get embeddings
interpolated in time between their neighbours, and the temporal half answers as always: it has no part that knows of exits,
and after the last stage the answer is that of the plain model, to the last bit.
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
"""Frames of the first stage: fewer do not show what changes."""
PERMITTED_LOSS = 0.005
"""Share of right answers that may be lost against looking at every frame."""
LEAST_THRESHOLD = 0.92
"""Confidence below which no plan that is fitted stops, however well that went: videos from other places are less sure than they
look (docs/explanation/performance.md)."""
MOST_THRESHOLDS = 1000
NEVER = 2.0
"""A threshold that no confidence reaches."""


@dataclass(frozen=True, eq=False)
class ExitResult:
    """Where videos leave: the stage of each (B,), its logits there (B, K), and the frames looked at (B,)."""

    stages: Tensor
    logits: Tensor
    num_frames: Tensor


@dataclass(frozen=True)
class ExitFigures:
    """What a plan does on `num_videos`: mean frames looked at, share right (0-1), and the share right with every frame."""

    num_videos: int
    mean_frames: float
    top1: float
    top1_all_frames: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "num_videos": self.num_videos,
            "mean_frames": round(self.mean_frames, 2),
            "top1": round(self.top1, 4),
            "top1_all_frames": round(self.top1_all_frames, 4),
        }


def stages_of(num_frames: int) -> tuple[tuple[int, ...], ...]:
    """Nested places, coarse first: 4 of `num_frames`, then 8, 16, ... at last all.

    Symmetrical about the middle, so that a video played backwards is looked at in the same moments. Each stage adds pairs of
    places, always the pair farthest from those it has.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames = {num_frames}: needs at least 1")
    if num_frames <= FIRST_FRAMES:
        return (tuple(range(num_frames)),)
    centres = [((2 * part + 1) * num_frames - FIRST_FRAMES) // (2 * FIRST_FRAMES) for part in range(FIRST_FRAMES // 2)]
    places = {*centres, *(num_frames - 1 - place for place in centres)}
    stages, size = [tuple(sorted(places))], 2 * FIRST_FRAMES
    while size < num_frames:
        while len(places) < size:
            free = [place for place in range((num_frames + 1) // 2) if place not in places]
            far = max(free, key=lambda place: min(abs(place - other) for other in places))
            places |= {far, num_frames - 1 - far}
        if len(places) < num_frames:
            stages.append(tuple(sorted(places)))
        size *= 2
    return (*stages, tuple(range(num_frames)))


def filled(frames_BND: Tensor, places: Sequence[int], num_frames: int) -> Tensor:
    """Embeddings of all T moments from those of the frames at `places`, ascending: (B, N, D) -> (B, T, D).

    What was looked at stays as it is, to the last bit. In between, embeddings are interpolated in time; before the first and
    after the last place they are repeated.
    """
    if frames_BND.shape[1] != len(places):
        raise ValueError(f"{frames_BND.shape[1]} frames for {len(places)} places")
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= num_frames:
        raise ValueError(f"places {tuple(places)}: needs at least one, ascending, from 0 to {num_frames - 1}")
    known_N = torch.tensor(places, device=frames_BND.device)
    moments_T = torch.arange(num_frames, device=frames_BND.device)
    after_T = torch.searchsorted(known_N, moments_T).clamp(max=len(places) - 1)
    before_T = torch.searchsorted(known_N, moments_T, right=True).sub(1).clamp(min=0)
    gap_T = (known_N[after_T] - known_N[before_T]).clamp(min=1)
    share_T = ((moments_T - known_N[before_T]) / gap_T).clamp(0, 1).to(frames_BND.dtype)
    return frames_BND[:, before_T].lerp(frames_BND[:, after_T], share_T[:, None])


def with_stages(embeddings_BVTD: Tensor, stages: Sequence[Sequence[int]], num_views: int) -> Tensor:
    """Views for training with those that a model sees when it stops early: (B, V, T, D) -> (B, V + num_views x S', D).

    Of the first `num_views` views, what is `filled` in after each stage but the last. A model that never met these is right at
    four frames far less often (docs/decisions.md).
    """
    few = [
        filled(view_BTD[:, list(places)], places, view_BTD.shape[1])
        for places in stages[:-1]
        for view_BTD in embeddings_BVTD[:, :num_views].unbind(1)
    ]
    return torch.cat([embeddings_BVTD, *(view_BTD[:, None] for view_BTD in few)], dim=1)


def answer(model: STAM, frames_BND: Tensor, places: Sequence[int]) -> tuple[VideoEncoding, Tensor]:
    """What the model says from the embeddings (B, N, D) of the frames at these places among its T uniform ones, attention
    included; and how much each frame has of each of the T moments: (T, N), rows sum to 1."""
    num_frames = model.config.num_frames
    with torch.inference_mode():
        encoded = model.encode_video(filled(frames_BND, places, num_frames), with_attention=True)
        return encoded, filled(torch.eye(len(places), device=frames_BND.device)[None], places, num_frames)[0]


def stage_logits(model: STAM, frames_BTD: Tensor, stages: Sequence[Sequence[int]]) -> Tensor:
    """Logits of every stage (S, B, K) where all frames are known: embeddings (B, T, D)."""
    num_frames = model.config.num_frames
    with torch.inference_mode():
        known = [filled(frames_BTD[:, list(places)], places, num_frames) for places in stages]
        return torch.stack([model.encode_video(one_BTD).logits for one_BTD in known])


def confidence(logits_BK: Tensor, temperature: float) -> Tensor:
    """The share (0-1) of the likeliest action, calibrated: (B, K) -> (B,)."""
    return (logits_BK / temperature).softmax(dim=1).amax(dim=1)


def leave(plan: ExitPlan, logits_SBK: Tensor) -> ExitResult:
    """Where each video leaves: at the first stage whose confidence reaches the threshold, at the last at the latest."""
    sure_SB = _confidences(logits_SBK, plan.temperatures) >= plan.threshold
    sure_SB[-1] = True
    stages_B = sure_SB.int().argmax(dim=0)
    sizes_S = torch.tensor([len(places) for places in plan.stages])
    return ExitResult(stages_B, logits_SBK[stages_B, torch.arange(len(stages_B))], sizes_S[stages_B])


def figures_of(plan: ExitPlan, logits_SBK: Tensor, targets_B: Tensor) -> ExitFigures:
    """What the plan does on videos with known labels: logits of every stage (S, B, K), targets (B,)."""
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
    """The plan that looks at the fewest frames and loses no more than `permitted_loss` (0-1) of right answers on these videos.

    They must be videos that the model did not learn from. Logits of every stage (S, B, K), targets (B,). Answers that only the
    fewer frames get right do not make up for lost ones, and of thresholds the lowest is taken above which every other one keeps
    to the permitted loss too: both would be luck that other videos need not have (docs/decisions.md).
    It is never below `least_threshold`.
    """
    if len(targets_B) == 0 or logits_SBK.shape[:2] != (len(stages), len(targets_B)):
        raise ValueError(
            f"logits {tuple(logits_SBK.shape)} for {len(stages)} stages of {len(targets_B)} videos: needs (S, B, K)"
        )
    if not 0 <= permitted_loss < 1:
        raise ConfigError(f"permitted loss {permitted_loss}: needs a share from 0 to below 1, such as {PERMITTED_LOSS}")
    temperatures = tuple(fit_temperature(logits_BK, targets_B) for logits_BK in logits_SBK)
    plan = ExitPlan(stages=tuple(map(tuple, stages)), temperatures=temperatures, threshold=NEVER)
    if len(stages) == 1:
        return plan
    sure = _confidences(logits_SBK[:-1], temperatures[:-1]).flatten().unique()  # ascending
    some = torch.linspace(0, len(sure) - 1, min(len(sure), MOST_THRESHOLDS)).round().long()
    right_B = logits_SBK[-1].argmax(dim=1) == targets_B
    for threshold in reversed(sure[some].tolist()):
        lower = replace(plan, threshold=threshold)
        lost_B = right_B & (leave(lower, logits_SBK).logits.argmax(dim=1) != targets_B)
        if int(lost_B.sum()) > permitted_loss * len(targets_B):
            break
        plan = lower
    return replace(plan, threshold=max(plan.threshold, least_threshold))


def _confidences(logits_SBK: Tensor, temperatures: Sequence[float]) -> Tensor:
    return torch.stack([confidence(logits_BK, t) for logits_BK, t in zip(logits_SBK, temperatures, strict=True)])
