"""Labelled videos -> parted into training and held-out ones, groups kept whole.

`layouts.py` reads them from folders and lists. Videos of one group (one recording, one person) never stand on both sides of
a split.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from fewframes.core.settings import STRICT, Count, Share
from fewframes.data.folders import IgnoredFile
from fewframes.data.layouts import ReadOptions, Sample, read_layout
from fewframes.errors import DataError


@settings(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """How labels are read, which videos are held out, and how the others are seen."""

    task: Literal["auto", "single", "multilabel"] = "auto"
    """Whether a video shows one action or any number (labels in one cell then parted by semicolons); `auto`: as the data
    are published."""

    holdout: Share = 0.2
    """Share of each action's videos that is held out to measure on, where the data name no split; 0 trains on all."""
    group: str = "group"
    """The CSV's column of groups: what must not stand on both sides of the split (a recording, a person)."""
    videos: str = ""
    """Folder of the videos, when their paths are not relative to the list."""
    official_split: Count = 1
    """Which of the official splits, where the data have several (UCF101, HMDB51)."""
    mirror: bool = True
    """Train on each video mirrored left to right as well; not for actions that differ in left and right."""


@dataclass(frozen=True)
class VideoSet:
    """Labelled videos; `labels` sorted, each with at least one of them."""

    samples: tuple[Sample, ...]
    name: str
    layout: str = ""
    """What the folder or list looked like."""
    multilabel: bool = False
    """Whether a video may have any number of labels; else each has one."""
    notes: tuple[str, ...] = ()
    """What users should know of how it was read: columns used and not used, paths found otherwise than written."""
    left_out: tuple[IgnoredFile, ...] = ()
    """Files and folders beside the videos that were not taken, with their reasons."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The actions, sorted by name."""
        return tuple(sorted({label for sample in self.samples for label in sample.labels}))

    def counts(self) -> dict[str, int]:
        """Videos for each label."""
        return dict(sorted(Counter(label for sample in self.samples for label in sample.labels).items()))

    def targets(self) -> list[int]:
        """The index of each video's label; of the rarest one where it has several, and after the last where it has none."""
        counts, index = self.counts(), {label: number for number, label in enumerate(self.labels)}
        return [
            min((counts[label], index[label]) for label in sample.labels)[1] if sample.labels else len(index)
            for sample in self.samples
        ]

    def multi_hot(self) -> Tensor:
        """Targets (B, K): 1 where the video has the label."""
        index = {label: number for number, label in enumerate(self.labels)}
        targets_BK = torch.zeros(len(self.samples), len(index))
        for row, sample in enumerate(self.samples):
            targets_BK[row, [index[label] for label in sample.labels]] = 1
        return targets_BK

    def fingerprint(self) -> str:
        """A short key of which videos these are: names, labels, moments, splits and groups, in any order."""
        rows = [
            [Path(sample.path).name, "; ".join(sample.labels), sample.start_s, sample.end_s, sample.split, sample.group]
            for sample in self.samples
        ]
        rows.sort(key=lambda row: [-1.0 if value is None else value for value in row])
        return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()

    def groups(self) -> list[str]:
        """The group of each video; its own path when it has none."""
        return [sample.group or sample.path for sample in self.samples]

    def part(self, name: str) -> VideoSet:
        """The videos of one part of a split: `train`, `val`, `test`, `all`, or `auto`: what is not for training, where anything
        is not. Raises DataError where there is none."""
        splits = {sample.split for sample in self.samples}
        if name == "all" or (name == "auto" and splits <= {"", "train"}):
            return self
        wanted = {"val", "test"} if name == "auto" else {name}
        chosen = [index for index, sample in enumerate(self.samples) if sample.split in wanted]
        if not chosen:
            raise DataError(
                f"{self.name}: no videos of the part {name!r}; it has {', '.join(sorted(splits)) or 'none'}"
            )
        return self.subset(chosen)

    def subset(self, indices: Iterable[int]) -> VideoSet:
        """The videos at these places."""
        return replace(self, samples=tuple(self.samples[index] for index in indices))


