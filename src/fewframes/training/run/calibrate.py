"""Calibrate the trained models of a run: train again without some groups, and divide logits by what suits those videos.

Nothing here changes the run itself: its steps are done, and the networks trained here are thrown away. Everything follows from
the seed, so a run that was interrupted is calibrated by the same number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fewframes.core.settings import Task
from fewframes.core.text import count_of
from fewframes.errors import ConfigError, DataError
from fewframes.models.stam import STAM
from fewframes.training.calibration import (
    MOST_LEFT_OUT,
    CalibrationFit,
    LeftOutLogits,
    calibration_folds,
    fit_calibration,
)
from fewframes.training.features import EmbeddedVideos
from fewframes.training.run.fit import FittedRun
from fewframes.training.run.prepare import PreparedRun
from fewframes.training.steps.loader import TokenExamples
from fewframes.training.steps.loop import Trainer
from fewframes.training.steps.training_set import TrainingSet, solve_moments

AT_ONCE = 256
"""The number of videos whose logits are computed together."""


@dataclass(frozen=True, eq=False)
class CalibratedModels:
    """The two models of a run with calibrated logits, and what they were divided by. Both are one if the chosen one is the last."""

    chosen: STAM
    chosen_fit: CalibrationFit
    last: STAM
    last_fit: CalibrationFit


def calibrate(prepared: PreparedRun, fitted: FittedRun) -> CalibratedModels:
    """Return the models of a run with logits that are divided by the temperature of left-out videos. Every process calls it.

    With a frozen frame encoder, the network is trained again on all but some groups, for each of `train.calibration_folds`. One
    that learns would take too long for that, so held-out videos are used.
    """
    progress = [fitted.chosen_progress]
    if fitted.chosen is not fitted.last:
        progress.append(fitted.last_progress)
    if prepared.context.run.train.calibration_folds == 0:
        fits = [CalibrationFit(missing="train.calibration_folds is 0")] * len(progress)
    elif prepared.embedded is None:
        fits = [_fit_held_out(prepared, model) for model in (fitted.chosen, fitted.last)[: len(progress)]]
    else:
        fits = _cross_fitted(prepared, prepared.embedded, progress)
    fits = prepared.context.from_first(fits)
    chosen = _divided(fitted.chosen, fits[0])
    last = chosen if fitted.chosen is fitted.last else _divided(fitted.last, fits[-1])
    return CalibratedModels(chosen, fits[0], last, fits[-1])


def _divided(model: STAM, fit: CalibrationFit) -> STAM:
    """Return the model with its logits divided; the frame encoder is shared."""
    divided = _copied(model)
    divided.divide_logits(fit.temperature)
    return divided


def _copied(model: STAM) -> STAM:
    """Return a copy of a model that shares its frame encoder."""
    return copy.deepcopy(model, {id(model.frame_encoder): model.frame_encoder})


def _fit_held_out(prepared: PreparedRun, model: STAM) -> CalibrationFit:
    """Fit the temperature of a model whose frame encoder learned, to the held-out videos."""
    context, videos = prepared.context, prepared.context.videos
    none = CalibrationFit(missing="the frame encoder learned too, and there are no held-out videos to calibrate on")
    if not videos.choosing.samples:
        return none
    try:
        scores = videos.scores(videos.choosing, context.predictor(model), None)
    except DataError:  # the failures are noted when the finished model is evaluated
        return none
    groups = videos.choosing.groups()
    left_out = LeftOutLogits(
        logits=scores.logits,
        targets=videos.choosing_targets_BK[scores.indices],
        groups=tuple(groups[index] for index in scores.indices.tolist()),
        folds=np.zeros(len(scores.indices), np.int64),
    )
    words = "held-out videos"
    if videos.choosing.samples == videos.reporting.samples:
        words += ", which the model's figures are of too"
    return fit_calibration(left_out, _task(prepared), words)


def _cross_fitted(prepared: PreparedRun, embedded: EmbeddedVideos, progress: Sequence[float]) -> list[CalibrationFit]:
    """Fit a temperature for each progress: for the model after that fraction of the steps."""
    videos = prepared.context.videos
    groups = videos.groups_of(embedded)
    targets_BK = videos.targets_BK[embedded.indices].numpy()
    num_folds = prepared.context.run.train.calibration_folds
    if len(set(groups)) < 2:
        reason = f"all {count_of(len(groups), 'training video')} belong to 1 group, so none can be left out"
        return [CalibrationFit(missing=reason)] * len(progress)
    folds = _enough(calibration_folds(targets_BK, groups, num_folds))
    parts: list[list[LeftOutLogits]] = [[] for _ in progress]
    for number, left_B in enumerate(folds):
        rest_B = np.setdiff1d(np.arange(len(groups)), left_B)
        # A model knows nothing of a label that it has not seen, so such videos say nothing about how sure it may be.
        unseen_K = targets_BK[rest_B].sum(axis=0) == 0
        left_B = left_B[targets_BK[left_B][:, unseen_K].sum(axis=1) == 0]
        stage = f"calibrating, fold {number + 1} of {len(folds)}"
        try:
            found = list(_logits_without(prepared, embedded, rest_B, left_B, progress, stage))
        except ConfigError as error:  # the model itself is trained: a fold that fails must not lose it
            return [CalibrationFit(missing=f"fold {number + 1} failed: {error}")] * len(progress)
        for logits_NK, part in zip(found, parts, strict=True):
            left_groups = tuple(groups[row] for row in left_B.tolist())
            part.append(LeftOutLogits(logits_NK, targets_BK[left_B], left_groups, np.full(len(left_B), number)))
    words = f"left-out groups of the training videos, {count_of(len(folds), 'fold')}"
    return [fit_calibration(_joined(part), _task(prepared), words) for part in parts]


def _enough(folds: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Return the first folds that have enough videos together, or all."""
    totals = np.cumsum([len(fold) for fold in folds])
    return folds[: int(np.searchsorted(totals, MOST_LEFT_OUT)) + 1]


