"""Token merging: a faster pass through a ViT, in which patches that look alike are merged between attention and MLP.

Source: Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman, "Token Merging: Your ViT But Faster" (2022). The code is written from its
text. It needs no training. Patches are split alternately into two sets. Each patch of the first set gets an edge to the patch of
the second set whose key is most like its own. The patches at the strongest edges are merged. Each patch is weighed by the number
of patches that it already stands for. The class token and registers are never merged.

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

UNMERGED_ONE_IN = 6
"""The number of blocks of which one merges nothing: the first sixth does not. The paper merges in all blocks, but then embeddings
differ more from the unmerged ones for the same work: for ViT-Ti and 32 frames by 21.0 % at 1.57 times less work (11 patches in all
12 blocks), against 17.1 % at 1.63 times less (17 patches in the last ten)."""


def merge_tokens(encoder: nn.Module, per_block: int) -> None:
    """Set a frame encoder to merge `per_block` patches away in every block after the first sixth. 0 merges none.

    If fewer than twice as many patches are left, half of them are merged away, as in the paper. In training nothing is merged. Our
    own ViT computes its last block for the class token alone, with merging or without, because nothing else of it is read.
    Merging changes the embeddings, so `merged_per_block` must be a part of their key in a cache.

    Raises ConfigError for an encoder that is not a plain ViT, and for more than half of its patches.
    """
    if per_block < 0:
        raise ConfigError(f"{per_block} patches merged in each block: needs at least 0, which merges none")
    if per_block == 0:
        if isinstance(encoder, SpatialEncoder):
            encoder.walk = OwnWalk(0) if encoder.layout == "factorised" else None
        elif isinstance(encoder, TimmFrameEncoder):
            encoder.walk = None
        return
    if (grid := getattr(encoder, "grid", None)) is not None:
        raise ConfigError(
            f"merged patches have no place, and the {grid.cells} x {grid.cells} cells of this encoder need one; merge 0, or take "
            "cells = 0"
        )
    if getattr(encoder, "pooling", ""):
        raise ConfigError(
            f"merged patches stand for several, which the pooling @{encoder.pooling} of this encoder does not count; merge 0"
        )
    if isinstance(encoder, SpatialEncoder):
        num_patches = _num_patches(encoder)
        walk: OwnWalk | TimmWalk = OwnWalk(per_block)
    elif isinstance(encoder, TimmFrameEncoder):
        num_patches = _num_patches_timm(encoder.backbone)
        walk = TimmWalk(per_block)
    else:
        raise ConfigError(
            f"only ViTs have tokens to merge, and this encoder is {type(encoder).__name__}; merge 0 or take a ViT such as "
            "'vit-ti-16'"
        )
    if per_block > num_patches // 2:
        raise ConfigError(
            f"{per_block} patches merged in each block: at most half can be merged in one, here {num_patches // 2} of "
            f"{num_patches}"
        )
    encoder.walk = walk


def merged_per_block(encoder: nn.Module) -> int:
    """Return the number of patches that a frame encoder merges away in each block. Its embeddings depend on it."""
    walk = getattr(encoder, "walk", None)
    return walk.per_block if isinstance(walk, OwnWalk | TimmWalk) else 0


@dataclass(frozen=True)
class OwnWalk:
    """A pass through the blocks of our own ViT, with fewer tokens after each: tokens (M, S, D) -> class token (M, 1, D)."""

    per_block: int

    def __call__(self, blocks: nn.Module, tokens_MSD: Tensor) -> Tensor:
        *layers, last = blocks.children()
        assert isinstance(last, Block)
        if self.per_block == 0:
            for layer in layers:
                tokens_MSD = layer(tokens_MSD)
            return last.first_token(tokens_MSD)
        num_unmerged = (len(layers) + 1) // UNMERGED_ONE_IN
        tokens_MSD, sizes_MS = through_blocks(
            layers, tokens_MSD, self.per_block, num_prefix=1, num_unmerged=num_unmerged
        )
        return last.first_token(tokens_MSD, sizes_MS.log())


@dataclass(frozen=True)
class TimmWalk:
    """A pass through a VisionTransformer of timm, with fewer tokens after each block: frames (M, C, H, W) -> embeddings (M, D)."""

    per_block: int

    def __call__(self, backbone: nn.Module, frames_MCHW: Tensor) -> Tensor:
        vit: Any = backbone
        tokens_MSD = vit.norm_pre(vit._pos_embed(vit.patch_embed(frames_MCHW)))
        layers = list(vit.blocks)
        tokens_MSD, sizes_MS = through_blocks(
            layers, tokens_MSD, self.per_block, vit.num_prefix_tokens, num_unmerged=len(layers) // UNMERGED_ONE_IN
        )
        tokens_MSD = vit.norm(tokens_MSD)
        if vit.global_pool == "token":
            return vit.fc_norm(tokens_MSD[:, 0])
        first = 0 if vit.pool_include_prefix else vit.num_prefix_tokens
        # This is the mean over patches, so each token counts as many times as the patches that it stands for.
        weights_MS1 = F.normalize(sizes_MS[:, first:, None], p=1, dim=1).to(tokens_MSD.dtype)
        return vit.fc_norm((tokens_MSD[:, first:] * weights_MS1).sum(dim=1))


def through_blocks(
    blocks: Sequence[nn.Module], tokens_MSD: Tensor, per_block: int, num_prefix: int, *, num_unmerged: int
) -> tuple[Tensor, Tensor]:
    """Return the tokens after these blocks (M, S', D), and the number of patches that each stands for (M, S').

    Args:
        blocks: the blocks, ours or timm's.
        tokens_MSD: the tokens before the first block.
        per_block: the number of patches that each block merges away.
        num_prefix: the number of tokens at the start that are never merged: the class token and registers.
        num_unmerged: the number of blocks at the start that merge nothing.
    """
    sizes_MS = torch.ones(tokens_MSD.shape[:2], device=tokens_MSD.device)
    for number, block in enumerate(blocks):
        branch_MSD, features_MSd = _attention(block, tokens_MSD, sizes_MS)
        tokens_MSD = tokens_MSD + branch_MSD
        if number >= num_unmerged:
            tokens_MSD, sizes_MS = merged(tokens_MSD, sizes_MS, features_MSd, per_block, num_prefix)
        tokens_MSD = tokens_MSD + _mlp(block, tokens_MSD)
    return tokens_MSD, sizes_MS


def merged(
    tokens_MSD: Tensor, sizes_MS: Tensor, features_MSd: Tensor, num_merged: int, num_prefix: int
) -> tuple[Tensor, Tensor]:
    """Merge R of S tokens into others, and return the remaining tokens (M, S-R, D) in their order and their sizes (M, S-R).

    R is `num_merged`, or half of the tokens after the first `num_prefix` if that is less.

    Args:
        tokens_MSD: the tokens.
        sizes_MS: the number of patches that each token stands for.
        features_MSd: the features that are compared, by the cosine of their angle.
        num_merged: the number of tokens to merge.
        num_prefix: the number of tokens at the start that are never merged.
    """
    num_merged = min(num_merged, (tokens_MSD.shape[1] - num_prefix) // 2)
    if num_merged == 0:  # a single patch remains
        return tokens_MSD, sizes_MS
    from_MR, to_MR = _strongest_edges(features_MSd, num_merged, num_prefix)
    moved_MR = sizes_MS.gather(1, from_MR)
    sizes_MS = sizes_MS.scatter_add(1, to_MR, moved_MR)
    weights_MR1 = (moved_MR / sizes_MS.gather(1, to_MR)).unsqueeze(2)
    # The sort puts the indices of remaining tokens first, ascending, and those of merged tokens last, because S is added to them.
    # No two numbers are equal, so the sort need not be stable. In ONNX it is not.
    num_tokens = sizes_MS.shape[1]
    index_MS = torch.arange(num_tokens, device=sizes_MS.device).expand_as(sizes_MS)
    remaining_MS = index_MS.scatter_add(1, from_MR, torch.full_like(from_MR, num_tokens)).argsort(dim=1)
    remaining_MS = remaining_MS[:, : num_tokens - num_merged]
    # The tokens of all frames become rows of one matrix. Whole rows are gathered and added far faster than single numbers.
    first_M1 = torch.arange(tokens_MSD.shape[0], device=tokens_MSD.device).unsqueeze(1) * tokens_MSD.shape[1]
    rows = tokens_MSD.flatten(0, 1)
    to = (to_MR + first_M1).flatten()
    # The weighted mean is computed as a step from one token towards the other, so that equal tokens stay exactly equal.
    steps = (rows[(from_MR + first_M1).flatten()] - rows[to]) * weights_MR1.flatten(0, 1)
    rows = rows.index_add(0, to, steps.to(rows.dtype))
    remaining_MSD = rows.index_select(0, (remaining_MS + first_M1).flatten()).unflatten(0, remaining_MS.shape)
    return remaining_MSD, sizes_MS.gather(1, remaining_MS)


def _strongest_edges(features_MSd: Tensor, num_merged: int, num_prefix: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the tokens that are merged, and of the tokens that they are merged into, both (M, R)."""
    unit_MSd = F.normalize(features_MSd.float(), dim=2)  # in bfloat16 many would be equal
    similarity = unit_MSd[:, num_prefix::2] @ unit_MSd[:, num_prefix + 1 :: 2].transpose(1, 2)
    strength, nearest = similarity.max(dim=2)
    from_MR = strength.topk(num_merged, dim=1).indices
    return num_prefix + 2 * from_MR, num_prefix + 1 + 2 * nearest.gather(1, from_MR)


