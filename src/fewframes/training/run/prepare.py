"""Prepare a run: check that its settings fit together, embed its videos, and collect the examples to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch

from fewframes.errors import ConfigError, DataError
from fewframes.inference.predictor import Predictor
from fewframes.models.config import check_can_exit
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.stam import STAM
from fewframes.runtime.protocol import DtypeName
from fewframes.training.background import RunFootage
from fewframes.training.config import RunConfig
from fewframes.training.features import EmbeddedVideos
from fewframes.training.run.context import RunContext
from fewframes.training.run.start import RunStart
from fewframes.training.run.videos import RunVideos
from fewframes.training.steps.loader import VideoExamples
from fewframes.training.steps.training_set import TrainingSet, needs_solving, solve, token_examples


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A run that is ready for its first step."""

    context: RunContext
    """Its surroundings. The precision is settled: `auto` was measured."""
    model: STAM
    """The network that it starts with."""
    dtype: torch.dtype
    """The precision of its forward pass in training."""
    licences: Mapping[str, str]
    """The licences of the weights that it starts from."""
    training_set: TrainingSet
    """The examples to learn from: embeddings if the frame encoder is frozen, else videos."""
    embedded: EmbeddedVideos | None
    """The embeddings of the training videos, in all views; None if the frame encoder learns."""
    choosing: EmbeddedVideos | None
    """The embeddings of the videos for choosing the epoch; None if there are none, or if the frame encoder learns."""
    background: EmbeddedVideos | None = None
    """The embeddings of videos that show none of the actions; None if there are none, or if the frame encoder learns."""
    started_from: Mapping[str, Any] = field(default_factory=dict)
    """The record of the trained model that parts were taken from; empty if there was none."""


def check_settings(run: RunConfig, model: STAM, videos: RunVideos, footage: RunFootage | None) -> None:
    """Raise ConfigError if the settings of a run do not fit together, before anything is written."""
    frozen = run.train.unfreeze == "none"
    if frozen and model.config.layout != "factorised":
        raise ConfigError(
            f"layout {model.config.layout!r} has no embeddings of single frames to train on; use 'factorised', or let the "
            "frame encoder learn: train.unfreeze=all"
        )
    if run.train.calibration_folds == 1:
        raise ConfigError("train.calibration_folds = 1: a fold is left out while others train; give 0, or 2 and more")
    if footage is not None and model.config.layout != "factorised":
        raise ConfigError(
            f"layout {model.config.layout!r} cannot label a stream, which data.background stands for; use 'factorised', or leave "
            "the background out"
        )
    if run.train.early_exit:
        check_can_exit(embeds_frames=model.config.layout == "factorised", task=model.config.task)
        if not frozen:
            raise ConfigError("train.early_exit needs a frozen frame encoder; leave train.unfreeze at none")
        if not videos.choosing.samples:
            raise ConfigError("train.early_exit needs held-out videos, but none are held out; pass --holdout")
    if frozen and run.augment.cutmix:
        raise ConfigError("augment.cutmix needs frames, but training is on cached embeddings; use augment.mixup")


def prepare(context: RunContext, begun: RunStart, teacher: Checkpoint | None) -> PreparedRun:
    """Embed and score the videos of a run as far as it needs that, and return the run, ready for its first step.

    Args:
        context: The surroundings of the run.
        begun: The network that it starts with, and where it comes from. Parts that are not trained by steps are fitted in place.
        teacher: The model whose scores are learned beside the labels; None if there is none.

    Raises:
        DataError: No training video of some action could be read.
    """
    model = begun.model
    start, asked = context.predictor(model), context.dtype
    # The precision that "auto" stands for holds for the whole run.
    context = replace(context, dtype=cast(DtypeName, start.runtime.precision))
    run, videos = context.run, context.videos
    samples = videos.training.samples
    names = [sample.path for sample in samples]
    teacher_BK = None
    if teacher is not None:
        as_predictor = Predictor(teacher, device=context.device, dtype=asked, name=run.train.teacher)
        teacher_BK = videos.teacher_scores(as_predictor)
    choosing = videos.embedded(videos.choosing, start) if context.frozen and videos.choosing.samples else None
    embedded = background = None
    if not context.frozen:
        if needs_solving(model):
            _solved(context, model, start)
        examples = VideoExamples(samples, model.config.num_frames, context.view, run.augment, run.data.mirror)
        training_set = TrainingSet(examples, videos.targets_BK, names, teacher_BK)
    else:
        embedded = _solved(context, model, start)
        training_set = TrainingSet(
            token_examples(model, torch.from_numpy(embedded.embeddings)),
            videos.targets_BK[embedded.indices],
            [names[index] for index in embedded.indices.tolist()],
            None if teacher_BK is None else teacher_BK[embedded.indices],
        )
        if videos.background.samples:
            background = videos.embedded(videos.background, start, mirror=run.data.mirror)
    dtype = torch.float32 if context.frozen else start.torch.dtype
    return PreparedRun(
        context, model, dtype, begun.licences, training_set, embedded, choosing, background, begun.started_from
    )


def _solved(context: RunContext, model: STAM, start: Predictor) -> EmbeddedVideos:
    """Return the embeddings of the training videos. The parts of the model that are not trained by steps are fitted to them."""
    videos, data = context.videos, context.videos.data
    embedded = videos.embedded_views(start)
    targets_BK = videos.targets_BK if embedded is None else videos.targets_BK[embedded.indices]
    if embedded is None or not (targets_BK.sum(dim=0) > 0).all():
        absent = [] if embedded is None else (targets_BK.sum(dim=0) == 0).nonzero().flatten().tolist()
        names = ", ".join(data.labels[index] for index in absent) or "any action"
        first = next(iter(videos.failures.values())).error
        raise DataError(
            f"{data.name}: no training video of {names} could be read ({len(videos.failures)} failed; the first: {first})"
        )
    groups = videos.groups_of(embedded)
    solve(model, torch.from_numpy(embedded.embeddings), targets_BK, context.run.train.seed, groups)
    return embedded
