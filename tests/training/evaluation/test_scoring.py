"""What a model says of a data set: the quick way equal to the slow one, in every layout, order and number of views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.errors import ConfigError, DataError
from fewframes.inference.predictor import Predictor, load
from fewframes.models.config import AttentionLayout
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.models.layers import pixels_of
from fewframes.runtime.protocol import Floats, scores_of
from fewframes.sampling import Views, clip_times
from fewframes.training.evaluation.scoring import averaged, score_videos
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import read_frames
from fewframes.video.transforms import crops_of
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY

ORDERS = np.array([[3, 2, 1, 0], [1, 3, 0, 2]])
ORDERS_BOT = np.broadcast_to(ORDERS, (3, 2, 4))
"""The same orders for each of the three videos."""


def model_of(layout: AttentionLayout) -> Predictor:
    """A tiny network whose every part counts."""
    view = ViewConfig(resize_px=36, crop_px=32)
    torch.manual_seed(3)
    model = build_model(replace(TINY, layout=layout, temporal="paper" if layout == "factorised" else "mean"), view)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return Predictor(Checkpoint(model, view, LABELS), device="cpu", dtype="float32")


@pytest.fixture(scope="module", params=["factorised", "joint", "per_block"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return model_of(request.param)


@pytest.fixture(scope="module")
def data(videos: Path) -> VideoSet:
    paths = [videos / "a.mp4", videos / "none.mp4", videos / "sub" / "c.mp4"]
    return VideoSet(tuple(Sample(path=str(path), labels=("hug",)) for path in paths), "three")


def slow_logits(predictor: Predictor, frames_TCHW: Pixels) -> Floats:
    """The whole network on one clip."""
    with torch.inference_mode():
        logits: Tensor = predictor.torch.model(pixels_of(torch.from_numpy(frames_TCHW.copy()))[None])
    found: Floats = logits[0].numpy()
    return found


def test_one_pass_is_what_predict_says(predictor: Predictor, data: VideoSet) -> None:
    scores = score_videos(data, predictor)
    assert scores.indices.tolist() == [0, 2]
    assert [failure.source for failure in scores.failures] == [data.samples[1].path]
    for logits_K, index in zip(scores.logits, scores.indices.tolist(), strict=True):
        scores_K = predictor.predict(data.samples[index].path).scores
        assert_allclose(scores_of(logits_K, "single"), scores_K, rtol=0, atol=1e-6)
    assert scores.others.shape == (2, 0, 3)
    with pytest.raises(DataError, match="none of 1 video could be read"):
        score_videos(data.subset([1]), predictor)


def test_other_orders_are_the_network_on_frames_in_that_order(predictor: Predictor, data: VideoSet) -> None:
    scores = score_videos(data, predictor, orders_BOT=ORDERS_BOT)
    for row, index in enumerate(scores.indices.tolist()):
        frames_TCHW = predictor.read_clip(data.samples[index].path).frames
        for number, order_T in enumerate(ORDERS):
            slow_K = slow_logits(predictor, frames_TCHW[order_T])
            assert_allclose(scores.others[row, number], slow_K, rtol=1e-4, atol=1e-4)
        assert np.abs(scores.others[row, 0] - scores.logits[row]).max() > 1e-3


def test_scores_of_two_clips_by_three_crops_are_the_mean_of_six(predictor: Predictor, data: VideoSet) -> None:
    views = Views(num_clips=2, num_crops=3, clip_s=0.5)
    scores = score_videos(data, predictor, views=views, orders_BOT=ORDERS_BOT)
    times_CT = clip_times(0.0, 0.8, 4, num_clips=2, clip_s=0.5)
    for row, index in enumerate(scores.indices.tolist()):
        slow: dict[int, list[Floats]] = {0: [], 1: []}
        for times_T in times_CT:
            frames_TCHW = read_frames(data.samples[index].path, times_T).frames
            for crop in range(3):
                view_TCHW = np.stack([crops_of(frame, predictor.runtime.view, 3)[crop] for frame in frames_TCHW])
                slow[0].append(scores_of(slow_logits(predictor, view_TCHW), "single"))
                slow[1].append(scores_of(slow_logits(predictor, view_TCHW[::-1]), "single"))
        for logits_K, singles in ((scores.logits[row], slow[0]), (scores.others[row, 0], slow[1])):
            assert len(singles) == 6
            assert_allclose(scores_of(logits_K, "single"), np.mean(singles, axis=0), rtol=0, atol=1e-5)


def test_averages_by_hand() -> None:
    logits_VK = np.array([[0, 0], [2, 0]], np.float32)
    single = scores_of(averaged(logits_VK, "single"), "single")
    assert single[0] == pytest.approx((0.5 + 0.880797) / 2, abs=1e-5)
    several = scores_of(averaged(np.array([[0, 9], [2, -9]], np.float32), "multilabel"), "multilabel")
    assert several.tolist() == pytest.approx([(0.5 + 0.880797) / 2, 0.5], abs=1e-5)
    sure = averaged(np.array([[400, -400], [400, -400]], np.float32), "multilabel")
    assert sure.tolist() == [400.0, -400.0]  # where the scores themselves are 1 and 0
    assert averaged(logits_VK[1:], "single").tolist() == [2.0, 0.0]


def test_only_embeddings_of_single_frames_are_kept(predictor: Predictor, data: VideoSet, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    first, second = (score_videos(data, predictor, cache) for _ in range(2))
    assert np.array_equal(first.logits, second.logits)
    kept = 2 if predictor.runtime.embeds_frames else 0
    assert (first.num_cached, second.num_cached) == (0, kept)
    assert (first.pace.num_videos, second.pace.num_videos) == (2, 2 - kept)
    assert first.pace.total_s is not None
    assert first.pace.total_s > first.pace.network_s > 0
    assert bool(second.pace.network_s) == (kept == 0)
    assert len(list(tmp_path.rglob("*.safetensors"))) == kept


def test_time_of_decoding_is_not_told_where_other_orders_hid_it(predictor: Predictor, data: VideoSet) -> None:
    pace = score_videos(data, predictor, orders_BOT=ORDERS_BOT).pace
    assert (pace.total_s is None) == (not predictor.runtime.embeds_frames)


def test_other_numbers_of_frames_and_progress(predictor: Predictor, data: VideoSet) -> None:
    told: list[tuple[str, int, int]] = []
    score_videos(data, predictor, num_frames=2, progress=lambda *state: told.append(state))
    assert told == [("scoring with 2 frames", done, 3) for done in (1, 2, 3)]


def test_crops_of_a_whole_picture_are_refused_before_anything_is_read(tiny_model: Path, data: VideoSet) -> None:
    checkpoint = load(tiny_model, device="cpu", dtype="float32").torch.checkpoint
    whole = Predictor(replace(checkpoint, view=ViewConfig(fit="pad", crop_px=32)), device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match="there is nothing to crop; use 1"):
        score_videos(data, whole, views=Views(num_crops=3))
