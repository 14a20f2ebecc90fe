"""Splits: shares as asked for, what belongs together on one side, each video tested once in folds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fewframes.data.dataset import VideoSet, part_counts
from fewframes.data.layouts import Sample
from fewframes.data.splits import contents_of, folds, split
from fewframes.errors import DataError

LABELS = ("hug", "kick", "push")


def made(num_groups: int = 20, takes: int = 2) -> VideoSet:
    return VideoSet(
        tuple(
            Sample(path=f"/{label}{group}-{take}", labels=(label,), group=f"g{group}")
            for label in LABELS
            for group in range(num_groups)
            for take in range(takes)
        ),
        "made",
    )


def parts_of(data: VideoSet, key: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for sample in data.samples:
        found.setdefault(getattr(sample, key), set()).add(sample.split)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_shares_of_each_action_in_whole_groups(seed: int) -> None:
    parted = split(made(), 0.2, 0.1, seed)
    assert part_counts(parted)["hug"] == {"videos": 40, "train": 28, "val": 4, "test": 8, "groups": 20}
    assert all(len(parts) == 1 for parts in parts_of(parted, "group").values())
    assert [replace(sample, split="") for sample in parted.samples] == list(made().samples)


@pytest.mark.parametrize("seed", range(6))
def test_uneven_groups_come_near_the_share_all_the_same(seed: int) -> None:
    sizes = {
        label: [1 + (number * step) % 7 for number in range(9)] for label, step in zip(LABELS, (1, 3, 5), strict=True)
    }
    samples = [
        Sample(path=f"/{label}{group}-{take}", labels=(label,), group=f"g{group}")
        for label in LABELS
        for group, size in enumerate(sizes[label])
        for take in range(size)
    ]
    counts = part_counts(split(VideoSet(tuple(samples), "uneven"), 0.25, 0, seed))
    for label in LABELS:
        assert counts[label]["test"] / counts[label]["videos"] == pytest.approx(0.25, abs=0.11)


def test_the_seed_decides() -> None:
    assert split(made(), 0.2, 0.1, 1) == split(made(), 0.2, 0.1, 1) != split(made(), 0.2, 0.1, 2)


def test_without_val_and_without_test() -> None:
    assert set(part_counts(split(made(), 0.25, 0, 0))["kick"]) == {"videos", "train", "test", "groups"}
    assert part_counts(split(made(), 0, 0.25, 0))["kick"] == {"videos": 40, "train": 30, "val": 10, "groups": 20}


def test_an_old_split_has_no_say() -> None:
    old = replace(made(), samples=tuple(replace(sample, split="test") for sample in made().samples))
    assert split(old, 0.2, 0, 3) == split(made(), 0.2, 0, 3)


@pytest.mark.parametrize("seed", range(4))
def test_equal_contents_join_their_groups(seed: int) -> None:
    data = made()
    # hug0 of g0 is a copy of kick1 of g1, that of push2 of g2: the three groups are one.
    contents = {"/hug0-0": "same", "/kick1-1": "same", "/push2-0": "same"}
    for parted in [split(data, 0.3, 0.2, seed, contents), *folds(data, 3, 0.1, seed, contents)]:
        parts = parts_of(parted, "group")
        assert len(parts["g0"] | parts["g1"] | parts["g2"]) == 1
    apart = [split(data, 0.3, 0.2, other) for other in range(8)]
    assert any(len(set.union(*(parts_of(one, "group")[g] for g in ("g0", "g1", "g2")))) > 1 for one in apart)


def test_parts_of_one_file_stay_together() -> None:
    samples = [
        Sample(path=f"/{number}", labels=(LABELS[part],), start_s=float(part), group=f"g{number}{part}")
        for number in range(12)
        for part in range(3)
    ]
    for parted in folds(VideoSet(tuple(samples), "parts"), 4, 0, 0):
        assert all(len(parts) == 1 for parts in parts_of(parted, "path").values())


@pytest.mark.parametrize("num_folds", [2, 5, 20])
def test_each_video_is_test_in_exactly_one_fold(num_folds: int) -> None:
    parted = folds(made(), num_folds, 0, 0)
    tested = Counter(sample.path for fold in parted for sample in fold.samples if sample.split == "test")
    assert tested == Counter(sample.path for sample in made().samples)
    for fold in parted:
        assert all(len(parts) == 1 for parts in parts_of(fold, "group").values())
        assert part_counts(fold)["push"]["test"] == 40 / num_folds
    assert parted != folds(made(), num_folds, 0, 1)


def test_folds_with_val() -> None:
    for fold in folds(made(), 4, 0.25, 0):
        assert part_counts(fold)["hug"] == {"videos": 40, "train": 20, "val": 10, "test": 10, "groups": 20}


def test_several_labels() -> None:
    samples = [
        Sample(path=f"/{n}", labels=tuple(label for bit, label in enumerate(LABELS) if n >> bit & 1)) for n in range(64)
    ]
    parted = split(VideoSet(tuple(samples), "several", multilabel=True), 0.25, 0, 0)
    assert [part_counts(parted)[label]["test"] for label in LABELS] == pytest.approx([8, 8, 8], abs=2)


def test_what_cannot_be_split_is_refused() -> None:
    lone = (*made().samples, Sample(path="/only", labels=("wave",)))
    with pytest.raises(DataError, match="all videos of wave would be in test; they have too few groups"):
        folds(VideoSet(lone, "lone"), 3, 0, 0)
    assert part_counts(split(VideoSet(lone, "lone"), 0.2, 0, 0))["wave"]["test"] == 0  # rather train than test alone
    with pytest.raises(DataError, match="21 folds need at least as many groups; the data have 20"):
        folds(made(), 21, 0, 0)
    with pytest.raises(DataError, match="no group can be held out"):
        split(made(1), 0.2, 0, 0)


def test_contents_are_compared_whatever_the_name(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"2"), ("copy of a", b"1")):
        (tmp_path / name).write_bytes(content)
    names = ["a", "b", "copy of a", "a", "none"]
    data = VideoSet(tuple(Sample(path=str(tmp_path / name), labels=("x",)) for name in names), "files")
    *done, keys = contents_of(data)
    assert done == [1, 2, 3, 4]
    assert isinstance(keys, dict)
    assert set(keys) == {str(tmp_path / name) for name in ("a", "b", "copy of a")}
    assert keys[str(tmp_path / "a")] == keys[str(tmp_path / "copy of a")] != keys[str(tmp_path / "b")]
