"""Where in each frame a model looks: a map over each picture, with no number below 0.

`rollout`: attention of all blocks of a ViT multiplied, half of each the identity for the residual connection, the class token's
row (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020). `attention`: the class token's row in the last block
alone. Both say where was looked, not for which action.

`grad-cam`: features before they are pooled, times how much the action's logit changes with them, summed over channels, where
positive. For a mean over the frame this is Grad-CAM (Selvaraju et al. 2017); where the frame is pooled cell by cell, each
cell has its own gradient (as in Draelos and Carin's HiResCAM, 2020). The gradient goes through temporal part and head alone.

Letters in shapes: M frames, S tokens of a sequence, R rows of attention, D width, h and w places of a map.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.errors import ConfigError, nearest
from fewframes.models.backbones import EfficientNetLite0, TimmFrameEncoder
from fewframes.models.layers import mean_weights
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.models.token_merging import merged_per_block, per_head, unlike_plain_vit

Method = Literal["rollout", "attention", "grad-cam"]
MapChoice = Literal["auto", "rollout", "attention", "grad-cam", "none"]
FRAMES_AT_ONCE = 16
"""A ViT's whole attention of so many frames is in memory at a time: 30 MB a block at 197 tokens and 12 heads."""


def choose_method(encoder: nn.Module, asked: MapChoice) -> Method | None:
    """How maps of this frame encoder are made; None where none are asked for. ConfigError where it has none of this kind."""
    if asked == "none":
        return None
    possible = _possible(encoder)
    if asked not in ("auto", *possible):
        raise ConfigError(
            f"map {asked!r}: for this model's frame encoder ({type(encoder).__name__}) "
            f"{nearest(asked, ['auto', 'none', *possible])}"
        )
    if merged_per_block(encoder):
        raise ConfigError(
            f"this model merges {merged_per_block(encoder)} patches away in each block, so what is left has no places in the "
            "picture; load it with merge 0, or take map 'none'"
        )
    return possible[0] if asked == "auto" else next(method for method in possible if method == asked)


def frame_maps(model: STAM, pixels_TCHW: Tensor, method: Method, label: int) -> Tensor:
    """The maps of one video's frames, pixels in 0-1: (T, C, H, W) -> (T, h, w) float32, CPU. `label` is whose logit
    `grad-cam` follows."""
    if method == "grad-cam":
        return grad_cam(model, pixels_TCHW, label)
    with torch.inference_mode():
        return attention_maps(model.frame_encoder, model.normalise(pixels_TCHW), method)[0].cpu()


def attention_maps(encoder: nn.Module, frames_MCHW: Tensor, method: Method) -> tuple[Tensor, Tensor]:
    """A ViT's maps (M, h, w) of normalised frames of one video, and its embeddings (M, D) of them, block by block."""
    if isinstance(encoder, SpatialEncoder):
        if encoder.layout != "factorised":
            return _own_maps(encoder, frames_MCHW, method)
        parts = [_own_maps(encoder, part_MCHW, method) for part_MCHW in frames_MCHW.split(FRAMES_AT_ONCE)]
    else:
        assert isinstance(encoder, TimmFrameEncoder)
        parts = [_timm_maps(encoder.backbone, part_MCHW, method) for part_MCHW in frames_MCHW.split(FRAMES_AT_ONCE)]
    return torch.cat([maps for maps, _ in parts]), torch.cat([embeddings for _, embeddings in parts])


def grad_cam(model: STAM, pixels_TCHW: Tensor, label: int) -> Tensor:
    """Positive shares in one logit of each place of the features before they are pooled: (T, C, H, W) -> (T, h, w), CPU.

    Features of several sizes (Lite0 with cells) are added up at the finer one. Before negative ones are dropped, a frame's
    shares sum to gradient times embedding.
    """
    encoder = model.frame_encoder
    assert isinstance(encoder, EfficientNetLite0 | TimmFrameEncoder)
    with torch.inference_mode():
        parts = [encoder.features(model.normalise(part_MCHW)) for part_MCHW in pixels_TCHW.split(FRAMES_AT_ONCE)]
    # Copies made here, outside, may have gradients.
    features = tuple(torch.cat(same).float().clone().requires_grad_() for same in zip(*parts, strict=True))
    with torch.enable_grad():
        precise = next(encoder.parameters()).dtype  # some backbones have weights behind the pooling
        logits_1K = model.encode_video(encoder.pool(tuple(one.to(precise) for one in features)).float()[None]).logits
        gradients = torch.autograd.grad(logits_1K[0, label], features)
    channels = _channels_axis(encoder, features[0])
    shares = [(values.detach() * gradient).sum(channels) for values, gradient in zip(features, gradients, strict=True)]
    finest = max((share_Mhw.shape[1:] for share_Mhw in shares), key=math.prod)
    return torch.stack([_resized(share_Mhw, finest) for share_Mhw in shares]).sum(0).clamp(min=0).cpu()


