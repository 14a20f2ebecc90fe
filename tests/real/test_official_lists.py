"""The official lists, as they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fewframes.data.config import DataConfig
from fewframes.data.dataset import hold_out, read_data


@pytest.mark.parametrize(("number", "training", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_ucf101(shared: Path, number: int, training: int, test: int) -> None:
    data = read_data(shared / "data" / "annotations" / "ucf101", DataConfig(official_split=number))
    assert Counter(sample.split for sample in data.samples) == {"train": training, "test": test}
    assert len(data.labels) == 101
    assert data.counts()["YoYo"] == 128
    assert len(hold_out(data, 0.2, seed=0)[1]) == test  # and no group stands on both sides


@pytest.mark.parametrize("number", [1, 2, 3])
def test_hmdb51(shared: Path, number: int) -> None:
    data = read_data(
        shared / "data" / "annotations" / "hmdb51" / "data" / "hmdb51_splits", DataConfig(official_split=number)
    )
    assert len(data.labels) == 51
    assert Counter(sample.split for sample in data.samples) == {"train": 70 * 51, "test": 30 * 51}


def test_kinetics(shared: Path) -> None:
    folder = shared / "data" / "annotations" / "kinetics"
    small = read_data(folder / "paddle_val_small_videos.list")
    assert len(small.samples) == 128
    for sample in small.samples:
        assert Path(sample.path).parent.name.replace("_", " ") == sample.labels[0].replace("_", " ").replace("'", "")
    shots = read_data(folder / "videoprism_k400_test_10shot.json")
    assert (len(shots.samples), len(shots.labels), shots.layout) == (4000, 400, "a JSON list")
