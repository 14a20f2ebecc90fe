"""Early exit: the plain model's answer when every frame was looked at, fewer frames when sure, no more lost than permitted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewframes.errors import ConfigError
from fewframes.inference.stages.early_exit import (
    LEAST_THRESHOLD,
    answer,
    confidence,
    figures_of,
    filled,
    fit_plan,
    leave,
    stage_logits,
    stages_of,
    with_stages,
)
from fewframes.models.config import AttentionLayout, ExitPlan, check_can_exit
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.runtime.protocol import Floats
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.video.view import ViewConfig
from helpers.models import TINY

STAGES = stages_of(16)
PLAN = ExitPlan(stages=STAGES, temperatures=(2.0, 1.0, 1.0), threshold=0.8)
SURE, UNSURE = [9.0, 0.0, 0.0], [0.1, 0.0, 0.0]


def model_of(layout: AttentionLayout = "factorised", *, multilabel: bool = False, cells: int = 0) -> TorchRuntime:
    """A tiny network of 16 frames whose every part counts."""
    factorised = layout == "factorised"
    config = replace(
        TINY,
        layout=layout,
        num_frames=16,
        cells=cells,
        temporal="paper" if factorised else "mean",
        motion_width=48 if factorised else 0,
        moment_head=factorised,
        task="multilabel" if multilabel else "single",
    )
    torch.manual_seed(3)
    view = ViewConfig(resize_px=36, crop_px=32)
    model = build_model(config, view)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return TorchRuntime(Checkpoint(model, view, ("a", "b", "c")), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def model() -> TorchRuntime:
    return model_of()


@pytest.fixture(scope="module", name="frames_BTD")
def frames() -> Floats:
    return np.random.default_rng(0).standard_normal((6, 16, 48), dtype=np.float32)


def outcome(num_videos: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Logits of three stages, the later the righter, and the labels of these videos."""
    generator = np.random.default_rng(seed)
    targets_B = generator.integers(3, size=num_videos)
    noise_SBK = generator.standard_normal((3, num_videos, 3), dtype=np.float32)
    gains = np.array([1.0, 2.0, 3.0], np.float32)[:, None, None]
    return noise_SBK + gains * np.eye(3, dtype=np.float32)[targets_B], targets_B


def test_sixteen_frames_are_looked_at_in_four_then_eight() -> None:
    assert stages_of(16) == ((1, 5, 10, 14), (1, 3, 5, 7, 8, 10, 12, 14), tuple(range(16)))
    assert stages_of(3) == ((0, 1, 2),)


@given(st.integers(1, 200))
def test_stages_are_nested_symmetrical_and_end_with_all(num_frames: int) -> None:
    stages = stages_of(num_frames)
    plan = ExitPlan(stages=stages, temperatures=(1.0,) * len(stages), threshold=0.5)  # checks that they are nested
    assert plan.num_frames == num_frames
    for places in stages:
        assert places == tuple(num_frames - 1 - place for place in reversed(places))
    new = [place for stage in range(len(stages)) for place in plan.new_positions(stage)]
    assert sorted(new) == list(range(num_frames))


def test_no_frames_have_no_stages() -> None:
    with pytest.raises(ValueError, match="num_frames = 0"):
        stages_of(0)


def test_moments_in_between_are_interpolated_in_time() -> None:
    frames_12D = np.array([[[0.0, 8.0], [4.0, 0.0]]], np.float32)
    expected_D = [[0, 8], [0, 8], [1, 6], [2, 4], [3, 2], [4, 0], [4, 0]]
    assert filled(frames_12D, (1, 5), 7).tolist() == [expected_D]


def test_what_was_looked_at_stays_as_it_is(frames_BTD: Floats) -> None:
    for places in STAGES:
        whole_BTD = filled(frames_BTD[:, list(places)], places, 16)
        assert np.array_equal(whole_BTD[:, list(places)], frames_BTD[:, list(places)])


