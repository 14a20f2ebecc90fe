"""Train a model on labelled videos, evaluate it on held-out ones, and write it with a record of how it was made.

With a frozen frame encoder each video is embedded once, and the temporal encoder and the head learn from cached embeddings. If the
frame encoder learns, videos are decoded and augmented anew each time. The loop of steps (`loop.py`) is the same for both.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import report_of
from fewframes.core.settings import Task
from fewframes.data.dataset import VideoSet, hold_out
from fewframes.errors import ConfigError, DataError
from fewframes.inference.early_exit import fit_plan, stage_logits, stages_of
from fewframes.inference.predictor import DtypeName, Predictor, name_of
from fewframes.models.exit_plan import ExitPlan, check_can_exit
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.stam import STAM
from fewframes.results import Failure
from fewframes.training.config import DEFAULT_RUN, RunConfig, TrainConfig
from fewframes.training.evaluation.evaluate import evaluate
from fewframes.training.evaluation.results import Evaluation, figure_of
from fewframes.training.features import EmbeddedVideos
from fewframes.training.loader import VideoExamples
from fewframes.training.loop import Trainer, TrainingSet, TrainingStep, solve, token_examples
from fewframes.training.processes import ProcessRank, as_in_first, few_threads, start_processes
from fewframes.training.run.folder import RunFolder, versions
from fewframes.training.run.start import start_run
from fewframes.training.run.videos import Progress, RunVideos, failed

log = logging.getLogger("fewframes")


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run: the model, its evaluation on held-out videos (None if there were none, or none could be read), the
    failures, the number of videos from the cache, and the seconds that embedding and training took."""

    checkpoint: Checkpoint
    evaluation: Evaluation | None
    num_held_out: int
    failures: tuple[Failure, ...]
    num_cached: int
    embedding_s: float
    training_s: float


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options that do not change the result of a run: the cache of embeddings (None: only for the time of the run), the device,
    the precision of the frame encoder, and the command line for the record. `overwrite` replaces a run in the output folder,
    `resume` continues an interrupted one."""

    cache: EmbeddingCache | None = None
    device: str = "auto"
    dtype: DtypeName = "auto"
    overwrite: bool = False
    resume: bool = False
    command: str = ""


DEFAULT_OPTIONS = TrainOptions()


def train(
    data: VideoSet,
    output: str | Path,
    run: RunConfig = DEFAULT_RUN,
    options: TrainOptions = DEFAULT_OPTIONS,
    progress: Progress = lambda stage, done, total, words: None,
) -> TrainingResult:
    """Train a model on the actions of `data`, and write it with its figures to a folder.

    Args:
        output: The folder, which is made if needed.
        run: Settings of the run.
        options: The cache, the device, and if a run in the folder is replaced or continued.
        progress: Called with the stage, the number done, the number in all, and a line of text.

    Raises DataError, ConfigError or WeightsError before anything is written.
    """
    folder = RunFolder(Path(output), run, data, options.command)
    folder.check(overwrite=options.overwrite, resume=options.resume)
    training, held = hold_out(data, run.data.holdout, run.train.seed)
    # A missing teacher fails now, not after minutes of work.
    teacher = load_checkpoint(run.train.teacher) if run.train.teacher else None
    with ExitStack() as until_done:
        accelerator = start_processes(options.device, run.train, folder.logs)
        until_done.callback(accelerator.end_training)
        process = ProcessRank(accelerator.process_index, accelerator.num_processes)
        if accelerator.is_main_process:
            until_done.enter_context(folder.held())
            until_done.callback(folder.close)
        else:
            progress = lambda stage, done, total, words: None  # noqa: E731
        cache = options.cache or EmbeddingCache(until_done.enter_context(_shared_folder(process)))
        videos = RunVideos(data, training, held, run, cache, process, progress)
        return _Run(videos, teacher, run, options, folder, accelerator, progress).result()


@contextmanager
def _shared_folder(process: ProcessRank) -> Iterator[Path]:
    """Yield a temporary folder that all processes of this machine share; it is deleted when the block ends."""
    with tempfile.TemporaryDirectory(prefix="fewframes-") as own:
        first, *_ = process.gather([own])
        yield Path(first) if Path(first).is_dir() else Path(own)
        process.gather([own])  # wait for the others: the first process deletes the folder that they use


class _Run:
    """A run, from the model that it starts with to its files."""

    def __init__(
        self,
        videos: RunVideos,
        teacher: Checkpoint | None,
        run: RunConfig,
        options: TrainOptions,
        folder: RunFolder,
        accelerator: Accelerator,
        progress: Progress,
    ) -> None:
        self.videos, self.teacher, self.run, self.options, self.folder = videos, teacher, run, options, folder
        self.accelerator, self.progress = accelerator, progress
        self.data, self.cache, self.process = videos.data, videos.cache, videos.process
        torch.manual_seed(run.train.seed)
        task: Task = "multilabel" if self.data.multilabel else "single"
        self.model, self.view, self.licences = start_run(run, num_classes=len(self.data.labels), task=task)
        self.frozen = run.train.unfreeze == "none"
        if self.frozen and self.model.config.layout != "factorised":
            raise ConfigError(
                f"layout {self.model.config.layout!r} has no embeddings of single frames to train on; use 'factorised', or let the "
                "frame encoder learn: train.unfreeze=all"
            )
        if run.train.early_exit:
            self._check_early_exit()
        self.dtype: DtypeName = options.dtype
        if self.frozen and run.augment.cutmix:
            raise ConfigError("augment.cutmix needs frames, but training is on cached embeddings; use augment.mixup")
        self.choosing_embedded: EmbeddedVideos | None = None
        self.recent: deque[TrainingStep] = deque(maxlen=20)

    def _check_early_exit(self) -> None:
        """Raise ConfigError if early exit cannot be trained, before anything is written."""
        check_can_exit(self.model)
        if not self.frozen:
            raise ConfigError("train.early_exit needs a frozen frame encoder; leave train.unfreeze at none")
        if not self.videos.choosing.samples:
            raise ConfigError("train.early_exit needs held-out videos, but none are held out; pass --holdout")

    def result(self) -> TrainingResult:
        """Embed, train, evaluate and write; return the result."""
        began = time.perf_counter()
        start = self._predictor(self.model)
        self.dtype = name_of(start.dtype)  # "auto" is measured once, and then holds for the whole run
        training_set = self._training_set(start)
        embedding_s, began = time.perf_counter() - began, time.perf_counter()
        dtype = torch.float32 if self.frozen else start.dtype
        trainer = Trainer(self.model, training_set, self.run, self.accelerator, dtype)
        self._warn_of_steps(trainer)
        self._loop(trainer)
        samples = self.videos.training.samples
        self.videos.note(failed(samples[row], reason) for row, reason in trainer.failed.items())
        last = self._with_fitted_moments(trainer.trained())
        training_s = time.perf_counter() - began
        chosen = last
        if self.run.train.keep == "best" and self._agreed(self.folder.best.exists())[0]:
            is_first = self.accelerator.is_main_process
            chosen = load_checkpoint(self.folder.best).model if is_first else copy.deepcopy(last)
            chosen = self._with_fitted_moments(as_in_first(chosen, self.accelerator))
        trained = TrainingResult(
            checkpoint=self._checkpoint(chosen, start),
            evaluation=self._evaluation(chosen),
            num_held_out=len(self.videos.reporting.samples),
            failures=tuple(self.videos.failures.values()),
            num_cached=self.videos.num_cached,
            embedding_s=embedding_s,
            training_s=training_s,
        )
        trained = replace(trained, checkpoint=replace(trained.checkpoint, metrics=self._metrics(trained.evaluation)))
        if self.accelerator.is_main_process:
            last_checkpoint = None if chosen is last else self._checkpoint(last, start)
            self.folder.write(
                trained.checkpoint, last_checkpoint, trained.evaluation, self._facts(trained), self.held_out_log
            )
        self.accelerator.wait_for_everyone()
        return trained

    def _warn_of_steps(self, trainer: Trainer) -> None:
        """Warn if `train.min_steps` makes more steps than the epochs that were asked for."""
        settings = self.run.train
        num_asked = settings.epochs * trainer.steps_per_epoch
        if self.accelerator.is_main_process and settings.epochs != TrainConfig.epochs and trainer.num_steps > num_asked:
            counts = (trainer.num_steps, num_asked, settings.epochs)
            log.warning(
                "training takes %d steps (train.min_steps), not the %d of train.epochs = %d; for these: --set train.min_steps=1",
                *counts,
            )

    def _with_fitted_moments(self, model: STAM) -> STAM:
        """Return the model with its moment head fitted again, if the frame encoder has changed."""
        if self.frozen or model.moment_head is None:
            return model
        predictor, videos = self._predictor(model), self.videos
        videos.fill_cache(videos.training, predictor, mirror=self.run.data.mirror, augment=self.run.augment)
        embedded = videos.embedded_views(predictor) if self.accelerator.is_main_process else None
        if embedded is not None:
            generator = torch.Generator().manual_seed(self.run.train.seed)
            targets_BK = videos.targets_BK[embedded.indices]
            model.moment_head.fit(embedded.embeddings, targets_BK, model.loss, generator)
        return as_in_first(model, self.accelerator)

    def _facts(self, trained: TrainingResult) -> dict[str, object]:
        return {
            **{name: fact for name, fact in trained.checkpoint.provenance.items() if name != "training_videos"},
            "failed": [failure.to_dict() for failure in trained.failures if not failure.missing],
            "missing": [failure.to_dict() for failure in trained.failures if failure.missing],
            "seconds": {"embedding": round(trained.embedding_s, 2), "training": round(trained.training_s, 2)},
            "num_cached": trained.num_cached,
            "processes": self.accelerator.num_processes,
            "device": str(self.accelerator.device),
        }

    def _training_set(self, start: Predictor) -> TrainingSet:
        """Return the examples to learn from: embeddings if the frame encoder is frozen, else videos."""
        videos = self.videos
        samples = videos.training.samples
        names = [sample.path for sample in samples]
        teacher_BK = None
        if self.teacher is not None:
            device, dtype, name = self.options.device, self.options.dtype, self.run.train.teacher
            teacher_BK = videos.teacher_scores(Predictor(self.teacher, device=device, dtype=dtype, name=name))
        config = self.model.config
        if self.frozen and videos.choosing.samples:
            self.choosing_embedded = videos.embedded(videos.choosing, start)
        if not self.frozen:
            if config.motion_width or config.moment_head:
                self._solved(start)
            examples = VideoExamples(samples, config.num_frames, self.view, self.run.augment, self.run.data.mirror)
            return TrainingSet(examples, videos.targets_BK, names, teacher_BK)
        embedded = self._solved(start)
        return TrainingSet(
            token_examples(self.model, embedded.embeddings),
            videos.targets_BK[embedded.indices],
            [names[index] for index in embedded.indices.tolist()],
            None if teacher_BK is None else teacher_BK[embedded.indices],
        )

    def _solved(self, start: Predictor) -> EmbeddedVideos:
        """Return the embeddings of the training videos. The parts of the model that are not trained by steps are fitted to them."""
        videos = self.videos
        embedded = videos.embedded_views(start)
        targets_BK = videos.targets_BK if embedded is None else videos.targets_BK[embedded.indices]
        if embedded is None or not (targets_BK.sum(dim=0) > 0).all():
            absent = [] if embedded is None else (targets_BK.sum(dim=0) == 0).nonzero().flatten().tolist()
            names = ", ".join(self.data.labels[index] for index in absent) or "any action"
            first = next(iter(videos.failures.values())).error
            raise DataError(
                f"{self.data.name}: no training video of {names} could be read ({len(videos.failures)} failed; the first: {first})"
            )
        solve(self.model, embedded.embeddings, targets_BK, self.run.train.seed)
        return embedded

    def _exits(self, model: STAM) -> ExitPlan | None:
        """Return the plan by which the trained model stops early, fitted on held-out videos; None if it was not asked for."""
        embedded = self.choosing_embedded
        if not self.run.train.early_exit or embedded is None:
            return None
        stages = stages_of(model.config.num_frames)
        targets_N = self.videos.choosing_targets_BK[embedded.indices].argmax(dim=1)
        return fit_plan(stages, stage_logits(model, embedded.embeddings[:, 0], stages), targets_N)

    def _loop(self, trainer: Trainer) -> None:
        """Train to the end, or until `patience` runs out. Logs each step, evaluates each epoch, and saves the state."""
        # (step, figure) of each epoch, the best figure, and how many epochs ago that was
        self.held_out_log: dict[str, Any] = {"held_out": [], "best": None, "stale": 0}
        num_processes = self.accelerator.num_processes
        if self.options.resume and self.folder.state.exists():
            self.held_out_log = self.folder.without_settings(trainer.restore(self.folder.state), num_processes)
            if self.accelerator.is_main_process:
                self.folder.keep_steps(trainer.num_done)
        elif self.accelerator.is_main_process:
            self.folder.clear()
        if self.run.train.trackers:
            self.accelerator.init_trackers("fewframes")
        saved = time.monotonic()
        for step in trainer.steps(0 if self.frozen else self._num_workers()):
            if self.accelerator.is_main_process:
                self.folder.add_step(asdict(step))
            self._report_step(step)
            if step.number % trainer.steps_per_epoch == 0 or step.number == step.num_steps:
                self._evaluate_epoch(trainer, step)
            due = time.monotonic() - saved >= self.run.train.save_every_s
            stop = 0 < self.run.train.patience <= self.held_out_log["stale"]
            due, stop = self._agreed(due, stop)
            if stop:
                break
            if due and step.number < step.num_steps:
                with self.folder.writing():
                    trainer.save(self.folder.state, self.folder.with_settings(self.held_out_log, num_processes))
                saved = time.monotonic()

    def _num_workers(self) -> int:
        if self.run.train.workers is not None:
            return self.run.train.workers
        num_sharing = 1 if self.accelerator.device.type == "cpu" else self.accelerator.num_processes
        return max(1, torch.get_num_threads() // num_sharing)

    def _agreed(self, *flags: bool) -> list[bool]:
        """Return the main process's flags in every process. Clocks differ, and all have to save or stop at the same step."""
        agreed = list(flags)
        if self.accelerator.num_processes > 1:
            broadcast_object_list(agreed)
        return agreed

    def _report_step(self, step: TrainingStep) -> None:
        values = {"loss": step.loss, "accuracy": step.accuracy, "learning_rate": step.learning_rate}
        self.accelerator.log({f"train/{name}": value for name, value in values.items()}, step=step.number)
        self.recent.append(step)
        seconds = max(1e-9, sum(past.seconds for past in self.recent))
        words = (
            f"epoch {step.epoch:.1f}, loss {step.loss:.3f}, rate {step.learning_rate:.1e}, "
            f"{sum(past.num_videos for past in self.recent) / seconds:.1f} videos/s, "
            f"{sum(past.waited_s for past in self.recent) / seconds:.0%} waiting for data"
        )
        self.progress("training", step.number, step.num_steps, words)

    def _evaluate_epoch(self, trainer: Trainer, step: TrainingStep) -> None:
        """Evaluate the present model on held-out videos, and save it if it is the best so far and the run asks for that."""
        if not self.videos.choosing.samples:
            return
        with few_threads(self.accelerator.device, self._scoring_gflop()):
            model = trainer.trained()
            figure = self._figure(model)
        if figure is None or not self.accelerator.is_main_process:
            return
        self.accelerator.log({"held_out/figure": figure}, step=step.number)
        self.folder.add_figure(figure, step.number)
        self.held_out_log["held_out"].append([step.number, figure])
        if self.held_out_log["best"] is None or figure > self.held_out_log["best"]:
            self.held_out_log["best"], self.held_out_log["stale"] = figure, 0
            if self.run.train.keep == "best":
                with self.folder.writing():
                    save_checkpoint(self.folder.best, Checkpoint(model, self.view, self.data.labels))
        else:
            self.held_out_log["stale"] += 1

    def _scoring_gflop(self) -> float:
        """Return the approximate work of scoring the held-out videos, in GFLOP."""
        if self.choosing_embedded is None:
            return math.inf
        learned = (*self.model.temporal_encoder.parameters(), *self.model.head.parameters())
        num_frames = self.choosing_embedded.embeddings[:, 0, :, 0].numel()
        return 2 * sum(weight.numel() for weight in learned) * num_frames / 1e9

    def _figure(self, model: STAM) -> float | None:
        """Return top-1 (mAP for multi-label models) on the videos for choosing the epoch; None if none can be read."""
        if not self.frozen:
            try:
                scores = self.videos.scores(self.videos.choosing, self._predictor(model), None)
            except DataError:  # the failures are noted when the finished model is evaluated
                return None
            indices, logits_NK = scores.indices, scores.logits
        elif self.choosing_embedded is None or not self.accelerator.is_main_process:  # one process does it in no time
            return None
        else:
            indices = self.choosing_embedded.indices
            with torch.inference_mode():
                logits_NK = model.encode_video(self.choosing_embedded.embeddings[:, 0]).logits
        targets_NK = self.videos.choosing_targets_BK[indices]
        return figure_of(report_of(model.config.task, logits_NK, targets_NK, self.data.labels))

    def _evaluation(self, model: STAM) -> Evaluation | None:
        """Return the evaluation on held-out videos, as `fewframes evaluate` does it; None if none could be read."""
        videos, part = self.videos, self.videos.reporting
        if not part.samples:
            return None
        try:
            predictor, progress = self._predictor(model), videos.on_scoring
            evaluation = evaluate(part, predictor, self.cache, process=self.process, progress=progress)
        except DataError as error:
            videos.note_unread(part, error)
            return None
        videos.note(evaluation.failures)
        return evaluation

    def _predictor(self, model: STAM) -> Predictor:
        """Return a predictor with a copy of the model. A copy, because a predictor folds and casts its weights."""
        checkpoint = Checkpoint(copy.deepcopy(model), self.view, self.data.labels)
        return Predictor(checkpoint, device=self.options.device, dtype=self.dtype, name=str(self.folder.folder))

    def _checkpoint(self, model: STAM, start: Predictor) -> Checkpoint:
        provenance = {
            "data": self.data.name,
            "data_fingerprint": self.data.fingerprint(),
            "num_videos": {
                "training": len(self.videos.training.samples),
                "held_out": len(self.videos.reporting.samples),
                "chosen_by": len(self.videos.choosing.samples) if self.run.train.keep == "best" else 0,
                "unread": len(self.videos.failures),
            },
            "training_videos": self.videos.training_marks,
            "run": asdict(self.run),
            "frame_encoder_precision": str(start.dtype).removeprefix("torch."),
            "versions": versions(),
        }
        return Checkpoint(model.eval(), self.view, self.data.labels, provenance, {}, self.licences, self._exits(model))

    def _metrics(self, evaluation: Evaluation | None) -> dict[str, object]:
        if evaluation is None:
            return {}
        protocol = f"held-out videos of {self.data.name}, {evaluation.provenance['protocol']}"
        if self.run.train.keep == "best" and self.videos.choosing.samples == self.videos.reporting.samples:
            protocol += "; the epoch was chosen by these same videos, so the figure is too kind"
        return {"protocol": protocol, **evaluation.report.to_dict()}
