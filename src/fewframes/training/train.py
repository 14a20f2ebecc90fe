"""A run: labelled videos -> a trained model, its figures on held-out videos, and how they came about.

With a frozen frame encoder each video is embedded once, and the temporal encoder and the head learn from what is kept; with
one that learns, videos are decoded and changed anew each time. The loop is the same (`fit.py`).
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import report_of
from fewframes.core.settings import Task, settings_from
from fewframes.data.dataset import VideoSet, hold_out
from fewframes.errors import ConfigError, DataError
from fewframes.inference.early_exit import fit_plan, stage_logits, stages_of
from fewframes.inference.predictor import DtypeName, Predictor, name_of
from fewframes.models.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.config import ModelConfig
from fewframes.models.exit_plan import ExitPlan, check_can_exit
from fewframes.models.hub import load_checkpoint
from fewframes.models.image_weights import start_model
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.results import Failure
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.evaluate import Evaluation, evaluate, figure_of
from fewframes.training.features import EmbeddedVideos
from fewframes.training.loader import VideoExamples
from fewframes.training.loop import Trainer, TrainingSet, TrainingStep, solve, token_examples
from fewframes.training.processes import ProcessRank, as_in_first, few_threads, start_processes
from fewframes.training.run_folder import RunFolder, versions
from fewframes.training.run_videos import Progress, RunVideos, failed
from fewframes.video.view import ViewConfig

log = logging.getLogger("fewframes")


@dataclass(frozen=True)
class TrainingResult:
    """What came out of a run: the model; how it does on held-out videos (None when none were held out, or none of these could
    be read), and how many were held out; videos that could not be read; how many came from the cache; and where the seconds
    went."""

    checkpoint: Checkpoint
    evaluation: Evaluation | None
    num_held_out: int
    failures: tuple[Failure, ...]
    num_cached: int
    embedding_s: float
    training_s: float


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What of a run does not change its result: where embeddings are kept (None: nowhere), the device, the precision of the
    frame encoder, whether the output folder may be replaced or gone on with, and the command that was typed."""

    cache: EmbeddingCache | None = None
    device: str = "auto"
    dtype: DtypeName = "auto"
    overwrite: bool = False
    resume: bool = False
    command: str = ""


def train(
    data: VideoSet,
    output: Path,
    run: RunConfig,
    options: TrainOptions,
    progress: Progress = lambda stage, done, total, words: None,
) -> TrainingResult:
    """Teach a model the actions of `data` and write it, with its figures, to the folder `output`.

    Raises DataError, ConfigError or WeightsError before anything is written.
    """
    run_folder = RunFolder(output, run, data, options.command)
    run_folder.check(overwrite=options.overwrite, resume=options.resume)
    training, held = hold_out(data, run.data.holdout, run.train.seed)
    teacher = load_checkpoint(run.train.teacher) if run.train.teacher else None  # before minutes of work, not after
    with ExitStack() as until_done:
        accelerator = start_processes(options.device, run.train, run_folder.logs)
        until_done.callback(accelerator.end_training)
        process = ProcessRank(accelerator.process_index, accelerator.num_processes)
        if accelerator.is_main_process:
            until_done.enter_context(run_folder.held())
            until_done.callback(run_folder.close)
        else:
            progress = lambda stage, done, total, words: None  # noqa: E731
        cache = options.cache or EmbeddingCache(until_done.enter_context(_shared_folder(process)))
        videos = RunVideos(data, training, held, run, cache, process, progress)
        return _Run(videos, teacher, run, options, run_folder, accelerator, progress).result()


