"""Numbers computed by others: the 2021 release, and timm on real weights."""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from fewframes.models.files.image_weights import start_model
from fewframes.models.files.release import load_release
from fewframes.models.presets import PRESETS


def test_release_is_reproduced(shared: Path, tmp_path: Path) -> None:
    golden = load_file(shared / "golden" / "release_tiny.safetensors")
    with safe_open(shared / "golden" / "release_tiny.safetensors", framework="pt") as file:
        made_with = file.metadata()
    state = {key.removeprefix("weights."): tensor for key, tensor in golden.items() if key.startswith("weights.")}
    save_file(state, tmp_path / "release.safetensors")
    checkpoint = load_release(tmp_path / "release.safetensors", heads=int(made_with["heads"]))
    config = checkpoint.model.config
    assert (config.num_frames, config.depth, config.temporal_depth, config.num_classes) == (8, 3, 2, 11)
    assert json.loads(made_with["width"]) == config.width
    with torch.no_grad():
        frames_BTD = checkpoint.model.encode_clips(golden["input_BTCHW"])
        encoded = checkpoint.model.encode_video(frames_BTD)
    assert_close(frames_BTD, golden["frame_embeddings_BTD"], rtol=0, atol=1e-5)
    assert_close(encoded.embedding, golden["video_embedding_BD"], rtol=0, atol=1e-5)
    assert_close(encoded.logits, golden["logits_BK"], rtol=0, atol=1e-5)


def test_our_vit_is_timms_on_real_weights(shared: Path) -> None:
    path = shared / "weights" / "vit_tiny_patch16_224.fp16.safetensors"
    preset = PRESETS["vit-ti-16"]
    model = start_model(preset.model, preset.view, str(path)).eval()
    reference = timm.create_model("vit_tiny_patch16_224")
    reference.load_state_dict({key: tensor.float() for key, tensor in load_file(path).items()})
    reference.reset_classifier(0)  # type: ignore[operator]
    frames_MCHW = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = model.encode_frames(frames_MCHW)
        theirs = reference.eval()((frames_MCHW - 0.5) / 0.5)
    assert_close(ours, theirs, rtol=0, atol=1e-5)
