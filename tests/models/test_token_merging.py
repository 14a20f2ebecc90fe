"""Merged tokens, compared with loops written from the paper's text, with unmerged tokens and with timm's ViT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from fewframes.errors import ConfigError
from fewframes.models.backbones import EfficientNetLite, TimmFrameEncoder, timm_frame_encoder
from fewframes.models.config import ModelConfig
from fewframes.models.layers import Block, attend
from fewframes.models.stam import SpatialEncoder
from fewframes.models.token_merging import merge_tokens, merged, merged_per_block, through_blocks
from helpers.models import shaken, timm_vit

TINY = ModelConfig(
    image_size=32, patch_size=8, width=48, depth=7, heads=3, temporal_depth=1, temporal_heads=4, num_frames=4, num_classes=5
)  # fmt: skip
FRAMES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def own() -> SpatialEncoder:
    encoder = shaken(SpatialEncoder(TINY))
    assert isinstance(encoder, SpatialEncoder)
    return encoder


def frames_of_pairs() -> Tensor:
    """Return frames whose patches 2 i and 2 i + 1 are equal."""
    pairs_MCHW = torch.rand(3, 3, 32, 2, 8, generator=torch.Generator().manual_seed(2))
    return pairs_MCHW.unsqueeze(4).expand(-1, -1, -1, -1, 2, -1).flatten(3)


def with_equal_positions(positions: nn.Parameter, num_prefix: int) -> None:
    """Set all positions to one value, so that equal patches give equal tokens."""
    positions.data[:, num_prefix:] = 0.1


def slowly_merged(
    tokens_SD: Tensor, sizes_S: Tensor, features_Sd: Tensor, num_merged: int, num_prefix: int
) -> tuple[Tensor, Tensor]:
    """Merge the tokens of one frame in loops that follow the paper's text."""
    patches = list(range(num_prefix, len(tokens_SD)))
    first, second = patches[::2], patches[1::2]
    edges = []
    for one in first:
        likeness = {other: float(F.cosine_similarity(features_Sd[one], features_Sd[other], dim=0)) for other in second}
        other = max(likeness, key=lambda token: likeness[token])
        edges.append((likeness[other], one, other))
    groups = {token: [token] for token in range(len(tokens_SD))}
    for _, one, other in sorted(edges, reverse=True)[:num_merged]:
        groups[other] += groups.pop(one)
    means, sizes = [], []
    for members in groups.values():
        size = sum(sizes_S[token] for token in members)
        means.append(sum(sizes_S[token] * tokens_SD[token] for token in members) / size)
        sizes.append(size)
    return torch.stack(means), torch.stack(sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("num_tokens", "num_merged", "num_prefix"), [(18, 5, 1), (17, 8, 1), (20, 3, 5), (9, 2, 0)])
def test_merging_is_what_the_paper_says(num_tokens: int, num_merged: int, num_prefix: int) -> None:
    generator = torch.Generator().manual_seed(num_tokens)
    tokens_MSD = torch.randn(4, num_tokens, 6, generator=generator)
    features_MSd = torch.randn(4, num_tokens, 3, generator=generator)
    sizes_MS = torch.randint(1, 5, (4, num_tokens), generator=generator).float()
    fast_MSD, fast_MS = merged(tokens_MSD, sizes_MS, features_MSd, num_merged, num_prefix)
    for frame in range(4):
        slow = slowly_merged(tokens_MSD[frame], sizes_MS[frame], features_MSd[frame], num_merged, num_prefix)
        assert_close((fast_MSD[frame], fast_MS[frame]), slow)