def _attention(block: nn.Module, tokens_MSD: Tensor, sizes_MS: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attention branch of a block, to be added to its tokens (M, S, D), and their keys, mean over heads (M, S, d)."""
    layer: Any = block
    query, key, value = per_head(block, layer.norm1(tokens_MSD))
    summed_MSD = attend(query, key, value, sizes_MS.log()).transpose(1, 2).flatten(2)
    branch_MSD = layer.attn.proj(summed_MSD)
    return branch_MSD if isinstance(block, Block) else layer.ls1(branch_MSD), key.mean(dim=1)


def per_head(block: nn.Module, normed_MSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of a block, ours or timm's: normalised tokens (M, S, D) -> three of (M, A, S, d)."""
    if isinstance(block, Block):
        return block.attn.per_head(normed_MSD)
    layer: Any = block
    attn = layer.attn
    query, key, value = attn.qkv(normed_MSD).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return attn.q_norm(query), attn.k_norm(key), value


def _mlp(block: nn.Module, tokens_MSD: Tensor) -> Tensor:
    """Return the MLP branch of a block, to be added to its tokens (M, S, D)."""
    layer: Any = block
    branch_MSD: Tensor = layer.mlp(layer.norm2(tokens_MSD))
    return branch_MSD if isinstance(block, Block) else layer.ls2(branch_MSD)


def _num_patches(encoder: SpatialEncoder) -> int:
    """Return the number of patches of our own ViT. Raises ConfigError if its layout mixes frames."""
    if encoder.layout != "factorised":
        raise ConfigError(
            f"layout {encoder.layout!r} mixes frames inside the encoder, and tokens are merged within one frame; merge 0 or "
            "take the 'factorised' layout"
        )
    return encoder.pos_embed.shape[1] - 1


def _num_patches_timm(backbone: nn.Module) -> int:
    """Return the number of patches of a timm backbone. Raises ConfigError unless it is a plain ViT, as `TimmWalk` needs."""
    if unlike := unlike_plain_vit(backbone):
        raise ConfigError(
            f"tokens can be merged in plain ViTs only, and {unlike}; merge 0 or take a ViT such as 'vit-ti-16'"
        )
    vit: Any = backbone
    return int(vit.patch_embed.num_patches)


def unlike_plain_vit(backbone: nn.Module) -> str:
    """Return in words how a backbone of timm differs from a plain VisionTransformer, or an empty text if it is one."""
    # Late, because timm takes seconds to import and most models do not need it.
    from timm.models import vision_transformer as timm_vit

    vit: Any = backbone
    if type(backbone) is not timm_vit.VisionTransformer:
        return f"{type(backbone).__name__} is none"
    if any(type(block) is not timm_vit.Block for block in vit.blocks):
        return f"this one has blocks of type {type(vit.blocks[0]).__name__}"
    if any(_unusual(block.attn) for block in vit.blocks):
        return "this one has another form of attention"
    if vit.global_pool not in ("token", "avg"):
        return f"this one pools by {vit.global_pool!r}, not by class token or mean"
    return ""


def _unusual(attn: Any) -> bool:
    """Return True if timm's attention has parts that `per_head` and `_attention` do not compute."""
    # Newer versions of timm can have a norm before the projection.
    plain_norm = isinstance(getattr(attn, "norm", nn.Identity()), nn.Identity)
    # The class is compared by name, because it is in different modules in the versions of timm that we support.
    return type(attn).__name__ != "Attention" or getattr(attn, "gate", None) is not None or not plain_norm
