"""Evaluate a model on labelled videos: how often it is right, how far to trust that figure, and what it costs.

Each video is scored in one pass over its uniform frames, or as the mean of several views. The same pass answers further questions:
what the order of the frames is worth, how well scores are calibrated, and what is gained when doubtful videos are left unanswered.
"""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import interval_of, rejection_curve, report_of
from fewframes.core.settings import STRICT, Count
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import known_facts
from fewframes.errors import ConfigError
from fewframes.inference.predictor import Predictor, thresholds_of
from fewframes.inference.stages.early_exit import exit_plan_of
from fewframes.results import is_background
from fewframes.runtime.protocol import Floats, scores_of
from fewframes.sampling import Views
from fewframes.training.evaluation.labels import targets_for
from fewframes.training.evaluation.measures import (
    calibrated,
    early_exit,
    frame_order,
    official_subset,
    other_orders,
    unknown_figures,
    work_of,
)
from fewframes.training.evaluation.results import Evaluation, figure_of
from fewframes.training.evaluation.scoring import ScoringProgress, score_videos
from fewframes.training.ranks import ONLY_PROCESS, ProcessRank


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """The options of an evaluation."""

    views: Views = Views()
    """Clips and crops of each video."""
    sweep: tuple[Count, ...] = ()
    """Other numbers of frames to evaluate with."""
    order: bool = True
    """Also evaluate with the frames backwards and in random order."""
    early_exit: bool | float = False
    """Also evaluate stopping early: with the plan fitted for the model (True), or at this confidence."""
    official_subset: bool = False
    """Also give the figure over the videos that the 2021 release's loader keeps."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The seed of random orders and confidence intervals."""


DEFAULTS = EvaluateConfig()


def evaluate(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None = None,
    config: EvaluateConfig = DEFAULTS,
    *,
    process: ProcessRank = ONLY_PROCESS,
    progress: ScoringProgress = lambda stage, done, total: None,
) -> Evaluation:
    """Evaluate the model on labelled videos, whose labels are matched to its own by name. Nothing is written but the cache.

    Args:
        cache: Where frame embeddings are looked up and stored; None computes all of them.
        config: What to evaluate beside the main figure.
        process: This process among several that evaluate at the same time. Each gets the whole evaluation.

    Raises DataError if the model lacks a label or no video could be read, ConfigError for early exit with more than one view.
    """
    background = data.subset(())
    if not any(map(is_background, predictor.labels)):  # else it is an answer that may be right
        data, background = data.split_background(least_actions=1)
    targets_BK = targets_for(data, predictor)
    generator = np.random.default_rng(config.seed)
    orders_BOT = other_orders(len(data.samples), predictor.num_frames, generator) if config.order else None
    exits = exit_plan_of(predictor.runtime, config.early_exit)
    if exits is not None and len(config.views) > 1:
        raise ConfigError(
            f"early exit needs a single view of each video, but {config.views.describe(exits.num_frames)} are asked for"
        )
    began = time.perf_counter()
    scores = score_videos(
        data,
        predictor,
        cache,
        views=config.views,
        orders_BOT=orders_BOT,
        with_lengths=config.official_subset,
        exits=exits,
        process=process,
        progress=progress,
    )
    seconds = time.perf_counter() - began
    none = (
        score_videos(background, predictor, cache, views=config.views, process=process, progress=progress)
        if background.samples
        else None
    )
    logits_NK, targets_NK = scores.logits, targets_BK[scores.indices]
    samples = tuple(data.samples[index] for index in scores.indices.tolist())
    groups = [sample.group or sample.path for sample in samples]

    def figure(logits: Floats, targets: Floats) -> float:
        return figure_of(report_of(predictor.runtime.task, logits, targets, predictor.labels))

    thresholds = thresholds_of(predictor.runtime)

    sweep = {}
    for num_frames in config.sweep:
        other = score_videos(
            data, predictor, cache, views=config.views, num_frames=num_frames, process=process, progress=progress
        )
        sweep[num_frames] = figure(other.logits, targets_BK[other.indices])
    single = predictor.runtime.task == "single"
    return Evaluation(
        report=report_of(predictor.runtime.task, logits_NK, targets_NK, predictor.labels, thresholds),
        interval=interval_of(lambda rows: figure(logits_NK[rows], targets_NK[rows]), groups, generator),
        order=frame_order(figure, scores, targets_NK) if config.order else None,
        calibration=calibrated(logits_NK, targets_NK.argmax(axis=1), groups) if single else None,
        rejection=rejection_curve(logits_NK, targets_NK.argmax(axis=1)) if single else [],
        sweep=sweep,
        official=official_subset(scores, targets_NK, predictor) if config.official_subset else None,
        early_exit=None if exits is None else early_exit(exits, scores.stages, targets_NK.argmax(axis=1)),
        work=work_of(predictor, config.views, scores.pace),
        samples=samples,
        logits=logits_NK,
        targets=targets_NK,
        scores=scores_of(logits_NK, predictor.runtime.task),
        failures=(*scores.failures, *(() if none is None else none.failures)),
        thresholds=thresholds,
        unknown=unknown_figures(
            scores.familiarity,
            logits_NK.argmax(axis=1) == targets_NK.argmax(axis=1) if single else None,
            () if none is None else none.familiarity,
        ),
        provenance={
            "model": predictor.name,
            "data": data.name,
            "data_fingerprint": data.fingerprint(),
            "num_data_videos": len(data.samples),
            "protocol": config.views.describe(predictor.num_frames),
            **known_facts(samples, predictor.runtime.provenance, data.fingerprint()),
            "precision": predictor.runtime.precision,
            "num_cached": scores.num_cached,
            "seconds": round(seconds, 2),
        },
    )
