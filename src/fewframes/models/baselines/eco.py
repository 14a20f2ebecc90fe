"""ECO: a 2-D network on each frame and a 3-D tail on its middle features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv3DSimple
from torchvision.ops import Conv2dNormActivation, Conv3dNormActivation


def eco(*, num_classes: int = 400) -> nn.Module:
    """Build the full ECO: BN-Inception on each frame, a 3-D ResNet-18 on its middle features (Zolfaghari, Singh, Brox 2018).

    Takes any number of frames. Published: 47.5 M parameters; 32 GMACs for 8 frames of 224 px, 64 for 16.
    """
    return ECO(num_classes)


class ECO(nn.Module):
    """A 2-D network on each frame and a 3-D tail on its middle features; the head sees the averages of both."""

    TAIL = ((128, 128), (128, 256), (256, 256), (256, 512), (512, 512))  # channels in and out of the tail's blocks

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv2dNormActivation(3, 64, 7, stride=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Conv2dNormActivation(64, 64, 1),
            Conv2dNormActivation(64, 192, 3),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
        )
        self.lower = nn.Sequential(
            _Inception(192, 64, (64, 64), (64, 96), 32), _Inception(256, 64, (64, 96), (64, 96), 64)
        )
        self.branching = _Inception(320, 0, (128, 160), (64, 96), 0)  # 3c
        self.upper = nn.Sequential(
            _Inception(576, 224, (64, 96), (96, 128), 128),
            _Inception(576, 192, (96, 128), (96, 128), 128),
            _Inception(576, 160, (128, 160), (128, 160), 128),
            _Inception(608, 96, (128, 192), (160, 192), 128),
            _Inception(608, 0, (128, 192), (192, 256), 0),
            _Inception(1056, 352, (192, 320), (160, 224), 128),
            _Inception(1024, 352, (192, 320), (192, 224), 128, max_pool=True),
        )
        self.tail = nn.Sequential(Conv3dNormActivation(96, 128, 3), *(_residual(*widths) for widths in self.TAIL))
        self.head = nn.Linear(512 + 1024, num_classes)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        num_videos, _, num_frames = clips_BCTHW.shape[:3]
        frames_MCHW = clips_BCTHW.transpose(1, 2).flatten(0, 1)
        lower_MCHW = self.lower(self.stem(frames_MCHW))
        middle_MCHW = self.branching.double_in(lower_MCHW)  # 96 x 28 x 28, shared by both streams
        upper_MCHW = self.upper(self.branching(lower_MCHW, middle_MCHW))
        flat_BD = upper_MCHW.mean(dim=(2, 3)).unflatten(0, (num_videos, num_frames)).mean(dim=1)
        stacked_BCTHW = middle_MCHW.unflatten(0, (num_videos, num_frames)).transpose(1, 2)
        solid_BD = self.tail(stacked_BCTHW).mean(dim=(2, 3, 4))
        return self.head(torch.cat([solid_BD, flat_BD], dim=1))


class _Inception(nn.Module):
    """A module of BN-Inception (Ioffe and Szegedy 2015): (M, C, H, W) -> (M, C', H, W).

    Without `one` and `pooled` it halves the size and keeps the pooled features as they are.

    Args:
        channels: Input channels.
        one: Width of the 1x1 branch; 0 leaves it out.
        three: Widths of the 3x3 branch: before it and in it.
        double: Widths of the branch of two 3x3 convolutions: before them and in them.
        pooled: Width of the projection after the pool; 0 leaves it out.
        max_pool: True pools by the maximum where there is a projection; without one this is always so.
    """

    def __init__(
        self,
        channels: int,
        one: int,
        three: tuple[int, int],
        double: tuple[int, int],
        pooled: int,
        *,
        max_pool: bool = False,
    ) -> None:
        super().__init__()
        stride = 1 if one else 2
        self.one = Conv2dNormActivation(channels, one, 1) if one else None
        self.three = nn.Sequential(
            Conv2dNormActivation(channels, three[0], 1), Conv2dNormActivation(*three, 3, stride=stride)
        )
        self.double_in = nn.Sequential(Conv2dNormActivation(channels, double[0], 1), Conv2dNormActivation(*double, 3))
        self.double_out = Conv2dNormActivation(double[1], double[1], 3, stride=stride)
        pool = nn.MaxPool2d if max_pool or not pooled else nn.AvgPool2d
        self.pooled = nn.Sequential(pool(3, stride=stride, padding=1))
        if pooled:
            self.pooled.append(Conv2dNormActivation(channels, pooled, 1))

    def forward(self, features_MCHW: Tensor, middle_MCHW: Tensor | None = None) -> Tensor:
        """Return the concatenated branches. `middle_MCHW` is the output of `double_in`, for callers that have it already."""
        middle_MCHW = self.double_in(features_MCHW) if middle_MCHW is None else middle_MCHW
        branches = [self.three(features_MCHW), self.double_out(middle_MCHW), self.pooled(features_MCHW)]
        if self.one is not None:
            branches.insert(0, self.one(features_MCHW))
        return torch.cat(branches, dim=1)


def _residual(channels: int, out: int) -> nn.Module:
    """Return a residual 3-D block of ECO; one that changes the number of channels halves the size."""
    if channels == out:
        return BasicBlock(channels, out, Conv3DSimple)
    # ECO's shortcuts are 3x3x3, not the usual 1x1x1: 4 M of its 47.5 M parameters.
    shortcut = nn.Sequential(nn.Conv3d(channels, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm3d(out))
    return BasicBlock(channels, out, Conv3DSimple, stride=2, downsample=shortcut)
