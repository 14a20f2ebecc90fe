"""The temporal encoder of a trained model, kept under a new head; and the first weights of the release's temporal encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fewframes.errors import ConfigError
from fewframes.models.config import ModelConfig
from fewframes.models.files.kept_parts import keep_temporal
from fewframes.models.files.networks import build_model
from fewframes.models.layers import Block
from fewframes.models.motion import MotionTokens
from fewframes.models.stam import STAM
from fewframes.training.steps.training_set import needs_solving, solve
from fewframes.video.view import ViewConfig
from helpers.models import TINY, shaken

VIEW = ViewConfig(resize_px=36, crop_px=32)
MOTION = replace(TINY, temporal_width=32, motion_width=16, temporal_positions="waves")


def trained_model(config: ModelConfig) -> STAM:
    model = shaken(build_model(config, VIEW))
    assert isinstance(model, STAM)
    return model


@pytest.mark.parametrize("config", [TINY, MOTION, replace(TINY, temporal="release"), replace(TINY, temporal="mean")])
def test_a_kept_temporal_encoder_says_the_same_of_each_video(config: ModelConfig) -> None:
    trained = trained_model(config)
    model = build_model(replace(config, num_classes=7, token_dropout=0.5), VIEW).eval()
    embeddings_BTD = torch.randn(2, 4, 48)
    before = trained.encode_video(embeddings_BTD).embedding
    assert config.temporal == "mean" or not torch.allclose(model.encode_video(embeddings_BTD).embedding, before)
    keep_temporal(model, trained, "trained")
    after = model.encode_video(embeddings_BTD)
    assert_close(after.embedding, before)
    assert after.logits.shape == (2, 7)


@pytest.mark.parametrize("style", ["paper", "causal"])
@pytest.mark.parametrize("num_frames", [3, 8])
def test_positions_are_those_that_the_trained_model_would_use(style: Any, num_frames: int) -> None:
    trained = trained_model(replace(MOTION, temporal=style))
    model = build_model(replace(trained.config, num_frames=num_frames, num_classes=2), VIEW).eval()
    keep_temporal(model, trained, "trained")
    embeddings_BTD = torch.randn(2, num_frames, 48)
    assert_close(model.encode_video(embeddings_BTD).embedding, trained.encode_video(embeddings_BTD).embedding)


def test_the_reduction_of_motion_tokens_stays_with_its_temporal_encoder() -> None:
    trained = trained_model(MOTION)
    kept, new = (build_model(replace(MOTION, moment_head=moments), VIEW) for moments in (False, True))
    for model in (kept, new):
        keep_temporal(model, trained, "trained")
    assert not needs_solving(kept)
    assert needs_solving(new)
    assert new.moment_head is not None
    before = new.moment_head.linear.weight.clone()
    solve(new, torch.randn(6, 2, 4, 48), torch.eye(3).repeat(2, 1), 0)
    assert not torch.equal(new.moment_head.linear.weight, before)
    kept_motion, own_motion = new.temporal_encoder.motion, trained.temporal_encoder.motion
    assert isinstance(kept_motion, MotionTokens)
    assert isinstance(own_motion, MotionTokens)
    assert torch.equal(kept_motion.reduce.weight, own_motion.reduce.weight)
    fresh = build_model(MOTION, VIEW)
    assert needs_solving(fresh)


def test_another_temporal_encoder_is_not_kept() -> None:
    trained = trained_model(MOTION)
    with pytest.raises(
        ConfigError, match=r"model\.temporal_depth = 2: the temporal encoder of 'x' is kept as it is \(1\)"
    ):
        keep_temporal(build_model(replace(MOTION, temporal_depth=2), VIEW), trained, "x")
    wider = build_model(replace(TINY, width=96), VIEW)
    with pytest.raises(ConfigError, match=r"model\.width = 96: the temporal encoder of 'x' is kept as it is \(48\)"):
        keep_temporal(wider, trained_model(TINY), "x")


def test_the_release_starts_as_its_code_does() -> None:
    """Normal of 0.02 without biases; q, k and v alone have torch's Glorot start, the same in each layer."""
    torch.manual_seed(0)
    config = replace(TINY, width=96, heads=3, temporal="release", temporal_depth=2, temporal_mlp_width=512)
    encoder = build_model(config, VIEW).temporal_encoder
    first, second = encoder.blocks
    assert isinstance(first, Block)
    assert isinstance(second, Block)
    for block in (first, second):
        for layer in (block.mlp.fc1, block.mlp.fc2, block.attn.proj):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        for module in block.modules():
            assert not isinstance(module, nn.Linear) or not module.bias.any()
    bound = (6 / (96 + 3 * 96)) ** 0.5
    assert first.attn.qkv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert torch.equal(first.attn.qkv.weight, second.attn.qkv.weight)
    assert not torch.equal(first.mlp.fc1.weight, second.mlp.fc1.weight)


def test_the_releases_dropout_is_that_of_torchs_layer() -> None:
    """In each of the four places, the mean over many draws is the value without dropout, and single draws differ."""
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.3, batch_first=True)
    ours = Block(16, 4, mlp_width=32, norm_eps=1e-5, post_norm=True, dropout=0.3)
    pairs = {
        "self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1.", "linear2.": "mlp.fc2.",
    }  # fmt: skip
    state = {}
    for key, tensor in theirs.state_dict().items():
        name = next((key.replace(their, our) for their, our in pairs.items() if key.startswith(their)), key)
        state[name] = tensor
    ours.load_state_dict(state)
    tokens_BSD = torch.randn(1, 5, 16).repeat(4000, 1, 1)
    with torch.no_grad():
        assert_close(ours.eval()(tokens_BSD[:1]), theirs.eval()(tokens_BSD[:1]))
        own, other = ours.train()(tokens_BSD), theirs.train()(tokens_BSD)
    assert_close(own.mean(dim=0), other.mean(dim=0), rtol=0, atol=0.06)
    assert_close(own.std(dim=0), other.std(dim=0), rtol=0.15, atol=0.02)
    paper = Block(16, 4, mlp_width=32, dropout=0.3)
    assert (paper.attn.dropout, paper.mlp.drop.p) == (0.0, 0.0)
