"""What an explanation claims: occlusion worked out by hand, correlations of known rows, nothing where nothing changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewframes.errors import ConfigError, VideoError
from fewframes.inference.explain import correlations, explain, score_drops, without
from fewframes.inference.predictor import Predictor, load
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.runtime.protocol import scores_of
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


def test_correlations_of_known_rows() -> None:
    rising, other = np.array([1.0, 2, 3, 4], np.float32), np.array([10.0, 20, 40, 30], np.float32)
    spearman, pearson = correlations(rising, other)
    assert spearman == pytest.approx(1 - 6 * 2 / (4 * 15))  # two places differ by one
    assert pearson == pytest.approx(40 / (5 * 500) ** 0.5)
    assert correlations(rising, -rising)[0] == pytest.approx(-1)
    assert correlations(rising, np.ones(4, np.float32)) == correlations(np.ones(4, np.float32), rising) == (None, None)


def test_a_frame_left_out_is_what_lies_between_its_neighbours() -> None:
    frames_TD = np.array([[0.0, 1], [9, 9], [4, 3], [6, 6]], np.float32)
    assert without(frames_TD, 1).tolist() == [[0, 1], [2, 2], [4, 3], [6, 6]]
    assert without(frames_TD, 0).tolist() == [[9, 9], [9, 9], [4, 3], [6, 6]]
    assert without(frames_TD, 3).tolist() == [[0, 1], [9, 9], [4, 3], [4, 3]]


def test_occlusion_is_the_fall_of_the_score(tiny: Predictor, videos: Path) -> None:
    found = explain(tiny, videos / "a.mp4")
    prediction = tiny.predict(videos / "a.mp4")
    assert np.array_equal(found.prediction.scores, prediction.scores)
    assert found.label == prediction.top(1)[0].label
    index = LABELS.index(found.label)
    frames_TD = prediction.frame_embeddings
    for frame, neighbours in enumerate([(1, 1), (0, 2), (1, 3), (2, 2)]):
        changed_TD = frames_TD.copy()
        changed_TD[frame] = frames_TD[list(neighbours)].mean(axis=0)
        score = scores_of(tiny.runtime.encode_windows(changed_TD[None]).logits, "single")[0, index]
        assert found.occlusion[frame] == pytest.approx(float(prediction.scores[index] - score), abs=1e-6)
    assert (found.spearman, found.pearson) == correlations(prediction.frame_attention, found.occlusion)
    assert found.frames.shape == (4, 3, 32, 32)
    assert (found.map_method, None if found.maps is None else found.maps.shape) == ("rollout", (4, 4, 4))
    values = found.to_dict(2)
    assert len(values["top"]) == 2  # type: ignore[arg-type]
    assert values["explanation"]["label"] == found.label  # type: ignore[index]
    assert "Spearman" in found.agreement()
    assert "chance reaches ±1.00" in repr(found)  # 1.96 / sqrt(3) is more, and no correlation is


def test_nothing_changes_where_all_frames_are_alike(tiny: Predictor) -> None:
    still = np.full((20, 3, 48, 64), 90, np.uint8)
    found = explain(tiny, still, maps="none")
    assert found.occlusion.tolist() == [0, 0, 0, 0]
    assert (found.spearman, found.pearson, found.maps) == (None, None, None)
    assert "no correlation (4 frames, one of the two is constant)" in found.agreement()
    assert found.to_dict()["explanation"]["spearman"] is None  # type: ignore[index]


def test_layouts_that_mix_frames_are_shown_other_pictures(videos: Path) -> None:
    torch.manual_seed(0)
    view = ViewConfig(resize_px=36, crop_px=32)
    model = build_model(replace(TINY, layout="joint"), view)
    predictor = Predictor(Checkpoint(model, view, LABELS), device="cpu", dtype="float32")
    found = explain(predictor, videos / "b.mp4")
    assert found.map_method == "attention"
    changed = found.frames.copy()
    changed[1] = ((found.frames[0].astype(float) + found.frames[2]) / 2).round().astype(np.uint8)
    index = LABELS.index(found.label)
    logits = predictor.runtime.encode_windows(predictor.runtime.encode_clips(changed[None])).logits
    fall = float(found.prediction.scores[index] - scores_of(logits, "single")[0, index])
    assert found.occlusion[1] == pytest.approx(fall, abs=1e-6)
    assert fall != 0


def test_small_changes_near_certainty_are_not_rounded_away(tiny: Predictor) -> None:
    frames_TD = np.random.default_rng(0).standard_normal((4, 48), dtype=np.float32)
    bias = tiny.torch.model.head.bias.data
    bias[1] += 25.0  # softmax in float32 is exactly 1
    try:
        drops_T = score_drops(tiny.runtime, frames_TD, np.empty((4, 3, 32, 32), np.uint8), 1)
    finally:
        bias[1] -= 25.0
    assert (drops_T != 0).all()
    assert float(np.abs(drops_T).max()) < 1e-7


def test_another_label_and_what_is_wrong(tiny: Predictor, videos: Path, tmp_path: Path) -> None:
    path = videos / "a.mp4"
    found = explain(tiny, path, label="push", maps="attention")
    assert found.label == "push"
    assert found.score == pytest.approx(float(found.prediction.scores[2]))
    with pytest.raises(ConfigError, match="the model has no label 'pusch'; did you mean 'push'?"):
        explain(tiny, path, label="pusch")
    with pytest.raises(ConfigError, match="1 frame: an explanation leaves out one frame at a time.* at least 2 frames"):
        explain(tiny, path, num_frames=1)
    with pytest.raises(ConfigError, match="map 'grad-cam': for this model's frame encoder"):
        explain(tiny, path, maps="grad-cam")
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        explain(tiny, tmp_path / "none.mp4")
