"""A head that is solved on the embeddings of an exported encoder joins its graph, and each file says what numpy says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.data.dataset import read_data
from fewframes.errors import ConfigError, ExportError, WeightsError
from fewframes.export.exporter import export, pans
from fewframes.export.head import write_with_head
from fewframes.inference.predictor import load
from fewframes.models.moments import MOMENT_WEIGHTS, SOLVED_MOMENTS, moment_features
from fewframes.results import Prediction
from fewframes.runtime.graph_runtime import GraphRuntime
from fewframes.runtime.protocol import scores_of
from fewframes.training.config import RunConfig
from fewframes.training.solved.model import start_of
from helpers.models import LABELS

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def int8(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model, exported in int8."""
    predictor = load(tiny_model, device="cpu", dtype="float32", runtime="torch")
    path = tmp_path_factory.mktemp("int8") / "tiny.onnx"
    export(predictor, path, precision="int8", check=pans(predictor)[:1])
    return path


def head_for(width: int, num_classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    num_moments = len(MOMENT_WEIGHTS[SOLVED_MOMENTS])
    weight, bias = np.split(
        np.random.default_rng(0).standard_normal((num_classes, num_moments * width + 1)), [-1], axis=1
    )
    return weight.astype(np.float32), bias[:, 0].astype(np.float32)


def test_the_new_files_have_the_encoder_as_it_is_and_the_new_head(int8: Path, tmp_path: Path) -> None:
    start = GraphRuntime(int8, threads=1)
    weight, bias = head_for(start.frame_width, 2)
    write_with_head(start, tmp_path / "new.onnx", weight, bias, ("left", "right"), "multilabel")
    written = GraphRuntime(tmp_path / "new.onnx", threads=1)
    assert (written.labels, written.task, written.precision) == (("left", "right"), "multilabel", "int8")
    assert (written.view, written.num_frames, written.video_width) == (start.view, 4, start.frame_width)
    for num_frames in (3, 4):  # no more than go through the encoder at once: int8 products of a ViT share their range
        frames = np.random.default_rng(1).integers(0, 256, (num_frames, 3, 32, 32), dtype=np.uint8)
        live = start.embed_frames(frames)
        np.testing.assert_allclose(written.embed_frames(frames), live, atol=1e-6)
        expected = scores_of(moment_features(live[None], SOLVED_MOMENTS) @ weight.T + bias, "multilabel")
        embeddings, whole = written.label_clips(frames[None])
        np.testing.assert_allclose(embeddings[0], live, atol=1e-3)
        for found in (whole, written.encode_windows(live[None])):
            np.testing.assert_allclose(scores_of(found.logits, "multilabel"), expected, atol=1e-3)


def test_files_that_say_something_else_than_the_head_are_refused(
    int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = GraphRuntime(int8, threads=1)
    earlier = onnx.load(int8.with_suffix(".time.onnx"))
    monkeypatch.setattr("fewframes.export.head.traced", lambda model, part: None)
    monkeypatch.setattr("fewframes.export.head.onnx_of", lambda traced, part: earlier)
    with pytest.raises(ExportError, match=r"new.onnx: its answers differ .* by .*; the limit is 1e-04"):
        write_with_head(start, tmp_path / "new.onnx", *head_for(start.frame_width, 3), LABELS, "single")


def test_from_an_int8_file_and_clips_to_int8_files_that_know_the_actions(
    clips: Path, int8: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out, cache = tmp_path / "out", str(tmp_path / "cache")
    arguments = ["train", str(clips), "--head", "solved", "--model", str(int8), "-o", str(out), "--cache", cache]
    done = CliRunner().invoke(app, [*arguments, "--set", "augment.views=0"])
    assert done.exit_code == 3, done.output  # one of the clips is broken
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["frame_encoder_precision"] == "int8"
    assert metrics["left_out"]["report"]["top1"] > 0.8
    assert {path.name for path in out.glob("model*")} == {"model.onnx", "model.frames.onnx", "model.time.onnx"}
    predictor = load(out)
    assert predictor.runtime.kind == "onnxruntime"
    assert predictor.runtime.precision == "int8"
    for label, name in (("redden", "3"), ("turn blue", "2")):
        prediction = predictor.predict(clips / label / f"{name}.mp4")
        assert isinstance(prediction, Prediction)
        assert prediction.top(1)[0].label == label
    again = CliRunner().invoke(app, [*arguments, "--set", "augment.views=0"])
    assert again.exit_code == 2
    assert "model.onnx already" in again.output.replace("\n", " ")
    # Its result can be started from again, as a folder.
    labels = read_data(clips).labels
    assert start_of(RunConfig(start=str(out)), labels, "single").precision == "int8"
    # A model file takes the place of exported files.
    arguments[arguments.index(str(int8))] = str(tiny_model)
    assert CliRunner().invoke(app, [*arguments, "--set", "augment.views=0", "--overwrite"]).exit_code == 3
    assert [path.name for path in out.glob("model*")] == ["model.safetensors"]


def test_exported_files_that_a_head_cannot_be_solved_for(int8: Path, tmp_path: Path) -> None:
    def start(path: Path, **settings: object) -> None:
        start_of(RunConfig(start=str(path), **settings), ("left", "right"), "single")  # type: ignore[arg-type]

    with pytest.raises(
        ConfigError, match=r"tiny.xml: a head is solved for .onnx files alone; export the model as .onnx"
    ):
        start(tmp_path / "tiny.xml")
    with pytest.raises(ConfigError, match=r"model.num_frames = 8: a solved head keeps the frame encoder of .*\(4\)"):
        start(int8, model={"num_frames": 8})
    with pytest.raises(ConfigError, match="leave init out"):
        start(int8, init="lite0-16")
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(int8.read_bytes())
    with pytest.raises(WeightsError, match=r"alone.frames.onnx: not found"):
        start(alone)
