"""The files of a training run: the model and its figures when it is finished, and until then the state to continue from."""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate
import av
import numpy as np
import torch
from filelock import FileLock, Timeout

from fewframes.core.files import check_writable, filled, remove_parts, writing
from fewframes.core.metrics import Report
from fewframes.core.text import count_of
from fewframes.core.version import __version__
from fewframes.data.dataset import VideoSet
from fewframes.errors import ConfigError, OutputError
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.model_file import read_header
from fewframes.training.config import DEFAULT_RUN, RunConfig, run_to_toml
from fewframes.training.evaluation.report import write_predictions
from fewframes.training.evaluation.results import Evaluation
from fewframes.training.run_files import (
    BEST_FILE,
    CONFUSION_FILE,
    CURVES_FILE,
    HISTORY_FILE,
    LAST_FILE,
    METRICS_FILE,
    MODEL_FILE,
    OUTPUT_FILES,
    PREDICTIONS_FILE,
    RUN_FILE,
    STATE_FILE,
    STEPS_FILE,
)
from fewframes.viz.charts import confusion_png, training_png

LOGS_FOLDER, LOCK_FILE = "logs", ".running"
WITHOUT_EFFECT = {"workers": None, "save_every_s": 60.0, "trackers": ()}
"""The settings that may differ when a run continues, with the values they are compared as: they do not change its weights."""


