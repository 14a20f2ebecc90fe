"""The causal temporal encoder: it uses the past alone, gives every prefix in one pass, and keeps one tensor of a stream."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fewframes.core.settings import settings_from
from fewframes.errors import ConfigError
from fewframes.inference.live.model import EmbeddingRing
from fewframes.models.config import ModelConfig
from fewframes.models.stam import STAM
from fewframes.runtime.protocol import Floats
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.steps.loop import fit
from fewframes.video.view import ViewConfig
from helpers.models import TINY

VIEW = ViewConfig(resize_px=36, crop_px=32)
WIDTH = 24
CAUSAL = replace(
    TINY, temporal="causal", temporal_depth=2, temporal_width=16, motion_width=12, moment_head=True, num_frames=6
)


def model_of(config: ModelConfig) -> STAM:
    """Return a model in which every part has an effect: the parts that are solved from data are random."""
    torch.manual_seed(0)
    model = STAM(config, VIEW, torch.nn.Identity(), WIDTH).eval()
    if model.moment_head is not None:
        torch.nn.init.normal_(model.moment_head.linear.weight, std=0.1)
    torch.nn.init.normal_(model.head.weight)
    return model


def test_a_later_frame_changes_no_earlier_answer() -> None:
    model = model_of(CAUSAL)
    embeddings_BTD = torch.randn(2, 6, WIDTH)
    changed_BTD = embeddings_BTD.clone()
    changed_BTD[:, 4] += 1
    with torch.inference_mode():
        before, after = model.encode_prefixes(embeddings_BTD), model.encode_prefixes(changed_BTD)
    assert_close(before[:, :4], after[:, :4], rtol=0, atol=1e-6)
    assert (before[:, 4:] - after[:, 4:]).abs().amin(dim=(0, 1)).max() > 1e-3


@torch.inference_mode()
def test_one_pass_gives_what_each_prefix_gives() -> None:
    model, embeddings_BTD = model_of(CAUSAL), torch.randn(2, 6, WIDTH)
    logits_BTK = model.encode_prefixes(embeddings_BTD)
    for count in range(1, 7):
        alone_BK = model.encode_video(embeddings_BTD[:, :count]).logits
        assert_close(logits_BTK[:, count - 1], alone_BK, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_stream_of_frames_equals_the_full_pass() -> None:
    model, embeddings_TD = model_of(CAUSAL), torch.randn(10, WIDTH)
    motion = model.temporal_encoder.motion
    assert motion is not None

    def cache(before_D: Floats, frame_D: Floats) -> Floats:
        parts_12W = motion.cacheable_parts(torch.from_numpy(before_D[None]), torch.from_numpy(frame_D[None]))
        return np.asarray(parts_12W[0])

    ring = EmbeddingRing(6, cache)
    for index, frame_D in enumerate(embeddings_TD):
        ring.push(index, frame_D.numpy())
        assert ring.cached_T2W is not None
        window_1TD, cached_1T2W = torch.from_numpy(ring.embeddings_TD[None]), torch.from_numpy(ring.cached_T2W[None])
        step_K = model.encode_video(window_1TD, cached_BT2W=cached_1T2W).logits[0]
        window_TD = embeddings_TD[max(0, index - 5) : index + 1]
        assert_close(step_K, model.encode_prefixes(window_TD[None])[0, -1], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_frame_attention_is_the_last_frames() -> None:
    attention_BT = model_of(CAUSAL).encode_video(torch.randn(3, 6, WIDTH), with_attention=True).frame_attention
    assert attention_BT is not None
    assert attention_BT.shape == (3, 6)
    assert_close(attention_BT.sum(dim=1), torch.ones(3))


def test_it_learns_by_the_same_loop_and_answers_before_the_end() -> None:
    """Two actions that differ only in the order of their frames are told apart after two thirds of the frames."""
    model = model_of(replace(CAUSAL, num_classes=2))
    noise = torch.randn(40, 1, 6, WIDTH) * 0.1
    rising_TD = torch.linspace(0, 1, 6)[:, None] * torch.ones(WIDTH)
    up_B = torch.arange(40) % 2 == 0
    embeddings_BVTD = noise + torch.where(up_B[:, None, None], rising_TD, rising_TD.flip(0))[:, None]
    targets_BK = torch.eye(2)[up_B.long()]
    for _ in fit(model, embeddings_BVTD, targets_BK, RunConfig(train=TrainConfig(min_steps=60, epochs=1))):
        pass
    with torch.inference_mode():
        right_BT = model.encode_prefixes(embeddings_BVTD[:, 0]).argmax(dim=2) == up_B.long()[:, None]
    assert right_BT[:, 3:].float().mean() > 0.95


def test_answers_in_between_need_the_causal_style() -> None:
    with pytest.raises(ValueError, match="temporal 'paper' attends to all frames.*needs 'causal'"):
        model_of(replace(CAUSAL, temporal="paper")).encode_prefixes(torch.randn(1, 6, WIDTH))


def test_encoders_that_mix_frames_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="temporal 'causal' cannot have layout 'joint', which attends to later frames"
    ):
        settings_from(ModelConfig, {"temporal": "causal", "layout": "joint"}, "model")
