"""The network against independent references: the equations written out, torch's own transformer, timm."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fewframes.models.config import ModelConfig
from fewframes.models.files.networks import build_model
from fewframes.models.layers import Attention, Block, DropPath, attend, resize_positions
from fewframes.models.presets import PLAIN_PIXELS, VIT_VIEW
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.models.token_merging import merge_tokens
from fewframes.video.view import ViewConfig
from helpers.models import shaken

TINY = ModelConfig(
    image_size=32, patch_size=8, width=48, depth=2, heads=3, temporal_depth=2, temporal_heads=4, num_frames=6, num_classes=5
)  # fmt: skip
VIEW = replace(VIT_VIEW, resize_px=36, crop_px=32)


def tiny(**changes: object) -> STAM:
    torch.manual_seed(0)
    model = build_model(replace(TINY, **changes), VIEW).eval()  # type: ignore[arg-type]
    for parameter in model.parameters():  # zeros and ones would hide mistakes
        nn.init.normal_(parameter, std=0.2)
    return model


def pixels(num_videos: int = 2, num_frames: int = 6) -> torch.Tensor:
    return torch.rand(num_videos, num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_attention_is_equations_2_to_8() -> None:
    attention = Attention(12, 3)
    tokens_SD = torch.randn(5, 12)
    query, key, value = attention.qkv(tokens_SD).unflatten(-1, (3, 3, 4)).unbind(1)
    heads = []
    for head in range(3):
        rows = []
        for token in range(5):
            scores = torch.stack([query[token, head] @ key[other, head] / math.sqrt(4) for other in range(5)])
            weights = scores.exp() / scores.exp().sum()
            rows.append(sum(weights[other] * value[other, head] for other in range(5)))
        heads.append(torch.stack(rows))  # type: ignore[arg-type]
    expected_SD = torch.cat(heads, dim=-1) @ attention.proj.weight.T + attention.proj.bias
    assert_close(attention(tokens_SD), expected_SD)


@pytest.mark.parametrize("post_norm", [False, True])
def test_block_is_torchs_layer(post_norm: bool) -> None:
    block = Block(16, 4, mlp_width=40, post_norm=post_norm, norm_eps=1e-5).eval()
    reference = nn.TransformerEncoderLayer(
        16, 4, 40, activation="relu" if post_norm else "gelu", batch_first=True, norm_first=not post_norm
    ).eval()
    ours = block.state_dict()
    reference.load_state_dict(
        {
            theirs: ours[key]
            for theirs, key in {
                "self_attn.in_proj_weight": "attn.qkv.weight",
                "self_attn.in_proj_bias": "attn.qkv.bias",
                "self_attn.out_proj.weight": "attn.proj.weight",
                "self_attn.out_proj.bias": "attn.proj.bias",
                "linear1.weight": "mlp.fc1.weight",
                "linear1.bias": "mlp.fc1.bias",
                "linear2.weight": "mlp.fc2.weight",
                "linear2.bias": "mlp.fc2.bias",
                "norm1.weight": "norm1.weight",
                "norm1.bias": "norm1.bias",
                "norm2.weight": "norm2.weight",
                "norm2.bias": "norm2.bias",
            }.items()
        }
    )
    tokens_BSD = torch.randn(2, 7, 16)
    assert_close(block(tokens_BSD), reference(tokens_BSD))


def test_spatial_encoder_is_timms_vit() -> None:
    from timm.models.vision_transformer import VisionTransformer

    model = tiny()
    reference = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=0).eval()
    reference.load_state_dict(model.frame_encoder.state_dict())
    frames_MCHW = torch.randn(4, 3, 32, 32)
    assert_close(model.frame_encoder(frames_MCHW), reference(frames_MCHW), rtol=0, atol=1e-5)


def test_pixels_are_normalised_inside() -> None:
    view = ViewConfig(crop_px=32, resize_px=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    model = tiny()
    other = STAM(TINY, view, model.frame_encoder, 48)
    frames_MCHW = torch.rand(2, 3, 32, 32)
    normalised_MCHW = (frames_MCHW - torch.tensor(view.mean).view(3, 1, 1)) / torch.tensor(view.std).view(3, 1, 1)
    assert_close(other.encode_frames(frames_MCHW), model.frame_encoder(normalised_MCHW))


def test_forward_is_the_two_halves_and_frames_are_independent() -> None:
    model = tiny()
    video_BTCHW = pixels()
    embeddings_BTD = torch.stack([model.encode_frames(video_BTCHW[:, frame]) for frame in range(6)], dim=1)
    assert_close(model.encode_video(embeddings_BTD).logits, model(video_BTCHW), rtol=0, atol=1e-5)


@pytest.mark.parametrize("style", ["paper", "release"])
def test_order_of_frames_counts(style: str) -> None:
    embeddings_BTD = torch.randn(2, 6, 48)
    model = tiny(temporal=style)
    assert not torch.allclose(
        model.encode_video(embeddings_BTD).logits, model.encode_video(embeddings_BTD.flip(1)).logits
    )


def test_mean_has_no_parameters_and_no_order() -> None:
    model = tiny(temporal="mean")
    assert not list(model.temporal_encoder.parameters())
    embeddings_BTD = torch.randn(2, 6, 48)
    encoded = model.encode_video(embeddings_BTD, with_attention=True)
    assert_close(encoded.embedding, embeddings_BTD.mean(dim=1))
    assert_close(encoded.logits, model.encode_video(embeddings_BTD.flip(1)).logits)
    assert_close(encoded.frame_attention, torch.full((2, 6), 1 / 6))


@pytest.mark.parametrize("style", ["paper", "release"])
def test_frame_attention_is_the_last_layers_and_changes_nothing(style: str) -> None:
    model = tiny(temporal=style)
    temporal = model.temporal_encoder
    embeddings_BTD = torch.randn(3, 6, 48)
    encoded = model.encode_video(embeddings_BTD, with_attention=True)
    plain = model.encode_video(embeddings_BTD)
    assert plain.frame_attention is None
    assert_close(encoded.logits, plain.logits, rtol=0, atol=0)
    assert encoded.frame_attention is not None
    assert_close(encoded.frame_attention.sum(dim=1), torch.ones(3))

    tokens = torch.cat([temporal.cls_token.expand(3, -1, -1), embeddings_BTD], dim=1) + temporal.pos_embed
    tokens = temporal.blocks[0](tokens)
    last = temporal.blocks[1]
    assert isinstance(last, Block)
    query, key, _ = last.attn.per_head(tokens if style == "release" else last.norm1(tokens))
    weights = (query @ key.transpose(-1, -2) / math.sqrt(12)).softmax(dim=-1)[:, :, 0, 1:].mean(dim=1)
    assert_close(encoded.frame_attention, weights / weights.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("num_tokens", [5, 197, 513])
def test_attention_multiplied_out_is_the_fused_one(num_tokens: int) -> None:
    query, key, value = torch.randn(3, 2, 3, num_tokens, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    with torch.inference_mode():
        fused_error = (F.scaled_dot_product_attention(query, key, value).double() - exact).abs().mean()
        error = (attend(query, key, value).double() - exact).abs().mean()
    assert error < 2.5 * fused_error  # scores are rounded once more, which makes no difference within a network
    values = value.float().requires_grad_()
    attend(query.float(), key.float(), values).sum().backward()
    assert values.grad is not None
    assert_close(values.grad.sum(dim=-2), torch.full((2, 3, 16), float(num_tokens)))  # weights of each query sum to 1


def test_joint_attention_is_one_sequence_of_all_patches() -> None:
    model = tiny(layout="joint", temporal="mean")
    encoder = model.frame_encoder
    assert isinstance(encoder, SpatialEncoder)
    video_BTCHW = pixels(1, 6)
    normalised = (video_BTCHW[0] - 0.5) / 0.5
    patches_TND = encoder.patch_embed(normalised)
    tokens_TSD = torch.cat([encoder.cls_token.expand(6, -1, -1), patches_TND], dim=1) + encoder.pos_embed
    sequence_1SD = (tokens_TSD + encoder.time_embed[0]).reshape(1, 6 * 17, 48)
    for block in encoder.blocks:
        sequence_1SD = block(sequence_1SD)
    class_TD = encoder.norm(sequence_1SD.reshape(6, 17, 48)[:, 0])
    assert_close(model.encode_clips(video_BTCHW)[0], class_TD, rtol=1e-4, atol=1e-4)


def test_attention_in_every_block_starts_as_the_image_network() -> None:
    torch.manual_seed(0)
    model = build_model(replace(TINY, layout="per_block"), VIEW).eval()
    per_frame = build_model(TINY, VIEW).eval()
    shared = {key: value for key, value in model.frame_encoder.state_dict().items() if "time_" not in key}
    per_frame.frame_encoder.load_state_dict(shared)
    video_BTCHW = pixels()
    assert_close(model.encode_clips(video_BTCHW), per_frame.encode_clips(video_BTCHW))
    for block in model.frame_encoder.blocks:  # type: ignore[union-attr]
        nn.init.normal_(block.time_attn.proj.weight)  # type: ignore[union-attr, arg-type]
    moved = video_BTCHW.clone()
    moved[:, 3] = 0
    assert not torch.allclose(model.encode_clips(video_BTCHW)[:, 0], model.encode_clips(moved)[:, 0])


@pytest.mark.parametrize("layout", ["joint", "per_block"])
def test_layouts_that_mix_frames_have_no_frame_embeddings(layout: str) -> None:
    model = tiny(layout=layout)
    with pytest.raises(ValueError, match="mixes frames"):
        model.encode_frames(torch.rand(2, 3, 32, 32))
    assert model(pixels(num_frames=4)).shape == (2, 5)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 6, 17, 64, 100])
def test_any_number_of_frames(num_frames: int, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny()
    encoded = model.encode_video(torch.randn(2, num_frames, 48), with_attention=True)
    model.encode_video(torch.randn(2, num_frames, 48))
    assert encoded.logits.shape == (2, 5)
    assert encoded.frame_attention is not None
    assert encoded.frame_attention.shape == (2, num_frames)
    messages = [record.message for record in caplog.records]
    assert messages == ([] if num_frames == 6 else [messages[0]])
    assert num_frames == 6 or messages[0] == (
        f"this model was built for 6 frames and is used with {num_frames}: its temporal positions are interpolated"
    )


def test_positions_are_interpolated_between_centres() -> None:
    positions_1SD = torch.tensor([[[9.0], [0.0], [1.0], [2.0], [3.0]]])  # the class token, then four frames
    assert resize_positions(positions_1SD, 4, has_class=True) is positions_1SD
    # The centre of each half lies midway between the centres of its two quarters.
    assert resize_positions(positions_1SD, 2, has_class=True).flatten().tolist() == [9.0, 0.5, 2.5]
    assert resize_positions(positions_1SD, 8, has_class=True).flatten().tolist() == [
        9.0, 0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0,
    ]  # fmt: skip


def test_projection_narrows_the_temporal_encoder() -> None:
    model = tiny(temporal_width=16)
    assert model.encode_video(torch.randn(2, 6, 48)).embedding.shape == (2, 16)
    assert model.head.weight.shape == (5, 16)


@pytest.mark.parametrize("num_frames", [1, 6, 20])
def test_motion_and_moments_are_added_where_they_are_wanted(num_frames: int) -> None:
    model = tiny(motion_width=16, moment_head=True, temporal_positions="waves", temporal_width=16)
    embeddings_BTD = torch.randn(2, num_frames, 48)
    encoded = model.encode_video(embeddings_BTD)
    assert model.moment_head is not None
    assert model.temporal_encoder.motion is not None
    embedding_BD, _ = model.temporal_encoder.attend(model.temporal_encoder.motion(embeddings_BTD))
    assert_close(encoded.embedding, embedding_BD)
    assert_close(encoded.logits, model.head(embedding_BD) + model.moment_head(embeddings_BTD))


def test_low_precision_stays_in_the_frame_encoder() -> None:
    model = tiny()
    exact = model(pixels())
    model.frame_encoder.to(torch.bfloat16)
    assert model.encode_frames(pixels()[0]).dtype == torch.float32
    assert model.head.weight.dtype == torch.float32
    assert_close(model(pixels()), exact, rtol=0.1, atol=0.1)


def test_wrong_size_of_frames_is_named() -> None:
    with pytest.raises(ValueError, match="frames are 40x32 px, this model takes 32x32"):
        tiny().encode_frames(torch.rand(1, 3, 32, 40))


def test_release_has_its_own_epsilon_and_mlp() -> None:
    model = tiny(temporal="release", temporal_mlp_width=2048, norm_eps=1e-5)
    first = model.temporal_encoder.blocks[0]
    assert isinstance(first, Block)
    assert first.norm1.eps == 1e-5
    assert first.mlp.fc1.out_features == 2048
    assert PLAIN_PIXELS.mean == (0.0, 0.0, 0.0)


def test_loss_of_any_number_of_actions_by_hand() -> None:
    model = tiny(num_classes=2, task="multilabel")
    logits_BK, targets_BK = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    yes = [math.log1p(math.exp(-2)), math.log1p(math.exp(1))]  # the loss of each label that a video has
    no = [math.log1p(math.exp(2)), math.log1p(math.exp(-1))]
    # With a smoothing of 0.2 the targets are 0.9 and 0.1.
    first, second = 0.9 * yes[0] + 0.1 * no[0], 0.1 * yes[1] + 0.9 * no[1]
    assert model.loss(logits_BK, targets_BK, 0.2).item() == pytest.approx((first + second) / 2)
    weighed = model.loss(logits_BK, targets_BK, 0.2, torch.tensor([0.5, 1.5]))
    assert weighed.item() == pytest.approx((0.5 * first + 1.5 * second) / 2)


def test_stochastic_depth_keeps_the_mean() -> None:
    torch.manual_seed(0)
    out = DropPath(0.75).train()(torch.ones(4000, 2, 2))
    assert set(out.unique().tolist()) == {0.0, 4.0}
    assert out.mean().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("layout", ["factorised", "joint", "per_block"])
def test_cells_of_a_vit_are_its_patches_at_their_places(layout: str) -> None:
    config = replace(TINY, depth=3, cells=4, cells_layer=1, layout=layout)  # type: ignore[arg-type]  # 4 x 4 patches: each cell is one
    encoder = shaken(SpatialEncoder(config))
    plain = SpatialEncoder(replace(config, cells=0, cells_layer=None)).eval()
    plain.load_state_dict(encoder.state_dict())
    assert isinstance(encoder, SpatialEncoder)
    frames_MCHW = torch.rand(2, 3, 32, 32)
    embeddings_MD = encoder(frames_MCHW, num_frames=2)
    assert embeddings_MD.shape == (2, encoder.width) == (2, 48 * 17)
    assert_close(embeddings_MD[:, :48], plain(frames_MCHW, num_frames=2))
    tokens = encoder.blocks[0](encoder.tokens(frames_MCHW, 2)).reshape(2, 17, 48)
    assert_close(embeddings_MD[:, 48:], tokens[:, 1:].transpose(1, 2).flatten(1))


def test_the_last_block_can_give_the_cells() -> None:
    encoder = shaken(SpatialEncoder(replace(TINY, cells=2, cells_layer=TINY.depth)))
    merge_tokens(encoder, 0)
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, 48 * 5)
