"""Labelled videos as one value, and their division into training and held-out videos.

`layouts.py` reads them from folders and lists. Videos of one group (a recording, a person) are never on both sides of a split,
because a model would recognise the group instead of the action.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewframes.data.config import DataConfig
from fewframes.data.folders import IgnoredFile
from fewframes.data.layouts import ReadOptions, Sample, read_layout
from fewframes.errors import DataError
from fewframes.results import is_background


@dataclass(frozen=True)
class VideoSet:
    """A set of labelled videos. Each of its labels has at least one video."""

    samples: tuple[Sample, ...]
    name: str
    layout: str = ""
    """Name of the layout of the folder or list."""
    multilabel: bool = False
    """True if a video may have any number of labels; otherwise each has exactly one."""
    notes: tuple[str, ...] = ()
    """Notes for users on how it was read: columns used and not used, paths found elsewhere than written."""
    left_out: tuple[IgnoredFile, ...] = ()
    """Files and folders beside the videos that were not taken, with their reasons."""
    scenes_sought: bool = False
    """True if videos of one scene were looked for (scenes/groups.py), whether or not groups came of it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The actions, sorted by name."""
        return tuple(sorted({label for sample in self.samples for label in sample.labels}))

    def counts(self) -> dict[str, int]:
        """Return the number of videos of each label."""
        return dict(sorted(Counter(label for sample in self.samples for label in sample.labels).items()))

    def targets(self) -> list[int]:
        """Return the index of each video's label. It is the rarest label of several, and the number of labels if there is none."""
        counts, index = self.counts(), {label: number for number, label in enumerate(self.labels)}
        return [
            min((counts[label], index[label]) for label in sample.labels)[1] if sample.labels else len(index)
            for sample in self.samples
        ]

    def multi_hot(self) -> NDArray[np.float32]:
        """Return targets (B, K) float32: 1 where the video has the label, else 0."""
        index = {label: number for number, label in enumerate(self.labels)}
        targets_BK = np.zeros((len(self.samples), len(index)), dtype=np.float32)
        for row, sample in enumerate(self.samples):
            targets_BK[row, [index[label] for label in sample.labels]] = 1
        return targets_BK

    def fingerprint(self) -> str:
        """Return a short key of these videos: of their file names, labels, times, splits and groups, in any order."""
        rows = [
            [
                os.path.basename(sample.path.rstrip("/")),
                "; ".join(sample.labels),
                sample.start_s,
                sample.end_s,
                sample.split,
                sample.group,
            ]
            for sample in self.samples
        ]
        rows.sort(key=lambda row: [-1.0 if value is None else value for value in row])
        return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()

    def groups(self) -> list[str]:
        """Return the group of each video; its own path if it has none."""
        return [sample.group or sample.path for sample in self.samples]

    def part(self, name: str) -> VideoSet:
        """Return the videos of one part of a split: `train`, `val`, `test`, `all` or `auto`. Raises DataError if it has none.

        `auto` is `val` and `test` together, or all videos if the data name neither.
        """
        splits = {sample.split for sample in self.samples}
        if name == "all" or (name == "auto" and splits <= {"", "train"}):
            return self
        wanted = {"val", "test"} if name == "auto" else {name}
        chosen = [index for index, sample in enumerate(self.samples) if sample.split in wanted]
        if not chosen:
            raise DataError(
                f"{self.name}: no videos in the part {name!r}; the data have {', '.join(sorted(splits)) or 'none'}"
            )
        return self.subset(chosen)

    def split_background(self, least_actions: int = 2) -> tuple[VideoSet, VideoSet]:
        """Return the videos of actions, and those of background: labelled `background`, `none` or the like (`is_background`).

        With fewer actions than `least_actions` beside it, the background is one of the labels to tell apart, and no video is split
        off.
        """
        if sum(not is_background(label) for label in self.labels) < least_actions:
            return self, replace(self, samples=())
        background = self.background_rows(least_actions)
        actions = self.subset(index for index in range(len(self.samples)) if index not in background)
        # A video with several labels may have an action beside the word for none.
        cleaned = tuple(
            replace(sample, labels=tuple(label for label in sample.labels if not is_background(label)))
            for sample in actions.samples
        )
        return replace(actions, samples=cleaned), self.subset(sorted(background))

    def background_rows(self, least_actions: int = 2) -> set[int]:
        """Return the indices of the videos that `split_background` splits off."""
        if sum(not is_background(label) for label in self.labels) < least_actions:
            return set()
        return {
            index
            for index, sample in enumerate(self.samples)
            if sample.labels and all(map(is_background, sample.labels))
        }

    def split_marked(self) -> tuple[VideoSet, VideoSet]:
        """Return the videos to learn from, and those that the data mark as `val` or `test`."""
        return (
            self.subset(index for index, sample in enumerate(self.samples) if not sample.held_out),
            self.subset(index for index, sample in enumerate(self.samples) if sample.held_out),
        )

    def subset(self, indices: Iterable[int]) -> VideoSet:
        """Return the videos at these indices, in this order."""
        return replace(self, samples=tuple(self.samples[index] for index in indices))


