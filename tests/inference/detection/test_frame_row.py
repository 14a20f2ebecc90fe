"""Frames at another interval are the nearest ones of those that are read, and readers get theirs whatever comes when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fewframes.inference.detection.frame_row import SteadyFrames, opened_row
from fewframes.inference.predictor import Predictor, load
from fewframes.runtime.protocol import Floats
from helpers.numbered import drifting


class Kept:
    """Keeps the frames that come."""

    def __init__(self) -> None:
        self.parts: list[Floats] = []

    def add(self, rows_ND: Floats) -> None:
        assert len(rows_ND)
        self.parts.append(rows_ND)


def test_frames_at_another_interval_are_the_nearest() -> None:
    frames = SteadyFrames(np.linspace(2.125, 11.875, 40), 0.25)
    assert frames.at(0.25, 16) is frames
    fewer = frames.at(0.4, 16)
    assert len(fewer.times_s) == 25
    assert fewer.indices is not None
    assert (fewer.start_s, fewer.length_s) == pytest.approx((frames.start_s, frames.length_s))
    assert np.abs(frames.times_s[fewer.indices] - fewer.times_s).max() <= 0.125 + 1e-9
    assert frames.at(2.0, 16).interval_s == 10 / 16  # never fewer than the model looks at
    more = frames.at(0.1, 16)
    assert len(more.times_s) == 100
    assert more.indices is not None
    assert (np.diff(more.indices) >= 0).all()
    assert set(more.indices.tolist()) == set(range(40))


def test_each_reader_gets_its_own_frames(tiny_model: Path, tmp_path: Path) -> None:
    predictor: Predictor = load(tiny_model, device="cpu", dtype="float32")
    film = drifting(tmp_path / "film.mp4", "libx264", 700, gop=50, options={})
    asked: list[float] = []

    def interval_of(length_s: float) -> float:
        asked.append(length_s)
        return 0.05

    with opened_row(predictor, film, interval_of) as row:
        readers = [(Kept(), row.frames), (Kept(), row.frames.at(0.12, 16)), (Kept(), row.frames.at(9.0, 2))]
        row.read(readers)
    assert asked == [pytest.approx(28.0)]
    whole = np.concatenate(readers[0][0].parts)
    assert (len(readers[0][0].parts), len(whole)) == (3, 560)  # 256 frames at a time
    assert not row.missing.any()
    for reader, own in readers[1:]:
        assert own.indices is not None
        assert_allclose(np.concatenate(reader.parts), whole[own.indices])
