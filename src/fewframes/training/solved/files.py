"""The output folder of a solved run: the files that a training run leaves, but for those of its steps."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fewframes.core.files import check_writable, filled, held, remove_parts, writing
from fewframes.core.metrics import Report
from fewframes.errors import ConfigError
from fewframes.training.config import RunConfig, run_to_toml
from fewframes.training.evaluation.report import write_predictions
from fewframes.training.run_files import (
    CONFUSION_FILE,
    METRICS_FILE,
    OUTPUT_FILES,
    PREDICTIONS_FILE,
    RUN_FILE,
    STATE_FILE,
)
from fewframes.training.solved.figures import HeadFigures


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise ConfigError if the folder cannot take the run: before minutes of work, not after."""
    found = [name for name in (*OUTPUT_FILES, STATE_FILE) if (folder / name).exists()]
    if found and not overwrite:
        raise ConfigError(f"{folder}: holds {', '.join(found)} already; take another folder, or --overwrite")
    check_writable(folder)


def write_folder(
    folder: Path,
    run: RunConfig,
    facts: Mapping[str, object],
    figures: HeadFigures | None,
    labels: tuple[str, ...],
    write_model: Callable[[Path], None],
) -> None:
    """Write all files of a solved run. An interruption leaves the old ones or the new ones.

    Args:
        folder: The folder, which is made if needed.
        run: Settings of the run.
        facts: The content of the file of metrics.
        figures: The figures whose predictions and confusion are written; None writes neither.
        labels: Names of the K actions.
        write_model: Writes the model into a folder. It is called last, so that a folder with a model is complete.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder), writing(folder), filled(folder, OUTPUT_FILES) as part:
        (part / RUN_FILE).write_text(run_to_toml(run), encoding="utf-8", errors="surrogateescape")
        (part / METRICS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        if figures is not None:
            write_predictions(figures, labels, part / PREDICTIONS_FILE)
            if isinstance(figures.report, Report):
                from fewframes.viz.charts import confusion_png  # late: matplotlib is slow to import

                counts_KK = figures.report.confusion
                title = f"{figures.report.num_videos} videos left out, top-1 {figures.report.top1:.1%}"
                (part / CONFUSION_FILE).write_bytes(confusion_png(labels, np.asarray(counts_KK), title))
        write_model(part)
    (folder / STATE_FILE).unlink(missing_ok=True)  # of an interrupted training run that this one replaces
    remove_parts(folder)


def environment() -> dict[str, object]:
    """Return the versions and the system that a model was made with."""
    return {"versions": {**versions(), "python": platform.python_version()}, "system": platform.platform()}


def versions() -> dict[str, str]:
    """Return the versions of the packages that a solved model was made with."""
    return {name: version(name) for name in ("fewframes", "numpy", "av")}
