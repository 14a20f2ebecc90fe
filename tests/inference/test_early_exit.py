"""Early exit: the plain model's answer when every frame was looked at, fewer frames when sure, no more lost than permitted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from fewframes.errors import ConfigError
from fewframes.inference.early_exit import (
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
from fewframes.models.config import AttentionLayout
from fewframes.models.exit_plan import ExitPlan, check_can_exit
from fewframes.models.files.networks import build_model
from fewframes.models.stam import STAM
from fewframes.video.view import ViewConfig
from helpers.models import TINY

STAGES = stages_of(16)
PLAN = ExitPlan(stages=STAGES, temperatures=(2.0, 1.0, 1.0), threshold=0.8)
SURE, UNSURE = [9.0, 0.0, 0.0], [0.1, 0.0, 0.0]


def model_of(layout: AttentionLayout = "factorised", *, multilabel: bool = False) -> STAM:
    """A tiny network of 16 frames whose every part counts."""
    factorised = layout == "factorised"
    config = replace(
        TINY,
        layout=layout,
        num_frames=16,
        temporal="paper" if factorised else "mean",
        motion_width=48 if factorised else 0,
        moment_head=factorised,
        task="multilabel" if multilabel else "single",
    )
    torch.manual_seed(3)
    model = build_model(config, ViewConfig(resize_px=36, crop_px=32)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def model() -> STAM:
    return model_of()


@pytest.fixture(scope="module", name="frames_BTD")
def frames() -> Tensor:
    return torch.randn(6, 16, 48, generator=torch.Generator().manual_seed(0))


def outcome(num_videos: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of three stages, the later the righter, and the labels of these videos."""
    generator = torch.Generator().manual_seed(seed)
    targets_B = torch.randint(3, (num_videos,), generator=generator)
    noise_SBK = torch.randn(3, num_videos, 3, generator=generator)
    gains = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    return noise_SBK + gains * torch.eye(3)[targets_B], targets_B


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
    frames_12D = torch.tensor([[[0.0, 8.0], [4.0, 0.0]]])
    expected_D = [[0, 8], [0, 8], [1, 6], [2, 4], [3, 2], [4, 0], [4, 0]]
    assert_close(filled(frames_12D, (1, 5), 7), torch.tensor([expected_D]).float(), rtol=0, atol=0)


def test_what_was_looked_at_stays_as_it_is(frames_BTD: Tensor) -> None:
    for places in STAGES:
        whole_BTD = filled(frames_BTD[:, list(places)], places, 16)
        assert torch.equal(whole_BTD[:, list(places)], frames_BTD[:, list(places)])


