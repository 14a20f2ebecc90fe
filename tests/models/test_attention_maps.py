"""Attention maps equal those worked out by hand, and computing them leaves the embeddings as they are."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from fewframes.errors import ConfigError
from fewframes.models.attention_maps import attention_maps, choose_method, frame_maps, grad_cam
from fewframes.models.backbones import EfficientNetLite, TimmFrameEncoder, timm_frame_encoder
from fewframes.models.config import MapChoice, MapMethod, ModelConfig
from fewframes.models.files.networks import build_model
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.models.token_merging import merge_tokens
from fewframes.video.view import ViewConfig
from helpers.models import shaken, timm_vit, with_statistics

TINY = ModelConfig(
    image_size=32, patch_size=8, width=48, depth=3, heads=3, temporal_depth=1, temporal_heads=4, num_frames=4, num_classes=2
)  # fmt: skip
FRAMES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def own(layout: str = "factorised") -> SpatialEncoder:
    encoder = shaken(SpatialEncoder(TINY.__class__(**{**vars(TINY), "layout": layout})))
    assert isinstance(encoder, SpatialEncoder)
    merge_tokens(encoder, 0)  # as in a predictor: the last block is computed for the class token alone
    return encoder


def by_hand(queries_SD: Tensor, keys_SD: Tensor, heads: int) -> Tensor:
    """Return softmax(q k^T / sqrt(d)), one head after the other, then their mean: (S, S)."""
    size = queries_SD.shape[1] // heads
    weights = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.stack([torch.stack([q @ k for k in keys_SD[:, part]]) for q in queries_SD[:, part]])
        exponents = (scores / math.sqrt(size)).exp()
        weights.append(exponents / exponents.sum(dim=1, keepdim=True))
    return torch.stack(weights).mean(dim=0)


def layers_by_hand(encoder: SpatialEncoder) -> list[Tensor]:
    """Return the attention of each block over the tokens of the second frame."""
    tokens_1SD = encoder.tokens(FRAMES[1:2])
    found = []
    for block in encoder.blocks:
        qkv = block.attn.qkv(block.norm1(tokens_1SD))[0]  # type: ignore[operator, union-attr]
        found.append(by_hand(qkv[:, :48], qkv[:, 48:96], heads=3))
        tokens_1SD = block(tokens_1SD)
    return found


@torch.no_grad()
def test_the_last_blocks_map_is_the_class_tokens_row() -> None:
    encoder = own()
    maps_Mhw, _ = attention_maps(encoder, FRAMES, "attention")
    assert maps_Mhw.shape == (4, 4, 4)
    assert_close(maps_Mhw[1].flatten(), layers_by_hand(encoder)[-1][0, 1:], rtol=0, atol=1e-6)


@torch.no_grad()
def test_rollout_multiplies_all_blocks_with_their_residuals() -> None:
    encoder = own()
    first, second, third = ((weights + torch.eye(17)) / 2 for weights in layers_by_hand(encoder))
    maps_Mhw, _ = attention_maps(encoder, FRAMES, "rollout")
    assert_close(maps_Mhw[1].flatten(), (third @ second @ first)[0, 1:], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["factorised", "joint", "per_block"])
def test_the_explained_embeddings_are_the_plain_ones(layout: str) -> None:
    encoder = own(layout)
    plain_MD = encoder(FRAMES) if layout == "factorised" else encoder(FRAMES, num_frames=4)
    methods: tuple[MapMethod, ...] = ("rollout", "attention") if layout == "factorised" else ("attention",)
    for method in methods:
        maps_Mhw, embeddings_MD = attention_maps(encoder, FRAMES, method)
        assert_close(embeddings_MD, plain_MD, rtol=0, atol=1e-5)
        assert maps_Mhw.shape == (4, 4, 4)
        # Rows of attention sum to 1, but the attention to class tokens is in no map.
        assert (maps_Mhw >= 0).all()
        assert 0 < float(maps_Mhw.sum()) < (1 if layout == "joint" else 4)


@torch.no_grad()
def test_timms_vits_have_both_maps_and_registers_no_place() -> None:
    for encoder in (timm_vit(), timm_vit(reg_tokens=2, qk_norm=True)):
        for method in ("rollout", "attention"):
            assert choose_method(encoder, method) == method  # type: ignore[arg-type]
            maps_Mhw, embeddings_MD = attention_maps(encoder, FRAMES, method)  # type: ignore[arg-type]
            assert maps_Mhw.shape == (4, 4, 4)
            assert_close(embeddings_MD, encoder(FRAMES), rtol=0, atol=1e-5)
    plain = timm_vit()
    seen: list[Tensor] = []
    backbone: nn.Module = plain.backbone
    attn = backbone.blocks[-1].attn  # type: ignore[index, union-attr]
    attn.register_forward_pre_hook(lambda module, inputs: seen.append(module.qkv(inputs[0])[1]))
    plain(FRAMES)
    maps_Mhw, _ = attention_maps(plain, FRAMES, "attention")
    assert_close(maps_Mhw[1].flatten(), by_hand(seen[0][:, :48], seen[0][:, 48:96], heads=3)[0, 1:], rtol=0, atol=1e-6)


def lite(cells: int) -> STAM:
    """Return a Lite0 model whose second logit is the negative of the first."""
    torch.manual_seed(0)
    view = ViewConfig(resize_px=64, crop_px=64)
    config = replace(TINY, encoder="lite0", cells=cells, image_size=64, temporal_width=32)
    model = build_model(config, view).eval()
    with_statistics(model.frame_encoder)
    model.head.weight.data = torch.stack([model.head.weight[0], -model.head.weight[0]])
    return model


@pytest.mark.parametrize("cells", [0, 3])
def test_a_convolutional_map_shares_out_gradient_times_embedding(cells: int) -> None:
    model = lite(cells)
    pixels_TCHW = torch.rand(4, 3, 64, 64)
    towards, away = (grad_cam(model, pixels_TCHW, label) for label in (0, 1))
    assert towards.shape == ((4, 4, 4) if cells else (4, 2, 2))
    assert float(towards.min()) >= 0
    embeddings_TD = model.encode_frames(pixels_TCHW).detach().requires_grad_()
    (gradient_TD,) = torch.autograd.grad(model.encode_video(embeddings_TD[None]).logits[0, 0], embeddings_TD)
    wanted_T = (gradient_TD * embeddings_TD).sum(dim=1).detach()
    assert_close((towards - away).sum(dim=(1, 2)), wanted_T, rtol=1e-4, atol=1e-6)
    assert float(wanted_T.abs().max()) > 1e-4


def test_a_map_lies_where_the_features_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lite(0)
    pixels_TCHW = torch.full((1, 3, 64, 64), 0.5)
    assert isinstance(model.frame_encoder, EfficientNetLite)
    below_left = tuple(torch.zeros_like(one) for one in model.frame_encoder.features(model.normalise(pixels_TCHW)))
    for one in below_left:
        one[..., -1, 0] = 1.0
    monkeypatch.setattr(type(model.frame_encoder), "features", lambda *_: below_left)
    maps_Khw = torch.cat([grad_cam(model, pixels_TCHW, label) for label in range(2)])
    assert maps_Khw[:, -1, 0].max() > 0
    maps_Khw[:, -1, 0] = 0
    assert not maps_Khw.any()


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_timms_networks_have_a_map(name: str) -> None:
    torch.manual_seed(0)
    encoder = timm_frame_encoder(name, image_size=64).eval()
    model = STAM(replace(TINY, image_size=64), ViewConfig(resize_px=64, crop_px=64), encoder, encoder.width).eval()
    assert choose_method(encoder, "auto") == "grad-cam"
    maps_Thw = frame_maps(model, torch.rand(4, 3, 64, 64), "grad-cam", 1)
    assert maps_Thw.shape == (4, 2, 2)
    assert float(maps_Thw.max()) > 0


def test_what_cannot_be_had_says_what_can() -> None:
    assert choose_method(own(), "auto") == "rollout"
    assert choose_method(own("joint"), "auto") == "attention"
    assert choose_method(lite(0).frame_encoder, "none") is None
    with pytest.raises(
        ConfigError, match=r"map 'rollout': for this model's frame encoder \(EfficientNetLite\) choose .*grad-cam"
    ):
        choose_method(lite(0).frame_encoder, "rollout")
    with pytest.raises(ConfigError, match=r"map 'rollout': .*\(SpatialEncoder\) choose from: attention, auto, none"):
        choose_method(own("per_block"), "rollout")
    merging = own()
    merge_tokens(merging, 2)
    with pytest.raises(
        ConfigError, match="merges 2 patches away in each block.*load it with merge 0, or take map 'none'"
    ):
        choose_method(merging, "auto")
    assert choose_method(merging, "none") is None
    pooled = timm_frame_encoder("vit_tiny_patch16_224", image_size=64)
    pooled.backbone.global_pool = "avg"  # type: ignore[assignment]
    model = STAM(replace(TINY, image_size=64), ViewConfig(resize_px=64, crop_px=64), pooled, pooled.width).eval()
    assert isinstance(pooled, TimmFrameEncoder)
    with pytest.raises(
        ConfigError, match=r"VisionTransformer: its features \(4, 17, 192\) are not a map.*take map 'none'"
    ):
        frame_maps(model, torch.rand(4, 3, 64, 64), "grad-cam", 0)
    assert set(get_args(MapChoice)) == {"auto", "none", *get_args(MapMethod)}
