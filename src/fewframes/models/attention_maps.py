"""Attention maps: for each frame, a map of the regions that a model attends to. No number in a map is below 0.

There are three methods:

`rollout` multiplies the attention of all blocks of a ViT and takes the row of the class token. Half of each factor is the identity,
for the residual connection (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020). `attention` takes the row of
the class token in the last block alone. Both show the regions that the model attends to, but not for which action.

`grad-cam` multiplies the features before pooling with the gradient of the action's logit, sums over channels, and keeps what is
positive. If features are pooled by a mean over the frame, this is Grad-CAM (Selvaraju et al. 2017). If they are pooled cell by
cell, each cell has its own gradient (as in Draelos and Carin's HiResCAM, 2020). The gradient is taken through the temporal part
and the head alone.

Letters in shapes: M frames, S tokens of a sequence, R rows of attention, N patches, D width, h and w the sides of a map.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.errors import ConfigError, nearest
from fewframes.models.backbones import EfficientNetLite, TimmFrameEncoder
from fewframes.models.config import MapChoice, MapMethod
from fewframes.models.layers import mean_weights
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.models.token_merging import merged_per_block, per_head, unlike_plain_vit
from fewframes.models.words.encoder import ClipFrameEncoder

FRAMES_AT_ONCE = 16
"""The number of frames whose attention in a ViT is in memory at a time: 30 MB a block at 197 tokens and 12 heads."""


def choose_method(encoder: nn.Module, asked: MapChoice) -> MapMethod | None:
    """Return the method for maps of this frame encoder, or None if no maps are asked for.

    `auto` stands for the best method that the encoder has, or for none if it has none. Raises ConfigError if it does not have the
    method asked for.
    """
    possible = _possible_methods(encoder)
    if asked == "none" or (asked == "auto" and not possible):
        return None
    if asked not in ("auto", *possible):
        raise ConfigError(
            f"map {asked!r}: for this model's frame encoder ({type(encoder).__name__}) "
            f"{nearest(asked, ['auto', 'none', *possible])}"
        )
    if merged_per_block(encoder):
        raise ConfigError(
            f"this model merges {merged_per_block(encoder)} patches away in each block, so the remaining ones have no position "
            "in the picture; load it with merge 0, or take map 'none'"
        )
    return possible[0] if asked == "auto" else next(method for method in possible if method == asked)


def frame_maps(model: STAM, pixels_TCHW: Tensor, method: MapMethod, label: int) -> Tensor:
    """Return the maps of the frames of one video: (T, C, H, W) -> (T, h, w) float32 on the CPU.

    Args:
        model: the network.
        pixels_TCHW: the pixels in 0-1.
        method: the method, from `choose_method`.
        label: the index of the action whose logit `grad-cam` follows. The other methods do not use it.
    """
    if method == "grad-cam":
        return grad_cam(model, pixels_TCHW, label)
    with torch.inference_mode():
        return attention_maps(model.frame_encoder, model.normalise(pixels_TCHW), method)[0].cpu()


def attention_maps(encoder: nn.Module, frames_MCHW: Tensor, method: MapMethod) -> tuple[Tensor, Tensor]:
    """Return a ViT's maps (M, h, w) of the frames of one video, and its pooled embeddings (M, D) of them, without cells.

    Args:
        encoder: the ViT, ours or timm's.
        frames_MCHW: the normalised pixels.
        method: `rollout` or `attention`.
    """
    if isinstance(encoder, SpatialEncoder):
        if encoder.layout != "factorised":
            return _own_maps(encoder, frames_MCHW, method)
        parts = [_own_maps(encoder, part_MCHW, method) for part_MCHW in frames_MCHW.split(FRAMES_AT_ONCE)]
    else:
        assert isinstance(encoder, TimmFrameEncoder)
        parts = [_timm_maps(encoder.backbone, part_MCHW, method) for part_MCHW in frames_MCHW.split(FRAMES_AT_ONCE)]
    return torch.cat([maps for maps, _ in parts]), torch.cat([embeddings for _, embeddings in parts])


def grad_cam(model: STAM, pixels_TCHW: Tensor, label: int) -> Tensor:
    """Return the positive contribution of each position in the features to one logit: (T, C, H, W) -> (T, h, w) on the CPU.

    The features are those before pooling. Features of several sizes (with cells) are added up at the finest one. Before
    negative contributions are dropped, those of a frame sum to the gradient times the embedding.

    Args:
        model: the network.
        pixels_TCHW: the pixels in 0-1.
        label: the index of the action.
    """
    encoder = model.frame_encoder
    assert isinstance(encoder, EfficientNetLite | TimmFrameEncoder)
    with torch.inference_mode():
        parts = [encoder.features(model.normalise(part_MCHW)) for part_MCHW in pixels_TCHW.split(FRAMES_AT_ONCE)]
    # Tensors made in inference mode never have gradients. Copies that are made outside of it may have them.
    features = tuple(torch.cat(level).float().clone().requires_grad_() for level in zip(*parts, strict=True))
    with torch.enable_grad():
        dtype = next(encoder.parameters()).dtype  # some backbones have weights behind the pooling
        logits_1K = model.encode_video(encoder.pool(tuple(level.to(dtype) for level in features)).float()[None]).logits
        gradients = torch.autograd.grad(logits_1K[0, label], features)
    axes = [_channels_axis(encoder, features[0]), *[1 for _ in features[1:]]]
    maps = [
        (level.detach() * gradient).sum(axis) for level, gradient, axis in zip(features, gradients, axes, strict=True)
    ]
    finest = max((map_Mhw.shape[1:] for map_Mhw in maps), key=math.prod)
    return torch.stack([_resized(map_Mhw, finest) for map_Mhw in maps]).sum(0).clamp(min=0).cpu()


def _possible_methods(encoder: nn.Module) -> tuple[MapMethod, ...]:
    """Return the methods that this frame encoder has, the best first."""
    if isinstance(encoder, SpatialEncoder):
        # In `per_block` each block also attends over time, which the product would miss. In `joint` the sequence of a whole video
        # is too long to multiply.
        return ("rollout", "attention") if encoder.layout == "factorised" else ("attention",)
    if isinstance(encoder, TimmFrameEncoder):
        backbone: Any = encoder.backbone
        if not unlike_plain_vit(backbone) and backbone.global_pool == "token":
            return ("rollout", "attention")
    # The features of an image half of open_clip before pooling are of another shape in each architecture.
    return () if isinstance(encoder, ClipFrameEncoder) else ("grad-cam",)


def _own_maps(encoder: SpatialEncoder, frames_MCHW: Tensor, method: MapMethod) -> tuple[Tensor, Tensor]:
    """Return the maps (M, h, w) and embeddings (M, D) of our own ViT."""
    num_frames = len(frames_MCHW)  # the frames are of one video if the layout mixes them
    num_tokens = encoder.pos_embed.shape[1]
    rows, tokens = _run_blocks(encoder.blocks, encoder.tokens(frames_MCHW, num_frames), method, num_tokens)
    if encoder.layout == "joint":  # the class token of each frame attends to all frames: (1, T, T * S) -> (T, 1, S)
        rows = rows.mean(dim=1).unflatten(1, (num_frames, num_tokens)).transpose(0, 1)
    rows_MS = rows.reshape(num_frames, num_tokens)
    return _as_grid(rows_MS[:, 1:]), encoder.read_out(tokens, num_frames)


def _timm_maps(backbone: nn.Module, frames_MCHW: Tensor, method: MapMethod) -> tuple[Tensor, Tensor]:
    """Return the maps (M, h, w) and embeddings (M, D) of a VisionTransformer of timm, by the steps of its own `forward`."""
    vit: Any = backbone
    tokens_MSD = vit.norm_pre(vit._pos_embed(vit.patch_embed(frames_MCHW)))
    rows_M1S, tokens_MSD = _run_blocks(vit.blocks, tokens_MSD, method, tokens_MSD.shape[1])
    return _as_grid(rows_M1S[:, 0, vit.num_prefix_tokens :]), vit.forward_head(vit.norm(tokens_MSD))


def _run_blocks(blocks: nn.Module, tokens: Tensor, method: MapMethod, stride: int) -> tuple[Tensor, Tensor]:
    """Return the attention (..., R, S) of the class tokens, and the tokens (..., S, D) after all blocks.

    Args:
        blocks: the blocks of a ViT, ours or timm's.
        tokens: the tokens before the first block.
        method: `rollout` or `attention`.
        stride: the distance between class tokens in the sequence; R = S / stride.
    """
    layers: list[Any] = list(blocks.children())
    rows = torch.empty(0)
    for number, layer in enumerate(layers):
        if method == "rollout":
            weights = _weights(layer, tokens, stride=1)
            mixed = (weights + torch.eye(weights.shape[-1], device=weights.device)) / 2
            rows = mixed if number == 0 else mixed @ rows
        elif number == len(layers) - 1:
            rows = _weights(layer, tokens, stride)
        tokens = layer(tokens)
    return (rows[..., ::stride, :] if method == "rollout" else rows), tokens


def _weights(layer: Any, tokens: Tensor, stride: int) -> Tensor:
    """Return the attention of every `stride`-th token to all tokens in this block, mean over heads: (..., S, D) -> (..., R, S).

    The result is float32.
    """
    query, key, _ = per_head(layer, layer.norm1(tokens))
    return mean_weights(query[..., ::stride, :].float(), key.float())


def _as_grid(rows_MN: Tensor) -> Tensor:
    """Return the attention to N patches as a square map: (M, N) -> (M, h, w)."""
    side = math.isqrt(rows_MN.shape[1])
    return rows_MN.unflatten(1, (side, side))


def _channels_axis(encoder: EfficientNetLite | TimmFrameEncoder, features: Tensor) -> int:
    """Return the axis of the channels in the features, which is the last one in some backbones of timm."""
    if isinstance(encoder, EfficientNetLite):
        return 1
    backbone: Any = encoder.backbone
    if features.ndim == 4:
        for axis in (1, 3):
            if features.shape[axis] == backbone.num_features:
                return axis
    raise ConfigError(
        f"{type(backbone).__name__}: its features {tuple(features.shape)} are not a map of {backbone.num_features} channels; "
        "take map 'none'"
    )


def _resized(map_Mhw: Tensor, size: torch.Size) -> Tensor:
    """Return the map at a larger size, scaled so that its sum stays the same."""
    scale = math.prod(map_Mhw.shape[1:]) / math.prod(size)
    return F.interpolate(map_Mhw[:, None], size=tuple(size), mode="nearest")[:, 0] * scale
