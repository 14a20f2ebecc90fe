"""R(2+1)D-34, and FASTER32, which runs R(2+1)D on some clips and a cheaper network on the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Bottleneck, Conv2Plus1D, R2Plus1dStem, VideoResNet
from torchvision.ops import Conv3dNormActivation


def r2plus1d_34(*, num_classes: int = 400) -> nn.Module:
    """Build R(2+1)D-34: each 3-D convolution is split into one over space and one over time (Tran et al. 2018).

    Published: 63.6 M parameters, 152 GMACs for 32 frames of 112 px.
    """
    return VideoResNet(BasicBlock, [_Conv2Plus1D] * 4, [3, 4, 6, 3], R2Plus1dStem, num_classes=num_classes)


def faster32(*, num_classes: int = 400, clip_frames: int = 32) -> nn.Module:
    """Build FASTER32: an R(2+1)D-50 on one clip in four, an R2D-26 on the others, merged by FAST-GRU (Zhu et al. 2020).

    Takes the V clips of a video one after another on the time axis: (B, C, V * clip_frames, H, W); the paper has 8 * 32.
    Published: 67.7 GMACs per clip, the mean over the 8. Ours for 224 px: 60.7, 10 % less. The likely reason: the layers that
    halve time, the width of the gates and the state before the first clip are our reading, not checked against the authors'
    code.
    """
    return FASTER(num_classes, clip_frames)


class _Conv2Plus1D(Conv2Plus1D):  # type: ignore[misc]
    """A split convolution with the middle width of the paper: as many parameters as the 3x3x3 one that it replaces.

    torchvision gives both convolutions of a block the middle width of the first, which costs R(2+1)D-34 1.9 M parameters.
    """

    def __init__(self, in_planes: int, out_planes: int, midplanes: int, stride: int = 1, padding: int = 1) -> None:
        midplanes = 27 * in_planes * out_planes // (9 * in_planes + 3 * out_planes)
        super().__init__(in_planes, out_planes, midplanes, stride, padding)


class FASTER(nn.Module):
    """FASTER: features of the clips of a video, merged clip by clip: (B, C, V * clip_frames, H, W) -> (B, K)."""

    EXPENSIVE_EVERY = 4

    def __init__(self, num_classes: int, clip_frames: int) -> None:
        super().__init__()
        self.clip_frames = clip_frames
        self.expensive = _trunk(_Conv2Plus1D, [3, 4, 6, 3], R2Plus1dStem())
        self.cheap = _trunk(_Conv2d, [2, 2, 2, 2], Conv3dNormActivation(3, 64, (1, 7, 7), stride=(1, 2, 2)))
        self.merge = FastGRU(2048)
        self.head = nn.Linear(2048, num_classes)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        num_frames = clips_BCTHW.shape[2]
        if num_frames % self.clip_frames:
            raise ValueError(f"{num_frames} frames are not whole clips of {self.clip_frames}; see clip_frames")
        state_BCTHW: Tensor | None = None
        for index, clip_BCTHW in enumerate(clips_BCTHW.split(self.clip_frames, dim=2)):
            network = self.cheap if index % self.EXPENSIVE_EVERY else self.expensive
            features_BCTHW = network(clip_BCTHW)
            state_BCTHW = features_BCTHW if state_BCTHW is None else self.merge(features_BCTHW, state_BCTHW)
        assert state_BCTHW is not None
        return self.head(state_BCTHW.mean(dim=(2, 3, 4)))


class FastGRU(nn.Module):
    """A GRU of 1x1x1 convolutions: the next state o_t from a clip's features x_t and the state o_(t-1), each (B, C, T, H, W).

    r, z = sigmoid(gate([x_t, o_(t-1)])), n = tanh(W [x_t, r * o_(t-1)]), o_t = (1 - z) * o_(t-1) + z * n. Convolutions keep
    the position of each feature. The gates pass through a quarter of the width.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.read, self.update = self._gate(channels), self._gate(channels)
        self.candidate = nn.Conv3d(2 * channels, channels, 1)

    @staticmethod
    def _gate(channels: int) -> nn.Sequential:
        inner = channels // 4
        return nn.Sequential(nn.Conv3d(2 * channels, inner, 1), nn.ReLU(inplace=True), nn.Conv3d(inner, channels, 1))

    def forward(self, features_BCTHW: Tensor, state_BCTHW: Tensor) -> Tensor:
        both_BCTHW = torch.cat([features_BCTHW, state_BCTHW], dim=1)
        read_BCTHW, update_BCTHW = self.read(both_BCTHW).sigmoid(), self.update(both_BCTHW).sigmoid()
        new_BCTHW = self.candidate(torch.cat([features_BCTHW, read_BCTHW * state_BCTHW], dim=1)).tanh()
        return (1 - update_BCTHW) * state_BCTHW + update_BCTHW * new_BCTHW


def _trunk(conv: type[Conv2Plus1D | _Conv2d], num_blocks: list[int], stem: nn.Module) -> nn.Module:
    """Return a bottleneck ResNet-3D with features (B, 2048, T/8, H/32, W/32). The output of its stem is pooled as for images."""
    network = VideoResNet(Bottleneck, [conv] * 4, num_blocks, nn.Identity)
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    return nn.Sequential(stem, nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)), *stages)


class _Conv2d(nn.Conv3d):
    """A convolution within frames. One that halves space drops every other frame too, so that the shapes of both networks agree."""

    def __init__(self, in_planes: int, out_planes: int, midplanes: int, stride: int = 1, padding: int = 1) -> None:  # noqa: ARG002
        super().__init__(in_planes, out_planes, (1, 3, 3), stride, (0, padding, padding), bias=False)

    @staticmethod
    def get_downsample_stride(stride: int) -> tuple[int, int, int]:
        return stride, stride, stride
