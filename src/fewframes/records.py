"""What a run leaves in its folder: the model and its figures when it is done, the state to go on from while it is not."""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate
import av
import torch
from safetensors import SafetensorError

from fewframes import __version__
from fewframes.config import RunConfig, run_to_toml
from fewframes.data import VideoSet
from fewframes.errors import ConfigError
from fewframes.evaluate import Evaluation
from fewframes.metrics import Report
from fewframes.plots import confusion_png, training_png
from fewframes.tables import write_predictions
from fewframes.weights import MODEL_FILE, Checkpoint, save_checkpoint

RUN_FILE, METRICS_FILE, HISTORY_FILE, PREDICTIONS_FILE = "run.toml", "metrics.json", "history.csv", "predictions.csv"
CURVES_FILE, CONFUSION_FILE, LAST_FILE = "curves.png", "confusion.png", "last.safetensors"
STATE_FILE, BEST_FILE, STEPS_FILE = "state.pt", "best.safetensors", "history.part.csv"
OUTPUT_FILES = (
    RUN_FILE, HISTORY_FILE, METRICS_FILE, PREDICTIONS_FILE, CURVES_FILE, CONFUSION_FILE, LAST_FILE, MODEL_FILE,
)  # fmt: skip
"""What a run writes; the model last, so that a folder with a model is complete."""
LOGS_FOLDER = "logs"
WITHOUT_EFFECT = {"workers": None, "save_every_s": 60.0, "trackers": ()}
"""Settings of a run that may differ when it goes on: they do not change its weights."""


class Records:
    """The folder of one run."""

    def __init__(self, folder: Path, run: RunConfig, data: VideoSet, command: str) -> None:
        self.folder, self.run, self.data, self.command = folder, run, data, command
        self.state, self.best, self.logs = folder / STATE_FILE, folder / BEST_FILE, folder / LOGS_FOLDER
        self.steps = folder / STEPS_FILE

    def check(self, *, overwrite: bool, resume: bool) -> None:
        """Before minutes of work, not after: ConfigError when the folder cannot take the run."""
        done = [name for name in OUTPUT_FILES if (self.folder / name).exists()]
        if resume and overwrite:
            raise ConfigError("--resume goes on with a run, --overwrite starts it anew; take one of them")
        if done and not overwrite:
            what = "a run that is done" if resume else f"{', '.join(done)} already"
            raise ConfigError(f"{self.folder}: holds {what}; take another folder, or --overwrite")
        if self.state.exists() and not (overwrite or resume):
            raise ConfigError(f"{self.folder}: holds a run that was interrupted; go on with --resume, or --overwrite")
        folder = self.folder.resolve()
        nearest_folder = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not nearest_folder.is_dir() or not os.access(nearest_folder, os.W_OK):
            raise ConfigError(f"{folder}: {nearest_folder} is not a folder that can be written to; take another")

    def clear(self) -> None:
        """Leave nothing of an earlier run that was not finished; what is finished stays until the new one is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._drop_unfinished()
        shutil.rmtree(self.logs, ignore_errors=True)

    def add_step(self, step: Mapping[str, float]) -> None:
        """A row for each step, there to be read while the run goes on."""
        fresh = not self.steps.exists()
        with self.steps.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(step), lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(step)

    def keep_steps(self, num_done: int) -> None:
        """Forget the steps after this one, which a run that goes on from there makes again; a row cut short is one of them."""
        if not self.steps.exists():
            return
        header, *rows = self.steps.read_text(encoding="utf-8").splitlines(keepends=True)
        part = self.steps.with_name(self.steps.name + ".part")
        part.write_text("".join([header, *rows[:num_done]]), encoding="utf-8")
        part.replace(self.steps)

    def marked(self, memory: Mapping[str, Any], num_processes: int) -> dict[str, Any]:
        """What to keep with a state, so that only the same run goes on from it."""
        return {**memory, "settings": self._settings(num_processes)}

    def checked(self, memory: dict[str, Any], num_processes: int) -> dict[str, Any]:
        """What was kept with a state; ConfigError when it was another run's."""
        then, now = memory.pop("settings"), self._settings(num_processes)
        differing = [f"{name} was {then[name]}, is {now[name]}" for name in now if then[name] != now[name]]
        if differing:
            raise ConfigError(f"{self.state}: another run's state ({'; '.join(differing)}); --overwrite starts anew")
        return memory

    def write(
        self,
        kept: Checkpoint,
        last: Checkpoint | None,
        evaluation: Evaluation | None,
        facts: Mapping[str, object],
        memory: Mapping[str, Any],
    ) -> None:
        """All files beside the output first, then moved into it: an interruption leaves the old ones or the new ones."""
        metrics = {
            **facts,
            "environment": environment(),
            "command": self.command,
            "held_out": None if evaluation is None else evaluation.to_dict(),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".part-") as name:
                part = Path(name)
                (part / RUN_FILE).write_text(run_to_toml(self.run), encoding="utf-8", errors="surrogateescape")
                (part / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
                shutil.copyfile(self.steps, part / HISTORY_FILE)
                (part / CURVES_FILE).write_bytes(training_png(read_history(self.steps), memory["held_out"]))
                if evaluation is not None:
                    write_predictions(evaluation, kept.labels, part / PREDICTIONS_FILE)
                if evaluation is not None and isinstance(evaluation.report, Report):
                    title = f"{evaluation.report.num_videos} held-out videos, top-1 {evaluation.report.top1:.1%}"
                    (part / CONFUSION_FILE).write_bytes(confusion_png(evaluation.report, title))
                if last is not None:
                    save_checkpoint(part / LAST_FILE, last)
                save_checkpoint(part / MODEL_FILE, kept)
                for file in OUTPUT_FILES:
                    if (part / file).exists():
                        (part / file).replace(self.folder / file)
                    else:
                        (self.folder / file).unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{self.folder}: the model cannot be written ({error}); make room or take another folder"
            ) from None
        self._drop_unfinished()

    def _drop_unfinished(self) -> None:
        for path in (self.state, self.best, self.steps):
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".part").unlink(missing_ok=True)  # of a run that was killed while it wrote

    def _settings(self, num_processes: int) -> dict[str, str]:
        values = asdict(self.run)
        values["train"] |= WITHOUT_EFFECT
        flat = {"data": self.data.fingerprint(), "processes": str(num_processes)}
        for name, value in values.items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            flat |= {f"{name}.{key}".rstrip("."): json.dumps(setting) for key, setting in inner}
        return flat


def read_history(path: Path) -> list[dict[str, float]]:
    """What `history.csv` says of each step."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def versions() -> dict[str, str]:
    """What a model was made with."""
    return {
        "fewframes": __version__,
        "torch": torch.__version__,
        "av": av.__version__,
        "accelerate": accelerate.__version__,
    }


def environment() -> dict[str, object]:
    """Where a model was made."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "versions": {**versions(), "python": platform.python_version()},
        "system": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
    }
