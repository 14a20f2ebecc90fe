"""A data set -> train, val and test parts, or folds; what belongs together stays together.

Videos belong together when they have a group in common, or lie in the same file, or (with `contents`) in files of the same
content.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from fewframes.core.cache import content_key
from fewframes.data.dataset import VideoSet, hold_out
from fewframes.errors import DataError

NUM_DRAWS = 16
"""How many random orders of the groups are tried; the one nearest to the share wanted of each action is taken."""


def contents_of(data: VideoSet) -> Iterator[int | dict[str, str]]:
    """The content key of each file; yields how many are done as it goes, at last the keys by path. What cannot be read, and
    what lies behind a URL, has none."""
    paths = list(dict.fromkeys(sample.path for sample in data.samples))
    pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="fewframes-contents")
    keys = {}
    try:
        for number, (path, key) in enumerate(zip(paths, pool.map(_content, paths), strict=True), 1):
            if key:
                keys[path] = key
            yield number
    finally:
        pool.shutdown(cancel_futures=True)
    yield keys


def _content(path: str) -> str:
    try:
        return content_key(path)
    except OSError:
        return ""


def split(
    data: VideoSet, share: float, val_share: float, seed: int, contents: Mapping[str, str] | None = None
) -> VideoSet:
    """The data with about `share` of each action's videos marked `test`, `val_share` marked `val`, the others `train`.

    Raises DataError where that cannot be done, as `data.hold_out`.
    """
    joined = _joined(data, contents or {})
    training, test = _nearest(joined, share, seed)
    return _marked(data, joined, training, test, val_share / (1 - share), seed)


def folds(
    data: VideoSet, num_folds: int, val_share: float, seed: int, contents: Mapping[str, str] | None = None
) -> list[VideoSet]:
    """The data once for each fold: every video is `test` in exactly one of them, `train` (or `val`) in the others.

    Raises DataError where an action would have no video to learn from in one of them.
    """
    # Two seconds to import, and only for folds.
    from sklearn.model_selection import StratifiedGroupKFold

    joined = _joined(data, contents or {})
    num_groups = len(set(joined.groups()))
    if num_groups < num_folds:
        raise DataError(f"{data.name}: {num_folds} folds need as many groups; it has {num_groups}")
    splitter = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # actions with fewer videos than folds: checked by _marked, by groups
        parted = [
            (training.tolist(), test.tolist())
            for training, test in splitter.split(joined.samples, joined.targets(), joined.groups())
        ]
    if not all(test for _, test in parted):
        raise DataError(f"{data.name}: its {num_groups} groups are too uneven for {num_folds} folds; take fewer")
    rest = val_share / (1 - 1 / num_folds)
    return [_marked(data, joined, training, test, rest, seed) for training, test in parted]


def _nearest(data: VideoSet, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Of several draws of `hold_out` the one whose shares of the actions are nearest to the one wanted."""
    hot_BK = data.multi_hot()
    totals_K = hot_BK.sum(dim=0)

    def distance(draw: tuple[list[int], list[int]]) -> float:
        return float((hot_BK[draw[1]].sum(dim=0) / totals_K - share).abs().sum())

    return min((hold_out(data, share, seed * NUM_DRAWS + number) for number in range(NUM_DRAWS)), key=distance)


def _joined(data: VideoSet, contents: Mapping[str, str]) -> VideoSet:
    """The data without their split, each sample's group the first sample that it belongs together with."""
    leader: dict[str, str] = {}

    def first(mark: str) -> str:
        while leader.setdefault(mark, mark) != mark:
            leader[mark] = leader[leader[mark]]
            mark = leader[mark]
        return mark

    marks = []
    for sample in data.samples:
        file = f"content {contents[sample.path]}" if sample.path in contents else f"file {sample.path}"
        marks.append(file)
        if sample.group:
            leader[first(f"group {sample.group}")] = first(file)
    samples = [replace(sample, split="", group=first(mark)) for sample, mark in zip(data.samples, marks, strict=True)]
    return replace(data, samples=tuple(samples))


def _marked(
    data: VideoSet, joined: VideoSet, training: list[int], test: list[int], val_share: float, seed: int
) -> VideoSet:
    """The data with these rows marked, and a share of the training ones marked `val`."""
    unlearned = set(data.labels) - set(joined.subset(training).labels)
    if unlearned:
        raise DataError(
            f"{data.name}: all videos of {', '.join(sorted(unlearned))} would be test; they are too few groups: take fewer "
            "folds, another seed, or leave the action out"
        )
    _, val = _nearest(joined.subset(training), val_share, seed)
    marks = dict.fromkeys(test, "test") | {training[row]: "val" for row in val}
    return replace(
        data,
        samples=tuple(replace(sample, split=marks.get(row, "train")) for row, sample in enumerate(data.samples)),
    )
