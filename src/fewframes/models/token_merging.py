"""Fewer tokens on the way through a frame encoder: patches that look alike are merged between attention and MLP.

Source: Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman, "Token Merging: Your ViT But Faster" (2022), written from its text. It
needs no training. Patches are split alternately into two sets; each of the first set draws one edge to the patch of the second
set whose key is most like its own; the strongest edges are merged, each patch weighed by how many it already stands for. The
class token and registers are never merged.

Letters in shapes: M frames, S tokens of a frame, R edges, A heads, D width, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.errors import ConfigError
from fewframes.models.backbones import TimmFrameEncoder
from fewframes.models.layers import Block, attend
from fewframes.models.stam import SpatialEncoder

WHOLE_SHARE = 6
"""One block in this many, the first ones, merges nothing. The paper merges in all, but then embeddings are further from the
unmerged ones for the same work: ViT-Ti, 32 frames, 21.0 % off at 1.57 times less work (11 in all 12 blocks), 17.1 % at 1.63
times less (17 in the last ten)."""


def merge_tokens(encoder: nn.Module, per_block: int) -> None:
    """Sets a frame encoder to merge `per_block` patches away in every block after the first sixth; 0 merges none.

    Where fewer than twice as many are left, half of them go, as in the paper. While the encoder trains, nothing is merged. Our own
    ViT computes its last block for the class token alone, merging or not: nothing else of it is read. Embeddings change, so
    whoever keeps them keeps `merged_per_block` with them. Raises ConfigError for an encoder that is no plain ViT, and for more
    than half of its patches.
    """
    if per_block < 0:
        raise ConfigError(f"{per_block} patches merged in each block: needs at least 0, which merges none")
    if per_block == 0:
        if isinstance(encoder, SpatialEncoder):
            encoder.walk = OwnWalk(0) if encoder.layout == "factorised" else None
        elif isinstance(encoder, TimmFrameEncoder):
            encoder.walk = None
        return
    if isinstance(encoder, SpatialEncoder):
        num_patches = _num_patches(encoder)
        walk: OwnWalk | TimmWalk = OwnWalk(per_block)
    elif isinstance(encoder, TimmFrameEncoder):
        num_patches = _num_patches_timm(encoder.backbone)
        walk = TimmWalk(per_block)
    else:
        raise ConfigError(
            f"tokens are merged in ViTs and {type(encoder).__name__} has none; merge 0 or take a ViT such as 'vit-ti-16'"
        )
    if per_block > num_patches // 2:
        raise ConfigError(
            f"{per_block} patches merged in each block: at most half can go in one, here {num_patches // 2} of {num_patches}"
        )
    encoder.walk = walk


def merged_per_block(encoder: nn.Module) -> int:
    """How many patches a frame encoder merges away in a block: a part of what its embeddings depend on."""
    walk = getattr(encoder, "walk", None)
    return walk.per_block if isinstance(walk, OwnWalk | TimmWalk) else 0


@dataclass(frozen=True)
class OwnWalk:
    """Tokens (M, S, D) through the blocks of our own frame encoder, fewer after each, to the class token (M, 1, D)."""

    per_block: int

    def __call__(self, blocks: nn.Module, tokens_MSD: Tensor) -> Tensor:
        *layers, last = blocks.children()
        assert isinstance(last, Block)
        if self.per_block == 0:
            for layer in layers:
                tokens_MSD = layer(tokens_MSD)
            return last.first_token(tokens_MSD)
        num_whole = (len(layers) + 1) // WHOLE_SHARE
        tokens_MSD, sizes_MS = through_blocks(layers, tokens_MSD, self.per_block, num_prefix=1, num_whole=num_whole)
        return last.first_token(tokens_MSD, sizes_MS.log())


@dataclass(frozen=True)
class TimmWalk:
    """Frames (M, C, H, W) through a VisionTransformer of timm, fewer tokens after each block: embeddings (M, D)."""

    per_block: int

    def __call__(self, backbone: nn.Module, frames_MCHW: Tensor) -> Tensor:
        vit: Any = backbone
        tokens_MSD = vit.norm_pre(vit._pos_embed(vit.patch_embed(frames_MCHW)))
        layers = list(vit.blocks)
        tokens_MSD, sizes_MS = through_blocks(
            layers, tokens_MSD, self.per_block, vit.num_prefix_tokens, num_whole=len(layers) // WHOLE_SHARE
        )
        tokens_MSD = vit.norm(tokens_MSD)
        if vit.global_pool == "token":
            return vit.fc_norm(tokens_MSD[:, 0])
        first = 0 if vit.pool_include_prefix else vit.num_prefix_tokens
        # The mean of the patches, so each token counts as often as the patches that it stands for.
        shares_MS1 = F.normalize(sizes_MS[:, first:, None], p=1, dim=1).to(tokens_MSD.dtype)
        return vit.fc_norm((tokens_MSD[:, first:] * shares_MS1).sum(dim=1))


def through_blocks(
    blocks: Sequence[nn.Module], tokens_MSD: Tensor, per_block: int, num_prefix: int, *, num_whole: int
) -> tuple[Tensor, Tensor]:
    """Tokens after these blocks (M, S', D), and how many patches each stands for (M, S'); the first `num_whole` merge none."""
    sizes_MS = torch.ones(tokens_MSD.shape[:2], device=tokens_MSD.device)
    for number, block in enumerate(blocks):
        branch_MSD, features_MSd = _attention(block, tokens_MSD, sizes_MS)
        tokens_MSD = tokens_MSD + branch_MSD
        if number >= num_whole:
            tokens_MSD, sizes_MS = merged(tokens_MSD, sizes_MS, features_MSd, per_block, num_prefix)
        tokens_MSD = tokens_MSD + _mlp(block, tokens_MSD)
    return tokens_MSD, sizes_MS


def merged(
    tokens_MSD: Tensor, sizes_MS: Tensor, features_MSd: Tensor, num_merged: int, num_prefix: int
) -> tuple[Tensor, Tensor]:
    """Tokens (M, S - R, D) and sizes (M, S - R), those that are left in their order, where R of the S are merged into others.

    R is `num_merged`, or half of the tokens after the first `num_prefix` where that is less. Edges are drawn between features
    (M, S, d) by the cosine of their angle.
    """
    num_merged = min(num_merged, (tokens_MSD.shape[1] - num_prefix) // 2)
    if num_merged == 0:  # a single patch is left
        return tokens_MSD, sizes_MS
    from_MR, to_MR = _strongest_edges(features_MSd, num_merged, num_prefix)
    moved_MR = sizes_MS.gather(1, from_MR)
    sizes_MS = sizes_MS.scatter_add(1, to_MR, moved_MR)
    shares_MR1 = (moved_MR / sizes_MS.gather(1, to_MR)).unsqueeze(2)
    # The places that are left, ascending, then those that go: a sort of distinct numbers, for ONNX has no stable one.
    num_tokens = sizes_MS.shape[1]
    places_MS = torch.arange(num_tokens, device=sizes_MS.device).expand_as(sizes_MS)
    left_MS = places_MS.scatter_add(1, from_MR, torch.full_like(from_MR, num_tokens)).argsort(dim=1)
    left_MS = left_MS[:, : num_tokens - num_merged]
    # Rows of all frames in one matrix: whole rows are gathered and added far faster than single numbers.
    first_M1 = torch.arange(tokens_MSD.shape[0], device=tokens_MSD.device).unsqueeze(1) * tokens_MSD.shape[1]
    rows = tokens_MSD.flatten(0, 1)
    to = (to_MR + first_M1).flatten()
    # The mean as a step towards the other: patches that are equal stay exactly as they are.
    steps = (rows[(from_MR + first_M1).flatten()] - rows[to]) * shares_MR1.flatten(0, 1)
    rows = rows.index_add(0, to, steps.to(rows.dtype))
    left_MSD = rows.index_select(0, (left_MS + first_M1).flatten()).unflatten(0, left_MS.shape)
    return left_MSD, sizes_MS.gather(1, left_MS)


def _strongest_edges(features_MSd: Tensor, num_merged: int, num_prefix: int) -> tuple[Tensor, Tensor]:
    """Which tokens are merged, and into which: two of (M, R)."""
    unit_MSd = F.normalize(features_MSd.float(), dim=2)  # bfloat16 would see many as equal
    similarity = unit_MSd[:, num_prefix::2] @ unit_MSd[:, num_prefix + 1 :: 2].transpose(1, 2)
    strength, nearest = similarity.max(dim=2)
    from_MR = strength.topk(num_merged, dim=1).indices
    return num_prefix + 2 * from_MR, num_prefix + 1 + 2 * nearest.gather(1, from_MR)


def _attention(block: nn.Module, tokens_MSD: Tensor, sizes_MS: Tensor) -> tuple[Tensor, Tensor]:
    """What a block's attention adds to its tokens (M, S, D), and their keys, mean over heads (M, S, d)."""
    layer: Any = block
    query, key, value = per_head(block, layer.norm1(tokens_MSD))
    summed_MSD = attend(query, key, value, sizes_MS.log()).transpose(1, 2).flatten(2)
    branch_MSD = layer.attn.proj(summed_MSD)
    return branch_MSD if isinstance(block, Block) else layer.ls1(branch_MSD), key.mean(dim=1)


