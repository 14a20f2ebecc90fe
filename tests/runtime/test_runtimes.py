"""Each runtime gives the answers of torch, by every verb; what only one can do is refused by the others with a way out.

Runtimes of exported files are in tests/export/test_runtimes_of_exports.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from fewframes.errors import ConfigError, MissingDependency, WeightsError
from fewframes.inference.explain import explain
from fewframes.inference.predictor import Predictor, load
from fewframes.runtime import open as opening
from fewframes.runtime.onnx_file import OnnxFileRuntime
from fewframes.runtime.open import DEFAULT_MODEL, choice, open_runtime, torch_only
from fewframes.runtime.protocol import CachesMotion, DrawsMaps, LabelsClips, scores_of
from fewframes.runtime.torch_runtime import TorchRuntime
from helpers.runtimes import assert_same_answers

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def live() -> Predictor:
    return load(DEFAULT_MODEL, device="cpu", dtype="float32", runtime="torch")


@pytest.fixture(scope="module")
def onnx() -> Predictor:
    return load(DEFAULT_MODEL, runtime="onnxruntime")


def test_onnx_runtime_gives_the_answers_of_torch_by_every_verb(onnx: Predictor, live: Predictor, videos: Path) -> None:
    assert isinstance(onnx.runtime, OnnxFileRuntime)
    assert_same_answers(onnx, live, [videos / "a.mp4", EXAMPLES / "hug.mp4"])
    assert onnx.runtime.encoder_key() == live.runtime.encoder_key()
    assert onnx.runtime.model_key() == live.runtime.model_key()
    for name in ("labels", "view", "num_frames", "least_frames", "any_num_frames", "embeds_frames", "causal", "frame_width",
                 "video_width", "merge", "task", "exits", "device", "precision"):  # fmt: skip
        assert getattr(onnx.runtime, name) == getattr(live.runtime, name), name


def test_only_torch_looks_inside_the_network(onnx: Predictor, live: Predictor, videos: Path) -> None:
    assert torch_only(live.runtime) is live.torch
    assert isinstance(live.runtime, DrawsMaps)
    assert isinstance(live.runtime, CachesMotion)
    assert not isinstance(onnx.runtime, DrawsMaps | CachesMotion | LabelsClips)
    with pytest.raises(ConfigError, match=r"lite0-16: onnxruntime runs this model, and only torch can look inside"):
        _ = onnx.torch
    assert explain(onnx, videos / "a.mp4").maps is None
    with pytest.raises(ConfigError, match="map 'grad-cam': onnxruntime runs lite0-16, and only torch"):
        explain(onnx, videos / "a.mp4", maps="grad-cam")


def test_a_file_without_graphs_runs_with_torch_and_is_refused_by_onnx_runtime(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=r"has no frames graph, so it needs torch; pip install 'fewframes\[train\]'"):
        open_runtime(tiny_model, runtime="onnxruntime")
    machine(monkeypatch)
    assert open_runtime(tiny_model).kind == "torch"
    machine(monkeypatch, torch=False)
    with pytest.raises(WeightsError, match="has no frames graph, so it needs torch"):
        open_runtime(tiny_model)


def machine(monkeypatch: pytest.MonkeyPatch, *, torch: bool = True, gpu: bool = False, instructions: str = "") -> None:
    """Make this machine seem another one."""
    monkeypatch.setattr(opening, "has_torch", lambda: torch)
    monkeypatch.setattr(opening, "may_have_gpu", lambda: gpu)
    monkeypatch.setattr(opening, "bfloat16_instructions", lambda: instructions)


@pytest.mark.parametrize(
    ("torch", "gpu", "instructions", "chosen", "words"),
    [
        (False, False, "", "onnxruntime", "torch is not installed"),
        (False, True, "AMX", "onnxruntime", "torch is not installed"),
        (True, True, "", "torch", "this machine has a GPU"),
        (True, False, "AMX", "torch", "this CPU has AMX, with which torch computes in bfloat16"),
        (True, False, "AVX512-BF16", "onnxruntime", "with AVX512-BF16 it is as fast as torch in bfloat16"),
        (
            True,
            False,
            "",
            "onnxruntime",
            "no bfloat16 instructions; in float32 it takes about half of torch's processor time",
        ),
    ],
)
def test_the_machine_decides_which_runtime_runs_a_model_file(
    monkeypatch: pytest.MonkeyPatch, torch: bool, gpu: bool, instructions: str, chosen: str, words: str
) -> None:
    machine(monkeypatch, torch=torch, gpu=gpu, instructions=instructions)
    assert choice().runtime == chosen
    assert words in choice().reason
    assert open_runtime(DEFAULT_MODEL).kind == chosen


def test_a_vit_is_run_by_torch_where_bfloat16_halves_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, instructions="AVX512-BF16")
    assert choice("vit").runtime == "torch"
    machine(monkeypatch)
    assert choice("vit").runtime == "onnxruntime"
    assert "half" not in choice("vit").reason  # that was measured for Lite0


def test_options_that_only_torch_can_follow_choose_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    assert open_runtime(DEFAULT_MODEL, device="cpu", dtype="float32", merge=0).kind == "onnxruntime"
    assert open_runtime(DEFAULT_MODEL, runtime="torch").kind == "torch"
    half = open_runtime(DEFAULT_MODEL, dtype="bfloat16")
    assert isinstance(half, TorchRuntime)
    assert half.precision == "bfloat16"
    for options, words in (
        ({"dtype": "bfloat16"}, "dtype='bfloat16' needs the runtime torch; leave that out, or the runtime"),
        ({"device": "cuda:1", "dtype": "float16"}, "device='cuda:1', dtype='float16' needs the runtime torch"),
        ({"merge": 3}, "merge=3 needs the runtime torch"),
    ):
        with pytest.raises(ConfigError, match=words):
            open_runtime(DEFAULT_MODEL, runtime="onnxruntime", **options)  # type: ignore[arg-type]


def test_gpus_are_looked_for_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("os.path.exists", lambda path: path == "/dev/nvidia0")
    for hidden, found in (("", False), ("-1", False), ("0", True)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert opening.may_have_gpu() == found
    monkeypatch.setattr("os.path.exists", lambda _: False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not opening.may_have_gpu()
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert opening.may_have_gpu()


def test_instructions_are_those_that_torch_finds() -> None:
    found = opening.bfloat16_instructions()
    assert (found == "AMX") == torch.cpu._is_amx_tile_supported()
    assert bool(found) == (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def test_scores_are_those_of_torch() -> None:
    logits_BK = 30 * np.random.default_rng(0).standard_normal((5, 7), dtype=np.float32)
    tensor = torch.from_numpy(logits_BK)
    assert_allclose(scores_of(logits_BK, "single"), tensor.softmax(-1).numpy(), rtol=1e-5, atol=1e-7)
    assert_allclose(scores_of(logits_BK, "multilabel"), tensor.sigmoid().numpy(), rtol=1e-5, atol=1e-6)
    assert scores_of(np.array([1e4, -1e4], np.float32), "multilabel").tolist() == [1, 0]
    assert scores_of(np.array([1e4, -1e4], np.float32), "single").tolist() == [1, 0]


def test_an_unknown_runtime_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="runtime 'onnxruntme': did you mean 'onnxruntime'"):
        open_runtime(tiny_model, runtime="onnxruntme")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="runtime 'onnx': choose from: auto, onnxruntime, torch"):
        open_runtime(tiny_model, runtime="onnx")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"device": "cuda"}, {"dtype": "bfloat16"}, {"runtime": "torch"}], ids=str)
def test_without_torch_nothing_that_needs_it_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.setattr(opening, "has_torch", lambda: False)
    with pytest.raises(
        MissingDependency, match=r"needs torch, which is not installed; pip install 'fewframes\[train\]'"
    ):
        open_runtime(DEFAULT_MODEL, **options)  # type: ignore[arg-type]
