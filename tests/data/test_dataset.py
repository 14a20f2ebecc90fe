"""Folders and lists become labelled videos; groups stay whole; mistakes are named with file and line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet, _random_order, hold_out, read_data
from fewframes.data.layouts import Sample
from fewframes.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_folder_for_each_action(tmp_path: Path) -> None:
    touch(
        tmp_path, "kick/b.mp4", "kick/deep/er/a.AVI", "hug/c d.webm", "hug/notes.txt", "hug/._c d.webm", "hug/thumbs/1.jpg",
        "manifest.csv", "wave/img/1.png", "wave/img/2.png", ".trash/hug/x.mp4", "empty/readme.txt",
    )  # fmt: skip
    data = read_data(tmp_path)
    assert data.labels == ("hug", "kick", "wave")
    assert data.counts() == {"hug": 1, "kick": 2, "wave": 1}
    assert [Path(sample.path).name for sample in data.samples] == ["c d.webm", "b.mp4", "a.AVI", "img"]
    assert data.targets() == [0, 1, 1, 2]


def test_folders_already_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/hug/a.mp4", "train/kick/b.mp4", "val/hug/c.mp4", "test/kick/d.mp4", "notes/x.txt")
    data = read_data(tmp_path)
    training, held = hold_out(data, 0.2, seed=0)
    assert [data.samples[index].split for index in training] == ["train", "train"]
    assert [data.samples[index].split for index in held] == ["test", "val"]


def test_actions_may_be_called_train_and_test_in_a_list(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.mp4", "test/b.mp4")
    with pytest.raises(
        DataError, match="is named like a part of a split, but has 1 video in it and no folders of actions"
    ):
        read_data(tmp_path)
    (tmp_path / "list.csv").write_text("path,label\ntrain/a.mp4,train\ntest/b.mp4,test\n")
    assert read_data(tmp_path / "list.csv").labels == ("test", "train")
    assert read_data(touch(tmp_path / "more", "train/a.mp4", "hug/b.mp4")).labels == ("hug", "train")


def test_csv_with_everything(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "path,label,start_s,end_s,split,group,other\n"
        'a.mp4,hug,1.5,3,train,p1,x\n"b, c.mp4",kick,,,TEST,p2,y\ns3://bucket/d.mp4,kick,,,train,p1,\n',
        encoding="utf-8-sig",
    )
    data = read_data(tmp_path / "list.csv")
    assert data.samples == (
        Sample(path=str(tmp_path / "a.mp4"), labels=("hug",), start_s=1.5, end_s=3.0, split="train", group="p1"),
        Sample(path=str(tmp_path / "b, c.mp4"), labels=("kick",), split="test", group="p2"),
        Sample(path="s3://bucket/d.mp4", labels=("kick",), split="train", group="p1"),
    )


def test_groups_from_any_column(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label,sequence\na.mp4,hug,7\nb.mp4,kick,8\n")
    assert read_data(tmp_path / "list.csv", DataConfig(group="sequence")).groups() == ["7", "8"]
    with pytest.raises(DataError, match=r"list\.csv:1: no column 'sequense' for groups; did you mean 'sequence'\?"):
        read_data(tmp_path / "list.csv", DataConfig(group="sequense"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"list\.csv: empty; needs a line for each video"),
        ("fiel,label\na,b\n", r"list\.csv:1: no column 'path' in fiel, label"),
        ("path,label,start_s,end_s\na,b,3,2\n", r"list\.csv:2: end_s 2 is not after start_s 3"),
        ("path,label\n", r"list\.csv: a header and no rows"),
        ("path,label\na.mp4,hug\nb.mp4\n", r"list\.csv:3: the row has [13] cells, the header 2"),
        ("path,label\na.mp4,hug,kick\n", r"list\.csv:2: the row has [13] cells, the header 2"),
        ("path,label\na.mp4,\n", r"list\.csv:2: path 'a\.mp4', label ''"),
        ("path,label,start_s\na.mp4,hug,soon\n", r"list\.csv:2: start_s 'soon': needs seconds"),
        ("path,label,end_s\na.mp4,hug,-1\n", r"list\.csv:2: end_s '-1': needs seconds"),
        ("path,label,split\na.mp4,hug,trian\n", r"list\.csv:2: split 'trian'; did you mean 'train'\?"),
        (
            "path,label\na.mp4,hug\nb.mp4,hug\n",
            r"only one action found, 'hug' \(2 videos\); training needs at least two",
        ),
    ],
)
def test_mistakes_in_lists(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_data(tmp_path / "list.csv")


def test_folders_without_actions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        read_data(tmp_path / "none")
    with pytest.raises(DataError, match="found: no folders"):
        read_data(tmp_path)
    touch(tmp_path, "hug/readme.txt")
    with pytest.raises(DataError, match=r"no videos in folders of actions \(found: hug\)"):
        read_data(tmp_path)


def made(num_groups: int = 10) -> VideoSet:
    return VideoSet(
        tuple(
            Sample(path=f"{label}{group}{take}", labels=(label,), group=f"g{group}")
            for label in ("hug", "kick", "push")
            for group in range(num_groups)
            for take in range(2)
        ),
        "made",
    )


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_straddle_and_every_label_is_on_both_sides(seed: int) -> None:
    data = made()
    training, held = hold_out(data, 0.2, seed)
    assert sorted(training + held) == list(range(60))
    assert not {data.groups()[index] for index in training} & {data.groups()[index] for index in held}
    assert {data.samples[index].labels[0] for index in held} == {"hug", "kick", "push"}
    assert len(held) == 12


def test_seed_decides_the_split() -> None:
    assert hold_out(made(), 0.2, 1) == hold_out(made(), 0.2, 1) != hold_out(made(), 0.2, 2)


def test_nothing_held_out_on_request() -> None:
    assert hold_out(made(), 0, 0) == (list(range(60)), [])


def test_impossible_splits_are_refused() -> None:
    torn = VideoSet(
        (
            Sample(path="a", labels=("hug",), group="p", split="train"),
            Sample(path="b", labels=("kick",), group="p", split="val"),
            Sample(path="c", labels=("kick",), group="q", split="train"),
        ),
        "torn",
    )
    with pytest.raises(DataError, match="group 'p' is in both training and held-out data"):
        hold_out(torn, 0.2, 0)
    unseen = VideoSet(
        (Sample(path="a", labels=("hug",), split="train"), Sample(path="b", labels=("kick",), split="val")), "unseen"
    )
    with pytest.raises(DataError, match="all videos of kick are held out"):
        hold_out(unseen, 0.2, 0)
    one_group = VideoSet(tuple(replace(sample, group="x") for sample in made().samples), "one")
    with pytest.raises(DataError, match=r"no group can be held out .* \(1 groups, 60 videos\); hold out none"):
        hold_out(one_group, 0.2, 0)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.3, 0.4, 0.7, 0.9])
def test_about_the_share_is_held_out(share: float) -> None:
    _, held = hold_out(made(50), share, seed=0)
    assert len(held) / 300 == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("seed", range(8))
def test_groups_of_very_different_sizes(seed: int) -> None:
    sizes = {"big": 100, "a": 4, "b": 4, "c": 4, "d": 4, "e": 4}
    samples = [
        Sample(path=f"{group}{number}", labels=(("hug", "kick")[number % 2],), group=group)
        for group, size in sizes.items()
        for number in range(size)
    ]
    training, held = hold_out(VideoSet(tuple(samples), "uneven"), 0.2, seed)
    assert 8 <= len(held) <= 20  # never the big one
    assert "big" in {samples[index].group for index in training}


def test_a_few_videos_of_each_action_are_enough() -> None:
    data = VideoSet(tuple(Sample(path=f"{label}{n}", labels=(label,)) for label in "abc" for n in range(3)), "few")
    training, held = hold_out(data, 0.2, 0)
    assert sorted(data.samples[index].labels[0] for index in held) == ["a", "b", "c"]
    assert len(training) == 6


def test_a_fingerprint_is_of_names_labels_and_moments() -> None:
    data = VideoSet((Sample(path="x/a", labels=("hug",)), Sample(path="x/a", labels=("hug",), end_s=1.5)), "one")
    moved = VideoSet(tuple(replace(sample, path="y/a") for sample in reversed(data.samples)), "two")
    assert data.fingerprint() == moved.fingerprint()
    other = replace(data, samples=(data.samples[0], replace(data.samples[1], end_s=2.0)))
    assert other.fingerprint() != data.fingerprint()


def test_parts() -> None:
    split = VideoSet(
        (
            Sample(path="a", labels=("hug",), split="train"),
            Sample(path="b", labels=("kick",), split="val"),
            Sample(path="c", labels=("hug",), split="test"),
        ),
        "split",
    )
    assert [sample.path for sample in split.part("auto").samples] == ["b", "c"]
    assert [sample.path for sample in split.part("test").samples] == ["c"]
    assert split.part("all") is split
    assert made().part("auto") == made()
    with pytest.raises(DataError, match=r"no videos in the part 'test'; the data have train"):
        replace(split, samples=split.samples[:1]).part("test")


@pytest.mark.parametrize(("num_items", "seed"), [(0, 0), (1, 3), (8, 0), (700, 12345), (2000, -3), (9, 2**32 + 5)])
def test_random_order_is_the_one_that_splits_have_always_had(num_items: int, seed: int) -> None:
    torch = pytest.importorskip("torch")
    wanted = torch.randperm(num_items, generator=torch.Generator().manual_seed(seed)).tolist()
    assert _random_order(num_items, seed) == wanted


def test_random_order_is_recorded() -> None:
    assert _random_order(8, 7) == [7, 0, 3, 4, 1, 5, 2, 6]


def test_videos_of_background_are_split_off() -> None:
    labels = ("hug", "Background", "kick", "no_action", "hug", "other")
    data = VideoSet(tuple(Sample(path=f"{row}.mp4", labels=(label,)) for row, label in enumerate(labels)), "x")
    actions, background = data.split_background()
    assert (actions.labels, len(actions.samples)) == (("hug", "kick"), 3)
    assert [sample.path for sample in background.samples] == ["1.mp4", "3.mp4", "5.mp4"]


def test_with_a_single_action_the_background_is_told_apart_from_it() -> None:
    data = VideoSet(tuple(Sample(path=f"{label}.mp4", labels=(label,)) for label in ("fall", "nothing")), "x")
    assert data.split_background() == (data, data.subset(()))
    assert data.split_background(least_actions=1)[0].labels == ("fall",)


def test_a_word_for_none_beside_actions_is_dropped() -> None:
    samples = (
        Sample(path="1.mp4", labels=("hug", "none")),
        Sample(path="2.mp4", labels=("kick",)),
        Sample(path="3.mp4", labels=()),
        Sample(path="4.mp4", labels=("none",)),
    )
    actions, background = VideoSet(samples, "x", multilabel=True).split_background()
    assert [sample.labels for sample in actions.samples] == [("hug",), ("kick",), ()]
    assert [sample.path for sample in background.samples] == ["4.mp4"]
