"""The forecast of what more clips bring, on made data whose learning curve is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fewframes.models.read_out.solve import cross_entropy, solve_moments
from fewframes.training.forecast import Curve, Forecast, forecast_twice, gain_of_twice

Made = tuple[NDArray[np.float32], NDArray[np.float64], list[str]]


def made(num_videos: int, spread: float, *, seed: int = 0, num_groups: int = 20, num_labels: int = 4) -> Made:
    """Videos of labels in turn: frames go to the place of the label in 24 channels, and each video is off it by `spread`."""
    draw = np.random.default_rng(seed)
    places_KD = np.random.default_rng(99).standard_normal((num_labels, 24))
    label_B = np.arange(num_videos) % num_labels
    centres_BD = places_KD[label_B] + spread * draw.standard_normal((num_videos, 24))
    rise_T1 = np.linspace(0, 1, 4)[:, None]  # the read-out trusts changes more than content
    frames_BVTD = centres_BD[:, None, None] * rise_T1 + 0.01 * draw.standard_normal((num_videos, 2, 4, 24))
    groups = [f"g{number}" for number in (np.arange(num_videos) // num_labels % num_groups).tolist()]
    return frames_BVTD.astype(np.float32), np.eye(num_labels)[label_B], groups


def test_an_error_that_halves_with_twice_the_clips_halves_again() -> None:
    assert gain_of_twice([0.6, 0.8, 0.9], 1000, 1.0) == pytest.approx(0.05)


def test_an_error_that_does_not_fall_is_not_forecast_to_fall_or_rise() -> None:
    assert gain_of_twice([0.7, 0.7, 0.7], 1000, 1.0) == 0
    assert gain_of_twice([0.8, 0.75, 0.7], 1000, 1.0) == 0


def test_the_error_of_all_clips_is_that_of_the_drawn_ones_carried_on() -> None:
    # Twice as many clips as were drawn: today's error is half of the measured one, and it halves again.
    assert gain_of_twice([0.6, 0.8, 0.9], 1000, 2.0) == pytest.approx(0.025)


def test_no_wrong_clip_leaves_nothing_to_gain() -> None:
    frames, targets, groups = made(80, 0.05)
    found = forecast_twice(frames, targets, groups)
    assert found.right == (1.0, 1.0, 1.0)
    assert (found.more, found.low, found.high) == (0, 0, 0)
    assert str(found).startswith("forecast: about 0 points more with twice the clips (0 to 0);")


def test_predictions_are_those_of_the_solved_read_out() -> None:
    frames, targets, groups = made(60, 1.5)
    group_B = np.unique(groups, return_inverse=True)[1]
    solved = solve_moments(frames, targets, cross_entropy, groups_B=group_B, moments="motion")
    curve = Curve(frames, targets.argmax(axis=1), group_B, "motion")
    for group in range(20):
        asked, rest = np.flatnonzero(group_B == group), np.flatnonzero(group_B != group)
        wanted = solved.left_out[np.searchsorted(group_B[solved.indices], group) :][: len(asked), 0] / solved.gain
        # The solved read-out's strength and centre are those of all videos, so scores differ a little.
        np.testing.assert_allclose(curve.scores(rest, asked) - 0.5, wanted, atol=0.05)


def test_more_clips_bring_about_what_was_forecast() -> None:
    errors, forecasts = [], []
    for seed in range(5):
        frames, targets, groups = made(320, 1.5, seed=seed)
        half = forecast_twice(frames[:160], targets[:160], groups[:160], seed=seed)
        whole = forecast_twice(frames, targets, groups, seed=seed)
        errors.append(half.more - (whole.right[2] - whole.right[1]))
        forecasts.append(half.more)
    assert np.mean(forecasts) > 0.03  # there is something to forecast
    assert abs(np.mean(errors)) < 0.02


def test_labels_that_frames_do_not_tell_are_not_forecast_to_be_told() -> None:
    frames, targets, groups = made(120, 1.0)
    shuffled = targets[np.random.default_rng(1).permutation(len(targets))]
    assert forecast_twice(frames, shuffled, groups).more < 0.04


def test_of_many_videos_some_are_drawn_and_all_are_counted() -> None:
    frames, targets, groups = made(1200, 2.0)
    found = forecast_twice(frames, targets, groups)
    assert (found.num_videos, found.num_groups) == (1200, 20)
    # Its own curve ends at 600 clips; with 1200 there is less to gain than from 600 to 1200.
    assert 0 < found.more < found.right[2] - found.right[1]


def test_one_view_is_enough() -> None:
    frames, targets, groups = made(80, 0.7)
    assert forecast_twice(frames[:, :1], targets, groups).right[2] > 0.7


def test_a_label_of_one_group_is_wrong_with_any_number_of_clips() -> None:
    frames, targets, groups = made(80, 0.05)
    alone = ["only" if target[0] else group for target, group in zip(targets, groups, strict=True)]
    found = forecast_twice(frames, targets, alone)
    assert found.right == (0.75, 0.75, 0.75)
    assert found.more == 0


@pytest.mark.parametrize(
    ("kept", "num_groups", "multilabel", "reason"),
    [
        (80, 4, False, "it needs 5 groups of videos, and there are 4"),
        (12, 20, False, "it needs 5 groups of videos, and there are 3"),
        (15, 4, True, "it is made for one action a video, and these have several"),
    ],
)
def test_what_cannot_be_known_is_not_forecast(kept: int, num_groups: int, multilabel: bool, reason: str) -> None:
    frames, targets, groups = made(80, 1.0, num_groups=num_groups)
    found = forecast_twice(frames[:kept], targets[:kept], groups[:kept], multilabel=multilabel)
    assert found == Forecast(missing=reason)
    assert found.to_dict() == {"none": reason}
    assert str(found) == f"no forecast of what more clips would bring: {reason}"


def test_few_clips_an_action_or_one_action_give_no_forecast() -> None:
    frames, targets, _ = made(15, 1.0)
    each = [str(number) for number in range(15)]
    assert "4 clips an action, and there are 15 clips of 4 actions" in forecast_twice(frames, targets, each).missing
    assert "one action alone" in forecast_twice(frames, np.ones((15, 1)), each).missing
