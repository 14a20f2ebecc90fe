"""I3D as an inflated ResNet, with non-local blocks and octave convolutions."""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv3dNormActivation


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
