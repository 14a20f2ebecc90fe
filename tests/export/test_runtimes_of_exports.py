"""Every runtime of an exported model gives the answers of torch, by every verb, and refuses what it cannot do by name."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewframes.errors import ConfigError, WeightsError
from fewframes.export.exporter import export
from fewframes.export.file_graphs import add_graphs
from fewframes.inference.explain import explain
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import sweep
from fewframes.models.config import ExitPlan
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.networks import build_model
from fewframes.models.rejection.fitting import fit_rejection
from fewframes.runtime.graph_runtime import rejection_of
from fewframes.runtime.graphs import open_graph
from fewframes.runtime.protocol import CachesMotion, DrawsMaps, LabelsClips
from fewframes.video.view import ViewConfig
from helpers.forked import FORKED, lines_of
from helpers.models import LABELS, TINY, shaken
from helpers.runtimes import assert_same_answers
from helpers.unknowns import actions

pytest.importorskip("onnxscript")
VIEW = ViewConfig(resize_px=36, crop_px=32)
CONFIG = replace(TINY, num_frames=8, motion_width=8, moment_head=True, moments="motion", temporal_width=16)
KINDS = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch.export"}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model file with graphs, a plan for early exits, and every part that is optional."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    model = build_model(CONFIG, VIEW)
    shaken(model)
    plan = ExitPlan(stages=((0, 2, 5, 7), tuple(range(8))), temperatures=(1.0, 1.0), threshold=0.9)
    known = actions(3, width=48, num_frames=8)
    rejection = fit_rejection(known.embeddings, known.targets, known.groups)
    save_checkpoint(path, Checkpoint(model.eval(), VIEW, LABELS, exits=plan, rejection=rejection))
    add_graphs(path)
    return path


@pytest.fixture(scope="module")
def live(model_file: Path) -> Predictor:
    return load(model_file, device="cpu", dtype="float32", runtime="torch")


@pytest.fixture(scope="module", params=[".safetensors", *KINDS])
def found(request: pytest.FixtureRequest, live: Predictor, model_file: Path) -> Predictor:
    """Return the same model as another kind of file."""
    if request.param == ".safetensors":
        return load(model_file, runtime="onnxruntime")
    if request.param == ".xml":
        pytest.importorskip("openvino")
    path = model_file.with_name(f"exported{request.param}")
    export(live, path)
    return load(path)


def test_every_verb_gives_the_answers_of_torch(found: Predictor, live: Predictor, videos: Path) -> None:
    assert_same_answers(found, live, [videos / "a.mp4", videos / "b.mp4"])
    for name in ("labels", "view", "num_frames", "any_num_frames", "embeds_frames", "causal", "frame_width", "video_width",
                 "merge", "task", "exits", "device", "precision"):  # fmt: skip
        assert getattr(found.runtime, name) == getattr(live.runtime, name), name
    assert found.runtime.rejection is not None


FORKS = (
    FORKED
    + """
from fewframes.inference.predictor import load

path, video = sys.argv[1:]
model = load(path)
named = model.predict(video).label


def label(of):
    print(of.predict(video).label == named, flush=True)


forked("predict", lambda: refused(lambda: label(model)))
forked("anew", lambda: refused(lambda: label(load(path))))
forked("nothing", lambda: None, 7)
forked("freed", lambda: globals().pop("model"))
label(model)
"""
)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_fork_computes_or_says_to_spawn(found: Predictor, videos: Path) -> None:
    said = "WeightsError True" if found.runtime.kind == "openvino" else "True"
    lines = lines_of(FORKS, found.name, str(videos / "a.mp4"), timeout_s=180)
    assert lines == [said, "predict 0", said, "anew 0", "nothing 7", "freed 0", "True"]


def test_a_damaged_rejection_is_named(live: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export(live, path)
    card = replace(open_graph(path).card, rejection="abc")
    with pytest.raises(WeightsError, match="its rejection is damaged .*; export it again"):
        rejection_of(card, str(path))
    assert rejection_of(replace(card, rejection=""), str(path)) is None
    assert "rejection" not in replace(card, rejection="").to_json()  # as cards were before there was one


def test_abilities_that_are_missing_are_refused_by_name(found: Predictor, videos: Path) -> None:
    kind = found.runtime.kind
    assert not isinstance(found.runtime, DrawsMaps | CachesMotion)
    assert isinstance(found.runtime, LabelsClips) == (not found.name.endswith(".safetensors"))
    assert explain(found, videos / "a.mp4").maps is None
    with pytest.raises(ConfigError, match=f"map 'rollout': {kind} runs .*, and only torch can look inside"):
        explain(found, videos / "a.mp4", maps="rollout")
    with pytest.raises(ConfigError, match=f"{kind} runs this model, and only torch can look inside a network"):
        _ = found.torch


def test_an_exported_model_takes_no_option_of_another_runtime(found: Predictor) -> None:
    if found.name.endswith(".safetensors"):
        return
    for options, words in (
        ({"device": "cuda"}, "device='cuda'"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16'"),
        ({"merge": 2}, "merge=2"),
        ({"runtime": "torch", "device": "mps"}, "device='mps', runtime='torch'"),
    ):
        with pytest.raises(ConfigError, match=f"is an exported model, for which {words} cannot be set; leave that out"):
            load(found.name, **options)  # type: ignore[arg-type]
    assert load(found.name, device="cpu", dtype="float32", merge=found.runtime.merge).runtime.kind == found.runtime.kind


def test_halves_that_are_missing_or_foreign_are_named(live: Predictor, videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "moved.onnx"
    export(live, path)
    (tmp_path / "moved.time.onnx").unlink()
    alone = load(path)
    assert len(alone.predict(videos / "a.mp4").scores) == 3  # the whole model needs no halves
    with pytest.raises(WeightsError, match=r"moved\.time\.onnx: not found; .* need this half beside moved\.onnx"):
        sweep(alone, videos / "a.mp4")
    torch.manual_seed(1)
    model = build_model(CONFIG, VIEW)
    other = Predictor(Checkpoint(model, VIEW, ("a", "b", "c")), device="cpu", dtype="float32")
    export(other, tmp_path / "other.onnx")
    shutil.copy(tmp_path / "other.time.onnx", tmp_path / "moved.time.onnx")
    with pytest.raises(WeightsError, match=r"moved\.time\.onnx: belongs to another model than moved\.onnx"):
        sweep(load(path), videos / "a.mp4")
