"""Compute figures beside accuracy from scores: the worth of frame order, calibration, early exit, the official subset and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fewframes.core.metrics import calibration_error, fit_temperature, log_softmax, report_of
from fewframes.core.process import cpu_name, num_cores
from fewframes.core.text import count_of
from fewframes.inference.predictor import Predictor
from fewframes.inference.stages.early_exit import figures_of
from fewframes.models.config import ExitPlan
from fewframes.models.cost import Cost, count_cost
from fewframes.models.presets import PRESETS
from fewframes.results import Familiarity
from fewframes.runtime.open import has_torch
from fewframes.runtime.protocol import Floats, Runtime
from fewframes.sampling import Views
from fewframes.training.evaluation.results import (
    Calibration,
    EarlyExit,
    EvaluationCost,
    FrameOrder,
    OfficialSubset,
    UnknownFigures,
)
from fewframes.training.evaluation.scoring import Scores, ScoringSpeed
from fewframes.video.decode.packets import SAME_S

Indices = NDArray[np.int64]
Figure = Callable[[Floats, Floats], float]
"""A function from logits and targets, both (N, K), to the main figure."""
NUM_SHUFFLES = 5
EXIT_CURVE = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
"""The confidences at which early exit is tried out."""
RELEASE_FPS = 1.6
"""Frames per second that the 2021 release's loader takes. It silently drops videos too short for all of them."""


def work_of(predictor: Predictor, views: Views, pace: ScoringSpeed) -> EvaluationCost:
    """Return the cost of scoring one video in these views, counted without running the network; `pace` becomes part of it."""
    return EvaluationCost(
        frames_read=views.num_clips * predictor.num_frames,
        num_views=len(views),
        view_cost=_cost_of(predictor.runtime),
        pace=pace,
        machine=_machine(predictor.runtime),
        precision=predictor.runtime.precision,
    )


def _cost_of(runtime: Runtime) -> Cost | None:
    """Return the cost of one view, or None where nothing tells it: an exported file, or no torch to count it with."""
    config = runtime.config
    preset = next((preset for preset in PRESETS.values() if preset.model == config and not runtime.merge), None)
    if preset is not None:  # saves importing sympy, which torch's meta device needs: 2.5 s
        return Cost(preset.num_parameters, preset.gmacs, preset.attention_gmacs)
    if config is None or not has_torch():
        return None
    import torch  # late: it is not always installed

    from fewframes.models.files.networks import build_model
    from fewframes.models.token_merging import merge_tokens

    with torch.device("meta"):
        model = build_model(config, runtime.view)
    if runtime.merge:
        merge_tokens(model.frame_encoder, runtime.merge)
    return count_cost(model.eval(), config.num_frames, config.image_size)


def _machine(runtime: Runtime) -> str:
    """Return the kind and name of the device that computes."""
    if runtime.device == "cpu":
        return f"cpu {cpu_name()}, {count_of(num_cores(), 'thread')}"
    from fewframes.models.devices import machine_name
    from fewframes.runtime.open import torch_only

    device = torch_only(runtime).torch_device
    return f"{device.type} {machine_name(device)}"


def calibrated(logits_NK: Floats, targets_N: Indices, groups: list[str]) -> Calibration:
    """Return the calibration before and after temperature scaling. Each half of the groups is scaled by what fits the other."""
    halves = {group: number % 2 for number, group in enumerate(sorted(set(groups)))}
    half_N = np.array([halves[group] for group in groups])
    scaled_NK = logits_NK.copy()
    for half in (0, 1):
        if (half_N != half).any():
            scaled_NK[half_N == half] /= fit_temperature(logits_NK[half_N != half], targets_N[half_N != half])
    return Calibration(
        error=calibration_error(logits_NK, targets_N),
        scaled_error=calibration_error(scaled_NK, targets_N),
        temperature=fit_temperature(logits_NK, targets_N),
        confidence=float(np.exp(log_softmax(logits_NK).max(axis=1)).mean()),
        accuracy=float((logits_NK.argmax(axis=1) == targets_N).mean()),
    )


def other_orders(num_videos: int, num_frames: int, generator: np.random.Generator) -> Indices:
    """Return indices (B, O, T) that put frames backwards first, then in random orders, drawn for each video anew."""
    shuffled = [generator.random((num_videos, num_frames)).argsort(axis=1) for _ in range(NUM_SHUFFLES)]
    backwards_BT = np.broadcast_to(np.arange(num_frames)[::-1], (num_videos, num_frames))
    return np.stack([backwards_BT, *shuffled], axis=1)


def frame_order(figure: Figure, scores: Scores, targets_NK: Floats) -> FrameOrder:
    """Return the main figure with the frames in order, backwards and in random order; `scores.others` are those other orders."""
    backwards, *shuffled = (figure(scores.others[:, order], targets_NK) for order in range(scores.others.shape[1]))
    return FrameOrder(figure(scores.logits, targets_NK), backwards, sum(shuffled) / NUM_SHUFFLES)


def early_exit(plan: ExitPlan, logits_SNK: Floats, targets_N: Indices) -> EarlyExit:
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


def unknown_figures(
    known: Sequence[Familiarity], right_N: NDArray[np.bool_] | None, background: Sequence[Familiarity]
) -> UnknownFigures | None:
    """Return the effect of answering `unknown`, or None if no video was judged.

    Args:
        known: The judgement on each video.
        right_N: True where the likeliest action is right; None if that means nothing, as for several actions a video.
        background: The judgement on each video that shows none of the actions.
    """
    if not known:
        return None
    is_unknown_N = np.array([judged.is_unknown for judged in known])

    def unknown_of(chosen_N: NDArray[np.bool_] | None) -> float | None:
        return float(is_unknown_N[chosen_N].mean()) if chosen_N is not None and chosen_N.any() else None

    return UnknownFigures(
        threshold=known[0].threshold,
        kept=1 - float(is_unknown_N.mean()),
        right_lost=unknown_of(right_N),
        wrong_avoided=unknown_of(None if right_N is None else ~right_N),
        unfamiliar=float(np.mean([judged.unfamiliar for judged in known])),
        num_background=len(background),
        background_found=float(np.mean([judged.is_unknown for judged in background])) if background else None,
    )


def official_subset(scores: Scores, targets_NK: Floats, predictor: Predictor) -> OfficialSubset:
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
