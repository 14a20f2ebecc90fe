"""The networks of the paper's Tables 2-4, from image weights in their own shape to a model that predicts.

The encoders have their full size; frames are small and few, and the temporal part is narrow, so that a test takes seconds. The
weights are random: no figure can be drawn from this.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.inference.predictor import load
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.presets import PRESETS
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.train import TrainOptions, train
from helpers.numbered import write_fading

ROWS = {
    "resnet50-16": ("resnet50", "layer4.2.conv3.weight", "backbone."),
    "tresnet-m-16": ("tresnet_m", "body.layer4.2.conv3.conv.weight", "backbone."),
    "tresnet-l-8": ("tresnet_l", "body.layer4.2.conv3.conv.weight", "backbone."),
    "vit-ti-16": ("vit_tiny_patch16_224", "blocks.11.mlp.fc2.weight", ""),
    "vit-s-16": ("vit_small_patch16_224", "blocks.11.mlp.fc2.weight", ""),
    "stam-paper-16": ("vit_base_patch16_224", "blocks.11.mlp.fc2.weight", ""),
}
"""For each preset timm's network of its weights, one of their keys, and what our encoder has before it."""


@pytest.fixture(scope="module")
def few_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of each of two actions, one of them held out."""
    folder = tmp_path_factory.mktemp("few")
    for label, turned in (("redden", False), ("turn blue", True)):
        for number in range(3):
            path = folder / ("val" if number == 2 else "train") / label / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_fading(path, 8 + number, turned=turned)
    return folder


@pytest.mark.parametrize("preset", ROWS)
def test_from_image_weights_to_a_prediction(preset: str, few_clips: Path, tmp_path: Path) -> None:
    network, key, prefix = ROWS[preset]
    torch.manual_seed(0)
    weights = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in timm.create_model(network, num_classes=3).state_dict().items()
    }
    save_file(weights, tmp_path / "weights.safetensors")
    view = replace(PRESETS[preset].view, crop_px=32, resize_px=32)
    run = RunConfig(
        start=preset,
        init=str(tmp_path / "weights.safetensors"),
        model={"image_size": 32, "num_frames": 2, "temporal_width": 32, "temporal_depth": 1, "temporal_heads": 4},
        view={"crop_px": 32, "resize_px": 32},
        data=DataConfig(mirror=False),
        augment=AugmentConfig(views=0),
        train=TrainConfig(epochs=1, min_steps=2, calibration_folds=0),
    )
    trained = train(read_data(few_clips), tmp_path / "out", run, TrainOptions(device="cpu", dtype="float32"))
    assert trained.evaluation is not None
    assert trained.evaluation.report.num_videos == 2
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.view == view
    assert torch.equal(checkpoint.model.frame_encoder.state_dict()[prefix + key], weights[key].float())
    prediction = load(tmp_path / "out", device="cpu", dtype="float32").predict(few_clips / "val" / "redden" / "2.mp4")
    assert sum(score.score for score in prediction.top(2)) == pytest.approx(1, abs=1e-5)
