"""Compute figures beside accuracy from scores: the worth of frame order, calibration, early exit, the official subset and cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fewframes.core.devices import machine_name
from fewframes.core.metrics import Cost, calibration_error, count_cost, fit_temperature, report_of
from fewframes.inference.early_exit import figures_of
from fewframes.inference.predictor import Predictor
from fewframes.models.exit_plan import ExitPlan
from fewframes.models.files.networks import build_model
from fewframes.models.presets import PRESETS
from fewframes.models.token_merging import merge_tokens, merged_per_block
from fewframes.sampling import Views
from fewframes.training.evaluation.results import Calibration, EarlyExit, EvaluationCost, FrameOrder, OfficialSubset
from fewframes.training.evaluation.scoring import Scores, ScoringSpeed
from fewframes.video.decode.packets import SAME_S

Figure = Callable[[Tensor, Tensor], float]
"""A function from logits and targets, both (N, K), to the main figure."""
NUM_SHUFFLES = 5
EXIT_CURVE = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
"""The confidences at which early exit is tried out."""
RELEASE_FPS = 1.6
"""Frames per second that the 2021 release's loader takes. It silently drops videos too short for all of them."""


def work_of(predictor: Predictor, views: Views, pace: ScoringSpeed) -> EvaluationCost:
    """Return the cost of scoring one video in these views, counted without running the network; `pace` becomes part of it."""
    config = predictor.torch.config
    merged = merged_per_block(predictor.torch.model.frame_encoder)
    preset = next((preset for preset in PRESETS.values() if preset.model == config and not merged), None)
    if preset is not None:  # saves importing sympy, which torch's meta device needs: 2.5 s
        cost = Cost(preset.num_parameters, preset.gmacs, preset.attention_gmacs)
    else:
        with torch.device("meta"):
            model = build_model(config, predictor.runtime.view)
        if merged:
            merge_tokens(model.frame_encoder, merged)
        cost = count_cost(model.eval(), config.num_frames, config.image_size)
    return EvaluationCost(
        frames_read=views.num_clips * config.num_frames,
        num_views=len(views),
        view_cost=cost,
        pace=pace,
        machine=f"{predictor.torch.torch_device.type} {machine_name(predictor.torch.torch_device)}",
        precision=str(predictor.torch.dtype).removeprefix("torch."),
    )


def calibrated(logits_NK: Tensor, targets_N: Tensor, groups: list[str]) -> Calibration:
    """Return the calibration before and after temperature scaling. Each half of the groups is scaled by what fits the other."""
    halves = {group: number % 2 for number, group in enumerate(sorted(set(groups)))}
    half_N = torch.tensor([halves[group] for group in groups])
    scaled_NK = logits_NK.clone()
    for half in (0, 1):
        if (half_N != half).any():
            scaled_NK[half_N == half] /= fit_temperature(logits_NK[half_N != half], targets_N[half_N != half])
    return Calibration(
        error=calibration_error(logits_NK, targets_N),
        scaled_error=calibration_error(scaled_NK, targets_N),
        temperature=fit_temperature(logits_NK, targets_N),
    )


def other_orders(num_videos: int, num_frames: int, generator: torch.Generator) -> Tensor:
    """Return indices (B, O, T) that put frames backwards first, then in random orders, drawn for each video anew."""
    shuffled = [torch.rand(num_videos, num_frames, generator=generator).argsort(dim=1) for _ in range(NUM_SHUFFLES)]
    return torch.stack([torch.arange(num_frames).flip(0).expand(num_videos, -1), *shuffled], dim=1)


def frame_order(figure: Figure, scores: Scores, targets_NK: Tensor) -> FrameOrder:
    """Return the main figure with the frames in order, backwards and in random order; `scores.others` are those other orders."""
    backwards, *shuffled = (figure(logits_NK, targets_NK) for logits_NK in scores.others.unbind(1))
    return FrameOrder(figure(scores.logits, targets_NK), backwards, sum(shuffled) / NUM_SHUFFLES)


def early_exit(plan: ExitPlan, logits_SNK: Tensor, targets_N: Tensor) -> EarlyExit:
    """Return the effect of stopping early by a plan.

    Args:
        plan: The plan, whose threshold is also varied for the curve.
        logits_SNK: Logits after each stage of the plan.
        targets_N: Index of the right action of each video.
    """
    others = {
        threshold: figures_of(replace(plan, threshold=threshold), logits_SNK, targets_N) for threshold in EXIT_CURVE
    }
    return EarlyExit(
        threshold=plan.threshold,
        figures=figures_of(plan, logits_SNK, targets_N),
        num_frames=plan.num_frames,
        curve=tuple((threshold, figures.mean_frames, figures.top1) for threshold, figures in others.items()),
    )


def official_subset(scores: Scores, targets_NK: Tensor, predictor: Predictor) -> OfficialSubset:
    """Return the figures over the videos that the 2021 release's loader keeps.

    Args:
        scores: Scores with the lengths of the videos.
        targets_NK: Targets of the same videos.
        predictor: The model that was scored.
    """
    num_frames = predictor.num_frames
    shortest_s = num_frames / RELEASE_FPS
    rows = [
        row for row, length_s in enumerate(scores.lengths_s) if length_s is not None and length_s >= shortest_s - SAME_S
    ]
    return OfficialSubset(
        num_frames=num_frames,
        shortest_s=shortest_s,
        num_videos=len(rows),
        num_all=len(targets_NK),
        report=report_of(predictor.runtime.task, scores.logits[rows], targets_NK[rows], predictor.labels)
        if rows
        else None,
    )
