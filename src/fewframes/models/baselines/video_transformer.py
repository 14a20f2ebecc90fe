"""The form of OpenVINO's action-recognition-0001: a ResNet-34 on each frame, and a small transformer over the frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet34

WIDTH, BLOCKS, HEADS = 512, 4, 8


def resnet34_transformer(*, num_frames: int = 16, num_classes: int = 400) -> nn.Module:
    """Build the form of action-recognition-0001 of OpenVINO's model zoo, a Video Transformer Network (Kozlov et al. 2019).

    Published: 7.34 GFLOPs a frame and 21.276 M parameters for the encoder (its batch norms folded), 0.147 GFLOPs and 4.405 M for
    the decoder of 16 frames. The inside of the decoder is our reading of these counts: four blocks of attention without biases,
    and a classifier on each frame. They leave no room for an MLP. Weights of the zoo's own files do not fit these names.
    """
    return ResNetTransformer(num_frames, num_classes)


class ResNetTransformer(nn.Module):
    """A ResNet-34 whose frame embeddings attend to each other: (B, C, T, H, W) -> (B, K), the mean over frames."""

    positions: Tensor

    def __init__(self, num_frames: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = resnet34()
        self.encoder.fc = nn.Identity()
        self.decoder = nn.ModuleList(_Attention() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, num_classes)
        self.register_buffer("positions", _waves(num_frames), persistent=False)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        num_videos, _, num_frames = clips_BCTHW.shape[:3]
        if num_frames != len(self.positions):
            raise ValueError(f"clips have {num_frames} frames, this model takes {len(self.positions)}; see num_frames")
        frames_MCHW = clips_BCTHW.transpose(1, 2).flatten(0, 1)
        frames_BTD = self.encoder(frames_MCHW).unflatten(0, (num_videos, num_frames)) + self.positions
        for block in self.decoder:
            frames_BTD = block(frames_BTD)
        return self.head(self.norm(frames_BTD)).mean(dim=1)


class _Attention(nn.Module):
    """Attention among the frames, added to them: (B, T, D) to the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, frames_BTD: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(frames_BTD)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen_BATd = F.scaled_dot_product_attention(query, key, value)
        return frames_BTD + self.out(seen_BATd.transpose(1, 2).flatten(2))


def _waves(num_frames: int) -> Tensor:
    """Return the sines and cosines of positions (T, D), as in the first transformer (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(10_000) / WIDTH))
    angles = torch.arange(num_frames).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