def _logits_without(
    prepared: PreparedRun,
    embedded: EmbeddedVideos,
    rest_B: NDArray[np.int64],
    left_B: NDArray[np.int64],
    progress: Sequence[float],
    stage: str,
) -> Iterator[NDArray[np.float32]]:
    """Train on some of the videos, and yield the logits (N, K) of left-out ones after each fraction of the steps.

    Args:
        prepared: The run.
        embedded: The embeddings of all training videos.
        rest_B: The rows of the videos to train on.
        left_B: The rows of the left-out videos.
        progress: The fractions of the steps (0-1).
        stage: The name of this part of the work, for people.
    """
    context, everything = prepared.context, prepared.training_set
    model = _copied(prepared.model)
    targets_BK = everything.targets[rest_B]
    groups = context.videos.groups_of(embedded)
    rest_groups = [groups[row] for row in rest_B.tolist()]
    embeddings_BVTD = torch.from_numpy(embedded.embeddings[rest_B])
    solve_moments(model, embeddings_BVTD, targets_BK, context.run.train.seed, rest_groups)
    del embeddings_BVTD
    teacher = everything.teacher_scores
    assert isinstance(everything.examples, TokenExamples)  # there are embeddings
    training_set = TrainingSet(
        # The run's own motion tokens: their reduction knows no label, and to fit it again moves the temperature by little.
        TokenExamples(everything.examples.tokens_BVTW[rest_B]),
        targets_BK,
        [everything.names[row] for row in rest_B.tolist()],
        None if teacher is None else teacher[rest_B],
    )
    # As many passes over the videos as the run made: more would know them better by heart, and be surer. Compiling takes minutes.
    least = math.ceil(context.run.train.min_steps * len(rest_B) / len(everything.targets))
    run = replace(context.run, train=replace(context.run.train, min_steps=least, compile=False))
    trainer = Trainer(model, training_set, run, context.accelerator, prepared.dtype)
    stops = [max(1, math.ceil(fraction * trainer.num_steps - 1e-9)) for fraction in progress]
    at: dict[int, NDArray[np.float32]] = {}
    for step in trainer.steps():
        context.progress(stage, step.number, max(stops), f"loss {step.loss:.3f}")
        if step.number in stops:
            at[step.number] = _logits(trainer.trained(), embedded.embeddings[left_B, 0])
        if step.number == max(stops):
            break
    for stop in stops:
        yield at[stop]


@torch.inference_mode()
def _logits(model: STAM, embeddings_BTD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits (B, K) of videos, from the embeddings of their frames."""
    parts = [
        model.encode_video(torch.from_numpy(embeddings_BTD[start : start + AT_ONCE])).logits
        for start in range(0, len(embeddings_BTD), AT_ONCE)
    ]
    none = torch.empty(0, model.config.num_classes)
    logits_BK: NDArray[np.float32] = torch.cat([none, *parts]).numpy()
    return logits_BK


def _joined(parts: Sequence[LeftOutLogits]) -> LeftOutLogits:
    return LeftOutLogits(
        logits=np.concatenate([part.logits for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        groups=tuple(group for part in parts for group in part.groups),
        folds=np.concatenate([part.folds for part in parts]),
    )


def _task(prepared: PreparedRun) -> Task:
    return prepared.model.config.task
