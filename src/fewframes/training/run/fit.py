"""Fit the network of a prepared run: take its steps, log them, measure each epoch, and save the state to continue from."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fewframes.core.metrics import report_of
from fewframes.errors import DataError
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.stam import STAM
from fewframes.training.config import TrainConfig
from fewframes.training.evaluation.results import figure_of
from fewframes.training.processes import as_in_first, few_threads
from fewframes.training.run.context import RunContext
from fewframes.training.run.prepare import PreparedRun
from fewframes.training.run.videos import failed
from fewframes.training.steps.loop import Trainer, TrainingStep

log = logging.getLogger("fewframes")


@dataclass(frozen=True, eq=False)
class FittedRun:
    """The result of the steps of a run: the model after the `last` step, and the `chosen` one (the very same, or the best)."""

    last: STAM
    chosen: STAM
    held_out_log: dict[str, Any]
    """`held_out` lists (step, figure) of each epoch, `best` is the best figure, `stale` how many epochs ago that was."""
    training_s: float
    last_progress: float
    """The fraction of the planned steps that were taken: below 1 if `patience` ran out."""
    chosen_progress: float
    """The fraction of the planned steps after which the chosen model was saved."""


def fit_run(prepared: PreparedRun, *, resume: bool) -> FittedRun:
    """Train the network of a run to the end, or until `patience` runs out.

    Args:
        prepared: The run. Its model stays as it is: a copy is trained.
        resume: Continue from the state in the output folder, if there is one.
    """
    began = time.perf_counter()
    context = prepared.context
    trainer = Trainer(prepared.model, prepared.training_set, context.run, context.accelerator, prepared.dtype)
    _warn_of_steps(context, trainer)
    fitting = _Fitting(prepared, trainer)
    fitting.begin(resume=resume)
    fitting.take_steps()
    samples = context.videos.training.samples
    context.videos.note(failed(samples[row], reason) for row, reason in trainer.failed.items())
    last = _with_fitted_moments(context, trainer.trained())
    training_s = time.perf_counter() - began
    last_progress = trainer.num_done / trainer.num_steps
    chosen, chosen_progress = last, last_progress
    if context.run.train.keep == "best" and context.agreed(context.folder.best.exists())[0]:
        best = load_checkpoint(context.folder.best).model if context.is_first else copy.deepcopy(last)
        chosen = _with_fitted_moments(context, as_in_first(best, context.accelerator))
        chosen_progress = context.from_first(_best_step(fitting.held_out_log)) / trainer.num_steps
    return FittedRun(last, chosen, fitting.held_out_log, training_s, last_progress, chosen_progress)


def _best_step(held_out_log: Mapping[str, Any]) -> int:
    """Return the number of the step with the best figure on held-out videos; 0 in processes that keep no log."""
    rows: list[tuple[int, float]] = held_out_log["held_out"]
    return max(rows, key=lambda row: row[1])[0] if rows else 0


class _Fitting:
    """The steps of a run, with what is logged, measured and saved between them."""

    def __init__(self, prepared: PreparedRun, trainer: Trainer) -> None:
        self.prepared, self.context, self.trainer = prepared, prepared.context, trainer
        self.held_out_log: dict[str, Any] = {"held_out": [], "best": None, "stale": 0}
        self.recent: deque[TrainingStep] = deque(maxlen=20)

    def begin(self, *, resume: bool) -> None:
        """Continue from the saved state, or clear the folder of what an unfinished run left."""
        context, folder = self.context, self.context.folder
        if resume and folder.state.exists():
            stored = self.trainer.restore(folder.state)
            self.held_out_log = folder.without_settings(stored, context.accelerator.num_processes)
            if context.is_first:
                folder.keep_steps(self.trainer.num_done)
        elif context.is_first:
            folder.clear()
        if context.run.train.trackers:
            context.accelerator.init_trackers("fewframes")

    def take_steps(self) -> None:
        """Take the steps to the end. Log each, measure each epoch, and save the state from time to time."""
        context, trainer, settings = self.context, self.trainer, self.context.run.train
        saved = time.monotonic()
        for step in trainer.steps(0 if context.frozen else _num_workers(context)):
            if context.is_first:
                context.folder.add_step(asdict(step))
            self._report(step)
            if step.number % trainer.steps_per_epoch == 0 or step.number == step.num_steps:
                self._measure_epoch(step)
            due = time.monotonic() - saved >= settings.save_every_s
            due, stop = context.agreed(due, 0 < settings.patience <= self.held_out_log["stale"])
            if stop:
                break
            if due and step.number < step.num_steps:
                stored = context.folder.with_settings(self.held_out_log, context.accelerator.num_processes)
                with context.folder.writing():
                    trainer.save(context.folder.state, stored)
                saved = time.monotonic()

    def _report(self, step: TrainingStep) -> None:
        values = {"loss": step.loss, "accuracy": step.accuracy, "learning_rate": step.learning_rate}
        self.context.accelerator.log({f"train/{name}": value for name, value in values.items()}, step=step.number)
        self.recent.append(step)
        seconds = max(1e-9, sum(past.seconds for past in self.recent))
        words = (
            f"epoch {step.epoch:.1f}, loss {step.loss:.3f}, rate {step.learning_rate:.1e}, "
            f"{sum(past.num_videos for past in self.recent) / seconds:.1f} videos/s, "
            f"{sum(past.waited_s for past in self.recent) / seconds:.0%} waiting for data"
        )
        self.context.progress("training", step.number, step.num_steps, words)

    def _measure_epoch(self, step: TrainingStep) -> None:
        """Measure the present model on held-out videos, and save it if it is the best so far and the run asks for that."""
        context = self.context
        if not context.videos.choosing.samples:
            return
        with few_threads(context.accelerator.device, _scoring_gflop(self.prepared)):
            model = self.trainer.trained()
            figure = _figure(self.prepared, model)
        if figure is None or not context.is_first:
            return
        context.accelerator.log({"held_out/figure": figure}, step=step.number)
        context.folder.add_figure(figure, step.number)
        self.held_out_log["held_out"].append([step.number, figure])
        if self.held_out_log["best"] is None or figure > self.held_out_log["best"]:
            self.held_out_log["best"], self.held_out_log["stale"] = figure, 0
            if context.run.train.keep == "best":
                with context.folder.writing():
                    save_checkpoint(context.folder.best, Checkpoint(model, context.view, context.videos.data.labels))
        else:
            self.held_out_log["stale"] += 1


def _warn_of_steps(context: RunContext, trainer: Trainer) -> None:
    """Warn if `train.min_steps` makes more steps than the epochs that were asked for."""
    settings = context.run.train
    num_asked = settings.epochs * trainer.steps_per_epoch
    if context.is_first and settings.epochs != TrainConfig.epochs and trainer.num_steps > num_asked:
        counts = (trainer.num_steps, num_asked, settings.epochs)
        log.warning(
            "training takes %d steps (train.min_steps), not the %d of train.epochs = %d; for these: --set train.min_steps=1",
            *counts,
        )


def _num_workers(context: RunContext) -> int:
    if context.run.train.workers is not None:
        return context.run.train.workers
    num_sharing = 1 if context.accelerator.device.type == "cpu" else context.accelerator.num_processes
    return max(1, torch.get_num_threads() // num_sharing)


def _scoring_gflop(prepared: PreparedRun) -> float:
    """Return the approximate work of scoring the held-out videos, in GFLOP."""
    if prepared.choosing is None:
        return math.inf
    learned = (*prepared.model.temporal_encoder.parameters(), *prepared.model.head.parameters())
    num_frames = prepared.choosing.embeddings[:, 0, :, 0].size
    return 2 * sum(weight.numel() for weight in learned) * num_frames / 1e9


def _figure(prepared: PreparedRun, model: STAM) -> float | None:
    """Return top-1 (mAP for multi-label models) on the videos for choosing the epoch; None if none can be read."""
    context, videos = prepared.context, prepared.context.videos
    if not context.frozen:
        try:
            scores = videos.scores(videos.choosing, context.predictor(model), None)
        except DataError:  # the failures are noted when the finished model is evaluated
            return None
        indices, logits_NK = scores.indices, scores.logits
    elif prepared.choosing is None or not context.is_first:  # one process does it in no time
        return None
    else:
        indices = prepared.choosing.indices
        with torch.inference_mode():
            embeddings_NTD = torch.from_numpy(prepared.choosing.embeddings[:, 0])
            logits_NK = model.encode_video(embeddings_NTD).logits.numpy()
    targets_NK = videos.choosing_targets_BK[indices]
    return figure_of(report_of(model.config.task, logits_NK, targets_NK, videos.data.labels))


def _with_fitted_moments(context: RunContext, model: STAM) -> STAM:
    """Return the model with its moment head fitted again, if the frame encoder has changed."""
    if context.frozen or model.moment_head is None:
        return model
    run, predictor, videos = context.run, context.predictor(model), context.videos
    videos.fill_cache(videos.training, predictor, mirror=run.data.mirror, augment=run.augment)
    embedded = videos.embedded_views(predictor) if context.is_first else None
    if embedded is not None:
        generator = torch.Generator().manual_seed(run.train.seed)
        targets_BK = videos.targets_BK[embedded.indices]
        groups = videos.groups_of(embedded)
        model.moment_head.fit(torch.from_numpy(embedded.embeddings), targets_BK, model.loss, generator, groups)
    return as_in_first(model, context.accelerator)