@contextmanager
def _shared_folder(process: ProcessRank) -> Iterator[Path]:
    """Yield a new folder, of all processes of this machine the same; it goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="fewframes-") as own:
        first, *_ = process.gather([own])
        yield Path(first) if Path(first).is_dir() else Path(own)
        process.gather([own])  # no process takes it away from another


class _Run:
    """One run, from a started model to its files."""

    def __init__(
        self,
        videos: RunVideos,
        teacher: Checkpoint | None,
        run: RunConfig,
        options: TrainOptions,
        run_folder: RunFolder,
        accelerator: Accelerator,
        progress: Progress,
    ) -> None:
        self.videos, self.teacher, self.run, self.options, self.run_folder = videos, teacher, run, options, run_folder
        self.accelerator, self.progress = accelerator, progress
        self.data, self.cache = videos.data, videos.cache
        self.process = videos.process
        torch.manual_seed(run.train.seed)
        self.model, self.view, self.licences = start_run(
            run, num_classes=len(self.data.labels), task="multilabel" if self.data.multilabel else "single"
        )
        self.frozen = run.train.unfreeze == "none"
        if self.frozen and self.model.config.layout != "factorised":
            raise ConfigError(
                f"layout {self.model.config.layout!r} has no embeddings of single frames to train on; take 'factorised', "
                "or let the frame encoder learn: train.unfreeze=all"
            )
        self._check_early_exit()
        self.dtype: DtypeName = options.dtype
        if self.frozen and run.augment.cutmix:
            raise ConfigError(
                "augment.cutmix pastes pictures, and a frozen frame encoder's embeddings are kept; take mixup"
            )
        self.choosing_embedded: EmbeddedVideos | None = None
        self.recent: deque[TrainingStep] = deque(maxlen=20)

    def _check_early_exit(self) -> None:
        """Before anything is written."""
        if not self.run.train.early_exit:
            return
        check_can_exit(self.model)
        if not self.frozen:
            raise ConfigError(
                "train.early_exit learns from kept embeddings of few frames; leave the frame encoder frozen (train.unfreeze=none)"
            )
        if not self.videos.choosing.samples:
            raise ConfigError(
                "train.early_exit fits when to stop on held-out videos, and none are; hold some out (--holdout)"
            )

    def result(self) -> TrainingResult:
        """Do all of it."""
        began = time.perf_counter()
        start = self._predictor(self.model)
        self.dtype = name_of(start.dtype)  # measured once
        training_set = self._training_set(start)
        embedding_s, began = time.perf_counter() - began, time.perf_counter()
        trainer = Trainer(
            self.model, training_set, self.run, self.accelerator, torch.float32 if self.frozen else start.dtype
        )
        self._warn_of_steps(trainer)
        self._loop(trainer)
        self._note_unread(trainer)
        last = self._with_fitted_moments(trainer.trained())
        training_s = time.perf_counter() - began
        kept = last
        if self.run.train.keep == "best" and self._agreed(self.run_folder.best.exists())[0]:
            kept = (
                load_checkpoint(self.run_folder.best).model if self.accelerator.is_main_process else copy.deepcopy(last)
            )
            kept = self._with_fitted_moments(as_in_first(kept, self.accelerator))
        trained = TrainingResult(
            checkpoint=self._checkpoint(kept, start),
            evaluation=self._evaluation(kept),
            num_held_out=len(self.videos.reporting.samples),
            failures=tuple(self.videos.failures.values()),
            num_cached=self.videos.num_cached,
            embedding_s=embedding_s,
            training_s=training_s,
        )
        trained = replace(trained, checkpoint=replace(trained.checkpoint, metrics=self._metrics(trained.evaluation)))
        if self.accelerator.is_main_process:
            last_checkpoint = None if kept is last else self._checkpoint(last, start)
            self.run_folder.write(
                trained.checkpoint, last_checkpoint, trained.evaluation, self._facts(trained), self.memory
            )
        self.accelerator.wait_for_everyone()
        return trained

    def _warn_of_steps(self, trainer: Trainer) -> None:
        """Say it where there are more steps than the epochs that were asked for."""
        settings = self.run.train
        num_asked = settings.epochs * trainer.steps_per_epoch
        if self.accelerator.is_main_process and settings.epochs != TrainConfig.epochs and trainer.num_steps > num_asked:
            log.warning(
                "%d steps are made, the least by train.min_steps, and not the %d of train.epochs = %d; for these: "
                "--set train.min_steps=1",
                trainer.num_steps,
                num_asked,
                settings.epochs,
            )

    def _with_fitted_moments(self, model: STAM) -> STAM:
        """Return the model with the read-out of moments for a frame encoder that has changed."""
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
        """Return what is learned: embeddings, where the frame encoder is frozen, else videos."""
        videos = self.videos
        names = [sample.path for sample in videos.training.samples]
        teacher_BK = None
        if self.teacher is not None:
            teacher = Predictor(
                self.teacher, device=self.options.device, dtype=self.options.dtype, name=self.run.train.teacher
            )
            teacher_BK = videos.teacher_scores(teacher)
        config = self.model.config
        if self.frozen and videos.choosing.samples:
            self.choosing_embedded = videos.embedded(videos.choosing, start)
        if not self.frozen:
            if config.motion_width or config.moment_head:
                self._solved(start)
            examples = VideoExamples(
                videos.training.samples, config.num_frames, self.view, self.run.augment, self.run.data.mirror
            )
            return TrainingSet(examples, videos.targets_BK, names, teacher_BK)
        embedded = self._solved(start)
        return TrainingSet(
            token_examples(self.model, embedded.embeddings),
            videos.targets_BK[embedded.indices],
            [names[index] for index in embedded.indices.tolist()],
            None if teacher_BK is None else teacher_BK[embedded.indices],
        )

    def _solved(self, start: Predictor) -> EmbeddedVideos:
        """Return the embeddings of the training videos, and set what of the model is solved on them."""
        videos = self.videos
        embedded = videos.embedded_views(start)
        targets_BK = videos.targets_BK if embedded is None else videos.targets_BK[embedded.indices]
        if embedded is None or not (targets_BK.sum(dim=0) > 0).all():
            absent = [] if embedded is None else (targets_BK.sum(dim=0) == 0).nonzero().flatten().tolist()
            names = ", ".join(self.data.labels[index] for index in absent) or "any action"
            first = next(iter(videos.failures.values())).error
            raise DataError(
                f"{self.data.name}: no training video of {names} could be read; {len(videos.failures)} failed, the first: {first}"
            )
        solve(self.model, embedded.embeddings, targets_BK, self.run.train.seed)
        return embedded

    def _exits(self, model: STAM) -> ExitPlan | None:
        """Return when the trained model may stop early, fitted on held-out videos."""
        embedded = self.choosing_embedded
        if not self.run.train.early_exit or embedded is None:
            return None
        stages = stages_of(model.config.num_frames)
        targets_N = self.videos.choosing_targets_BK[embedded.indices].argmax(dim=1)
        return fit_plan(stages, stage_logits(model, embedded.embeddings[:, 0], stages), targets_N)

    def _loop(self, trainer: Trainer) -> None:
        """Train to the end, or until nothing better came for long; log, measure each epoch, keep the state."""
        memory: dict[str, Any] = {"held_out": [], "best": None, "stale": 0}
        if self.options.resume and self.run_folder.state.exists():
            memory = self.run_folder.checked(trainer.restore(self.run_folder.state), trainer.accelerator.num_processes)
            if self.accelerator.is_main_process:
                self.run_folder.keep_steps(trainer.num_done)
        elif self.accelerator.is_main_process:
            self.run_folder.clear()
        self.memory = memory
        if self.run.train.trackers:
            self.accelerator.init_trackers("fewframes")
        workers = 0 if self.frozen else self._num_workers()
        saved = time.monotonic()
        for step in trainer.steps(workers):
            if self.accelerator.is_main_process:
                self.run_folder.add_step(asdict(step))
            self._report_step(step)
            if step.number % trainer.steps_per_epoch == 0 or step.number == step.num_steps:
                self._evaluate_epoch(trainer, step)
            due = time.monotonic() - saved >= self.run.train.save_every_s
            stop = 0 < self.run.train.patience <= memory["stale"]
            due, stop = self._agreed(due, stop)
            if stop:
                break
            if due and step.number < step.num_steps:
                with self.run_folder.writing():
                    trainer.save(self.run_folder.state, self.run_folder.marked(memory, self.accelerator.num_processes))
                saved = time.monotonic()

    def _num_workers(self) -> int:
        if self.run.train.workers is not None:
            return self.run.train.workers
        return max(
            1,
            torch.get_num_threads() // (1 if self.accelerator.device.type == "cpu" else self.accelerator.num_processes),
        )

    def _agreed(self, *flags: bool) -> list[bool]:
        """What the main process says, for a clock is not the same everywhere."""
        said = list(flags)
        if self.accelerator.num_processes > 1:
            broadcast_object_list(said)
        return said

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
        """Measure the model of now on held-out videos; keep the best so far where the run asks for it."""
        if not self.videos.choosing.samples:
            return
        with few_threads(self.accelerator.device, self._scoring_gflop()):
            model = trainer.trained()
            figure = self._figure(model)
        if figure is None or not self.accelerator.is_main_process:
            return
        self.accelerator.log({"held_out/figure": figure}, step=step.number)
        self.run_folder.add_figure(figure, step.number)
        self.memory["held_out"].append([step.number, figure])
        if self.memory["best"] is None or figure > self.memory["best"]:
            self.memory["best"], self.memory["stale"] = figure, 0
            if self.run.train.keep == "best":
                with self.run_folder.writing():
                    save_checkpoint(self.run_folder.best, Checkpoint(model, self.view, self.data.labels))
        else:
            self.memory["stale"] += 1

    def _scoring_gflop(self) -> float:
        """Return about how much work judging an epoch is, in units of 1e9."""
        if self.choosing_embedded is None:
            return math.inf
        learned = (*self.model.temporal_encoder.parameters(), *self.model.head.parameters())
        num_frames = self.choosing_embedded.embeddings[:, 0, :, 0].numel()
        return 2 * sum(weight.numel() for weight in learned) * num_frames / 1e9

    def _figure(self, model: STAM) -> float | None:
        """Return top-1 (mAP for multi-label models) on the videos that are chosen by; None where none can be read."""
        if not self.frozen:
            try:
                scores = self.videos.scores(self.videos.choosing, self._predictor(model), None)
            except DataError:  # each of them is noted when the model is evaluated
                return None
            indices, logits_NK = scores.indices, scores.logits
        elif self.choosing_embedded is None or not self.accelerator.is_main_process:  # it takes one process a moment
            return None
        else:
            indices = self.choosing_embedded.indices
            with torch.inference_mode():
                logits_NK = model.encode_video(self.choosing_embedded.embeddings[:, 0]).logits
        targets_NK = self.videos.choosing_targets_BK[indices]
        return figure_of(report_of(model.config.task, logits_NK, targets_NK, self.data.labels))

    def _note_unread(self, trainer: Trainer) -> None:
        """Note the videos that the workers could not read."""
        samples = self.videos.training.samples
        self.videos.note(failed(samples[row], reason) for row, reason in trainer.failed.items())

    def _evaluation(self, model: STAM) -> Evaluation | None:
        """Return what `fewframes evaluate` says of the held-out videos; None where none could be read."""
        videos = self.videos
        if not videos.reporting.samples:
            return None
        try:
            evaluation = evaluate(
                videos.reporting, self._predictor(model), self.cache, process=self.process, progress=videos.on_scoring
            )
        except DataError as error:
            videos.note_unread(videos.reporting, error)
            return None
        videos.note(evaluation.failures)
        return evaluation

    def _predictor(self, model: STAM) -> Predictor:
        """The model ready to label videos; a copy, for it is folded and cast."""
        checkpoint = Checkpoint(copy.deepcopy(model), self.view, self.data.labels)
        return Predictor(checkpoint, device=self.options.device, dtype=self.dtype, name=str(self.run_folder.folder))

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
        model = model.eval()
        return Checkpoint(model, self.view, self.data.labels, provenance, {}, self.licences, self._exits(model))

    def _metrics(self, evaluation: Evaluation | None) -> dict[str, object]:
        if evaluation is None:
            return {}
        protocol = f"held-out videos of {self.data.name}, {evaluation.provenance['protocol']}"
        if self.run.train.keep == "best" and self.videos.choosing.samples == self.videos.reporting.samples:
            protocol += "; the epoch was chosen by these same videos, so the figure is too kind"
        return {"protocol": protocol, **evaluation.report.to_dict()}


def start_run(run: RunConfig, *, num_classes: int, task: Task = "single") -> tuple[STAM, ViewConfig, Mapping[str, str]]:
    """A new model for a run, its view, and the licences of what it starts from: the start's frame encoder (or that of
    `init`), the rest random."""
    preset = PRESETS.get(run.start)
    if preset is not None:
        model, view = preset.model, preset.view
        init = run.init or (run.start if preset.weights else preset.init)
        licences = {"frame encoder": f"{preset.licence} ({init})"}
    else:
        started = load_checkpoint(run.start)
        model, view, init = started.model.config, started.view, run.init or run.start
        licences = {name: text for name, text in started.licences.items() if name != "data"}
    if run.init:
        licences = {"frame encoder": f"that of {run.init}"}
    config = settings_from(
        ModelConfig, {**asdict(model), **run.model, "num_classes": num_classes, "task": task}, f"{run.start}: model"
    )
    view = settings_from(ViewConfig, {**asdict(view), **run.view}, f"{run.start}: view")
    return start_model(config, view, init), view, licences