@pytest.mark.parametrize(
    ("places", "message"), [((3, 1), "ascending"), ((1, 16), "0 to 15"), ((), "0 indices"), ((1,), "2 embeddings")]
)
def test_places_that_fit_nothing_are_refused(places: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filled(np.zeros((1, 2, 4), np.float32), places, 16)


def test_all_stages_reached_is_the_plain_model(model: TorchRuntime, frames_BTD: Floats) -> None:
    plain_BK = model.encode_windows(frames_BTD).logits
    never = replace(PLAN, threshold=1.01)
    left = leave(never, stage_logits(model, frames_BTD, STAGES))
    assert np.array_equal(left.logits, plain_BK)
    assert left.num_frames.tolist() == [16] * 6
    assert left.stages.tolist() == [2] * 6


def test_cells_of_a_stage_are_those_of_its_own_frames() -> None:
    model = model_of(cells=2)
    frames_BTCHW = np.random.default_rng(0).random((2, 16, 3, 32, 32), dtype=np.float32)
    frames_BTD = np.stack([model.embed_frames(frames_TCHW) for frames_TCHW in frames_BTCHW])
    assert frames_BTD.shape[2] == 48 * 5  # the frame's, and 2 x 2 cells'
    left = leave(replace(PLAN, threshold=1.01), stage_logits(model, frames_BTD, STAGES))
    assert np.array_equal(left.logits, model.encode_windows(frames_BTD).logits)
    others_BTD = frames_BTD.copy()
    others_BTD[:, [place for place in range(16) if place not in STAGES[0]], 48:] = 7.0
    first, other = (stage_logits(model, frames, STAGES) for frames in (frames_BTD, others_BTD))
    assert np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


def test_a_stage_sees_its_own_frames_alone(model: TorchRuntime, frames_BTD: Floats) -> None:
    others_BTD = frames_BTD.copy()
    others_BTD[:, [place for place in range(16) if place not in STAGES[0]]] = 7.0
    first, other = (stage_logits(model, frames, STAGES) for frames in (frames_BTD, others_BTD))
    assert np.array_equal(first[0], other[0])
    assert np.array_equal(first[0], answer(model, frames_BTD[:, list(STAGES[0])], STAGES[0])[0].logits)
    assert not np.array_equal(first[1], other[1])


def test_a_video_leaves_where_it_is_sure_first() -> None:
    logits_SBK = np.array([[SURE, UNSURE, UNSURE], [UNSURE, SURE, UNSURE], [UNSURE, UNSURE, UNSURE]], np.float32)
    left = leave(PLAN, logits_SBK)
    assert left.stages.tolist() == [0, 1, 2]
    assert left.num_frames.tolist() == [4, 8, 16]
    assert np.allclose(left.logits, [SURE, SURE, UNSURE])


def test_confidence_is_that_of_logits_over_the_stages_temperature() -> None:
    logits_SBK = np.array([[[4.0, 0.0]], [[4.0, 0.0]], [[4.0, 0.0]]], np.float32)  # 0.982 at once, 0.881 over 2
    assert confidence(logits_SBK[0], 2.0).item() == pytest.approx(0.8808, abs=1e-4)
    assert leave(replace(PLAN, threshold=0.9), logits_SBK).stages.tolist() == [1]
    assert leave(replace(PLAN, threshold=0.88), logits_SBK).stages.tolist() == [0]


@pytest.mark.parametrize("permitted_loss", [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_a_fitted_plan_loses_no_more_than_permitted(permitted_loss: float, seed: int) -> None:
    logits_SBK, targets_B = outcome(200, seed)
    plan = fit_plan(STAGES, logits_SBK, targets_B, permitted_loss)
    figures = figures_of(plan, logits_SBK, targets_B)
    assert figures.top1 >= figures.top1_all_frames - permitted_loss - 1e-9
    thresholds = np.linspace(plan.threshold, 1, 50).tolist()
    assert all(
        figures_of(replace(plan, threshold=value), logits_SBK, targets_B).top1
        >= figures.top1_all_frames - permitted_loss - 1e-9
        for value in thresholds
    )


def test_more_permitted_loss_takes_fewer_frames() -> None:
    logits_SBK, targets_B = outcome(200)
    frames = [
        figures_of(fit_plan(STAGES, logits_SBK, targets_B, loss, 0.0), logits_SBK, targets_B).mean_frames
        for loss in (0.0, 0.05, 0.5)
    ]
    assert 16 > frames[0] > frames[1] > frames[2] == 4


def test_temperatures_make_the_stages_agree_with_how_often_they_are_right() -> None:
    logits_SBK, targets_B = outcome(4000)
    plan = fit_plan(STAGES, np.stack([10 * logits_SBK[0], logits_SBK[1], logits_SBK[2]]), targets_B)
    calm = fit_plan(STAGES, logits_SBK, targets_B)
    assert plan.temperatures[0] == pytest.approx(10 * calm.temperatures[0], rel=0.05)
    assert plan.temperatures[1:] == calm.temperatures[1:]


def test_answers_that_fewer_frames_gain_do_not_make_up_for_lost_ones() -> None:
    """Leaving at the first stage loses half of ten videos and gains the other half: no threshold may be below theirs."""
    targets_B = np.zeros(10, np.int64)
    right_BK, wrong_BK = np.array([[9.0, 0.0]] * 5, np.float32), np.array([[0.0, 9.0]] * 5, np.float32)
    early_BK, late_BK = np.concatenate([right_BK, wrong_BK]), np.concatenate([wrong_BK, right_BK])
    logits_SBK = np.stack([early_BK, late_BK, late_BK])
    plan = fit_plan(STAGES, logits_SBK, targets_B, 0.4)
    assert np.array_equal(leave(plan, logits_SBK).logits, late_BK)


def test_where_early_answers_are_all_wrong_nobody_leaves_early() -> None:
    targets_B = np.zeros(10, np.int64)
    wrong_BK, right_BK = np.array([[0.0, 9.0]] * 10, np.float32), np.array([[9.0, 0.0]] * 10, np.float32)
    logits_SBK = np.stack([wrong_BK, wrong_BK, right_BK])
    assert figures_of(fit_plan(STAGES, logits_SBK, targets_B), logits_SBK, targets_B).mean_frames == 16


def test_one_stage_is_every_frame() -> None:
    logits_SBK, targets_B = outcome(20)
    plan = fit_plan(stages_of(4), logits_SBK[:1], targets_B)
    assert leave(plan, logits_SBK[:1]).num_frames.tolist() == [4] * 20


def test_logits_that_fit_no_stages_and_impossible_losses_are_refused() -> None:
    logits_SBK, targets_B = outcome(10)
    with pytest.raises(ValueError, match="3 stages of 9 videos"):
        fit_plan(STAGES, logits_SBK, targets_B[:9])
    with pytest.raises(ConfigError, match="permitted loss 5"):
        fit_plan(STAGES, logits_SBK, targets_B, 5)


def test_a_plan_travels_as_plain_values() -> None:
    assert ExitPlan.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [[1, 5], [0, 1, 2, 3, 4]]}, "those of the stage before"),
        ({"stages": [[5, 1], [0, 1, 2, 3, 4, 5]]}, "ascending"),
        ({"stages": [[1, 3], [1, 2, 3]]}, "3 of 4 positions"),
        ({"temperatures": [1.0]}, "3 stages with 1 temperatures"),
        ({"temperatures": [1.0, 0.0, 1.0]}, "greater than 0"),
        ({"treshold": 0.5}, "did you mean 'threshold'"),
    ],
)
def test_a_damaged_plan_is_refused(change: dict[str, object], message: str) -> None:
    values = {**PLAN.to_dict(), **change}
    if "stages" in change:
        values["temperatures"] = [1.0, 1.0]
    with pytest.raises(ConfigError, match=message):
        ExitPlan.from_dict(values)


