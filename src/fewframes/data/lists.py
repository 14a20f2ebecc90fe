"""Labelled videos -> a list (CSV) that reads back as the same videos, wherever it is moved to."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewframes.core.storage import as_path, is_address
from fewframes.data.layouts import ReadOptions, Sample, read_layout
from fewframes.data.list_text import COLUMNS
from fewframes.data.samples import as_label
from fewframes.errors import ConfigError, DataError

LABEL_MARK = ";"
"""What parts several labels in one cell."""


def write_list(samples: Sequence[Sample], path: Path, *, multilabel: bool = False) -> None:
    """Write the samples with absolute paths and the columns `COLUMNS`; the file appears whole or not at all.

    What was written is read back and compared before it counts. Raises DataError for a sample that a list cannot hold
    (see `unlistable`), ConfigError where nothing can be written.
    """
    placed = [replace(sample, path=absolute(sample.path)) for sample in samples]
    for sample in placed:
        if reason := unlistable(sample, multilabel=multilabel):
            raise DataError(f"{sample.path!r}: {reason}")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
            part = Path(folder) / "list.csv"
            with part.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(_cells(sample) for sample in placed)
            again = read_layout(part, ReadOptions(label_mark=LABEL_MARK if multilabel else "")).samples
            for sample, other in zip(placed, again, strict=True):
                if sample != other:
                    raise DataError(f"{path}: {sample} would be read back as {other}; rename it")
            part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error}); take another place") from None


def unlistable(sample: Sample, *, multilabel: bool = False) -> str:
    """Why a list cannot hold this sample, with the way out; empty when it can."""
    for name, cells in {"path": [absolute(sample.path)], "label": sample.labels, "group": [sample.group]}.items():
        for cell in cells:
            if not is_text(cell):
                return f"its {name} {cell!r} is not UTF-8, lists are; rename it"
            if cell != cell.strip() or "\r" in cell:
                return f"its {name} {cell!r} begins or ends with a space, or holds a line break; rename it"
            if name == "label" and cell != as_label(cell):
                return f"its label {cell!r} is written in parts (accents beside letters), which reads back composed; rename it"
            if name == "label" and multilabel and LABEL_MARK in cell:
                return f"its label {cell!r} holds the {LABEL_MARK} that parts several labels; rename it"
    return ""


def is_text(name: str) -> bool:
    """Whether a name is UTF-8, as lists and tables are; those of files need not be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def absolute(path: str) -> str:
    """Where the video is, from wherever one looks; URLs as they are."""
    path = as_path(path)
    return path if is_address(path) else os.path.abspath(path)


def _cells(sample: Sample) -> list[str]:
    start_s = repr(sample.start_s) if sample.start_s else ""
    end_s = "" if sample.end_s is None else repr(sample.end_s)
    return [sample.path, LABEL_MARK.join(sample.labels), start_s, end_s, sample.split, sample.group]
