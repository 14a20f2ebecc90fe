"""Small networks for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fewframes.models.backbones import TimmFrameEncoder
from fewframes.models.config import ModelConfig

TINY = ModelConfig(
    image_size=32, patch_size=8, width=48, depth=1, heads=3, temporal_depth=1, temporal_heads=4, num_frames=4, num_classes=3
)  # fmt: skip


LABELS = ("hug", "kick", "push")


def shaken(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():  # zeros and ones would hide mistakes
        nn.init.normal_(parameter, std=0.15)
    return module.eval()


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
