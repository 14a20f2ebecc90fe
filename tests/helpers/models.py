"""Small networks for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewframes.models.backbones import TimmFrameEncoder
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.networks import build_model
from fewframes.models.presets import RELEASE
from fewframes.video.view import ViewConfig

TINY = ModelConfig(
    image_size=32, patch_size=8, width=48, depth=1, heads=3, temporal_depth=1, temporal_heads=4, num_frames=4, num_classes=3
)  # fmt: skip


LABELS = ("hug", "kick", "push")


def shaken(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():  # zeros and ones would hide mistakes
        nn.init.normal_(parameter, std=0.15)
    return module.eval()


def write_reheaded(model: Path, path: Path, seed: int = 5) -> Path:
    """Write a model with the frame encoder of another one, and other weights in its head."""
    checkpoint = load_checkpoint(model)
    torch.manual_seed(seed)
    nn.init.normal_(checkpoint.model.head.weight, std=0.5)
    save_checkpoint(path, checkpoint)
    return path


def timm_vit(**options: Any) -> TimmFrameEncoder:
    from timm.models.vision_transformer import VisionTransformer

    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 7, "num_heads": 3}
    encoder = shaken(TimmFrameEncoder(VisionTransformer(**sizes, num_classes=0, **options), 48))
    assert isinstance(encoder, TimmFrameEncoder)
    return encoder


def with_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as after training: fresh ones would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 2, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    return network.eval()


SMALL_RELEASE = replace(
    RELEASE, image_size=64, width=64, depth=3, heads=1, temporal_depth=2, num_frames=8, num_classes=11
)  # fmt: skip


def release_state(config: ModelConfig) -> dict[str, torch.Tensor]:
    """Return a state dict with the release's keys, made from shapes alone. The rule for keys is the inverse of the code's."""
    model = build_model(config, ViewConfig(resize_px=config.image_size, crop_px=config.image_size))
    state = {}
    for key, tensor in model.state_dict().items():
        if key.startswith("frame_encoder."):
            key = key.removeprefix("frame_encoder.")
        elif key.startswith("temporal_encoder.blocks."):
            _, _, layer, *rest = key.split(".")
            name = ".".join(rest)
            name = {
                "attn.qkv.weight": "self_attn.in_proj_weight",
                "attn.qkv.bias": "self_attn.in_proj_bias",
                "attn.proj.weight": "self_attn.out_proj.weight",
                "attn.proj.bias": "self_attn.out_proj.bias",
                "mlp.fc1.weight": "linear1.weight",
                "mlp.fc1.bias": "linear1.bias",
                "mlp.fc2.weight": "linear2.weight",
                "mlp.fc2.bias": "linear2.bias",
            }.get(name, name)
            key = f"aggregate.transformer_enc.layers.{layer}.{name}"
        elif key.startswith("temporal_encoder.norm."):
            key = key.replace("temporal_encoder.norm", "aggregate.transformer_enc.norm")
        elif key.startswith("temporal_encoder."):
            key = key.replace("temporal_encoder", "aggregate")
        state[key] = torch.randn_like(tensor)
    return state
