"""Frame encoders other than the paper's ViT. Each maps normalised pixels (M, C, H, W) to one embedding per frame (M, D).

In Tables 2 and 3 the paper replaces its ViT by ResNet50, TResNet-M and TResNet-L. Their pooled features go into the same temporal
encoder. Any timm backbone can be used by its name. EfficientNet-Lite, whose Lite0 is the encoder of the packaged model, is written
out here, because importing timm takes longer than labelling a video with it (docs/decisions).

With cells above 0, an encoder appends features of a middle layer, pooled over cells x cells parts of the frame, to its pooled
features. They tell where in the frame something is, which the mean over the whole frame does not.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fewframes.errors import ConfigError, nearest
from fewframes.models.layers import FrameGrid, middle_block

POOLINGS = ("class", "mean", "class+mean")
"""The tokens of a timm ViT that can be taken instead of those that its own head takes."""


class TimmFrameEncoder(nn.Module):
    """A frame encoder whose embeddings are the pooled features of a timm backbone: (M, C, H, W) -> (M, D).

    With a `grid`, it is appended: the grid of a map of the backbone. `level` is the index of the map among those of timm's
    `forward_intermediates`. `width` is that of the pooled features; the attribute is that of the whole embedding. Features are
    pooled as the backbone's own head does, or as one of `POOLINGS` says.
    """

    def __init__(
        self, backbone: nn.Module, width: int, *, grid: FrameGrid | None = None, level: int = 0, pooling: str = ""
    ) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.grid, self.level = grid, level
        self.width = width * (1 + pooling.count("+")) + (0 if grid is None else grid.width)
        # If set, this encodes frames with the parts of the backbone, merging tokens on the way (token_merging.py). In training
        # it is never used.
        self.walk: Callable[[nn.Module, Tensor], Tensor] | None = None

    def forward(self, frames_MCHW: Tensor) -> Tensor:
        if self.walk is not None and not self.training:
            return self.walk(self.backbone, frames_MCHW)
        if self.grid is None and not self.pooling:
            return self.backbone(frames_MCHW)
        return self.pool(self.features(frames_MCHW))

    def features(self, frames_MCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the features before pooling: one map, (M, D', h, w) in most backbones and (M, h, w, D') in some.

        With cells, the map of the middle follows, (M, D'', h', w') in all backbones.
        """
        backbone: Any = self.backbone
        if self.grid is None:
            return (backbone.forward_features(frames_MCHW),)
        last, (middle,) = backbone.forward_intermediates(frames_MCHW, indices=[self.level])
        return last, middle

    def pool(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return embeddings (M, D) from the result of `features`."""
        backbone: Any = self.backbone
        pooled_MD = self._chosen(features[0]) if self.pooling else backbone.forward_head(features[0])
        return pooled_MD if self.grid is None else torch.cat([pooled_MD, self.grid(features[1])], dim=1)

    def _chosen(self, tokens_MND: Tensor) -> Tensor:
        """Return the class token, the mean of the patches, or both, each with the norm that the head would begin with."""
        backbone: Any = self.backbone
        parts = {"class": tokens_MND[:, 0], "mean": tokens_MND[:, backbone.num_prefix_tokens :].mean(dim=1)}
        return torch.cat([backbone.fc_norm(parts[name]) for name in self.pooling.split("+")], dim=1)

    def fold_norms(self) -> None:
        """Merge the branches of blocks that timm can merge for inference (FastViT, MobileCLIP, RepVGG): the same function, faster.

        It cannot be undone. Other networks stay as they are.
        """
        merge_branches(self.backbone)


def merge_branches(backbone: nn.Module) -> None:
    """Merge, in place, the branches of those blocks of a timm network that timm can merge for inference."""
    from timm.utils.model import reparameterize_model  # late, because timm is slow to import

    reparameterize_model(backbone, inplace=True)


def parted_timm_name(name: str) -> tuple[str, str]:
    """Return the name of a network in timm, and the pooling after its @, which is empty if there is none.

    Raises ConfigError for a pooling that is none of `POOLINGS`.
    """
    network, at, pooling = name.partition("@")
    if at and pooling not in POOLINGS:
        raise ConfigError(f"{name}: after @ stands what is taken of its tokens: {', '.join(POOLINGS)}; or leave it out")
    return network, pooling


def timm_frame_encoder(
    name: str,
    *,
    image_size: int,
    pretrained: bool = False,
    drop_path: float = 0.0,
    cells: int = 0,
    cells_layer: int | None = None,
    cell_width: int | None = None,
) -> TimmFrameEncoder:
    """Build the timm backbone of this name without its classifier.

    Args:
        name: the name in timm, with a pooling after @ if wanted.
        image_size: the side of the frames in pixels. It matters only for an architecture that is built for one size (ViTs);
            convolutional networks take any.
        pretrained: True downloads timm's weights.
        drop_path: the rate of stochastic depth, for backbones that have it.
        cells: the number of cells along each side of the frame; 0 has none.
        cells_layer: the map that is pooled over cells, as `ModelConfig.cells_layer` counts it.
        cell_width: the numbers of each cell; None keeps all channels.

    Raises:
        ConfigError: timm has no backbone of that name, or the backbone gives no such map, or has no such tokens.
    """
    import timm  # late, because it takes seconds to import and most models do not need it

    name, pooling = parted_timm_name(name)
    if not timm.is_model(name):
        raise ConfigError(f"timm has no backbone {name!r}; {nearest(name, timm.list_models())}")
    pretrained_cfg = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        options["img_size"] = image_size
    backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    # In some networks (MobileNetV3) a layer of another width stands between the pooled features and the removed classifier.
    width: Any = getattr(backbone, "head_hidden_size", backbone.num_features)
    if pooling and not hasattr(backbone, "num_prefix_tokens"):
        raise ConfigError(f"{name}@{pooling}: this network has maps and no tokens; leave @{pooling} out")
    if "class" in pooling and getattr(backbone, "cls_token", None) is None:
        raise ConfigError(f"{name}@{pooling}: this network has no class token; take @mean, or leave @{pooling} out")
    if not cells:
        return TimmFrameEncoder(backbone, int(width), pooling=pooling)
    level, channels = _timm_level(name, backbone, cells_layer)
    grid = FrameGrid(channels, cells, cell_width)
    return TimmFrameEncoder(backbone, int(width), grid=grid, level=level, pooling=pooling)


def _timm_level(name: str, backbone: nn.Module, layer: int | None) -> tuple[int, int]:
    """Return the index of the map that is pooled over cells, and its channels.

    Raises ConfigError if the backbone gives no maps, has no such layer, or has none at a stride of 16 to take by default.
    """
    infos: Any = getattr(backbone, "feature_info", None)
    if not hasattr(backbone, "forward_intermediates") or not infos:
        raise ConfigError(f"cells need maps of a middle layer, and timm's {name!r} gives none; set cells = 0")
    strides = [int(info["reduction"]) for info in infos]
    if layer is None:
        if len(set(strides)) == 1:  # a ViT, whose blocks all have one stride
            layer = middle_block(len(strides))
        elif 16 in strides:
            layer = len(strides) - strides[::-1].index(16)
        else:
            raise ConfigError(
                f"{name!r} has no map at a stride of 16, only {strides}; set cells_layer to 1-{len(strides)}"
            )
    if layer > len(strides):
        raise ConfigError(
            f"cells_layer {layer}: {name!r} has {len(strides)} maps, at strides {strides}; take one of them"
        )
    return layer - 1, int(infos[layer - 1]["num_chs"])


LITES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""The multipliers of width and depth of each EfficientNet-Lite by its name in `ModelConfig.encoder`."""


class EfficientNetLite(nn.Module):
    """A frame encoder whose pooled features are 1280 wide. By default it is Lite0: 3.4 M parameters, 0.38 GMAC a frame of 224 px.

    With `cells` above 0, features of a stage are pooled over cells x cells parts of the frame and appended. The default is the
    last stage at a sixteenth of the size (112 channels in Lite0).

    The network is an EfficientNet without squeeze-and-excitation and with ReLU6 (Tan and Le 2019; the "lite" form is
    TensorFlow's: neither the stem, the head nor the repeats of the first and the last stage grow with the network). Its
    parameter names are those of timm's `tf_efficientnet_lite0` to `tf_efficientnet_lite2`.
    """

    STEM, POOLED, CELLS_LAYER = 32, 1280, 5
    # kernel, stride, expansion, channels, repeats
    STAGES = (
        (3, 1, 1, 16, 1),
        (3, 2, 6, 24, 2),
        (5, 2, 6, 40, 2),
        (3, 2, 6, 80, 3),
        (5, 1, 6, 112, 3),
        (5, 2, 6, 192, 4),
        (3, 1, 6, 320, 1),
    )

    def __init__(
        self,
        cells: int = 0,
        *,
        cells_layer: int | None = None,
        cell_width: int | None = None,
        multipliers: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        wider, deeper = multipliers
        self.cells_layer = cells_layer or self.CELLS_LAYER
        self.conv_stem = _conv(3, self.STEM, 3, stride=2)
        self.bn1 = _norm(self.STEM)
        stages, widths, channels = [], [], self.STEM
        for number, (kernel, stride, expansion, base, repeats) in enumerate(self.STAGES, 1):
            out = int(base * wider + 4) // 8 * 8  # the nearest multiple of 8
            is_outer = number in (1, len(self.STAGES))
            blocks: list[nn.Module] = []
            for repeat in range(repeats if is_outer else math.ceil(repeats * deeper)):
                step = stride if repeat == 0 else 1
                blocks.append(
                    _Depthwise(channels, out, kernel, step)
                    if expansion == 1
                    else _Inverted(channels, out, kernel, step, expansion)
                )
                channels = out
            stages.append(nn.Sequential(*blocks))
            widths.append(out)
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _conv(channels, self.POOLED, 1)
        self.bn2 = _norm(self.POOLED)
        self.grid = FrameGrid(widths[self.cells_layer - 1], cells, cell_width) if cells else None
        self.width = self.POOLED + (0 if self.grid is None else self.grid.width)

    def forward(self, frames_MCHW: Tensor) -> Tensor:
        return self.pool(self.features(frames_MCHW))

    def features(self, frames_MCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the features before pooling: the last (M, 1280, h, w) and, with cells, those of a stage (M, D', h', w')."""
        features = _relu6(self.conv_stem, self.bn1, frames_MCHW)
        middle = features = self.blocks[: self.cells_layer](features)
        features = self.blocks[self.cells_layer :](features)
        last = _relu6(self.conv_head, self.bn2, features)
        return (last,) if self.grid is None else (last, middle)

    def pool(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return embeddings (M, D) from the result of `features`."""
        pooled_MD = features[0].mean(dim=(2, 3))
        return pooled_MD if self.grid is None else torch.cat([pooled_MD, self.grid(features[1])], dim=1)

    def fold_norms(self) -> None:
        """Merge each batch norm into the convolution before it. In eval mode this is the same function, but faster.

        It cannot be undone. `PAIRS` of each module names its convolutions and the norms after them.
        """
        for module in self.modules():
            for conv_name, norm_name in getattr(module, "PAIRS", ()):
                norm = getattr(module, norm_name)
                if isinstance(norm, nn.BatchNorm2d):
                    setattr(module, conv_name, fuse_conv_bn_eval(getattr(module, conv_name), norm))
                    setattr(module, norm_name, nn.Identity())

    PAIRS = (("conv_stem", "bn1"), ("conv_head", "bn2"))


class _Depthwise(nn.Module):
    """A depthwise-separable block: a depthwise and a pointwise convolution."""

    PAIRS = (("conv_dw", "bn1"), ("conv_pw", "bn2"))

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _conv(channels, channels, kernel, stride=stride, groups=channels)
        self.bn1 = _norm(channels)
        self.conv_pw = _conv(channels, out, 1)
        self.bn2 = _norm(out)

    def forward(self, features: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(_relu6(self.conv_dw, self.bn1, features)))


class _Inverted(nn.Module):
    """An inverted residual block: a pointwise expansion, a depthwise convolution and a pointwise projection."""

    PAIRS = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.conv_pw = _conv(channels, wide, 1)
        self.bn1 = _norm(wide)
        self.conv_dw = _conv(wide, wide, kernel, stride=stride, groups=wide)
        self.bn2 = _norm(wide)
        self.conv_pwl = _conv(wide, out, 1)
        self.bn3 = _norm(out)
        self.residual = stride == 1 and channels == out

    def forward(self, features: Tensor) -> Tensor:
        inner = _relu6(self.conv_dw, self.bn2, _relu6(self.conv_pw, self.bn1, features))
        if self.residual:
            return _added_convolution(self.conv_pwl, self.bn3, inner, features)
        out: Tensor = self.bn3(self.conv_pwl(inner))
        return out


class _SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: the size of the output is that of the input over the stride, rounded up."""

    def forward(self, features: Tensor) -> Tensor:
        padded = self.padded(features)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def padded(self, features: Tensor) -> Tensor:
        """Return the features with the zeros around them that this convolution needs. If their number is odd, the end has more."""
        pads = [
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, kernel, stride in zip(features.shape[-2:], self.kernel_size, self.stride, strict=True)
        ]
        (top, left) = (pad // 2 for pad in pads)
        return F.pad(features, (left, pads[1] - left, top, pads[0] - top))


def _relu6(conv: nn.Conv2d, norm: nn.Module, features: Tensor) -> Tensor:
    """Return ReLU6 of the normalised convolution. If oneDNN can fuse the steps, it does them in one pass over memory."""
    if not _fuses(norm, features):
        return F.relu6(norm(conv(features)), inplace=True)
    features, settings = _onednn_settings(conv, features)
    return torch.ops.mkldnn._convolution_pointwise(
        features, conv.weight, conv.bias, *settings, "hardtanh", [0.0, 6.0], ""
    )


def _added_convolution(conv: nn.Conv2d, norm: nn.Module, features: Tensor, residual: Tensor) -> Tensor:
    """Return `residual` plus the normalised convolution of `features`.

    If oneDNN fuses the steps, the sum is written into `residual`, which nothing reads afterwards.
    """
    if not _fuses(norm, features):
        return norm(conv(features)) + residual
    features, settings = _onednn_settings(conv, features)
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        residual, features, conv.weight, conv.bias, *settings, "add", 1.0, None, [], None
    )


def _fuses(norm: nn.Module, features: Tensor) -> bool:
    """Return True if oneDNN's fused convolutions can be used.

    They need folded norms, and work only at inference, because they have no gradients and exporters do not know them.
    """
    return (
        isinstance(norm, nn.Identity)
        and not torch.compiler.is_exporting()  # before the next line, which torch 2.7 cannot trace
        and torch.is_inference_mode_enabled()
        and features.device.type == "cpu"
        and features.dtype in _fused_dtypes()
    )


@cache
def _fused_dtypes() -> frozenset[torch.dtype]:
    """Return the precisions in which the fused convolutions were measured to be faster on this processor."""
    # Other processors and bfloat16 were never measured. oneDNN may have no fast kernel that fuses there.
    if platform.machine() not in {"x86_64", "AMD64"} or not torch.backends.mkldnn.is_available():
        return frozenset()
    return frozenset({torch.float32})


def _onednn_settings(conv: nn.Conv2d, features: Tensor) -> tuple[Tensor, tuple[object, ...]]:
    """Return the features, padded here if the convolution pads unevenly, and (padding, stride, dilation, groups) for oneDNN."""
    padding = conv.padding
    if isinstance(conv, _SameConv2d):
        features, padding = conv.padded(features), (0, 0)
    return features, (padding, conv.stride, conv.dilation, conv.groups)


def _conv(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, padded as TensorFlow does. With a stride of 1 that is torch's own even padding."""
    if stride == 1:
        return nn.Conv2d(channels, out, kernel, padding=kernel // 2, groups=groups, bias=False)
    return _SameConv2d(channels, out, kernel, stride=stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)
