"""Graphs inside model files: they agree with torch for every architecture, and need nothing of torch to run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.errors import ConfigError, ExportError
from fewframes.export import file_graphs
from fewframes.export.file_graphs import add_graphs, disagreement, graphs_of
from fewframes.inference.live.model import StateKeeper
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.model_file import WITHOUT_GRAPHS, graph_settings, read_model_file
from fewframes.models.files.networks import build_model
from fewframes.runtime.onnx_file import OnnxFileRuntime
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY, shaken, with_statistics

pytest.importorskip("onnxscript")
VIEW = ViewConfig(resize_px=36, crop_px=32)
RICH = replace(TINY, motion_width=8, moment_head=True, temporal_width=16, temporal_positions="waves")
ARCHITECTURES = {
    "merging": replace(TINY, depth=2, qkv_bias=False, merge=2),
    "motion, moments, multilabel": replace(RICH, task="multilabel"),
    "motion, moments of changes": replace(RICH, moments="motion"),
    "release": replace(TINY, temporal="release"),
    "mean": replace(TINY, temporal="mean"),
    "causal": replace(TINY, temporal="causal", temporal_width=16, motion_width=8),
    "cells as tokens": replace(RICH, cells=2, cell_width=8, cell_tokens=True, moment_head=False),
    "cells as causal tokens": replace(
        TINY, temporal="causal", temporal_width=16, cells=2, cell_width=8, cell_tokens=True
    ),
    "recurrent": replace(TINY, temporal="recurrent", temporal_width=16, motion_width=8),
    "recurrent, cells as tokens": replace(
        TINY, temporal="recurrent", temporal_width=16, motion_width=8, cells=2, cell_width=8, cell_tokens=True
    ),
    "timm": replace(TINY, encoder="timm:test_efficientnet", temporal="mean", motion_width=8),
}
"""Small networks of every kind but `lite0`, which the packaged model stands for (tests/runtime)."""


def checkpoint_for(config: ModelConfig, seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    model = build_model(config, VIEW)
    if config.encoder == "vit":
        shaken(model)
    with_statistics(model)
    if model.moment_head is not None:
        torch.nn.init.normal_(model.moment_head.linear.weight)
    return Checkpoint(model.eval(), VIEW, LABELS)


def saved(path: Path, checkpoint: Checkpoint) -> OnnxFileRuntime:
    save_checkpoint(path, checkpoint)
    return OnnxFileRuntime(read_model_file(path), name="tiny")


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_graphs_agree_with_torch_also_for_other_weights(config: ModelConfig, tmp_path: Path) -> None:
    checkpoint = checkpoint_for(config)
    graphs = graphs_of(checkpoint)
    assert ("time" in graphs) == (config.temporal != "mean" or config.motion_width > 0)
    for number, other in enumerate((checkpoint, checkpoint_for(config, seed=1))):
        runtime = saved(tmp_path / f"{number}.safetensors", replace(other, graphs=graphs))
        assert disagreement(runtime, other.model) < 1e-4


def test_graphs_of_a_recurrent_model_answer_about_windows_alone(tmp_path: Path) -> None:
    checkpoint = checkpoint_for(ARCHITECTURES["recurrent"])
    runtime = saved(tmp_path / "doors.safetensors", replace(checkpoint, graphs=graphs_of(checkpoint)))
    with pytest.raises(ConfigError, match="onnxruntime runs whole windows of tiny; .* or runtime 'torch'"):
        StateKeeper(runtime)


def test_models_that_differ_in_classes_and_training_alone_have_equal_graphs() -> None:
    changed: dict[str, Any] = {
        "num_classes": 2, "task": "multilabel", "moment_head": False, "temporal_positions": "learned", "token_dropout": 0.5,
        "temporal_dropout": 0.5, "drop_path": 0.5, "moments": "motion",
    }  # fmt: skip
    assert changed.keys() == WITHOUT_GRAPHS
    config = replace(RICH, **changed)
    other = replace(checkpoint_for(config), labels=LABELS[:2])
    assert graph_settings(config, VIEW) == graph_settings(RICH, VIEW)
    assert graphs_of(other) == graphs_of(checkpoint_for(RICH))
    assert graph_settings(replace(RICH, norm_eps=1e-5), VIEW) != graph_settings(RICH, VIEW)
    assert graph_settings(RICH, replace(VIEW, std=(0.4, 0.5, 0.5))) != graph_settings(RICH, VIEW)


def test_graphs_are_added_to_a_file_and_its_weights_stay(tmp_path: Path) -> None:
    path, checkpoint = tmp_path / "m.safetensors", checkpoint_for(TINY)
    save_checkpoint(path, checkpoint, dtype=torch.float16)
    size, before = path.stat().st_size, read_model_file(path)
    done = CliRunner().invoke(app, ["export", str(path), "--into-model"])
    assert done.exit_code == 0, done.output
    after = read_model_file(path)
    assert after.graphs.keys() == {"frames", "time"}
    assert path.stat().st_size - size < 30_000
    for key, array in before.tensors.items():
        np.testing.assert_array_equal(array, after.tensors[key])
    assert load_checkpoint(path).graphs == after.graphs
    wrong = CliRunner().invoke(app, ["export", str(path), "--into-model", "--dtype", "int8"])
    assert wrong.exit_code == 2
    assert "takes no other option" in wrong.output


def test_graphs_that_disagree_are_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, checkpoint = tmp_path / "m.safetensors", checkpoint_for(TINY)
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()
    foreign = graphs_of(checkpoint_for(replace(TINY, norm_eps=0.5)))
    monkeypatch.setattr(file_graphs, "graphs_of", lambda _: foreign)
    with pytest.raises(ExportError, match="differ from the network by"):
        add_graphs(path)
    assert path.read_bytes() == before


def test_layouts_that_mix_frames_have_no_graphs(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, checkpoint_for(replace(TINY, layout="joint", temporal="mean")))
    with pytest.raises(ExportError, match="layout 'joint' mixes frames"):
        add_graphs(path)
