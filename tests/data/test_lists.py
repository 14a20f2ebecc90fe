"""A list that was written reads back as the same videos, or is refused; never half written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.data.layouts import Sample
from fewframes.data.lists import unlistable, write_list
from fewframes.errors import ConfigError, DataError

ODD = (
    Sample(path="/data/a, b.mp4", labels=('say "hi"',), split="train", group="p 1"),
    Sample(path="/data/c;d.mp4", labels=("shake, hands",), start_s=0.1 + 0.2, end_s=1e-5 + 1, split="val"),
    Sample(path="/data/é 走.mp4", labels=("走る",), end_s=3.0, split="test", group="p,2"),
    Sample(path="/data/#1 'x'.mp4", labels=("a;b",)),
    Sample(path="/data/two\nlines.mp4", labels=("12",)),
    Sample(path="s3://bucket/d e.mp4", labels=("label",)),
)


def test_odd_names_read_back_the_same(tmp_path: Path) -> None:
    write_list(ODD, tmp_path / "odd.csv")
    assert read_data(tmp_path / "odd.csv").samples == ODD


def test_several_labels_read_back_the_same(tmp_path: Path) -> None:
    samples = (
        Sample(path="/a.mp4", labels=("sit, down", "walk")),
        Sample(path="/b.mp4", labels=()),  # none of the actions is an answer too
        Sample(path="/c.mp4", labels=('"run"',), group="g"),
    )
    write_list(samples, tmp_path / "several.csv", multilabel=True)
    data = read_data(tmp_path / "several.csv", DataConfig(task="multilabel"))
    assert (data.samples, data.multilabel) == (samples, True)


def test_paths_hold_wherever_the_list_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    write_list([Sample(path="clips/../a.mp4", labels=("x",)), Sample(path="b.mp4", labels=("y",))], Path("list.csv"))
    (tmp_path / "list.csv").rename(tmp_path / "elsewhere" / "list.csv")
    read = read_data(tmp_path / "elsewhere" / "list.csv").samples
    assert [sample.path for sample in read] == [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (Sample(path=os.fsdecode(b"/caf\xe9.mp4"), labels=("x",)), "its path .* is not UTF-8, lists are; rename it"),
        (Sample(path="/a.mp4", labels=("caf\udce9",)), "its label .* is not UTF-8"),
        (Sample(path="/a.mp4", labels=("cafe\u0301",)), "its label .* has accents apart from"),
        (Sample(path="/a.mp4", labels=("hug ",)), "its label 'hug ' begins or ends with a space"),
        (Sample(path="/a\r.mp4", labels=("hug",)), "holds a line break"),
        (Sample(path="/a.mp4", labels=("hug",), group=" g"), "its group ' g' begins"),
        (Sample(path="/a.mp4", labels=("a;b", "c")), "its label 'a;b' contains the ; that separates labels"),
    ],
)
def test_what_a_list_cannot_hold_is_refused(sample: Sample, reason: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("as it was")
    with pytest.raises(DataError, match=reason):
        write_list([sample], tmp_path / "list.csv", multilabel=len(sample.labels) > 1)
    assert (tmp_path / "list.csv").read_text() == "as it was"
    assert os.listdir(tmp_path) == ["list.csv"]


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(words, words, words | st.just("")), min_size=1, max_size=3))
def test_whatever_is_taken_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    samples = [
        Sample(path=os.path.abspath(f"/x/{name}"), labels=(label,), group=group)
        for name, label, group in rows
        if "://" not in name
    ]
    taken = [*(sample for sample in samples if not unlistable(sample)), ODD[0], ODD[1]]
    path = tmp_path_factory.mktemp("any") / "list.csv"
    write_list(taken, path)
    assert read_data(path).samples == tuple(taken)


def test_no_place_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none/list\.csv: cannot be written \(No such file or directory\)"):
        write_list(ODD, tmp_path / "none" / "list.csv")
