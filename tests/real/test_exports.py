"""The packaged model as graphs, on real videos: in each precision they say what it says, and `predict` without torch, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewframes.export.exporter import export
from fewframes.inference.predictor import load
from fewframes.results import Prediction
from fewframes.runtime.graphs import Precision

pytest.importorskip("onnx")
NUM_CALIBRATION = 8


@pytest.mark.parametrize(
    ("precision", "embeddings", "scores"), [("float32", 1e-4, 0.02), ("float16", 0.03, 0.03), ("int8", 0.3, 0.2)]
)
def test_graphs_of_the_packaged_model(
    precision: Precision, embeddings: float, scores: float, shared: Path, tmp_path: Path
) -> None:
    predictor = load("lite0-16", device="cpu", dtype="float32", runtime="torch")
    videos = sorted((shared / "data" / "ut_interaction").glob("*/*.avi"))
    some, others = videos[:: len(videos) // NUM_CALIBRATION], videos[5 :: len(videos) // 5]
    clips = [predictor.read_clip(path) for path in some]
    done = export(predictor, tmp_path / "lite.onnx", precision=precision, calibrate=clips)
    assert done.agreement.top1 == 1
    assert done.agreement.frame_embeddings < embeddings
    exported = load(tmp_path / "lite.onnx")
    for said, live in zip(exported.predict_many(others), predictor.predict_many(others), strict=True):
        assert isinstance(said, Prediction)
        assert isinstance(live, Prediction)
        assert said.top(1)[0].label == live.top(1)[0].label
        assert said.times_s.tolist() == live.times_s.tolist()
        np.testing.assert_allclose(said.scores, live.scores, atol=scores)
