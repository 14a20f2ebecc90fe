"""A run: labelled videos -> a trained model, its figures on held-out videos, and how they came about.

With a frozen frame encoder each video is embedded once, and the temporal encoder and the head learn from what is kept; with
one that learns, videos are decoded and changed anew each time. The loop is the same (`fit.py`).
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from fewframes.batches import VideoExamples
from fewframes.cache import EmbeddingCache
from fewframes.clip import Failure
from fewframes.config import AugmentConfig, RunConfig
from fewframes.data import VideoSet, hold_out
from fewframes.embed import Embedded, embed_videos
from fewframes.errors import ConfigError, DataError
from fewframes.evaluate import Evaluation, evaluate, figure_of, places_of
from fewframes.exits import ExitPlan, check_can_exit, fit_plan, stage_logits, stages_of, with_stages
from fewframes.fit import Lesson, Step, Trainer, solve, start_processes, token_examples
from fewframes.judge import judge
from fewframes.layouts import Sample
from fewframes.metrics import report_of
from fewframes.model import STAM
from fewframes.predictor import DtypeName, Predictor, load, name_of
from fewframes.records import Records, versions
from fewframes.weights import Checkpoint, load_checkpoint, save_checkpoint, start_run

Progress = Callable[[str, int, int, str], None]
"""Called with the stage, how much of it is done, how much there is, and what else there is to say."""


@dataclass(frozen=True)
class Trained:
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
class Options:
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
    options: Options,
    progress: Progress = lambda stage, done, total, words: None,
) -> Trained:
    """Teach a model the actions of `data` and write it, with its figures, to the folder `output`.

    Raises DataError, ConfigError or WeightsError before anything is written.
    """
    records = Records(output, run, data, options.command)
    records.check(overwrite=options.overwrite, resume=options.resume)
    training, held = hold_out(data, run.data.holdout, run.train.seed)
    with ExitStack() as until_done:
        if options.cache is None:
            folder = until_done.enter_context(tempfile.TemporaryDirectory(prefix="fewframes-"))
            options = replace(options, cache=EmbeddingCache(Path(folder)))
        accelerator = start_processes(options.device, run.train, records.logs)
        until_done.callback(accelerator.end_training)
        if not accelerator.is_main_process:
            progress = lambda stage, done, total, words: None  # noqa: E731
        return _Run(data, training, held, run, options, records, accelerator, progress).result()


class _Run:
    """One run, from a started model to its files."""

    def __init__(
        self,
        data: VideoSet,
        training: list[int],
        held: list[int],
        run: RunConfig,
        options: Options,
        records: Records,
        accelerator: Accelerator,
        progress: Progress,
    ) -> None:
        self.data, self.run, self.options, self.records = data, run, options, records
        self.accelerator, self.progress = accelerator, progress
        tested = [place for place in held if data.samples[place].split == "test"]
        choosing = [place for place in held if place not in tested] or held
        self.training, self.choosing, self.reporting = (
            data.subset(part) for part in (training, choosing, tested or held)
        )
        self.targets_BK, self.choosing_targets_BK = data.multi_hot()[training], data.multi_hot()[choosing]
        torch.manual_seed(run.train.seed)
        self.model, self.view, self.licences = start_run(
            run, num_classes=len(data.labels), task="multilabel" if data.multilabel else "single"
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
        self.failures: dict[tuple[str, float, float | None], Failure] = {}
        self.num_cached = 0
        self.choosing_embedded: Embedded | None = None
        self.recent: deque[Step] = deque(maxlen=20)

    def _check_early_exit(self) -> None:
        """Before anything is written."""
        if not self.run.train.early_exit:
            return
        check_can_exit(self.model)
        if not self.frozen:
            raise ConfigError(
                "train.early_exit learns from kept embeddings of few frames; leave the frame encoder frozen (train.unfreeze=none)"
            )
        if not self.choosing.samples:
            raise ConfigError(
                "train.early_exit fits when to stop on held-out videos, and none are; hold some out (--holdout)"
            )

    def result(self) -> Trained:
        """All of it."""
        began = time.perf_counter()
        start = self._predictor(self.model)
        self.dtype = name_of(start.dtype)  # measured once
        with self.accelerator.main_process_first():  # the others find embeddings in the cache
            lesson = self._lesson(start)
        embedding_s, began = time.perf_counter() - began, time.perf_counter()
        trainer = Trainer(self.model, lesson, self.run, self.accelerator, torch.float32 if self.frozen else start.dtype)
        self._loop(trainer)
        self._note_unread(trainer)
        last = self._solved_again(trainer.trained())
        training_s = time.perf_counter() - began
        kept = last
        if self.run.train.keep == "best" and self.records.best.exists():
            kept = self._solved_again(load_checkpoint(self.records.best).model)
        trained = Trained(
            checkpoint=self._checkpoint(kept, start),
            evaluation=self._evaluation(kept) if self.accelerator.is_main_process else None,
            num_held_out=len(self.reporting.samples),
            failures=tuple(self.failures.values()),
            num_cached=self.num_cached,
            embedding_s=embedding_s,
            training_s=training_s,
        )
        trained = replace(trained, checkpoint=replace(trained.checkpoint, metrics=self._metrics(trained.evaluation)))
        if self.accelerator.is_main_process:
            last_checkpoint = None if kept is last else self._checkpoint(last, start)
            self.records.write(
                trained.checkpoint, last_checkpoint, trained.evaluation, self._facts(trained), self.memory
            )
        self.accelerator.wait_for_everyone()
        return trained

    def _solved_again(self, model: STAM) -> STAM:
        """The read-out of moments for a frame encoder that has changed."""
        if self.frozen or model.moment_head is None or not self.accelerator.is_main_process:
            return model
        embedded = self._embedded_views(self._predictor(model))
        if embedded is not None:
            generator = torch.Generator().manual_seed(self.run.train.seed)
            targets_BK = self.targets_BK[embedded.places]
            model.moment_head.fit(embedded.embeddings, targets_BK, model.loss, generator)
        return model

    def _facts(self, trained: Trained) -> dict[str, object]:
        return {
            **trained.checkpoint.provenance,
            "failed": [failure.to_dict() for failure in trained.failures if not failure.missing],
            "missing": [failure.to_dict() for failure in trained.failures if failure.missing],
            "seconds": {"embedding": round(trained.embedding_s, 2), "training": round(trained.training_s, 2)},
            "num_cached": trained.num_cached,
            "processes": self.accelerator.num_processes,
            "device": str(self.accelerator.device),
        }

    def _lesson(self, start: Predictor) -> Lesson:
        """What is learned: embeddings, where the frame encoder is frozen, else videos."""
        names = [sample.path for sample in self.training.samples]
        teacher_BK = self._teacher_scores() if self.run.train.teacher else None
        config = self.model.config
        if self.frozen and self.choosing.samples:
            self.choosing_embedded = self._embedded(self.choosing, start)
        if not self.frozen:
            if config.motion_width or config.moment_head:
                self._solved(start)
            examples = VideoExamples(
                self.training.samples, config.num_frames, self.view, self.run.augment, self.run.data.mirror
            )
            return Lesson(examples, self.targets_BK, names, teacher_BK)
        embedded = self._solved(start)
        return Lesson(
            token_examples(self.model, embedded.embeddings),
            self.targets_BK[embedded.places],
            [names[place] for place in embedded.places.tolist()],
            None if teacher_BK is None else teacher_BK[embedded.places],
        )

    def _solved(self, start: Predictor) -> Embedded:
        """The embeddings of the training videos, and what of the model is solved on them set."""
        embedded = self._embedded_views(start)
        targets_BK = self.targets_BK if embedded is None else self.targets_BK[embedded.places]
        if embedded is None or not (targets_BK.sum(dim=0) > 0).all():
            absent = [] if embedded is None else (targets_BK.sum(dim=0) == 0).nonzero().flatten().tolist()
            names = ", ".join(self.data.labels[index] for index in absent) or "any action"
            first = next(iter(self.failures.values())).error
            raise DataError(
                f"{self.data.name}: no training video of {names} could be read; {len(self.failures)} failed, the first: {first}"
            )
        solve(self.model, embedded.embeddings, targets_BK, self.run.train.seed)
        return embedded

    def _embedded_views(self, predictor: Predictor) -> Embedded | None:
        """The training videos as they are, mirrored, and as they are drawn; with few frames too, where they are learned from."""
        mirror = self.run.data.mirror
        embedded = self._embedded(self.training, predictor, mirror=mirror, drawn=self.run.augment)
        if embedded is None or not self.run.train.early_exit:
            return embedded
        stages = stages_of(self.model.config.num_frames)
        return replace(embedded, embeddings=with_stages(embedded.embeddings, stages, 1 + mirror))

    def _exits(self, model: STAM) -> ExitPlan | None:
        """When the trained model may stop early, fitted on held-out videos."""
        embedded = self.choosing_embedded
        if not self.run.train.early_exit or embedded is None:
            return None
        stages = stages_of(model.config.num_frames)
        targets_N = self.choosing_targets_BK[embedded.places].argmax(dim=1)
        return fit_plan(stages, stage_logits(model, embedded.embeddings[:, 0], stages), targets_N)

    def _embedded(
        self, part: VideoSet, predictor: Predictor, *, mirror: bool = False, drawn: AugmentConfig | None = None
    ) -> Embedded | None:
        """The embeddings of a part of the data; None where no video of it could be read."""
        try:
            for result in embed_videos(part, predictor, self.options.cache, mirror=mirror, drawn=drawn):
                if isinstance(result, Embedded):
                    self.num_cached += result.num_cached
                    self._note(result.failures)
                    return result
                self.progress("embedding", result, len(part.samples), "")
        except DataError as error:
            self._note(failed(sample, str(error)) for sample in part.samples)
        return None

    def _teacher_scores(self) -> Tensor:
        """The teacher's scores (B, K) of the training videos at the run's temperature, in the labels of the data."""
        settings = self.run.train
        teacher = load(settings.teacher, device=self.options.device, dtype=self.options.dtype)
        columns = places_of(self.data.labels, teacher.labels, f"teacher {settings.teacher!r}")
        judged = judge(self.training, teacher, self.options.cache, progress=self._judging)
        scores_BK = torch.zeros_like(self.targets_BK)
        scores_BK[judged.places] = teacher.model.scores(judged.logits[:, columns] / settings.teacher_temperature)
        return scores_BK

    def _loop(self, trainer: Trainer) -> None:
        """Train to the end, or until nothing better came for long; log, measure each epoch, keep the state."""
        memory: dict[str, Any] = {"held_out": [], "best": None, "stale": 0}
        if self.options.resume and self.records.state.exists():
            memory = self.records.checked(trainer.restore(self.records.state), trainer.accelerator.num_processes)
            if self.accelerator.is_main_process:
                self.records.keep_steps(trainer.num_done)
        elif self.accelerator.is_main_process:
            self.records.clear()
        self.memory = memory
        self.accelerator.init_trackers("fewframes")
        workers = 0 if self.frozen else self._num_workers()
        saved = time.monotonic()
        for step in trainer.steps(workers):
            if self.accelerator.is_main_process:
                self.records.add_step(asdict(step))
            self._tell(step)
            if step.number % trainer.steps_an_epoch == 0 or step.number == step.num_steps:
                self._judge_epoch(trainer, step)
            due = time.monotonic() - saved >= self.run.train.save_every_s
            stop = 0 < self.run.train.patience <= memory["stale"]
            due, stop = self._agreed(due, stop)
            if stop:
                break
            if due and step.number < step.num_steps:
                trainer.save(self.records.state, self.records.marked(memory, self.accelerator.num_processes))
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

    def _tell(self, step: Step) -> None:
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

    def _judge_epoch(self, trainer: Trainer, step: Step) -> None:
        """How the model of now does on held-out videos; the best so far is kept where the run asks for it."""
        if not self.choosing.samples:
            return
        model = trainer.trained()
        if not self.accelerator.is_main_process:
            return
        figure = self._figure(model)
        if figure is None:
            return
        self.accelerator.log({"held_out/figure": figure}, step=step.number)
        self.memory["held_out"].append([step.number, figure])
        if self.memory["best"] is None or figure > self.memory["best"]:
            self.memory["best"], self.memory["stale"] = figure, 0
            if self.run.train.keep == "best":
                save_checkpoint(self.records.best, Checkpoint(model, self.view, self.data.labels))
        else:
            self.memory["stale"] += 1

    def _figure(self, model: STAM) -> float | None:
        """Top-1 (mAP for multi-label models) on the videos that are chosen by."""
        if self.frozen:
            if self.choosing_embedded is None:
                return None
            places = self.choosing_embedded.places
            with torch.inference_mode():
                logits_NK = model.encode_video(self.choosing_embedded.embeddings[:, 0]).logits
        else:
            judged = judge(self.choosing, self._predictor(model), None, progress=self._judging)
            places, logits_NK = judged.places, judged.logits
        report = report_of(model.config.task, logits_NK, self.choosing_targets_BK[places], self.data.labels)
        return figure_of(report)

    def _note_unread(self, trainer: Trainer) -> None:
        """Videos that the workers could not read."""
        self._note(failed(self.training.samples[row], reason) for row, reason in trainer.failed.items())

    def _note(self, failures: Iterable[Failure]) -> None:
        self.failures |= {(failure.source, failure.start_s, failure.end_s): failure for failure in failures}

    def _judging(self, stage: str, done: int, total: int) -> None:
        self.progress(stage, done, total, "")

    def _evaluation(self, model: STAM) -> Evaluation | None:
        """What `fewframes evaluate` says of the held-out videos; None where none could be read."""
        if not self.reporting.samples:
            return None
        try:
            evaluation = evaluate(self.reporting, self._predictor(model), self.options.cache, progress=self._judging)
        except DataError as error:
            self._note(failed(sample, str(error)) for sample in self.reporting.samples)
            return None
        self._note(evaluation.failures)
        return evaluation

    def _predictor(self, model: STAM) -> Predictor:
        """The model ready to label videos; a copy, for it is folded and cast."""
        checkpoint = Checkpoint(copy.deepcopy(model), self.view, self.data.labels)
        return Predictor(checkpoint, device=self.options.device, dtype=self.dtype, name=str(self.records.folder))

    def _checkpoint(self, model: STAM, start: Predictor) -> Checkpoint:
        provenance = {
            "data": self.data.name,
            "data_fingerprint": self.data.fingerprint(),
            "num_videos": {
                "training": len(self.training.samples),
                "held_out": len(self.reporting.samples),
                "chosen_by": len(self.choosing.samples) if self.run.train.keep == "best" else 0,
                "unread": len(self.failures),
            },
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
        if self.run.train.keep == "best" and self.choosing.samples == self.reporting.samples:
            protocol += "; the epoch was chosen by these same videos, so the figure is too kind"
        return {"protocol": protocol, **evaluation.report.to_dict()}


def failed(sample: Sample, reason: str) -> Failure:
    """That this video, or this part of one, could not be read."""
    return Failure(sample.path, reason, start_s=sample.start_s, end_s=sample.end_s)