def read_data(source: str | Path, config: DataConfig | None = None) -> VideoSet:
    """Labelled videos from a folder or a list in any of the layouts of `layouts.py`; DataError says what is expected."""
    source, config = Path(source), config or DataConfig()
    videos = Path(config.videos) if config.videos else None
    places = ReadOptions(
        videos=videos,
        group_column=config.group,
        split_number=config.official_split,
        label_mark=";" if config.task == "multilabel" else "",
    )
    layout = read_layout(source, places)
    if layout.multilabel and config.task == "single":
        raise DataError(f"{source}: {layout.name} has several labels for a video; take the task 'multilabel' or 'auto'")
    multilabel = layout.multilabel or config.task == "multilabel"
    data = VideoSet(layout.samples, str(source), layout.name, multilabel, layout.notes, layout.left_out)
    if len(data.labels) < 2:
        named = ", ".join(map(repr, data.labels)) or "none"
        above = "; if that is a folder above those of the actions, move them up" if source.is_dir() else ""
        raise DataError(
            f"{source}: {len(data.samples)} videos of {len(data.labels)} action; telling apart takes two (found: {named}){above}"
        )
    return data


def part_counts(data: VideoSet) -> dict[str, dict[str, int]]:
    """For each action its `videos`, those in `train`, `val` and `test` where the data are split, and its `groups`."""
    splits = {sample.split for sample in data.samples}
    parts = ["train", *(part for part in ("val", "test") if part in splits)] if splits - {""} else []
    counts: dict[str, dict[str, int]] = {label: dict.fromkeys(["videos", *parts], 0) for label in data.labels}
    groups: dict[str, set[str]] = {label: set() for label in data.labels}
    for sample, group in zip(data.samples, data.groups(), strict=True):
        for label in sample.labels:
            counts[label]["videos"] += 1
            groups[label].add(group)
            if parts:
                counts[label][sample.split or "train"] += 1  # beside named parts, what has none is for training
    return {label: {**counts[label], "groups": len(groups[label])} for label in data.labels}


def hold_out(data: VideoSet, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Places of the training and of the held-out videos.

    Where the data name a `val` or `test` part that is held out and all else trained on, whatever `share`. Otherwise about
    `share` of each label's videos, groups kept whole; with `share` 0 none are.
    """
    splits = [sample.split for sample in data.samples]
    if {"val", "test"} & set(splits):
        held = [index for index, split in enumerate(splits) if split in ("val", "test")]
    elif share == 0:
        held = []
    else:
        held = _share_of_each_label(data, share, seed)
    held_out = set(held)
    training = [index for index in range(len(data.samples)) if index not in held_out]
    _check_split(data, training, held)
    return training, held


def _share_of_each_label(data: VideoSet, share: float, seed: int) -> list[int]:
    """Whole groups, taken in random order as long as they bring the held-out videos of the labels nearer to the share.

    Of each label at least one video is wanted, and at least one is left.
    """
    hot_BK = data.multi_hot()
    totals_K = hot_BK.sum(dim=0)
    wanted_K = (share * totals_K).round().clamp(min=1)
    rows_of: dict[str, list[int]] = {}
    for row, group in enumerate(data.groups()):
        rows_of.setdefault(group, []).append(row)
    groups = sorted(rows_of)
    held: list[int] = []
    held_K = torch.zeros_like(totals_K)
    for index in torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist():
        rows = rows_of[groups[index]]
        with_it_K = held_K + hot_BK[rows].sum(dim=0)
        nearer = (with_it_K - wanted_K).abs().sum() < (held_K - wanted_K).abs().sum()
        if nearer and (with_it_K < totals_K).all():
            held_K = with_it_K
            held += rows
    if not held:
        raise DataError(
            f"{data.name}: no group can be held out without taking all videos of an action or far more than "
            f"{share:.0%} ({len(groups)} groups, {len(data.samples)} videos); hold out none, or name a split"
        )
    return sorted(held)


def _check_split(data: VideoSet, training: Sequence[int], held: Sequence[int]) -> None:
    groups = data.groups()
    torn = {groups[index] for index in training} & {groups[index] for index in held}
    if torn:
        raise DataError(f"{data.name}: group {min(torn)!r} stands in training and in held-out data ({len(torn)} such)")
    unseen = set(data.labels) - {label for index in training for label in data.samples[index].labels}
    if unseen:
        raise DataError(f"{data.name}: no training video of {', '.join(sorted(unseen))}")
