"""Graphs of image-text encoders: a model from words runs without torch and without open_clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewframes.export.file_graphs import add_graphs
from fewframes.inference.predictor import Predictor, load
from fewframes.models.words.files import words_model
from fewframes.results import UNKNOWN
from helpers.words import OTHERS, RED_AND_BLUE, write_video

pytest.importorskip("open_clip")
pytest.importorskip("onnxscript")


def test_onnx_runtime_names_the_same_and_knows_the_same_unknowns(image_text: Path, tmp_path: Path) -> None:
    path = words_model(RED_AND_BLUE, tmp_path / "m.safetensors", encoder=str(image_text), background=OTHERS)
    before = load(path, device="cpu", dtype="float32", runtime="torch")
    add_graphs(path)
    after = load(path, runtime="onnxruntime")
    assert isinstance(after, Predictor)
    assert before.runtime.encoder_key() == after.runtime.encoder_key()
    for name, label in (("red circle", "a red circle"), ("stripes", UNKNOWN)):
        video = write_video(tmp_path / "a.mp4", name)
        torchs, onnxs = before.predict(video), after.predict(video)
        assert torchs.label == onnxs.label == label
        np.testing.assert_allclose(torchs.scores, onnxs.scores, atol=1e-3)
        assert torchs.familiarity is not None
        assert onnxs.familiarity is not None
        assert torchs.familiarity.known == pytest.approx(onnxs.familiarity.known, abs=1e-3)
