"""Model files that run without torch: the packaged model and its graphs, caches shared with torch, and damaged files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewframes.errors import WeightsError
from fewframes.inference.predictor import load
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.model_file import Array, ModelFile, read_model_file
from fewframes.models.files.names import packaged_path
from fewframes.models.files.networks import build_model
from fewframes.runtime import keys
from fewframes.runtime.onnx_file import OnnxFileRuntime, load_onnx_file
from fewframes.runtime.open import DEFAULT_MODEL
from fewframes.runtime.protocol import Runtime
from fewframes.runtime.torch_runtime import TorchRuntime
from helpers.models import LABELS, with_statistics

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def runtime() -> OnnxFileRuntime:
    return load_onnx_file(DEFAULT_MODEL, threads=1)


def assert_agree(runtime: Runtime, model: Runtime) -> None:
    draw = np.random.default_rng(0)
    frames_TCHW = draw.integers(0, 256, (5, 3, 224, 224), dtype=np.uint8)
    live_TD = model.embed_frames(frames_TCHW)
    near(runtime.embed_frames(frames_TCHW), live_TD)
    for num_frames in (1, 2, 16, 20):
        windows_BTD = live_TD[draw.integers(0, len(live_TD), (2, num_frames))]
        live = model.encode_windows(windows_BTD, with_attention=True)
        found = runtime.encode_windows(windows_BTD, with_attention=True)
        near(found.logits, live.logits)
        near(found.embedding, live.embedding)
        near(found.frame_attention, live.frame_attention)


def near(found: object, live: object) -> None:
    expected = np.asarray(live)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))


def test_the_packaged_graphs_agree_with_torch_and_fit_the_wheel(runtime: OnnxFileRuntime) -> None:
    assert packaged_path(DEFAULT_MODEL).stat().st_size < 15e6
    live = load(DEFAULT_MODEL, device="cpu", dtype="float32", runtime="torch").torch
    assert_agree(runtime, live)
    assert (runtime.labels, runtime.view, runtime.num_frames) == (live.labels, live.view, live.model.config.num_frames)
    assert (runtime.exits, runtime.task) == (live.checkpoint.exits, "single")


def test_a_model_of_the_same_architecture_runs_on_these_graphs(runtime: OnnxFileRuntime, tmp_path: Path) -> None:
    config = replace(runtime.file.config, num_classes=3, task="multilabel", moment_head=False)
    torch.manual_seed(0)
    model = with_statistics(build_model(config, runtime.view))
    other = Checkpoint(model, runtime.view, LABELS, graphs=runtime.file.graphs)  # type: ignore[arg-type]
    save_checkpoint(tmp_path / "model.safetensors", other)
    trained = load_onnx_file(tmp_path, threads=1)
    assert (trained.labels, trained.task) == (LABELS, "multilabel")
    assert_agree(trained, TorchRuntime(other, device="cpu", dtype="float32"))


def test_divided_logits_are_the_same_in_both_runtimes(runtime: OnnxFileRuntime) -> None:
    """Calibration divides the weights of both heads. That divides the logits, whoever computes them, and nothing else."""
    windows_BTD = np.random.default_rng(0).standard_normal((3, 16, runtime.frame_width), np.float32)
    raw = runtime.encode_windows(windows_BTD)
    live = load(DEFAULT_MODEL, device="cpu", dtype="float32", runtime="torch").torch
    live.model.divide_logits(2.5)
    heads = ("head.weight", "head.bias", "moment_head.linear.weight", "moment_head.linear.bias")
    divided = {key: live.model.state_dict()[key].numpy() for key in heads}
    file = replace(runtime.file, tensors={**runtime.file.tensors, **divided})
    for found in (live.encode_windows(windows_BTD), OnnxFileRuntime(file).encode_windows(windows_BTD)):
        near(found.logits, raw.logits / 2.5)
        near(found.embedding, raw.embedding)


def test_clips_are_encoded_frame_by_frame(runtime: OnnxFileRuntime) -> None:
    frames_BTCHW = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 224, 224), dtype=np.uint8)
    clips_BTD = runtime.encode_clips(frames_BTCHW)
    assert clips_BTD.shape[:2] == (2, 3)
    near(clips_BTD[1], runtime.embed_frames(frames_BTCHW[1]))
    assert runtime.encode_windows(clips_BTD).frame_attention is None
    assert runtime.embed_frames(frames_BTCHW[0, :0]).shape == (0, clips_BTD.shape[2])
    with pytest.raises(ValueError, match=r"takes \(T, 3, 224, 224\)"):
        runtime.embed_frames(frames_BTCHW[0, ..., :200])


def test_embeddings_are_cached_under_the_key_of_torch_in_float32(runtime: OnnxFileRuntime) -> None:
    live = load(DEFAULT_MODEL, device="cpu", dtype="float32", runtime="torch").torch
    state = live.checkpoint.model.frame_encoder.state_dict()
    weights = {key: tensor.numpy() for key, tensor in state.items()}
    assert runtime.encoder_key() == keys.encoder_key(weights, live.model.config, precision="float32", merge=0)
    assert runtime.encoder_key() != keys.encoder_key(weights, live.model.config, precision="bfloat16", merge=0)
    assert runtime.encoder_key() == live.encoder_key() != load(DEFAULT_MODEL, dtype="bfloat16").runtime.encoder_key()


def without(key: str) -> Callable[[dict[str, Array]], object]:
    return lambda tensors: tensors.pop(key)


def set_to(key: str, value: Array) -> Callable[[dict[str, Array]], object]:
    return lambda tensors: tensors.__setitem__(key, value)


STEM, TOKEN = "frame_encoder.conv_stem.weight", "temporal_encoder.cls_token"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("head.bias"), "head.bias is missing"),
        (set_to("head.weight", np.zeros((11, 3), np.float32)), r"head.weight is float32 of shape \(11, 3\)"),
        (set_to("head.bias", np.full(11, np.nan, np.float32)), "head.bias"),
        (set_to("moment_head.linear.bias", np.zeros(11, np.int64)), "int64"),
        (without(STEM), "frames graph cannot be opened"),
        (set_to(STEM, np.zeros((8, 3, 3, 3), np.float32)), "frames graph cannot be opened"),
        (set_to(STEM, np.full((32, 3, 3, 3), np.inf, np.float32)), "conv_stem.weight has values that are no numbers"),
        (set_to("frame_encoder.more", np.zeros(3, np.float32)), "frames graph cannot be opened"),
        (without(TOKEN), "time graph cannot be opened"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    runtime: OnnxFileRuntime, change: Callable[[dict[str, Array]], object], words: str
) -> None:
    tensors = dict(runtime.file.tensors)
    change(tensors)
    with pytest.raises(WeightsError, match=words) as caught:
        OnnxFileRuntime(replace(runtime.file, tensors=tensors), name="mine.safetensors")
    assert str(caught.value).startswith("mine.safetensors: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: {"graphs": {}}, r"no frames graph, so it needs torch; pip install 'fewframes\[train\]'"),
        (lambda file: {"graphs": {**file.graphs, "time": b"junk"}}, "time graph cannot be opened"),
        (lambda file: {"graphs": {**file.graphs, "time": file.graphs["frames"]}}, "time graph"),
        (
            lambda file: {"config": replace(file.config, encoder="vit", cells=0, layout="joint")},
            r"layout 'joint' mixes frames .* pip install 'fewframes\[train\]'",
        ),
    ],
)
def test_files_that_need_torch_say_so(
    runtime: OnnxFileRuntime, change: Callable[[ModelFile], dict[str, object]], words: str
) -> None:
    with pytest.raises(WeightsError, match=words):
        OnnxFileRuntime(replace(runtime.file, **change(runtime.file)), name="mine")  # type: ignore[arg-type]


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    (tmp_path / "stam.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match=r"stam\.pth: not safetensors; only torch reads other files"):
        load_onnx_file(tmp_path / "stam.pth")


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys; import numpy as np; from fewframes.runtime.onnx_file import load_onnx_file; r = load_onnx_file('lite0-16'); "
        "r.encode_windows(r.encode_clips(np.zeros((1, 2, 3, 224, 224), np.uint8))); r.encoder_key(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_is_read_back_is_what_runs(runtime: OnnxFileRuntime) -> None:
    assert read_model_file(packaged_path(DEFAULT_MODEL)).graphs.keys() == {"frames", "time"}
    assert repr(runtime) == "OnnxFileRuntime('lite0-16', 11 labels)"
