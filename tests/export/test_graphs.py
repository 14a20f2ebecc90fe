"""Every kind of network in the presets, in a small size, becomes graphs that agree with it.

The frame encoder and the temporal part are traced by themselves, so a preset is covered if both of its parts are. The joining does
not depend on the kind (test_exporter.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from fewframes.export.graphs import onnx_of, traced, write_onnx
from fewframes.models.backbones import EfficientNetLite
from fewframes.models.config import ModelConfig
from fewframes.models.files.networks import build_model
from fewframes.models.layers import pixels_of
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.runtime.graphs import Card, Graph, GraphPart, open_graph
from fewframes.video.view import ViewConfig

pytest.importorskip("onnx")
VIEW = ViewConfig(resize_px=36, crop_px=32)
NUM_FRAMES = 4
SMALL = ModelConfig(
    image_size=32, patch_size=16, width=24, depth=1, heads=2, num_frames=NUM_FRAMES, num_classes=3,
    temporal_depth=1, temporal_heads=2, temporal_mlp_width=16, temporal_width=16,
)  # fmt: skip


SAME = {"timm:tresnet_l": "timm:tresnet_m", "lite1": "lite0", "lite2": "lite0"}
"""Encoders that differ from another one only by more and wider blocks, and that other one."""


def encoder_of(config: ModelConfig) -> ModelConfig:
    """Return a small model with the frame encoder of a preset, and nothing else of it."""
    encoder = SAME.get(config.encoder, config.encoder)
    return replace(SMALL, encoder=encoder, cells=config.cells, layout=config.layout, temporal="mean")


def temporal_of(config: ModelConfig) -> ModelConfig:
    """Return a small model with the temporal part of a preset, and nothing else of it."""
    return replace(
        SMALL,
        temporal=config.temporal,
        temporal_positions=config.temporal_positions,
        motion_width=8 if config.motion_width else 0,
        moment_head=config.moment_head,
    )


PAIRS = [(preset.model, name) for name, preset in reversed(PRESETS.items())]
ENCODERS = {encoder_of(config): name for config, name in PAIRS}
TEMPORALS = {temporal_of(config): name for config, name in PAIRS if config.layout == "factorised"} | {
    replace(SMALL, temporal="causal", motion_width=8, moment_head=True): "causal"
}
"""The first preset of each kind, and kinds that no preset has."""


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten convolutional networks to one block a stage, up to the last stage whose features are read."""
    create: Callable[..., Any] = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, layers=(1, 1, 1, 1), **options))
    stages = [(*stage[:-1], 1) for stage in EfficientNetLite.STAGES[: EfficientNetLite.CELLS_LAYER]]
    monkeypatch.setattr(EfficientNetLite, "STAGES", stages)


def graph_of(model: STAM, part: GraphPart, folder: Path) -> Graph:
    path = folder / f"{part}.onnx"
    card = Card(
        part=part, name="small", labels=("a", "b", "c"), view=VIEW, num_frames=NUM_FRAMES, any_num_frames=True,
        precision="float32", task="single", causal=False, frame_width=model.frame_width,
        video_width=model.temporal_encoder.width, merge=0,
    )  # fmt: skip
    write_onnx(onnx_of(traced(model, part), part), card, path)
    return open_graph(path, threads=1)


def model_of(config: ModelConfig) -> STAM:
    torch.manual_seed(0)
    return build_model(config, VIEW).eval()


def test_presets_are_of_these_kinds() -> None:
    assert {(one.encoder, one.layout) for one in ENCODERS} == {
        ("vit", "factorised"), ("vit", "joint"), ("vit", "per_block"),
        ("timm:tresnet_m", "factorised"), ("timm:resnet50", "factorised"), ("lite0", "factorised"),
    }  # fmt: skip
    assert {one.temporal for one in TEMPORALS} == {"paper", "release", "mean", "causal"}


CELLED = {
    replace(SMALL, temporal="mean", depth=3, cells=2): "vit with cells",
    replace(SMALL, temporal="mean", depth=3, cells=2, layout="joint"): "joint vit with cells",
    replace(SMALL, temporal="mean", encoder="timm:resnet50", cells=2): "timm with cells",
}
"""Encoders with cells that no preset has."""


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("config", ENCODERS | CELLED, ids=[*ENCODERS.values(), *CELLED.values()])
def test_frame_encoders_for_any_number_of_frames(config: ModelConfig, tmp_path: Path) -> None:
    model = model_of(config)
    mixes = config.layout != "factorised"
    graph = graph_of(model, "whole" if mixes else "frames", tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (3, NUM_FRAMES, 3, 32, 32), dtype=np.uint8)
    for given in (frames[:1], frames) if mixes else (frames[0, :1], frames[0]):
        with torch.inference_mode():
            pixels = pixels_of(torch.from_numpy(given))
            live = (model.encode_clips(pixels) if mixes else model.encode_frames(pixels)).numpy()
        found = graph(given)["frame_embeddings"]
        assert found.shape == live.shape
        np.testing.assert_allclose(found, live, rtol=0, atol=1e-4 * np.abs(live).max())


@pytest.mark.parametrize("config", TEMPORALS, ids=TEMPORALS.values())
def test_temporal_parts_for_any_number_of_videos_and_frames(config: ModelConfig, tmp_path: Path) -> None:
    model = model_of(config)
    graph = graph_of(model, "time", tmp_path)
    for num_videos, num_frames in ((1, NUM_FRAMES), (3, NUM_FRAMES - 1), (2, 3 * NUM_FRAMES)):
        embeddings_BTD = torch.randn(num_videos, num_frames, SMALL.width)
        with torch.inference_mode():
            live = model.encode_video(embeddings_BTD, with_attention=True)
            scores_BK = model.scores(live.logits)
        outputs = graph(embeddings_BTD.numpy())
        assert live.frame_attention is not None
        for name, wanted in (
            ("scores", scores_BK), ("frame_attention", live.frame_attention), ("embedding", live.embedding)
        ):  # fmt: skip
            np.testing.assert_allclose(outputs[name], wanted, rtol=0, atol=1e-5, err_msg=name)
