"""Early exit: look at a few frames spread over the whole video first, and stop where the answer is sure enough.

Frame embeddings do not depend on each other, so frames may come in any order and what was encoded is kept. The stages are
nested sets of the model's own uniform moments, coarse first. After each stage the moments not looked at yet get embeddings
interpolated in time between their neighbours, and the temporal half answers as always: it has no part that knows of exits,
and after the last stage the answer is that of the plain model, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from fewframes.core.metrics import fit_temperature
from fewframes.core.settings import STRICT, Positive, settings_from
from fewframes.errors import ConfigError
from fewframes.models.stam import STAM, VideoEncoding

FIRST_FRAMES = 4
"""Frames of the first stage: fewer do not show what changes."""
PERMITTED_LOSS = 0.005
"""Share of right answers that may be lost against looking at every frame."""
LEAST_THRESHOLD = 0.92
"""Confidence below which no plan that is fitted stops, however well that went: videos from other places are less sure than they
look (docs/performance.md)."""
MOST_THRESHOLDS = 1000
NEVER = 2.0
"""A threshold that no confidence reaches."""


@settings(frozen=True, kw_only=True, config=STRICT)
class ExitPlan:
    """When to stop looking at a video; plain values with `to_dict`, so that it can travel inside a checkpoint."""

    stages: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...]
    """Places, of the model's uniform frames, that have been looked at after each stage: ascending, each stage with all of the
    one before, the last with every place."""
    temperatures: tuple[Positive, ...]
    """What the logits of each stage are divided by before their confidence is taken."""
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Confidence (0-1) from which an answer is given before the last stage; above 1 none is."""

    @model_validator(mode="after")
    def _fits_together(self) -> ExitPlan:
        if not self.stages or len(self.temperatures) != len(self.stages):
            raise ValueError(
                f"{len(self.stages)} stages with {len(self.temperatures)} temperatures: needs one for each"
            )
        seen: set[int] = set()
        for places in self.stages:
            if list(places) != sorted(set(places)) or not seen < set(places):
                raise ValueError(f"stage {places}: needs ascending places, those of the stage before and more")
            seen = set(places)
        if len(seen) != self.num_frames:  # they are ascending and from 0 up: as many as that are all of them
            raise ValueError(f"the last stage has {len(seen)} of {self.num_frames} places: needs all, counted from 0")
        return self

    @property
    def num_frames(self) -> int:
        """Frames of the whole video, those of the last stage."""
        return self.stages[-1][-1] + 1 if self.stages and self.stages[-1] else 0

    def new_places(self, stage: int) -> tuple[int, ...]:
        """The places to look at for this stage that no stage before has looked at, ascending."""
        before = self.stages[stage - 1] if stage else ()
        return tuple(place for place in self.stages[stage] if place not in before)

    def check(self, model: STAM) -> None:
        """ConfigError where this model cannot stop early or is built for another number of frames."""
        check_can_exit(model)
        if model.config.num_frames != self.num_frames:
            raise ConfigError(
                f"this exit plan is for {self.num_frames} frames and the model is built for {model.config.num_frames}; "
                "fit a plan for this model"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "exit plan") -> ExitPlan:
        """The plan that `to_dict` wrote; ConfigError names `where` and what does not fit."""
        return settings_from(cls, values, where)


@dataclass(frozen=True, eq=False)
class Left:
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


def check_can_exit(model: STAM) -> None:
    """ConfigError where looking at fewer frames saves nothing, or where there is no single answer to be sure of."""
    if model.config.layout != "factorised":
        raise ConfigError(
            f"layout {model.config.layout!r} mixes frames inside the encoder, so none can be left out until later; take all "
            "frames, or a model of the 'factorised' layout"
        )
    if model.config.task == "multilabel":
        raise ConfigError(
            "early exit stops at one sure answer, and a multi-label model has one for each label; take all frames"
        )


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


def leave(plan: ExitPlan, logits_SBK: Tensor) -> Left:
    """Where each video leaves: at the first stage whose confidence reaches the threshold, at the last at the latest."""
    sure_SB = _confidences(logits_SBK, plan.temperatures) >= plan.threshold
    sure_SB[-1] = True
    stages_B = sure_SB.int().argmax(dim=0)
    sizes_S = torch.tensor([len(places) for places in plan.stages])
    return Left(stages_B, logits_SBK[stages_B, torch.arange(len(stages_B))], sizes_S[stages_B])


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
