"""Write labelled videos to a list (CSV) that reads back as the same videos, wherever the list is moved to."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewframes.core.files import whole
from fewframes.data.layouts import ReadOptions, Sample, read_layout
from fewframes.data.list_text import COLUMNS
from fewframes.data.samples import absolute, as_label, is_text
from fewframes.errors import ConfigError, DataError

LABEL_SEPARATOR = ";"
"""The separator of several labels in one cell."""


def write_list(samples: Sequence[Sample], path: Path, *, multilabel: bool = False) -> None:
    """Write the samples with absolute paths and the columns `COLUMNS`. The file appears whole or not at all.

    The file is read back and compared before it gets its name, so a list never means other videos than those it was made of.

    Raises:
        DataError: A list cannot store one of the samples (see `unlistable`).
        ConfigError: The file cannot be written.
    """
    movable = [replace(sample, path=absolute(sample.path)) for sample in samples]
    for sample in movable:
        if reason := unlistable(sample, multilabel=multilabel):
            raise DataError(f"{sample.path!r}: {reason}")
    try:
        with whole(path) as finished:
            part = finished.with_name("list.csv")  # the ending says how it is read
            with part.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(_cells(sample) for sample in movable)
            again = read_layout(part, ReadOptions(label_separator=LABEL_SEPARATOR if multilabel else "")).samples
            for sample, other in zip(movable, again, strict=True):
                if sample != other:
                    raise DataError(f"{path}: {sample} would be read back as {other}; rename the file")
            part.replace(finished)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from None


def unlistable(sample: Sample, *, multilabel: bool = False) -> str:
    """Return the reason why a list cannot store this sample, with the way out; empty if it can."""
    for name, cells in {"path": [absolute(sample.path)], "label": sample.labels, "group": [sample.group]}.items():
        for cell in cells:
            if not is_text(cell):
                return f"its {name} {cell!r} is not UTF-8, lists are; rename it"
            if cell != cell.strip() or "\r" in cell:
                return f"its {name} {cell!r} begins or ends with a space, or holds a line break; rename it"
            if name == "label" and cell != as_label(cell):
                # Labels are composed when they are read, so that equal names are one action.
                return f"its label {cell!r} has accents apart from their letters, and would be read back composed; rename it"
            if name == "label" and multilabel and LABEL_SEPARATOR in cell:
                return f"its label {cell!r} contains the {LABEL_SEPARATOR} that separates labels; rename it"
    return ""


def _cells(sample: Sample) -> list[str]:
    start_s = repr(sample.start_s) if sample.start_s else ""
    end_s = "" if sample.end_s is None else repr(sample.end_s)
    return [sample.path, LABEL_SEPARATOR.join(sample.labels), start_s, end_s, sample.split, sample.group]