def per_head(block: nn.Module, normed_MSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a block, ours or timm's, from its normalised tokens (M, S, D): three of (M, A, S, d)."""
    if isinstance(block, Block):
        return block.attn.per_head(normed_MSD)
    layer: Any = block
    attn = layer.attn
    query, key, value = attn.qkv(normed_MSD).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return attn.q_norm(query), attn.k_norm(key), value


def _mlp(block: nn.Module, tokens_MSD: Tensor) -> Tensor:
    layer: Any = block
    branch_MSD: Tensor = layer.mlp(layer.norm2(tokens_MSD))
    return branch_MSD if isinstance(block, Block) else layer.ls2(branch_MSD)


def _num_patches(encoder: SpatialEncoder) -> int:
    if encoder.layout != "factorised":
        raise ConfigError(
            f"layout {encoder.layout!r} mixes frames inside the encoder, and tokens are merged within one frame; merge 0 or "
            "take the 'factorised' layout"
        )
    return encoder.pos_embed.shape[1] - 1


def _num_patches_timm(backbone: nn.Module) -> int:
    """Patches of a VisionTransformer whose every part `TimmWalk` repeats; ConfigError for any other backbone."""
    if unlike := unlike_plain_vit(backbone):
        raise ConfigError(f"tokens are merged in plain ViTs and {unlike}; merge 0 or take a ViT such as 'vit-ti-16'")
    vit: Any = backbone
    return int(vit.patch_embed.num_patches)


def unlike_plain_vit(backbone: nn.Module) -> str:
    """What a backbone of timm has that its VisionTransformer does not, in words; empty where it is a plain one."""
    from timm.models import (
        vision_transformer as timm_vit,
    )  # late: it takes seconds to import and most models do without

    vit: Any = backbone
    if type(backbone) is not timm_vit.VisionTransformer:
        return f"{type(backbone).__name__} is none"
    if any(type(block) is not timm_vit.Block for block in vit.blocks):
        return f"this one has blocks of the form {type(vit.blocks[0]).__name__}"
    if any(_unusual(block.attn) for block in vit.blocks):
        return "this one attends in a form of its own"
    if vit.global_pool not in ("token", "avg"):
        return f"this one pools by {vit.global_pool!r}, not by class token or mean"
    return ""


def _unusual(attn: Any) -> bool:
    plain_norm = isinstance(getattr(attn, "norm", nn.Identity()), nn.Identity)  # before its projection; newer timm only
    # By name: timm has moved this class from one module to another between the versions that we take.
    return type(attn).__name__ != "Attention" or getattr(attn, "gate", None) is not None or not plain_norm