class RunFolder:
    """The output folder of a run.

    Args:
        folder: The folder.
        run: Settings of the run.
        data: The labelled videos of the run.
        command: The command line, for the record.
    """

    def __init__(self, folder: Path, run: RunConfig, data: VideoSet, command: str) -> None:
        self.folder, self.run, self.data, self.command = folder, run, data, command
        self.state, self.best, self.logs = folder / STATE_FILE, folder / BEST_FILE, folder / LOGS_FOLDER
        self.steps = folder / STEPS_FILE
        self._events: EventFile | None = None

    def check(self, *, overwrite: bool, resume: bool) -> None:
        """Raise ConfigError if the folder cannot take the run: before minutes of work, not after."""
        if resume and overwrite:
            raise ConfigError("--resume continues a run and --overwrite starts it anew; give one of them")
        interrupted = self.state.exists()
        if interrupted and not (overwrite or resume):
            raise ConfigError(
                f"{self.folder}: holds a run that was interrupted; continue it with --resume, or start anew with --overwrite"
            )
        done = [name for name in OUTPUT_FILES if (self.folder / name).exists()]
        if done and not overwrite and not (interrupted and resume):
            what = "a finished run" if resume and self.finished() else f"{', '.join(done)} already"
            raise ConfigError(f"{self.folder}: holds {what}; take another folder, or --overwrite")
        check_writable(self.folder)

    def finished(self) -> bool:
        """Return True if the folder holds this very run, finished. Raises ConfigError if it holds the model of another run."""
        if self.state.exists() or not (self.folder / MODEL_FILE).is_file():
            return False
        provenance = (read_header(self.folder / MODEL_FILE) or {}).get("provenance", {})
        then = _flat(provenance.get("run", {})) | {"data": provenance.get("data_fingerprint")}
        now = _flat(asdict(self.run)) | {"data": self.data.fingerprint()}
        differing = _differing(then, now)
        if differing:
            raise ConfigError(
                f"{self.folder}: holds another run's model ({'; '.join(differing)}); take another folder, or --overwrite"
            )
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder if needed, and lock it against other runs inside the block.

        Nothing stays behind of a run that could not be written at all.
        """
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        lock = FileLock(self.folder / LOCK_FILE, timeout=0)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                raise ConfigError(
                    f"{self.folder}: another run is writing to it; wait, or take another folder"
                ) from None
        try:
            yield
        except OutputError:
            if not self.state.exists():  # else --resume can go on
                self._drop_unfinished()
                shutil.rmtree(self.logs, ignore_errors=True)
            raise
        finally:
            with suppress(PermissionError):  # Windows refuses while the lock is held, and removes the file on release
                (self.folder / LOCK_FILE).unlink(missing_ok=True)
            lock.release()
            for folder in made:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def clear(self) -> None:
        """Delete all files of an earlier unfinished run. Those of a finished one stay until the new run is finished."""
        with self.writing():
            self._drop_unfinished()
            shutil.rmtree(self.logs, ignore_errors=True)

    def writing(self) -> AbstractContextManager[None]:
        """Return a context that turns errors of files inside the block into OutputError."""
        then = " and continue with --resume" if self.state.exists() else ""
        return writing(self.folder, f"make room{then}, or take another folder")

    def add_step(self, step: Mapping[str, float]) -> None:
        """Append a step to the CSV of steps and to TensorBoard's log. Both can be read while the run goes on."""
        with self.writing():
            is_new = not self.steps.exists()
            with self.steps.open("a", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(step), lineterminator="\n")
                if is_new:
                    writer.writeheader()
                writer.writerow(step)
            if self._events is None:
                self._events = EventFile(self.logs / "fewframes")
            number = int(step["number"])
            self._events.add({f"train/{name}": step[name] for name in ("loss", "accuracy", "learning_rate")}, number)

    def add_figure(self, figure: float, number: int) -> None:
        """Log the model's figure (top-1 or mAP) on held-out videos after step `number`, which `add_step` has written."""
        with self.writing():
            assert self._events is not None
            self._events.add({"held_out/figure": figure}, number)

    def keep_steps(self, num_done: int) -> None:
        """Delete the rows of all steps after the first `num_done`: a run that continues from there makes these steps again.

        A row that was cut short when the run was killed is one of them.
        """
        if not self.steps.exists():
            return
        header, *rows = self.steps.read_text(encoding="utf-8").splitlines(keepends=True)
        part = self.steps.with_name(self.steps.name + ".part")
        part.write_text("".join([header, *rows[:num_done]]), encoding="utf-8")
        part.replace(self.steps)

    def with_settings(self, extra: Mapping[str, Any], num_processes: int) -> dict[str, Any]:
        """Return the values to store with a state, and this run's settings, so that only the same run continues from it."""
        return {**extra, "settings": self._settings(num_processes)}

    def without_settings(self, extra: dict[str, Any], num_processes: int) -> dict[str, Any]:
        """Return the values that `with_settings` was given. Raises ConfigError if the settings are those of another run."""
        then, now = extra.pop("settings"), self._settings(num_processes)
        differing = _differing(then, now)
        if differing:
            raise ConfigError(
                f"{self.state}: holds the state of another run ({'; '.join(differing)}); start anew with --overwrite"
            )
        return extra

    def write(
        self,
        checkpoint: Checkpoint,
        last: Checkpoint | None,
        evaluation: Evaluation | None,
        facts: Mapping[str, object],
        held_out_log: Mapping[str, Any],
    ) -> None:
        """Write all files of the finished run, and delete those of the unfinished one.

        Files are written beside the output first and then moved into it, so an interruption leaves the old ones or the new ones.

        Args:
            checkpoint: The model of the run.
            last: The model after the last step, if that is another one.
            evaluation: Its evaluation on held-out videos; None if there were none.
            facts: Further values for the file of metrics.
            held_out_log: Its `held_out` lists the figure of each epoch as (step, figure).
        """
        metrics = {
            **facts,
            "environment": environment(),
            "command": self.command,
            "held_out": None if evaluation is None else evaluation.to_dict(),
        }
        with self.writing():
            with filled(self.folder, OUTPUT_FILES) as part:
                (part / RUN_FILE).write_text(run_to_toml(self.run), encoding="utf-8", errors="surrogateescape")
                (part / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
                shutil.copyfile(self.steps, part / HISTORY_FILE)
                (part / CURVES_FILE).write_bytes(training_png(read_history(self.steps), held_out_log["held_out"]))
                if evaluation is not None:
                    write_predictions(evaluation, checkpoint.labels, part / PREDICTIONS_FILE)
                if evaluation is not None and isinstance(evaluation.report, Report):
                    title = f"{count_of(evaluation.report.num_videos, 'held-out video')}, top-1 {evaluation.report.top1:.1%}"
                    labels, counts_KK = evaluation.report.labels, np.asarray(evaluation.report.confusion)
                    (part / CONFUSION_FILE).write_bytes(confusion_png(labels, counts_KK, title))
                if last is not None:
                    save_checkpoint(part / LAST_FILE, last)
                save_checkpoint(part / MODEL_FILE, checkpoint)
            self._drop_unfinished()

    def _drop_unfinished(self) -> None:
        for path in (self.state, self.best, self.steps):
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".part").unlink(missing_ok=True)  # left by a run that was killed while it wrote
        remove_parts(self.folder)

    def close(self) -> None:
        """Close the log files."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _settings(self, num_processes: int) -> dict[str, str]:
        return {"data": self.data.fingerprint(), "processes": str(num_processes)} | _flat(asdict(self.run))


class EventFile:
    """A TensorBoard file of values over steps, in a folder of logs. Raises OSError if it cannot be written.

    Each value is written at once. TensorBoard's own writer does so in a thread, whose errors end as tracebacks.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter  # late: slow to import

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter(path.open("wb", buffering=0))
        self._write(file_version="brain.Event:2")

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write one value under each name for one step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        figures = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=figures))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, **fields: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a run as JSON texts by table and name. Those without effect on the weights get a fixed value."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        inner = value | (WITHOUT_EFFECT if name == "train" else {}) if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{key}".rstrip("."): json.dumps(setting) for key, setting in inner.items()}
    return flat


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two runs' settings. One that did not exist then counts as its default, which changes nothing."""
    then = {**_flat(asdict(DEFAULT_RUN)), **then}
    names = {**then, **now}
    return [f"{name} was {then.get(name)}, is {now.get(name)}" for name in names if then.get(name) != now.get(name)]


def read_history(path: Path) -> list[dict[str, float]]:
    """Return the rows of a CSV of steps, such as `history.csv`."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def versions() -> dict[str, str]:
    """Return the versions of the packages that a model was made with."""
    return {
        "fewframes": __version__,
        "torch": torch.__version__,
        "av": av.__version__,
        "accelerate": accelerate.__version__,
    }


def environment() -> dict[str, object]:
    """Return the versions, the system and the device that a model was made with."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "versions": {**versions(), "python": platform.python_version()},
        "system": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
    }
