"""The temperature and the thresholds that are fitted to left-out videos, on logits whose right answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fewframes.core.metrics import calibration_error, label_calibration_error, log_loss
from fewframes.core.settings import Task
from fewframes.runtime.protocol import scores_of
from fewframes.training.calibration import (
    AMPLE_VIDEOS,
    HIGHEST,
    LeftOutLogits,
    calibration_folds,
    cross_validated,
    fit_calibration,
    mean_f1,
    temperature_of,
    thresholds_of,
)


def drawn(num_videos: int, factor: float, task: Task = "single", num_groups: int = 50) -> LeftOutLogits:
    """Logits of which the labels were drawn, times a factor: so that dividing by the factor makes them honest again."""
    draw = np.random.default_rng(0)
    logits_NK = 2 * draw.standard_normal((num_videos, 4)).astype(np.float32)
    scores_NK = scores_of(logits_NK, task)
    if task == "single":
        chosen_N = (draw.random((num_videos, 1)) > scores_NK.cumsum(axis=1)[:, :3]).sum(axis=1)
        targets_NK = np.eye(4)[chosen_N]
    else:
        targets_NK = (draw.random(scores_NK.shape) < scores_NK).astype(float)
    numbers = np.arange(num_videos) % num_groups
    return LeftOutLogits(factor * logits_NK, targets_NK, tuple(f"g{number}" for number in numbers), numbers % 3)


def answers(num_right: int, num_wrong: int, margin: float = 6.0) -> LeftOutLogits:
    """Two labels; every answer is equally sure. Each video is its own group."""
    num_videos = num_right + num_wrong
    logits_NK = np.tile(np.array([margin, 0], np.float32), (num_videos, 1))
    targets_NK = np.eye(2)[[0] * num_right + [1] * num_wrong]
    return LeftOutLogits(
        logits_NK, targets_NK, tuple(map(str, range(num_videos))), np.arange(num_videos, dtype=np.int64) % 3
    )


@pytest.mark.parametrize("task", ["single", "multilabel"])
@pytest.mark.parametrize("factor", [0.7, 1.0, 3.0, 8.0])
def test_the_factor_of_the_logits_is_found_again(task: Task, factor: float) -> None:
    left_out = drawn(3000, factor, task)
    fit = fit_calibration(left_out, task, "drawn")
    assert fit.temperature == pytest.approx(factor, rel=0.1)
    assert fit.error is not None
    assert fit.log_loss is not None
    assert fit.error.after < 0.02
    assert fit.log_loss.before == log_loss(task, left_out.logits, left_out.targets)
    assert fit.log_loss.after <= fit.log_loss.before + 3e-3
    assert (len(fit.thresholds), fit.f1 is None) == ((0, True) if task == "single" else (4, False))


def test_a_few_right_answers_make_nothing_surer() -> None:
    """Twelve of twelve: without a prior the likeliest temperature would be next to 0."""
    assert 1 <= temperature_of(answers(12, 0), "single", 2.0) <= 2.5
    assert temperature_of(answers(12, 0, margin=0.1), "single", 1.0) == 1  # never below 1 on the word of twelve
    assert temperature_of(answers(2 * AMPLE_VIDEOS, 0, margin=0.5), "single", 1.0) < 1  # of many, it may be
    few_groups = replace(answers(2 * AMPLE_VIDEOS, 0, margin=0.5), groups=("a", "b") * AMPLE_VIDEOS)
    assert temperature_of(few_groups, "single", 1.0) == 1


def test_a_few_wrong_answers_make_scores_doubtful_within_limits() -> None:
    calm = temperature_of(answers(11, 1), "single", 2.0)
    doubtful = temperature_of(answers(6, 6), "single", 2.0)
    assert 2 < calm < doubtful < HIGHEST


def test_too_little_is_not_calibrated_and_says_so() -> None:
    fit = fit_calibration(answers(5, 2), "single", "drawn")
    assert (fit.temperature, fit.thresholds) == (1.0, ())
    assert fit.to_dict() == {
        "temperature": 1.0,
        "not_calibrated": "7 videos of 7 groups could be left out, and it takes 8 videos of 2 groups",
    }
    one_group = fit_calibration(replace(answers(20, 0), groups=("a",) * 20), "single", "drawn")
    assert "20 videos of 1 group could be left out" in str(one_group)


def test_a_fold_is_divided_by_what_suits_the_other_folds() -> None:
    """One fold of two is ten times too sure. It is divided by what suits the other one, about 1, and stays too sure."""
    left_out = drawn(4000, 1.0)
    logits_NK, folds_N = left_out.logits.copy(), np.arange(4000, dtype=np.int64) % 2
    logits_NK[folds_N == 0] *= 10
    scaled_NK, thresholds_NK = cross_validated(replace(left_out, logits=logits_NK, folds=folds_N), "single")
    ratio_N = (logits_NK / scaled_NK).mean(axis=1)
    assert ratio_N[folds_N == 0] == pytest.approx(1, rel=0.1)
    assert ratio_N[folds_N == 1] == pytest.approx(10, rel=0.15)
    assert (thresholds_NK == 0.5).all()


def test_one_fold_is_halved_by_its_groups() -> None:
    left_out = replace(drawn(2000, 3.0), folds=np.zeros(2000, np.int64))
    scaled_NK, _ = cross_validated(left_out, "single")
    assert left_out.logits / scaled_NK == pytest.approx(3, rel=0.15)


def test_the_threshold_with_the_best_f1_worked_out_by_hand() -> None:
    """Five of seven present. From 0.3 on, 5 of 6 answers are right: F1 10 / 11. From 0.6 on, 4 of 4: F1 8 / 9."""
    scores_N = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.04, 0.03])
    wanted_N = np.array([1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0])
    logits_N1 = np.log(scores_N / (1 - scores_N))[:, None]
    assert thresholds_of(logits_N1, wanted_N[:, None]) == (0.25,)  # between 0.3 and 0.2
    found = mean_f1(logits_N1, wanted_N[:, None], np.full((11, 1), 0.25))
    assert found == pytest.approx(10 / 11)
    assert mean_f1(logits_N1, wanted_N[:, None], np.full((11, 1), 0.5)) == pytest.approx(8 / 9)
    assert thresholds_of(logits_N1[2:], wanted_N[2:, None]) == (0.5,)  # three of them are too few to choose on


def test_a_rare_label_that_never_reaches_one_half_gets_a_threshold_of_its_own() -> None:
    draw = np.random.default_rng(1)
    hidden_N = draw.standard_normal(2000)
    present_N = draw.random(2000) < 1 / (1 + np.exp(-(hidden_N - 2.5)))
    logits_NK = np.stack([hidden_N - 2.5, -(hidden_N - 2.5)], axis=1).astype(np.float32)
    targets_NK = np.stack([present_N, ~present_N], axis=1).astype(float)
    groups = tuple(str(row % 40) for row in range(2000))
    fit = fit_calibration(
        LeftOutLogits(logits_NK, targets_NK, groups, np.arange(2000, dtype=np.int64) % 40 % 4), "multilabel", "drawn"
    )
    assert fit.f1 is not None
    assert fit.f1.after > fit.f1.before + 0.05
    rare, common = fit.thresholds
    assert rare < 0.3
    assert common < 0.6
    assert fit.to_dict(["rare", "common"])["thresholds"] == {"rare": rare, "common": common}


def test_folds_are_whole_groups_with_all_labels() -> None:
    draw = np.random.default_rng(0)
    groups = [f"g{number}" for number in draw.integers(0, 12, 120)]
    targets_BK = np.eye(3)[draw.integers(0, 3, 120)]
    folds = calibration_folds(targets_BK, groups, 3)
    assert sorted(np.concatenate(folds).tolist()) == list(range(120))
    parts = [{groups[row] for row in fold} for fold in folds]
    assert sum(map(len, parts)) == len(set(groups))
    assert all(25 <= len(fold) <= 55 and (targets_BK[fold].sum(axis=0) >= 5).all() for fold in folds)
    shuffled = draw.permutation(120)
    again = calibration_folds(targets_BK[shuffled], [groups[row] for row in shuffled], 3)
    assert [{groups[shuffled[row]] for row in fold} for fold in again] == parts
    assert len(calibration_folds(targets_BK[:2], ["a", "b"], 3)) == 2


def test_errors_of_scores_worked_out_by_hand() -> None:
    """Both labels score 3 in 4; one is always there and one is never: they are off by 1/4 and by 3/4 in one bin."""
    logits_NK = np.full((4, 2), np.log(3))
    targets_NK = np.tile([1.0, 0.0], (4, 1))
    assert label_calibration_error(logits_NK, targets_NK) == pytest.approx(0.25)
    assert log_loss("multilabel", logits_NK, targets_NK) == pytest.approx(np.log(4 / 3) + np.log(4))
    one: NDArray[np.float64] = np.array([[np.log(3), 0.0]])
    indices: Sequence[int] = [0]
    assert calibration_error(one, np.array(indices)) == pytest.approx(0.25)
    assert log_loss("single", one, np.eye(2)[indices]) == pytest.approx(np.log(4 / 3))
