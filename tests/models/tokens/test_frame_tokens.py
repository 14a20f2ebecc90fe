"""Several tokens of each frame: each cell keeps its place, caches are those of joined cells, and every answer is predict's."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from safetensors import safe_open
from torch.testing import assert_close

from fewframes.core.cache import EmbeddingCache
from fewframes.core.settings import settings_from
from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.errors import ConfigError
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.kept_parts import keep_temporal
from fewframes.models.files.model_file import HEADER_KEY
from fewframes.models.files.networks import build_model
from fewframes.models.layers import FrameGrid
from fewframes.models.stam import STAM
from fewframes.models.tokens.frame_tokens import CellMotionTokens, split_cells
from fewframes.runtime.protocol import CachesMotion, scores_of
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.steps.loop import fit
from fewframes.training.train import TrainOptions, train
from fewframes.video.live_settings import StreamConfig
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY

VIEW = ViewConfig(resize_px=36, crop_px=32)
CELLS = replace(TINY, cells=2, cell_width=5, temporal_width=16, motion_width=8, temporal_positions="waves")
TOKENS = replace(CELLS, cell_tokens=True)
WIDTH = TINY.width + 4 * 5
STYLES = ("paper", "release", "causal")


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
    return Predictor(Checkpoint(build_model(config, VIEW), VIEW, LABELS), device="cpu", dtype="float32")


def test_an_embedding_is_taken_apart_as_the_grid_put_it_together() -> None:
    features_MCHW, pooled_MD = torch.randn(3, 7, 4, 4), torch.randn(3, 10)
    joined_MD = torch.cat([pooled_MD, FrameGrid(7, 2)(features_MCHW)], dim=1)
    cells_MCD, rest_MD = split_cells(joined_MD, 4, 7)
    assert_close(rest_MD, pooled_MD)
    assert_close(cells_MCD[:, 1], features_MCHW[:, :, :2, 2:].mean(dim=(2, 3)))  # the second cell is at the top right


@pytest.mark.parametrize("style", STYLES)
def test_the_answer_depends_on_which_cell_shows_something(style: str) -> None:
    model = head_of(settings_from(ModelConfig, asdict(TOKENS) | {"temporal": style}, "model"))
    embeddings_BTD = torch.randn(2, 4, WIDTH)
    cells, pooled = split_cells(embeddings_BTD, 4, 5)
    swapped = torch.cat([pooled, cells[:, :, [1, 0, 2, 3]].transpose(-1, -2).flatten(-2)], dim=-1)
    with torch.inference_mode():
        here, there = (model.encode_video(rows, with_attention=True) for rows in (embeddings_BTD, swapped))
    assert (here.logits - there.logits).abs().max() > 1e-3
    assert here.frame_attention is not None
    assert here.frame_attention.shape == (2, 4)
    assert_close(here.frame_attention.sum(dim=1), torch.ones(2))


@torch.inference_mode()
def test_a_causal_answer_is_that_of_the_frames_so_far() -> None:
    model, embeddings_BTD = head_of(replace(TOKENS, temporal="causal")), torch.randn(2, 4, WIDTH)
    logits_BTK = model.encode_prefixes(embeddings_BTD)
    for count in range(1, 5):
        assert_close(logits_BTK[:, count - 1], model.encode_video(embeddings_BTD[:, :count]).logits, rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("style", STYLES)
def test_cached_parts_of_motion_tokens_give_the_same_answer(style: str) -> None:
    model = head_of(settings_from(ModelConfig, asdict(TOKENS) | {"temporal": style}, "model"))
    motion, embeddings_BTD = model.temporal_encoder.motion, torch.randn(3, 5, WIDTH)
    assert isinstance(motion, CellMotionTokens)
    before_BTD = torch.cat([torch.randn(3, 1, WIDTH), embeddings_BTD[:, :-1]], dim=1)
    cached = motion.cacheable_parts(before_BTD.flatten(0, 1), embeddings_BTD.flatten(0, 1)).unflatten(0, (3, 5))
    whole, part = (model.encode_video(embeddings_BTD, cached_BT2W=parts).logits for parts in (None, cached))
    assert_close(whole, part, rtol=0, atol=1e-5)


def test_it_learns_in_which_cell_a_thing_is() -> None:
    """Only the place tells the two actions apart: the mean over cells is the same."""
    config = replace(TOKENS, num_classes=2, temporal_depth=1)
    left_B = torch.arange(40) % 2 == 0
    embeddings_BTD = 0.1 * torch.randn(40, 4, WIDTH)
    cells_BTKD, pooled_BTD = split_cells(embeddings_BTD, 4, 5)
    cells_BTKD[left_B, :, 0] += 1
    cells_BTKD[~left_B, :, 3] += 1
    rows_BVTD = torch.cat([pooled_BTD, cells_BTKD.transpose(-1, -2).flatten(-2)], dim=-1)[:, None]
    model = STAM(config, VIEW, torch.nn.Identity(), WIDTH)
    for _ in fit(model, rows_BVTD, torch.eye(2)[left_B.long()], RunConfig(train=TrainConfig(min_steps=60, epochs=1))):
        pass
    with torch.inference_mode():
        named_B = model.eval().encode_video(rows_BVTD[:, 0]).logits.argmax(dim=1)
    assert (named_B == left_B.long()).float().mean() > 0.95


def test_a_file_says_so_and_models_without_say_nothing(tmp_path: Path) -> None:
    videos_BTCHW = torch.rand(1, 4, 3, 32, 32)
    for config, version in ((CELLS, 1), (TOKENS, 5)):
        model = build_model(config, VIEW).eval()
        save_checkpoint(tmp_path / "model.safetensors", Checkpoint(model, VIEW, LABELS))
        loaded = load_checkpoint(tmp_path / "model.safetensors").model
        assert loaded.config == config
        with torch.inference_mode():
            assert torch.equal(loaded(videos_BTCHW), model(videos_BTCHW))
        with safe_open(tmp_path / "model.safetensors", framework="np") as file:
            header = json.loads(file.metadata()[HEADER_KEY])
        assert header["format"] == version
        assert ("cell_tokens" in header["model"]) == config.cell_tokens


def test_one_cache_serves_joined_cells_and_tokens_and_no_other_cells() -> None:
    joined, tokens, other = (
        predictor_of(config).runtime.encoder_key() for config in (CELLS, TOKENS, replace(CELLS, cells=3))
    )
    assert joined == tokens
    assert joined != other


def test_a_run_trains_from_the_cache_of_joined_cells(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = TrainOptions(device="cpu", dtype="float32", cache=EmbeddingCache(cache))
    model: dict[str, Any] = {"cells": 2, "cell_width": 8, "temporal_width": 32, "motion_width": 16}
    run = RunConfig(
        start=str(tiny_model),
        model=model,
        data=DataConfig(holdout=0.34),
        train=TrainConfig(epochs=1, min_steps=60, calibration_folds=0),
    )
    train(read_data(clips), tmp_path / "joined", replace(run, train=replace(run.train, min_steps=1)), options)
    kept = sorted(cache.rglob("*"))
    tokens = replace(run, model={**model, "cell_tokens": True})
    trained = train(read_data(clips), tmp_path / "tokens", tokens, options)
    assert sorted(cache.rglob("*")) == kept
    assert trained.evaluation is not None
    assert trained.evaluation.report.to_dict()["top1"] == 1
    predictor = load(tmp_path / "tokens", device="cpu", dtype="float32")
    assert predictor.predict(clips / "redden" / "0.mp4").top(1)[0].label == "redden"


@pytest.mark.parametrize("style", ["paper", "causal"])
def test_streams_and_timelines_say_what_predict_says(style: str, clips: Path) -> None:
    config = settings_from(ModelConfig, asdict(TOKENS) | {"temporal": style}, "model")
    predictor, video = predictor_of(config), clips / "redden" / "5.mp4"
    assert isinstance(predictor.runtime, CachesMotion)  # so that the ring keeps parts of tokens
    answers = [
        answer
        for answer in predictor.stream(str(video), StreamConfig(window_s=0.4, smooth_s=0.0))
        if answer.num_frames == 4
    ]
    assert len(answers) > 4
    for answer in answers[::3]:
        expected = predictor.predict(video, start_s=answer.start_s, end_s=answer.end_s)
        assert_allclose(answer.scores, expected.scores, rtol=0, atol=1e-5)
    windows = sweep(predictor, video, TimelineConfig(window_s=0.4, lengths=(1,))).windows[0]
    start_s = float(windows.starts_s[-1])
    expected = predictor.predict(video, start_s=start_s, end_s=start_s + 0.4)
    assert_allclose(scores_of(windows.logits[-1], "single"), expected.scores, rtol=0, atol=1e-5)


def test_a_kept_temporal_encoder_needs_the_same_tokens() -> None:
    trained, joined = build_model(TOKENS, VIEW), build_model(CELLS, VIEW)
    with pytest.raises(ConfigError, match="cell_tokens = False: the temporal encoder of 'old' is kept as it is"):
        keep_temporal(joined, trained, "old")
    new = build_model(replace(TOKENS, num_frames=6), VIEW)
    keep_temporal(new, trained, "old")
    assert_close(new.temporal_encoder.proj.place_embed, trained.temporal_encoder.proj.place_embed)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temporal": "mean"}, "cell_tokens = true needs a temporal encoder with layers"),
        ({"cells": 0, "cell_width": None}, "cell_tokens = true needs cells, cell_width:"),
        ({"temporal_width": None}, "cell_tokens = true needs temporal_width:"),
    ],
)
def test_settings_that_make_no_tokens_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_from(ModelConfig, asdict(TOKENS) | settings, "model")