def read_data(source: str | Path, config: DataConfig | None = None) -> VideoSet:
    """Read labelled videos from a folder or a list in any of the layouts of `layouts.py`.

    Raises DataError, which says what was found and what is expected.
    """
    source, config = Path(source), config or DataConfig()
    videos = Path(config.videos) if config.videos else None
    options = ReadOptions(
        videos=videos,
        group_column=config.group,
        split_number=config.official_split,
        label_separator=";" if config.task == "multilabel" else "",
    )
    read = read_layout(source, options)
    if read.multilabel and config.task == "single":
        raise DataError(f"{source}: {read.name} has several labels per video; use the task 'multilabel' or 'auto'")
    multilabel = read.multilabel or config.task == "multilabel"
    data = VideoSet(read.samples, str(source), read.name, multilabel, read.notes, read.left_out)
    if len(data.labels) < 2:
        found = f"only one action found, {data.labels[0]!r}" if data.labels else "no action found"
        above = "; if that is a folder above those of the actions, move them up" if source.is_dir() else ""
        raise DataError(f"{source}: {found} ({len(data.samples)} videos); training needs at least two{above}")
    return data


def part_counts(data: VideoSet) -> dict[str, dict[str, int]]:
    """Return for each action the number of its `videos`, of those in `train`, `val` and `test` if the data are split, and of its
    `groups`."""
    splits = {sample.split for sample in data.samples}
    parts = ["train", *(part for part in ("val", "test") if part in splits)] if splits - {""} else []
    counts: dict[str, dict[str, int]] = {label: dict.fromkeys(["videos", *parts], 0) for label in data.labels}
    groups: dict[str, set[str]] = {label: set() for label in data.labels}
    for sample, group in zip(data.samples, data.groups(), strict=True):
        for label in sample.labels:
            counts[label]["videos"] += 1
            groups[label].add(group)
            if parts:
                counts[label][sample.split or "train"] += (
                    1  # if the data name parts, a video without one is for training
                )
    return {label: {**counts[label], "groups": len(groups[label])} for label in data.labels}


def grouped(rows: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Return lists of the rows that have the same key, in the order of the first row of each."""
    found: dict[Hashable, list[int]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.values())


def has_spans(data: VideoSet) -> bool:
    """Return True if the data label parts of longer videos."""
    return any(sample.end_s is not None or sample.start_s > 0 for sample in data.samples)


def hold_out(data: VideoSet, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of the training and of the held-out videos.

    If the data name a `val` or `test` part, that is held out, whatever `fraction` is. Otherwise about `fraction` of each label's
    videos are held out, in whole groups; none for a `fraction` of 0. Raises DataError if that is not possible.
    """
    held = [index for index, sample in enumerate(data.samples) if sample.held_out]
    if not held and fraction:
        held = _fraction_of_each_label(data, fraction, seed)
    held_out = set(held)
    training = [index for index in range(len(data.samples)) if index not in held_out]
    _check_split(data, training, held)
    return training, held


def _fraction_of_each_label(data: VideoSet, fraction: float, seed: int) -> list[int]:
    """Return the indices of held-out videos, about a fraction of those of each label.

    Whole groups are taken in random order, if they bring the numbers of held-out videos nearer to the wanted ones. At least one
    video of each label is wanted, and at least one is left for training.
    """
    hot_BK = data.multi_hot()
    totals_K = hot_BK.sum(axis=0)
    wanted_K = np.maximum((fraction * totals_K).round(), 1)
    rows_of: dict[str, list[int]] = {}
    for row, group in enumerate(data.groups()):
        rows_of.setdefault(group, []).append(row)
    groups = sorted(rows_of)
    held: list[int] = []
    held_K = np.zeros_like(totals_K)
    for index in _random_order(len(groups), seed):
        rows = rows_of[groups[index]]
        with_it_K = held_K + hot_BK[rows].sum(axis=0)
        nearer = np.abs(with_it_K - wanted_K).sum() < np.abs(held_K - wanted_K).sum()
        if nearer and (with_it_K < totals_K).all():
            held_K = with_it_K
            held += rows
    if not held:
        raise DataError(
            f"{data.name}: no group can be held out without taking all videos of an action, or far more than "
            f"{fraction:.0%} ({len(groups)} groups, {len(data.samples)} videos); hold out none, or name a split in the data"
        )
    return sorted(held)


def _random_order(num_items: int, seed: int) -> list[int]:
    """Return 0 to `num_items` - 1 in a random order: the one of `torch.randperm` with this seed, which splits have always had."""
    generator = np.random.RandomState(seed & 0xFFFF_FFFF)  # both seed a Mersenne Twister with the lower 32 bits
    order = list(range(num_items))
    for index in range(num_items - 1):
        other = index + int.from_bytes(generator.bytes(4), "little") % (num_items - index)
        order[index], order[other] = order[other], order[index]
    return order


def _check_split(data: VideoSet, training: Sequence[int], held: Sequence[int]) -> None:
    groups = data.groups()
    divided = {groups[index] for index in training} & {groups[index] for index in held}
    if divided:
        raise DataError(
            f"{data.name}: group {min(divided)!r} is in both training and held-out data ({len(divided)} such groups); move each to "
            "one part"
        )
    unseen = set(data.labels) - {label for index in training for label in data.samples[index].labels}
    if unseen:
        raise DataError(
            f"{data.name}: all videos of {', '.join(sorted(unseen))} are held out; training needs at least one"
        )
