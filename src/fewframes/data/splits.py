"""Split a data set into train, val and test parts, or into folds. Videos that belong together stay together.

Videos belong together if they have the same group, or are in the same file, or (with `contents`) in files of the same content.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from fewframes.core.cache import content_key
from fewframes.core.process import num_cores, worked_ahead
from fewframes.data.dataset import VideoSet, hold_out
from fewframes.errors import DataError

NUM_DRAWS = 16
"""The number of random orders of the groups that are tried. The one that comes nearest to the wanted fractions is taken."""


def contents_of(data: VideoSet) -> Iterator[int | dict[str, str]]:
    """Compute the content key of each file. Yields the number of files done after each, and the keys by path at the end.

    A file that cannot be read, or is behind a URL, has no key.
    """
    paths = list(dict.fromkeys(sample.path for sample in data.samples))
    keys = {}
    for number, (path, key) in enumerate(worked_ahead(paths, _content, num_cores()), 1):
        if isinstance(key, str) and key:
            keys[path] = key
        yield number
    yield keys


def _content(path: str) -> str:
    try:
        return content_key(path)
    except OSError:
        return ""


def split(
    data: VideoSet, fraction: float, val_fraction: float, seed: int, contents: Mapping[str, str] | None = None
) -> VideoSet:
    """Return the data split at random into `test`, `val` and `train`.

    Args:
        data: The labelled videos. A split that they name is replaced.
        fraction: Fraction of each action's videos for `test`, about.
        val_fraction: Fraction of each action's videos for `val`, about.
        seed: Seed of the random orders.
        contents: Content key of each path, by which copies of a file stay together.

    Raises:
        DataError: That cannot be done with whole groups, as in `hold_out`.
    """
    joined = _joined(data, contents or {})
    training, test = _nearest(joined, fraction, seed)
    return _marked(data, joined, training, test, val_fraction / (1 - fraction), seed)


def folds(
    data: VideoSet, num_folds: int, val_fraction: float, seed: int, contents: Mapping[str, str] | None = None
) -> list[VideoSet]:
    """Return the data once for each fold. Every video is `test` in exactly one of them, and `train` or `val` in the others.

    Args:
        data: The labelled videos. A split that they name is replaced.
        num_folds: Number of folds.
        val_fraction: Fraction of each action's videos for `val` in each fold, about.
        seed: Seed of the random orders.
        contents: Content key of each path, by which copies of a file stay together.

    Raises:
        DataError: There are too few groups, or an action would have no video to learn from in one of the folds.
    """
    # late: it takes two seconds to import, and only folds need it
    from sklearn.model_selection import StratifiedGroupKFold

    joined = _joined(data, contents or {})
    num_groups = len(set(joined.groups()))
    if num_groups < num_folds:
        raise DataError(f"{data.name}: {num_folds} folds need at least as many groups; the data have {num_groups}")
    splitter = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # scikit-learn warns of actions with fewer videos than folds. `_marked` checks them, by groups.
        warnings.simplefilter("ignore", UserWarning)
        splits = [
            (training.tolist(), test.tolist())
            for training, test in splitter.split(joined.samples, joined.targets(), joined.groups())
        ]
    if not all(test for _, test in splits):
        raise DataError(f"{data.name}: its {num_groups} groups are too uneven for {num_folds} folds; take fewer folds")
    fraction_of_training = val_fraction / (1 - 1 / num_folds)
    return [_marked(data, joined, training, test, fraction_of_training, seed) for training, test in splits]


def _nearest(data: VideoSet, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the best of several draws of `hold_out`: the one whose fractions of the actions are nearest to the wanted one."""
    hot_BK = data.multi_hot()
    totals_K = hot_BK.sum(axis=0)

    def distance(draw: tuple[list[int], list[int]]) -> float:
        return float(np.abs(hot_BK[draw[1]].sum(axis=0) / totals_K - fraction).sum())

    return min((hold_out(data, fraction, seed * NUM_DRAWS + number) for number in range(NUM_DRAWS)), key=distance)


def _joined(data: VideoSet, contents: Mapping[str, str]) -> VideoSet:
    """Return the data without their split, each sample's group replaced by a name for all that it belongs together with.

    Groups, files and contents are joined by union-find: samples in one file join their groups, and so do equal files.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]  # halves the path, so that later look-ups are short
            key = parent[key]
        return key

    keys = []
    for sample in data.samples:
        file = f"content {contents[sample.path]}" if sample.path in contents else f"file {sample.path}"
        keys.append(file)
        if sample.group:
            parent[root(f"group {sample.group}")] = root(file)
    samples = [replace(sample, split="", group=root(key)) for sample, key in zip(data.samples, keys, strict=True)]
    return replace(data, samples=tuple(samples))


def _marked(
    data: VideoSet, joined: VideoSet, training: list[int], test: list[int], val_fraction: float, seed: int
) -> VideoSet:
    """Return the data with these rows marked as `test` and `train`, and a fraction of the training rows as `val`.

    Args:
        data: The labelled videos.
        joined: The same videos, with groups as `_joined` makes them.
        training: Rows of the training videos.
        test: Rows of the test videos.
        val_fraction: Fraction of the training videos of each action, about.
        seed: Seed of the random orders.
    """
    unlearned = set(data.labels) - set(joined.subset(training).labels)
    if unlearned:
        raise DataError(
            f"{data.name}: all videos of {', '.join(sorted(unlearned))} would be in test; they have too few groups: take fewer "
            "folds, another seed, or leave the action out"
        )
    _, val = _nearest(joined.subset(training), val_fraction, seed)
    marks = dict.fromkeys(test, "test") | {training[row]: "val" for row in val}
    return replace(
        data,
        samples=tuple(replace(sample, split=marks.get(row, "train")) for row, sample in enumerate(data.samples)),
    )
