"""Networks of the paper's comparison that no maintained library has; each maps clips (B, C, T, H, W) to logits (B, K).

They are written after their papers, so that their cost can be counted and their speed timed under the same clock as STAM's.
Clips are normalised by the caller. There are no pretrained weights and no dropout. Every published figure quoted here is
checked in tests/bench/test_baselines.py. MACs are multiply-adds of convolutions and matrix products for one view; where ours
differ from the published ones, the docstring says by how much.

Letters in shapes: B videos, C channels, T frames, H and W pixels (or cells of a feature map), M = B * T frames folded,
P positions of a feature map (its T * H * W), K classes.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck as Bottleneck2d
from torchvision.models.video.resnet import BasicBlock, Bottleneck, Conv2Plus1D, Conv3DSimple, R2Plus1dStem, VideoResNet
from torchvision.ops import Conv2dNormActivation, Conv3dNormActivation


def tsm_resnet50(*, num_frames: int = 16, num_classes: int = 400) -> nn.Module:
    """Build TSM: a ResNet-50 that trades an eighth of its channels with each neighbouring frame (Lin, Gan, Han 2019).

    Published: 24.3 M parameters; 33 GMACs for 8 frames of 224 px, 65 for 16.
    """
    return TSM(num_frames, num_classes)


def nonlocal_i3d(*, depth: int = 50, num_classes: int = 400, width: int = 64, non_local: bool = True) -> nn.Module:
    """Build an inflated ResNet-50 or -101 with five non-local blocks (Wang et al. 2018); without them it is I3D.

    Published: 35.3 M parameters and 282 GMACs (R50), 54.3 M and 359 GMACs (R101). The R101 has these parameters only if the
    17 blocks that it has beyond the R50's are not inflated. Ours for 32 frames of 256 px: 257 and 334 GMACs. The difference
    of 77 between the two networks is met, so this is the published input. But 25 are missing in both: projecting keys and
    values before they are pooled, not after, would account for 16; the rest is unexplained.
    """
    return InflatedResNet(depth, num_classes, width=width, non_local=non_local)


def octave_i3d_nonlocal(*, num_classes: int = 400, width: int = 64, alpha: float = 0.1) -> nn.Module:
    """Build Oct-I3D R50 with non-local blocks: a fraction `alpha` of the channels has half size (Chen et al. 2019).

    H and W must be multiples of 32. Published: 33.6 M parameters, 28.9 GMACs for 8 frames of 224 px. Ours: 34.0 M and 32.6,
    of which 2.7 are the products of attention, which the published figure seems to leave out. The non-local blocks read the
    full-size channels only: with all channels there would be 35.4 M parameters.
    """
    return InflatedResNet(50, num_classes, width=width, non_local=True, alpha=alpha)


def eco(*, num_classes: int = 400) -> nn.Module:
    """Build the full ECO: BN-Inception on each frame, a 3-D ResNet-18 on its middle features (Zolfaghari, Singh, Brox 2018).

    Takes any number of frames. Published: 47.5 M parameters; 32 GMACs for 8 frames of 224 px, 64 for 16.
    """
    return ECO(num_classes)


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


class TSM(nn.Module):
    """A ResNet-50 whose residual branches start with a temporal shift: (B, C, T, H, W) -> (B, K), the mean over frames."""

    def __init__(self, num_frames: int, num_classes: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.backbone = resnet50(num_classes=num_classes)
        for block in list(self.backbone.modules()):
            if isinstance(block, Bottleneck2d):
                block.conv1 = nn.Sequential(TemporalShift(num_frames), block.conv1)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        num_videos, _, num_frames = clips_BCTHW.shape[:3]
        if num_frames != self.num_frames:
            raise ValueError(
                f"clips have {num_frames} frames, this model shifts among {self.num_frames}; see num_frames"
            )
        frames_MCHW = clips_BCTHW.transpose(1, 2).flatten(0, 1)
        return self.backbone(frames_MCHW).unflatten(0, (num_videos, num_frames)).mean(dim=1)


class TemporalShift(nn.Module):
    """A shift of channels in time: (M, C, H, W) to the same shape.

    The first eighth of the channels comes from the next frame, the second eighth from the frame before. Beyond the first and
    the last frame there are zeros.
    """

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames

    def forward(self, features_MCHW: Tensor) -> Tensor:
        eighth = features_MCHW.shape[1] // 8
        features_BTCHW = features_MCHW.unflatten(0, (-1, self.num_frames))
        ahead, behind, still = features_BTCHW.tensor_split((eighth, 2 * eighth), dim=2)
        ahead = F.pad(ahead[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
        behind = F.pad(behind[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        return torch.cat([ahead, behind, still], dim=2).flatten(0, 1)


# Features of an octave network: at full size (B, C, T, H, W) and at half size (B, C', T, H/2, W/2); None if C' is 0.
Octaves = tuple[Tensor, Tensor | None]
Widths = tuple[int, int]  # their C and C'
Kernel = tuple[int, int, int]  # over T, H, W


class InflatedResNet(nn.Module):
    """I3D as an inflated ResNet, with optional non-local blocks and octave convolutions: (B, C, T, H, W) -> (B, K).

    `depth` is 50 or 101. `width` is the number of channels of the stem, 64 in the papers. With `alpha` 0 each octave
    convolution is a plain one.
    """

    # Kernel over time of the first convolution of each block; blocks that only the R101 has look at one frame.
    TIME_KERNELS = ((3, 3, 3), (3, 1, 3, 1), (3, 1, 3, 1, 3, 1), (1, 3, 1))

    def __init__(
        self, depth: int, num_classes: int, *, width: int = 64, non_local: bool = False, alpha: float = 0.0
    ) -> None:
        super().__init__()
        if depth not in {50, 101}:
            raise ValueError(f"depth is {depth}, the papers have 50 and 101")
        self.stem = nn.Sequential(
            Conv3dNormActivation(3, width, (5, 7, 7), stride=(1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )
        self.time_pool = nn.MaxPool3d((2, 1, 1))
        self.stages = nn.ModuleList()
        channels = (width, 0)
        # A non-local block follows every second block of res3 and res4 (every seventh in the R101's longer res4): five in all.
        for stage, every in enumerate((0, 2, 2 if depth == 50 else 7, 0)):
            low = 0.0 if stage == 3 else alpha  # the last stage is plain: half of its 7 cells is no whole number
            inner, out = (_split(size * width << stage, low) for size in (1, 4))
            times = self.TIME_KERNELS[stage] + (1,) * (17 if depth == 101 and stage == 2 else 0)
            blocks = []
            for index, time in enumerate(times):
                block = _InflatedBlock(channels, inner, out, time=time, stride_px=2 if stage and not index else 1)
                if non_local and every and (index + 1) % every == 0:
                    block.non_local = NonLocal(out[0])
                blocks.append(block)
                channels = out
            self.stages.append(nn.Sequential(*blocks))
        self.head = nn.Linear(channels[0], num_classes)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        high, low = self.stages[0]((self.stem(clips_BCTHW), None))
        high, low = self.time_pool(high), None if low is None else self.time_pool(low)
        for stage in self.stages[1:]:
            high, low = stage((high, low))
        return self.head(high.mean(dim=(2, 3, 4)))


class _InflatedBlock(nn.Module):
    """A residual bottleneck on both octaves. Its first convolution spans time; `non_local` sees the full-size channels."""

    def __init__(self, channels: Widths, inner: Widths, out: Widths, *, time: int, stride_px: int) -> None:
        super().__init__()
        self.reduce = _OctaveUnit(channels, inner, (time, 1, 1))
        self.look = _OctaveUnit(inner, inner, (1, 3, 3), stride_px=stride_px)
        self.expand = _OctaveUnit(inner, out, relu=False)
        self.shortcut = None if channels == out else _OctaveUnit(channels, out, stride_px=stride_px, relu=False)
        self.non_local: nn.Module = nn.Identity()

    def forward(self, octaves: Octaves) -> Octaves:
        high, low = self.expand(self.look(self.reduce(octaves)))
        kept_high, kept_low = octaves if self.shortcut is None else self.shortcut(octaves)
        return self.non_local(F.relu(high + kept_high)), None if low is None else F.relu(low + kept_low)


class _OctaveUnit(nn.Module):
    """An octave convolution, a batch norm of each octave and, with `relu`, a ReLU."""

    def __init__(
        self, channels: Widths, out: Widths, kernel: Kernel = (1, 1, 1), *, stride_px: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = OctaveConv3d(channels, out, kernel, stride_px=stride_px)
        self.norms = nn.ModuleList(nn.BatchNorm3d(size) for size in out if size)
        self.activation = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, octaves: Octaves) -> Octaves:
        high, low = self.conv(*octaves)
        return self.activation(self.norms[0](high)), None if low is None else self.activation(self.norms[1](low))


class OctaveConv3d(nn.Module):
    """A convolution among two octaves, channels at full and at half size: (high, low) -> (high, low).

    high' = f(high; W_HH) + upsample(f(low; W_LH)), low' = f(low; W_LL) + f(pool(high); W_HL). `channels` and `out` are the
    widths of both octaves. The stride is over space. With two octaves cells are averaged before the convolution instead of
    skipped after it, for skipping would move one octave against the other. Sizes must halve evenly.
    """

    def __init__(self, channels: Widths, out: Widths, kernel: Kernel, *, stride_px: int = 1) -> None:
        super().__init__()
        (high, low), (out_high, out_low) = channels, out
        self.stride_px = stride_px
        self.pools = bool(low or out_low) and stride_px > 1
        time, height, width = kernel
        conv = partial(nn.Conv3d, kernel_size=kernel, padding=(time // 2, height // 2, width // 2), bias=False)
        self.high_to_high = conv(high, out_high, stride=1 if self.pools else (1, stride_px, stride_px))
        self.high_to_low = conv(high, out_low) if out_low else None
        self.low_to_high = conv(low, out_high) if low else None
        self.low_to_low = conv(low, out_low) if low and out_low else None

    def forward(self, high: Tensor, low: Tensor | None = None) -> Octaves:
        stride = self.stride_px
        out_high = self.high_to_high(_shrink(high, stride) if self.pools else high)
        out_low = None if self.high_to_low is None else self.high_to_low(_shrink(high, 2 * stride))
        if low is not None and self.low_to_high is not None:
            from_low = self.low_to_high(low)  # at a stride of 2 the lower octave already has the size of the result
            out_high = out_high + (F.interpolate(from_low, scale_factor=(1, 2, 2)) if stride == 1 else from_low)
        if low is not None and self.low_to_low is not None:
            out_low = out_low + self.low_to_low(_shrink(low, stride))
        return out_high, out_low


def _shrink(features_BCTHW: Tensor, factor: int) -> Tensor:
    """Return the features averaged over squares of `factor` cells in space."""
    if factor == 1:
        return features_BCTHW
    pooled = F.avg_pool2d(features_BCTHW.flatten(1, 2), factor)  # the 3-D pooling has no bfloat16 on a CPU
    return pooled.unflatten(1, features_BCTHW.shape[1:3])


def _split(channels: int, alpha: float) -> Widths:
    """Return how many of the channels are at full size, and how many (a fraction `alpha`) at half size."""
    low = round(alpha * channels)
    return channels - low, low


class NonLocal(nn.Module):
    """A non-local block, the embedded Gaussian: (B, C, T, H, W) to the same shape.

    z = W_z y + x with y = softmax(theta(x) phi(x')^T) g(x'), where x' is x pooled 2 x 2 over space. It is half as wide
    inside, and scores are divided by the root of that width. The norm after W_z starts at zero, so the block starts as the
    identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.out = nn.Conv3d(inner, channels, 1)
        self.norm = nn.BatchNorm3d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features_BCTHW: Tensor) -> Tensor:
        pooled_BCTHW = self.pool(features_BCTHW)
        query_BCP = self.theta(features_BCTHW).flatten(2)
        key_BCP, value_BCP = self.phi(pooled_BCTHW).flatten(2), self.g(pooled_BCTHW).flatten(2)
        scores_BPP = query_BCP.transpose(1, 2) @ key_BCP / math.sqrt(query_BCP.shape[1])
        mixed_BCP = value_BCP @ scores_BPP.softmax(dim=-1).transpose(1, 2)
        return features_BCTHW + self.norm(self.out(mixed_BCP.unflatten(2, features_BCTHW.shape[2:])))


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
        self, channels: int, one: int, three: Widths, double: Widths, pooled: int, *, max_pool: bool = False
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