def _possible(encoder: nn.Module) -> tuple[Method, ...]:
    """The ways to a map, the best first."""
    if isinstance(encoder, SpatialEncoder):
        # Between frames attention mixes elsewhere than within them, and whole videos' sequences are too long to multiply.
        return ("rollout", "attention") if encoder.layout == "factorised" else ("attention",)
    if isinstance(encoder, TimmFrameEncoder):
        backbone: Any = encoder.backbone
        if not unlike_plain_vit(backbone) and backbone.global_pool == "token":
            return ("rollout", "attention")
    return ("grad-cam",)


def _own_maps(encoder: SpatialEncoder, frames_MCHW: Tensor, method: Method) -> tuple[Tensor, Tensor]:
    num_frames = len(frames_MCHW)  # of one video, where the layout mixes them
    num_tokens = encoder.pos_embed.shape[1]
    rows, tokens = _walked(encoder.blocks, encoder.tokens(frames_MCHW, num_frames), method, num_tokens)
    if encoder.layout == "joint":  # every frame's class token looks at all frames: (1, T, T * S) -> (T, 1, S)
        rows = rows.mean(dim=1).unflatten(1, (num_frames, num_tokens)).transpose(0, 1)
    rows_MS = rows.reshape(num_frames, num_tokens)
    return _squared(rows_MS[:, 1:]), encoder.read_out(tokens, num_frames)


def _timm_maps(backbone: nn.Module, frames_MCHW: Tensor, method: Method) -> tuple[Tensor, Tensor]:
    vit: Any = backbone
    tokens_MSD = vit.norm_pre(vit._pos_embed(vit.patch_embed(frames_MCHW)))
    rows_M1S, tokens_MSD = _walked(vit.blocks, tokens_MSD, method, tokens_MSD.shape[1])
    return _squared(rows_M1S[:, 0, vit.num_prefix_tokens :]), vit.forward_head(vit.norm(tokens_MSD))


def _walked(blocks: nn.Module, tokens: Tensor, method: Method, stride: int) -> tuple[Tensor, Tensor]:
    """Tokens (..., S, D) through all blocks, and the class tokens' attention (..., R, S): one row every `stride` tokens."""
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
    """How much every `stride`-th token looks at each in this block, mean over heads: (..., S, D) -> (..., R, S) float32."""
    query, key, _ = per_head(layer, layer.norm1(tokens))
    return mean_weights(query[..., ::stride, :].float(), key.float())


def _squared(rows_MN: Tensor) -> Tensor:
    side = math.isqrt(rows_MN.shape[1])
    return rows_MN.unflatten(1, (side, side))


def _channels_axis(encoder: EfficientNetLite0 | TimmFrameEncoder, features: Tensor) -> int:
    if isinstance(encoder, EfficientNetLite0):
        return 1
    backbone: Any = encoder.backbone
    if features.ndim == 4:
        for axis in (1, 3):
            if features.shape[axis] == backbone.num_features:
                return axis
    raise ConfigError(
        f"{type(backbone).__name__}: its features {tuple(features.shape)} are no map of {backbone.num_features} channels; take "
        "map 'none'"
    )


def _resized(share_Mhw: Tensor, size: torch.Size) -> Tensor:
    """The same shares on more places, their sum kept."""
    scale = math.prod(share_Mhw.shape[1:]) / math.prod(size)
    return F.interpolate(share_Mhw[:, None], size=tuple(size), mode="nearest")[:, 0] * scale