@pytest.mark.parametrize(
    ("places", "message"), [((3, 1), "ascending"), ((1, 16), "0 to 15"), ((), "0 indices"), ((1,), "2 embeddings")]
)
def test_places_that_fit_nothing_are_refused(places: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filled(torch.zeros(1, 2, 4), places, 16)


def test_all_stages_reached_is_the_plain_model(model: STAM, frames_BTD: Tensor) -> None:
    with torch.no_grad():
        plain_BK = model.encode_video(frames_BTD).logits
        never = replace(PLAN, threshold=1.01)
        left = leave(never, stage_logits(model, frames_BTD, STAGES))
    assert torch.equal(left.logits, plain_BK)
    assert left.num_frames.tolist() == [16] * 6
    assert left.stages.tolist() == [2] * 6


def test_a_stage_sees_its_own_frames_alone(model: STAM, frames_BTD: Tensor) -> None:
    others_BTD = frames_BTD.clone()
    others_BTD[:, [place for place in range(16) if place not in STAGES[0]]] = 7.0
    with torch.no_grad():
        first, other = (stage_logits(model, frames, STAGES) for frames in (frames_BTD, others_BTD))
        assert torch.equal(first[0], other[0])
        assert torch.equal(first[0], answer(model, frames_BTD[:, list(STAGES[0])], STAGES[0])[0].logits)
    assert not torch.equal(first[1], other[1])


def test_a_video_leaves_where_it_is_sure_first() -> None:
    logits_SBK = torch.tensor([[SURE, UNSURE, UNSURE], [UNSURE, SURE, UNSURE], [UNSURE, UNSURE, UNSURE]])
    left = leave(PLAN, logits_SBK)
    assert left.stages.tolist() == [0, 1, 2]
    assert left.num_frames.tolist() == [4, 8, 16]
    assert_close(left.logits, torch.tensor([SURE, SURE, UNSURE]))


def test_confidence_is_that_of_logits_over_the_stages_temperature() -> None:
    logits_SBK = torch.tensor([[[4.0, 0.0]], [[4.0, 0.0]], [[4.0, 0.0]]])  # 0.982 at once, 0.881 over 2
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
    thresholds = torch.linspace(plan.threshold, 1, 50).tolist()
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
    plan = fit_plan(STAGES, torch.stack([10 * logits_SBK[0], logits_SBK[1], logits_SBK[2]]), targets_B)
    calm = fit_plan(STAGES, logits_SBK, targets_B)
    assert plan.temperatures[0] == pytest.approx(10 * calm.temperatures[0], rel=0.05)
    assert plan.temperatures[1:] == calm.temperatures[1:]


def test_answers_that_fewer_frames_gain_do_not_make_up_for_lost_ones() -> None:
    """Leaving at the first stage loses half of ten videos and gains the other half: no threshold may be below theirs."""
    targets_B = torch.zeros(10, dtype=torch.int64)
    right_BK, wrong_BK = torch.tensor([[9.0, 0.0]] * 5), torch.tensor([[0.0, 9.0]] * 5)
    early_BK, late_BK = torch.cat([right_BK, wrong_BK]), torch.cat([wrong_BK, right_BK])
    logits_SBK = torch.stack([early_BK, late_BK, late_BK])
    plan = fit_plan(STAGES, logits_SBK, targets_B, 0.4)
    assert torch.equal(leave(plan, logits_SBK).logits, late_BK)


def test_where_early_answers_are_all_wrong_nobody_leaves_early() -> None:
    targets_B = torch.zeros(10, dtype=torch.int64)
    wrong_BK, right_BK = torch.tensor([[0.0, 9.0]] * 10), torch.tensor([[9.0, 0.0]] * 10)
    logits_SBK = torch.stack([wrong_BK, wrong_BK, right_BK])
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
    PLAN.check(model_of().config)
    with pytest.raises(ConfigError, match="'joint' mixes frames"):
        check_can_exit(model_of("joint").config)
    with pytest.raises(ConfigError, match="'per_block' mixes frames"):
        PLAN.check(model_of("per_block").config)
    with pytest.raises(ConfigError, match="multi-label"):
        PLAN.check(model_of(multilabel=True).config)
    with pytest.raises(ConfigError, match="for 4 frames and the model is built for 16"):
        ExitPlan(stages=stages_of(4), temperatures=(1.0,), threshold=0.5).check(model_of().config)


def test_training_views_hold_what_each_early_stage_sees(frames_BTD: Tensor) -> None:
    embeddings_BVTD = torch.stack([frames_BTD, frames_BTD + 1, frames_BTD + 2], dim=1)
    views_BVTD = with_stages(embeddings_BVTD, STAGES, num_views=2)
    assert views_BVTD.shape == (6, 3 + 2 * 2, 16, 48)
    assert torch.equal(views_BVTD[:, :3], embeddings_BVTD)
    four, eight = list(STAGES[0]), list(STAGES[1])
    assert torch.equal(views_BVTD[:, 3], filled(frames_BTD[:, four], four, 16))
    assert torch.equal(views_BVTD[:, 6], filled(frames_BTD[:, eight] + 1, eight, 16))


def test_no_fitted_plan_stops_below_the_least_threshold() -> None:
    logits_SBK, targets_B = outcome(200)
    assert fit_plan(STAGES, logits_SBK, targets_B, 0.5).threshold == LEAST_THRESHOLD
    assert fit_plan(STAGES, logits_SBK, targets_B, 0.5, 0.3).threshold < LEAST_THRESHOLD