def test_at_most_half_go_and_class_token_and_registers_stay() -> None:
    tokens_MSD = torch.randn(2, 3 + 7, 4)
    left_MSD, sizes_MS = merged(tokens_MSD, torch.ones(2, 10), torch.ones(2, 10, 4), num_merged=100, num_prefix=3)
    assert left_MSD.shape == (2, 3 + 4, 4)
    assert torch.equal(left_MSD[:, :3], tokens_MSD[:, :3])
    assert torch.equal(sizes_MS[:, :3], torch.ones(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_key_of_size_three_attends_like_three_keys(dtype: torch.dtype) -> None:
    query, key, value = torch.randn(3, 2, 3, 7, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    sizes_BS = torch.tensor([[1.0, 3, 1, 2, 1, 1, 5], [2, 1, 1, 1, 1, 4, 1]])
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    with torch.inference_mode():
        proportional = attend(query, key, value, sizes_BS.log())
        for video in range(2):
            times_S = sizes_BS[video].long()
            more = [one[video].repeat_interleave(times_S, dim=1).float() for one in (key, value)]
            repeated = F.scaled_dot_product_attention(query[video].float(), *more)
            assert_close(proportional[video].float(), repeated, rtol=0, atol=tolerance)


@pytest.mark.parametrize("build", [own, timm_vit])
def test_nothing_merged_is_the_encoder_as_it_is(build: Callable[[], SpatialEncoder | TimmFrameEncoder]) -> None:
    encoder = build()
    plain = encoder(FRAMES)
    merge_tokens(encoder, 2)
    assert merged_per_block(encoder) == 2
    assert not torch.allclose(encoder(FRAMES), plain)
    merge_tokens(encoder, 0)
    assert merged_per_block(encoder) == 0
    assert_close(encoder(FRAMES), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("merged_away", [0, 3])
def test_the_last_block_for_the_class_token_alone(merged_away: int) -> None:
    """The first token computed by itself equals that of the whole block, with and without sizes."""
    block = own().blocks[0]
    assert isinstance(block, Block)
    tokens_MSD = torch.randn(2, 17, 48, generator=torch.Generator().manual_seed(0))
    sizes_MS = torch.ones(2, 17)
    if merged_away:
        tokens_MSD, sizes_MS = through_blocks([block], tokens_MSD, merged_away, num_prefix=1, num_unmerged=0)
    whole_MSD, _ = through_blocks([block], tokens_MSD, 0, num_prefix=1, num_unmerged=1)
    if not merged_away:
        assert_close(block.first_token(tokens_MSD), whole_MSD[:, :1])
        assert_close(block.first_token(tokens_MSD), block(tokens_MSD)[:, :1])
    repeated_MSD = tokens_MSD[:1].repeat_interleave(sizes_MS[0].long(), dim=1)
    assert_close(block.first_token(tokens_MSD[:1], sizes_MS[:1].log()), block(repeated_MSD)[:, :1])


def test_training_merges_nothing() -> None:
    encoder = own()
    plain = encoder(FRAMES)
    merge_tokens(encoder, 2)
    assert torch.equal(encoder.train()(FRAMES), plain)


def test_sizes_count_the_patches_after_every_block() -> None:
    blocks = list(own().blocks)
    seen = []
    for depth in range(1, 8):
        tokens_MSD, sizes_MS = through_blocks(
            blocks[:depth], torch.randn(2, 17, 48), 3, num_prefix=1, num_unmerged=depth // 6
        )
        assert_close(sizes_MS.sum(dim=1), torch.full((2,), 17.0))
        seen.append(tokens_MSD.shape[1])
    # There are 16 patches and the class token. Each block merges 3, or half of the last 4. With 6 blocks the first merges none.
    assert seen == [14, 11, 8, 5, 3, 3, 2]


@pytest.mark.parametrize("per_block", [4, 8])
def test_equal_patches_are_merged_without_a_trace(per_block: int) -> None:
    encoder = own()
    with_equal_positions(encoder.pos_embed, 1)
    encoder.blocks = encoder.blocks[: 8 // per_block]  # only 8 pairs are equal
    frames_MCHW = frames_of_pairs()
    plain = encoder(frames_MCHW)
    merge_tokens(encoder, per_block)
    assert_close(encoder(frames_MCHW), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"global_pool": "avg"},
        {"global_pool": "avg", "class_token": False},
        {"global_pool": "avg", "fc_norm": False, "pool_include_prefix": True},
        {"reg_tokens": 3, "no_embed_class": True},
        {"qk_norm": True, "init_values": 0.5, "pre_norm": True},
    ],
    ids=str,
)
def test_timms_forms_give_what_they_gave_where_equal_patches_are_merged(options: dict[str, Any]) -> None:
    encoder = timm_vit(**options)
    vit: Any = encoder.backbone
    with_equal_positions(vit.pos_embed, vit.pos_embed.shape[1] - 16)
    vit.blocks = vit.blocks[:2]
    frames_MCHW = frames_of_pairs()
    plain = encoder(frames_MCHW)
    merge_tokens(encoder, 4)
    assert_close(encoder(frames_MCHW), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("per_block", [1, 3, 8])
def test_our_encoder_merges_as_timms(per_block: int) -> None:
    encoder, other = own(), timm_vit()
    other.backbone.load_state_dict(encoder.state_dict())
    merge_tokens(encoder, per_block)
    merge_tokens(other, per_block)
    assert_close(encoder(FRAMES), other(FRAMES), rtol=0, atol=1e-5)


@pytest.mark.parametrize("build", [own, timm_vit])
def test_a_frame_does_not_depend_on_the_others(build: Callable[[], SpatialEncoder | TimmFrameEncoder]) -> None:
    encoder = build()
    merge_tokens(encoder, 2)
    alone = torch.cat([encoder(frame_CHW[None]) for frame_CHW in FRAMES])
    assert_close(encoder(FRAMES), alone, rtol=0, atol=1e-5)


def test_bfloat16_merges_the_same() -> None:
    encoder = own()
    with_equal_positions(encoder.pos_embed, 1)
    encoder.blocks = encoder.blocks[:2]
    frames_MCHW = frames_of_pairs()
    plain = encoder(frames_MCHW)
    merge_tokens(encoder, 4)
    with torch.inference_mode():
        rounded = encoder.to(torch.bfloat16)(frames_MCHW.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert_close(rounded.float(), plain, rtol=0.05, atol=0.05)


def test_gradients_go_through_merged_tokens() -> None:
    encoder = own()
    merge_tokens(encoder, 2)
    frames_MCHW = FRAMES.double().requires_grad_()
    encoder.double()
    assert torch.autograd.gradcheck(lambda one: encoder(one).sum(), (frames_MCHW[:1],), fast_mode=True)


def test_weights_keep_their_names() -> None:
    encoder = own()
    names = list(encoder.state_dict())
    merge_tokens(encoder, 2)
    assert list(encoder.state_dict()) == names


def refused() -> dict[str, tuple[Callable[[], nn.Module], int, str]]:
    return {
        "negative": (own, -1, "-1 patches merged in each block: needs at least 0"),
        "too many": (own, 9, "9 patches merged in each block: at most half can be merged in one, here 8 of 16"),
        "too many in timm": (timm_vit, 9, "here 8 of 16"),
        "cells": (
            lambda: SpatialEncoder(replace(TINY, cells=2)),
            2,
            "the 2 x 2 cells of this encoder need one; merge 0",
        ),
        "joint": (lambda: SpatialEncoder(replace(TINY, layout="joint")), 2, "'joint' mixes frames.*'factorised'"),
        "per_block": (lambda: SpatialEncoder(replace(TINY, layout="per_block")), 2, "'per_block' mixes frames"),
        "lite0": (EfficientNetLite, 2, "this encoder is EfficientNetLite; merge 0 or take a ViT"),
        "resnet": (lambda: timm_frame_encoder("resnet18", image_size=32), 2, "ResNet is none; merge 0"),
        "other blocks": (lambda: timm_vit(block_fn=parallel_block()), 2, "blocks of type ParallelScalingBlock"),
        "other pooling": (lambda: timm_vit(global_pool="max"), 2, "pools by 'max'"),
    }


def parallel_block() -> Any:
    from timm.models.vision_transformer import ParallelScalingBlock

    return ParallelScalingBlock


@pytest.mark.parametrize("case", refused())
def test_what_cannot_be_merged_is_refused(case: str) -> None:
    build, per_block, message = refused()[case]
    encoder = build()
    with pytest.raises(ConfigError, match=message):
        merge_tokens(encoder, per_block)
    assert merged_per_block(encoder) == 0


def test_merging_none_is_right_for_every_encoder() -> None:
    merge_tokens(EfficientNetLite(), 0)