def test_models_that_cannot_stop_early_say_why() -> None:
    PLAN.check(model_of().model.config)
    with pytest.raises(ConfigError, match="mixes frames"):
        check_can_exit(embeds_frames=False, task="single")
    with pytest.raises(ConfigError, match="mixes frames"):
        PLAN.check(model_of("per_block").model.config)
    with pytest.raises(ConfigError, match="multi-label"):
        PLAN.check(model_of(multilabel=True).model.config)
    with pytest.raises(ConfigError, match="for 4 frames and the model is built for 16"):
        ExitPlan(stages=stages_of(4), temperatures=(1.0,), threshold=0.5).check(model_of().model.config)


def test_training_views_hold_what_each_early_stage_sees(frames_BTD: Floats) -> None:
    embeddings_BVTD = np.stack([frames_BTD, frames_BTD + 1, frames_BTD + 2], axis=1)
    views_BVTD = with_stages(embeddings_BVTD, STAGES, num_views=2)
    assert views_BVTD.shape == (6, 3 + 2 * 2, 16, 48)
    assert np.array_equal(views_BVTD[:, :3], embeddings_BVTD)
    four, eight = list(STAGES[0]), list(STAGES[1])
    assert np.array_equal(views_BVTD[:, 3], filled(frames_BTD[:, four], four, 16))
    assert np.array_equal(views_BVTD[:, 6], filled(frames_BTD[:, eight] + 1, eight, 16))


def test_no_fitted_plan_stops_below_the_least_threshold() -> None:
    logits_SBK, targets_B = outcome(200)
    assert fit_plan(STAGES, logits_SBK, targets_B, 0.5).threshold == LEAST_THRESHOLD
    assert fit_plan(STAGES, logits_SBK, targets_B, 0.5, 0.3).threshold < LEAST_THRESHOLD
