"""A folder or a list -> labelled videos, parted into training and held-out ones.

Layouts, told apart without flags:

    ROOT/<label>/video.mp4                a folder for each action
    ROOT/{train,val,test}/<label>/...     the same, already split
    LIST.csv                              header `path,label[,start_s,end_s][,split][,group]`, paths relative to it

A folder of images below a label is one video. Videos of one group (one recording, one person) never stand on both
sides of a split.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from fewframes.errors import DataError, nearest
from fewframes.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names of parts, of folders and in lists, and what they stand for."""
COLUMNS = ("path", "label", "start_s", "end_s", "split", "group")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled video, or the part of it between two moments."""

    path: str
    label: str
    start_s: float = 0.0
    end_s: float | None = None
    split: str = ""
    group: str = ""
    """What must not be torn apart: a recording, a person; each video for itself when empty."""


@dataclass(frozen=True)
class VideoSet:
    """Labelled videos; `labels` sorted, each with at least one of them."""

    samples: tuple[Sample, ...]
    name: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The actions, sorted by name."""
        return tuple(sorted({sample.label for sample in self.samples}))

    def counts(self) -> dict[str, int]:
        """Videos for each label."""
        return dict(sorted(Counter(sample.label for sample in self.samples).items()))

    def targets(self) -> list[int]:
        """The index of each video's label."""
        index = {label: number for number, label in enumerate(self.labels)}
        return [index[sample.label] for sample in self.samples]

    def fingerprint(self) -> str:
        """A short key of which videos these are: names, labels, moments, splits and groups, in any order."""
        rows = sorted(
            [Path(sample.path).name, sample.label, sample.start_s, sample.end_s, sample.split, sample.group]
            for sample in self.samples
        )
        return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()

    def groups(self) -> list[str]:
        """The group of each video; its own path when it has none."""
        return [sample.group or sample.path for sample in self.samples]

    def subset(self, indices: Iterable[int]) -> VideoSet:
        """The videos at these places."""
        return VideoSet(tuple(self.samples[index] for index in indices), self.name)


def read_data(source: str | Path, *, group_column: str = "group") -> VideoSet:
    """Labelled videos from a folder or a CSV file; DataError says what was found and what is expected.

    `group_column` names the CSV's column of groups.
    """
    source = Path(source)
    if source.is_dir():
        data = _read_folder(source)
    elif source.is_file():
        data = _read_csv(source, group_column)
    else:
        raise DataError(f"{source}: no such folder or file; pass a folder with a folder for each action, or a CSV")
    if len(data.labels) < 2:
        raise DataError(f"{source}: {len(data.samples)} videos of {len(data.labels)} action; telling apart takes two")
    return data


def hold_out(data: VideoSet, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Places of the training and of the held-out videos.

    Where the data say so (`split`, or train and val or test folders), as they say: what is not `train` is held out.
    Otherwise about `share` of each label's videos, groups kept whole; with `share` 0 none are.
    """
    splits = [sample.split for sample in data.samples]
    if any(splits):
        held = [index for index, split in enumerate(splits) if split in ("val", "test")]
    elif share == 0:
        held = []
    else:
        held = _stratified_share(data, share, seed)
    held_out = set(held)
    training = [index for index in range(len(data.samples)) if index not in held_out]
    _check_split(data, training, held)
    return training, held


def _stratified_share(data: VideoSet, share: float, seed: int) -> list[int]:
    folds = max(2, round(1 / share))
    groups = data.groups()
    if len(set(groups)) < folds:
        raise DataError(f"{data.name}: {len(set(groups))} groups cannot be parted into {folds}; hold out less, or none")
    smallest = min(data.counts().items(), key=lambda item: item[1])
    if smallest[1] < 2:
        raise DataError(f"{data.name}: {smallest[0]!r} has one video; holding some out takes two, or hold out none")
    splitter = StratifiedGroupKFold(n_splits=min(folds, len(set(groups))), shuffle=True, random_state=seed)
    targets = np.array(data.targets())
    _, held = next(iter(splitter.split(np.zeros(len(targets)), targets, groups)))
    return [int(index) for index in held]


def _check_split(data: VideoSet, training: Sequence[int], held: Sequence[int]) -> None:
    groups = data.groups()
    torn = {groups[index] for index in training} & {groups[index] for index in held}
    if torn:
        raise DataError(f"{data.name}: group {min(torn)!r} stands in training and in held-out data ({len(torn)} such)")
    unseen = set(data.labels) - {data.samples[index].label for index in training}
    if unseen:
        raise DataError(f"{data.name}: no training video of {', '.join(sorted(unseen))}")


def _read_folder(root: Path) -> VideoSet:
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    parts = [folder for folder in folders if folder.name.lower() in SPLITS]
    samples: list[Sample] = []
    if parts and len(parts) == len(folders):
        for part in parts:
            for folder in sorted(entry for entry in part.iterdir() if entry.is_dir()):
                samples += _samples_of_label(folder, SPLITS[part.name.lower()])
    else:
        for folder in folders:
            samples += _samples_of_label(folder, "")
    if not samples:
        found = ", ".join(folder.name for folder in folders[:5]) or "no folders"
        raise DataError(f"{root}: no videos in folders of actions (found: {found}); expected {root}/<action>/<video>")
    return VideoSet(tuple(samples), str(root))


def _samples_of_label(folder: Path, split: str) -> list[Sample]:
    return [
        Sample(path=str(entry), label=folder.name, split=split)
        for entry in sorted(folder.iterdir())
        if entry.suffix.lower() in VIDEO_SUFFIXES or _is_image_sequence(entry)
    ]


def _is_image_sequence(entry: Path) -> bool:
    return entry.is_dir() and any(file.suffix.lower() in IMAGE_SUFFIXES for file in entry.iterdir())


def _read_csv(path: Path, group_column: str) -> VideoSet:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        for needed in ("path", "label"):
            if needed not in columns:
                raise DataError(f"{path}:1: no column {needed!r} in {', '.join(columns) or 'an empty line'}")
        if group_column != "group" and group_column not in columns:
            raise DataError(f"{path}:1: no column {group_column!r} for groups; {nearest(group_column, columns)}")
        samples = tuple(_sample_of_row(path, reader.line_num, row, group_column) for row in reader)
    if not samples:
        raise DataError(f"{path}: a header and no rows")
    return VideoSet(samples, str(path))


def _sample_of_row(path: Path, line: int, row: dict[str | None, str | None], group_column: str) -> Sample:
    where = f"{path}:{line}"
    if None in row or None in row.values():
        raise DataError(f"{where}: the row has another number of cells than the header; quote cells that hold commas")
    cells = {str(key): str(value).strip() for key, value in row.items()}
    if not cells["path"] or not cells["label"]:
        raise DataError(f"{where}: path {cells['path']!r}, label {cells['label']!r}: needs both")
    split = cells.get("split", "").lower()
    if split and split not in SPLITS:
        raise DataError(f"{where}: split {split!r}; {nearest(split, SPLITS)}")
    return Sample(
        path=cells["path"] if "://" in cells["path"] else str(path.parent / cells["path"]),
        label=cells["label"],
        start_s=_seconds(where, "start_s", cells.get("start_s", "")) or 0.0,
        end_s=_seconds(where, "end_s", cells.get("end_s", "")),
        split=SPLITS.get(split, ""),
        group=cells.get(group_column, ""),
    )


def _seconds(where: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(f"{where}: {name} {text!r}: needs seconds, 0 or more")
    return seconds
