"""The check on real sets: all of their videos are sound, and no file is there twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewframes.data.check import Inspection, inspect
from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data


@pytest.mark.parametrize(
    ("name", "group", "count"), [("ut_interaction", "sequence", 120), ("fir_rgb", "recording", 288)]
)
def test_real_sets_are_clean(name: str, group: str, count: int, shared: Path) -> None:
    data = read_data(shared / "data" / name / "manifest.csv", DataConfig(group=group))
    *_, found = inspect(data, thorough=True)
    assert isinstance(found, Inspection)
    assert found.problems == ()
    assert len(found.usable.samples) == count
