"""Write an evaluation to files for programs: its figures as JSON, and a row for each video as CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fewframes.core.files import check_format
from fewframes.core.text import for_csv, printable

if TYPE_CHECKING:  # an import at run time would load the evaluation, and all that it needs, into each worker of Ray
    from fewframes.data.layouts import Sample
    from fewframes.results import Failure
    from fewframes.training.evaluation.results import Evaluation

COLUMNS = ("source", "start_s", "end_s", "labels", "predicted", "score", "error")
"""The columns before the scores, which have a column for each label."""
TEXT_COLUMNS = ("source", "labels", "predicted", "error")
"""The columns that hold text; all others hold numbers."""

Cell = str | float | None


class ScoredVideos(Protocol):
    """The scores of labelled videos: an evaluation, or the figures of a solved read-out."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Return the N videos that could be read."""

    @property
    def scores(self) -> Any:
        """Return their scores (N, K) in 0-1."""

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Return the videos that could not be read."""

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return the score from which each label counts as present; empty for one action a video."""


def write_metrics(evaluation: Evaluation, path: Path) -> None:
    """Write the figures of an evaluation, as `to_dict` returns them, to a JSON file."""
    path.write_text(json.dumps(evaluation.to_dict(), indent=1) + "\n", encoding="utf-8")


def write_predictions(evaluation: ScoredVideos, labels: tuple[str, ...], path: Path) -> None:
    """Write a row for each video: its labels, the predicted one, and the score of every label. Failed videos have their reason.

    For a multi-label model all labels above their thresholds are predicted; there may be none.

    Args:
        evaluation: The scored videos.
        labels: The labels of the model, in the order of its scores.
        path: The file. The ending `.parquet` writes Parquet, any other CSV.
    """
    names = [*COLUMNS, *(f"score_{label}" if label in COLUMNS else label for label in labels)]
    rows = list(_rows(evaluation, labels))
    if path.suffix == ".parquet":
        _write_parquet(names, rows, path)
    else:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(map(for_csv, names))
            writer.writerows([_text(cell) for cell in row] for row in rows)


def _rows(evaluation: ScoredVideos, labels: tuple[str, ...]) -> Iterator[list[Cell]]:
    for sample, scores_K in zip(evaluation.samples, np.asarray(evaluation.scores), strict=True):
        index = int(scores_K.argmax())
        predicted = labels[index]
        if evaluation.thresholds:
            least = zip(labels, scores_K, evaluation.thresholds, strict=True)
            predicted = ";".join(label for label, score, threshold in least if score > threshold)
        named: list[Cell] = [";".join(sample.labels), predicted, float(scores_K[index]), None]
        yield [sample.path, sample.start_s, sample.end_s, *named, *scores_K.tolist()]
    for failure in evaluation.failures:
        yield [failure.source, failure.start_s, failure.end_s, None, None, None, failure.error, *[None] * len(labels)]


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return str(for_csv(cell)) if isinstance(cell, str) else f"{cell:.6f}"


def _write_parquet(names: list[str], rows: list[list[Cell]], path: Path) -> None:
    check_format("parquet")
    import pyarrow  # late: an optional package
    from pyarrow import parquet

    columns = [
        pyarrow.array(map(printable, cells), pyarrow.string())
        if name in TEXT_COLUMNS
        else pyarrow.array(cells, pyarrow.float64())
        for name, cells in zip(names, zip(*rows, strict=True), strict=True)
    ]
    names = [printable(name) or "" for name in names]
    parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), path)
