"""The recurrence over time: frame by frame it says what one pass says, in a state that does not grow."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor
from torch.testing import assert_close
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.core.settings import settings_from
from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.errors import ConfigError
from fewframes.inference.live.model import StateKeeper
from fewframes.inference.predictor import Predictor, load
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.models.stam import STAM
from fewframes.models.tokens.recurrence import GatedRecurrence, scan
from fewframes.runtime.protocol import scores_of
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.steps.loop import fit
from fewframes.training.train import TrainOptions, train
from fewframes.video.live_settings import StreamConfig
from fewframes.video.source import open_video
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY

VIEW = ViewConfig(resize_px=36, crop_px=32)
PLAIN = replace(TINY, temporal="recurrent", temporal_depth=2, temporal_width=16, cells=2, cell_width=5)
KINDS = {
    "joined": PLAIN,
    "tokens": replace(PLAIN, cell_tokens=True),
    "joined, motion": replace(PLAIN, motion_width=8),
    "tokens, motion": replace(PLAIN, cell_tokens=True, motion_width=8),
}
WIDTH = TINY.width + 4 * 5
STATE = StreamConfig(window_s=0.4, smooth_s=0.0, memory="state")


def head_of(config: ModelConfig) -> STAM:
    """Return a model on embeddings of frames, in which every part has an effect."""
    torch.manual_seed(0)
    model = STAM(config, VIEW, torch.nn.Identity(), WIDTH).eval()
    torch.nn.init.normal_(model.head.weight)
    if model.temporal_encoder.motion is not None:
        model.temporal_encoder.motion.fit(torch.randn(9, 6, WIDTH), torch.Generator().manual_seed(0))
    return model


def predictor_of(config: ModelConfig) -> Predictor:
    torch.manual_seed(0)
    model = build_model(config, VIEW)
    torch.nn.init.normal_(model.head.weight)
    return Predictor(Checkpoint(model, VIEW, LABELS), device="cpu", dtype="float32")


@pytest.mark.parametrize("num_frames", [1, 2, 3, 8, 13])
def test_a_scan_is_the_recurrence_step_by_step(num_frames: int) -> None:
    kept_RTD, added_RTD = torch.rand(3, num_frames, 5), torch.randn(3, num_frames, 5)
    state_RD, states = torch.zeros(3, 5), []
    for time in range(num_frames):
        state_RD = kept_RTD[:, time] * state_RD + added_RTD[:, time]
        states.append(state_RD)
    assert_close(scan(kept_RTD, added_RTD), torch.stack(states, dim=1), rtol=0, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_a_stream_by_steps_equals_one_pass_over_all_its_frames(config: ModelConfig) -> None:
    model, embeddings_BTD = head_of(config), torch.randn(2, 60, WIDTH)
    whole_BTK = model.encode_prefixes(embeddings_BTD)
    state = None
    for time, embeddings_BD in enumerate(embeddings_BTD.unbind(1)):
        encoded, state = model.step_video(embeddings_BD, state)
        assert_close(encoded.logits, whole_BTK[:, time], rtol=0, atol=1e-5)
        assert [layer.shape for layer in state.layers] == [(2 * model.temporal_encoder.num_tokens, 16)] * 2
    assert_close(encoded.logits, model.encode_video(embeddings_BTD).logits, rtol=0, atol=1e-5)


def test_a_state_does_not_grow_and_a_step_sees_no_later_frame() -> None:
    model, embeddings_BTD = head_of(KINDS["tokens"]), torch.randn(1, 8, WIDTH)
    changed_BTD = embeddings_BTD.clone()
    changed_BTD[:, 5] += 1
    with torch.inference_mode():
        before, after = model.encode_prefixes(embeddings_BTD), model.encode_prefixes(changed_BTD)
    assert_close(before[:, :5], after[:, :5], rtol=0, atol=1e-6)
    assert (before[:, 5:] - after[:, 5:]).abs().amin(dim=1).max() > 1e-3


@torch.inference_mode()
@pytest.mark.parametrize("config", [KINDS["joined"], KINDS["tokens"]], ids=["joined", "tokens"])
def test_frame_attention_is_the_share_of_a_frame_in_the_last_state(config: ModelConfig) -> None:
    attention_BT = head_of(config).encode_video(torch.randn(3, 6, WIDTH), with_attention=True).frame_attention
    assert attention_BT is not None
    assert attention_BT.shape == (3, 6)
    assert_close(attention_BT.sum(dim=1), torch.ones(3))


def test_shares_give_the_states_of_the_scan() -> None:
    layer, tokens_RTD = GatedRecurrence(6), torch.randn(2, 7, 6)
    states_RTD = torch.einsum("rtsd,rsd->rtd", layer._shares(layer.gate(tokens_RTD)), layer.candidate(tokens_RTD))
    assert_close(layer.proj(states_RTD), layer(tokens_RTD), rtol=0, atol=1e-6)


def rising(num_frames: int) -> tuple[Tensor, Tensor]:
    """Return embeddings (B, V, T, D) of two actions that differ in the order of their frames alone, and which is which (B,)."""
    up_B = torch.arange(40) % 2 == 0
    slope_TD = torch.linspace(0, 1, num_frames)[:, None] * torch.ones(WIDTH)
    rows_BTD = torch.where(up_B[:, None, None], slope_TD, slope_TD.flip(0)) + 0.1 * torch.randn(40, num_frames, WIDTH)
    return rows_BTD[:, None], up_B.long()


@pytest.mark.parametrize("kind", ["joined", "tokens, motion"])
def test_it_learns_the_order_of_frames(kind: str) -> None:
    torch.manual_seed(0)
    rows_BVTD, up_B = rising(6)
    model = STAM(replace(KINDS[kind], num_classes=2, num_frames=6), VIEW, torch.nn.Identity(), WIDTH)
    for _ in fit(model, rows_BVTD, torch.eye(2)[up_B], RunConfig(train=TrainConfig(min_steps=80, epochs=1))):
        pass
    with torch.inference_mode():
        named_B = model.eval().encode_video(rows_BVTD[:, 0]).logits.argmax(dim=1)
    assert (named_B == up_B).float().mean() > 0.95


@pytest.mark.parametrize("kind", ["joined, motion", "tokens"])
def test_a_stream_with_a_state_answers_about_all_frames_so_far(kind: str, clips: Path) -> None:
    predictor, video = predictor_of(KINDS[kind]), str(clips / "redden" / "5.mp4")
    by_window = list(predictor.stream(video, replace(STATE, memory="window")))
    by_state = list(predictor.stream(video, STATE))
    assert len(by_state) == len(by_window) > 6
    times_s = [answer.end_s - 0.05 for answer in by_state]  # the centre of the newest frame
    with closing(open_video(video)) as opened:
        frames_TCHW = predictor.reader.frames_at(opened, np.array(times_s)).frames
    embeddings_TD = predictor.runtime.embed_frames(frames_TCHW)
    for count, answer in enumerate(by_state, 1):
        encoded = predictor.runtime.encode_windows(embeddings_TD[None, :count])
        assert_allclose(answer.scores, scores_of(encoded.logits[0], "single"), rtol=0, atol=1e-5)
    assert_allclose(
        by_state[3].scores, by_window[3].scores, rtol=0, atol=1e-5
    )  # the first whole window is all there is
    assert not np.allclose(by_state[-1].scores, by_window[-1].scores, atol=1e-4)


def test_dropped_frames_repeat_the_one_before_and_a_new_stretch_forgets() -> None:
    predictor = predictor_of(KINDS["joined"])
    rows_ND = np.random.default_rng(0).standard_normal((3, predictor.runtime.frame_width)).astype(np.float32)

    def answer(*steps: tuple[int, int]) -> Any:
        keeper = StateKeeper(predictor.runtime)
        for index, row in steps:
            keeper.push(index, rows_ND[row])
        assert keeper.encoded is not None
        return keeper.encoded.logits

    assert_allclose(answer((0, 0), (3, 1)), answer((0, 0), (1, 0), (2, 0), (3, 1)), rtol=0, atol=1e-6)
    keeper = StateKeeper(predictor.runtime)
    keeper.push(0, rows_ND[0])
    keeper.restart()
    keeper.push(9, rows_ND[2])
    assert keeper.encoded is not None
    assert_allclose(keeper.encoded.logits, answer((0, 2)), rtol=0, atol=1e-6)


def test_a_run_trains_one_and_its_file_streams(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    run = RunConfig(
        start=str(tiny_model),
        model={"temporal": "recurrent", "cells": 2, "cell_width": 8, "cell_tokens": True, "temporal_width": 32, "motion_width": 16},
        data=DataConfig(holdout=0.34),
        train=TrainConfig(epochs=1, min_steps=80, calibration_folds=0),
    )  # fmt: skip
    trained = train(read_data(clips), tmp_path / "out", run, TrainOptions(device="cpu", dtype="float32"))
    assert trained.evaluation is not None
    assert trained.evaluation.report.to_dict()["top1"] == 1
    video = clips / "redden" / "0.mp4"
    assert load(tmp_path / "out", device="cpu", dtype="float32").predict(video).top(1)[0].label == "redden"
    command = ["stream", str(video), "--model", str(tmp_path / "out"), "--memory", "state", "--window", "0.4", "--json"]
    found = CliRunner().invoke(app, [*command, "--device", "cpu", "--dtype", "float32"])
    assert found.exit_code == 0, found.output
    assert '"redden"' in found.stdout.splitlines()[-1]


def test_a_state_is_refused_where_there_is_none(clips: Path) -> None:
    video = str(clips / "redden" / "0.mp4")
    with pytest.raises(ConfigError, match="memory 'state': .* temporal 'causal' and keeps no state .*'recurrent'"):
        predictor_of(replace(PLAIN, temporal="causal")).stream(video, STATE)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"moment_head": True}, "temporal 'recurrent' cannot have a moment_head, .* set moment_head = false"),
        ({"layout": "joint", "cells": 0}, "temporal 'recurrent' cannot have layout 'joint'"),
    ],
)
def test_settings_that_cannot_be_computed_by_steps_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_from(ModelConfig, asdict(PLAIN) | settings, "model")


def test_other_styles_have_no_steps() -> None:
    model = head_of(replace(PLAIN, temporal="causal"))
    with pytest.raises(ValueError, match="temporal 'causal' keeps no state of a stream; it needs 'recurrent'"):
        model.step_video(torch.zeros(1, WIDTH))
