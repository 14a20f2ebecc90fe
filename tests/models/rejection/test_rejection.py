"""Rejection, on embeddings of known geometry."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from fewframes.errors import ConfigError
from fewframes.models.rejection.fitting import fit_rejection
from fewframes.models.rejection.judge import judge_in, text_of
from fewframes.models.rejection.rejection import HALVES, Rejection, reason_of
from helpers.unknowns import Floats, MadeUp, actions, auroc

LABELS = ("hug", "kick", "push", "wave")


def fitted(learned: MadeUp, background: Floats | None = None) -> Rejection:
    rejection = fit_rejection(learned.embeddings, learned.targets, learned.groups, background)
    assert rejection is not None
    return rejection


@pytest.fixture(scope="module")
def learned() -> MadeUp:
    return actions(4)


@pytest.fixture(scope="module")
def rejection(learned: MadeUp) -> Rejection:
    return fitted(learned)


def test_about_95_percent_of_known_videos_of_new_groups_are_kept(rejection: Rejection) -> None:
    known = actions(4, seed=1, num_groups=40).embeddings[:, 0]
    found = rejection.judge(known)
    assert 0.88 <= (found.known >= rejection.threshold()).mean() <= 0.99
    assert 0.01 <= found.unfamiliar.mean() <= 0.12
    assert 0.7 <= (found.known >= rejection.threshold(0.8)).mean() <= 0.9


def test_other_actions_are_unknown(rejection: Rejection) -> None:
    known = rejection.judge(actions(4, seed=1).embeddings[:, 0])
    near = rejection.judge(actions(6, first=10, seed=2).embeddings[:, 0])
    assert auroc(known.known, near.known) > 0.97
    assert (near.known >= rejection.threshold()).mean() < 0.2


def test_strangers_are_far_from_everything(rejection: Rejection) -> None:
    strangers = 8 * np.random.default_rng(0).normal(size=(20, 8, 24)).astype(np.float32)
    found = rejection.judge(strangers)
    assert found.unfamiliar.all()
    assert (found.known < rejection.threshold()).all()
    assert reason_of(found, 0, LABELS, unknown=True) == "far from everything that it has learned"


def test_known_actions_in_a_new_place_are_unfamiliar_and_not_unknown(rejection: Rejection) -> None:
    elsewhere = rejection.judge(actions(4, seed=3, place=2.5).embeddings[:, 0])
    assert elsewhere.unfamiliar.mean() > 0.9
    assert (elsewhere.known >= rejection.threshold()).mean() > 0.5
    assert reason_of(elsewhere, 0, LABELS, unknown=False) == "unlike the videos that it has learned from"


def test_what_lies_between_two_actions_is_said_to(rejection: Rejection, learned: MadeUp) -> None:
    first, second = (learned.embeddings[learned.targets[:, action] > 0, 0].mean(axis=0) for action in (0, 2))
    found = rejection.judge((0.5 * (first + second))[None])
    assert found.known[0] < rejection.threshold()
    assert reason_of(found, 0, LABELS, unknown=True) in ("between 'hug' and 'push'", "between 'push' and 'hug'")


def test_a_video_in_which_nothing_moves_is_said_to_be_still(rejection: Rejection) -> None:
    still = np.repeat(actions(1, first=20, seed=4).embeddings[:1, 0, :1], 8, axis=1)
    found = rejection.judge(still)
    assert found.known[0] < rejection.threshold()
    assert reason_of(found, 0, LABELS, unknown=True) == "hardly anything moves"


def test_background_that_was_learned_is_unknown_and_named(learned: MadeUp) -> None:
    background = actions(3, first=30, seed=5)
    with_it = fitted(learned, background.embeddings)
    new, known = actions(3, first=30, seed=6).embeddings[:, 0], actions(4, seed=1).embeddings[:, 0]
    found = with_it.judge(new)
    assert (found.known < with_it.threshold()).mean() > 0.9
    assert reason_of(found, 0, LABELS, unknown=True) == "like the background that it has learned"
    assert auroc(with_it.judge(known).known, found.known) >= auroc(
        fitted(learned).judge(known).known, fitted(learned).judge(new).known
    )


def test_two_actions_are_too_few_to_leave_one_out_and_still_keep_95_percent() -> None:
    two = fitted(actions(2, num_groups=12))
    known = two.judge(actions(2, seed=1, num_groups=40).embeddings[:, 0])
    assert 0.85 <= (known.known >= two.threshold()).mean() <= 0.995
    assert auroc(known.known, two.judge(actions(4, first=10, seed=2).embeddings[:, 0]).known) > 0.9
    with_background = fitted(actions(2), actions(3, first=30, seed=5).embeddings)
    found = with_background.judge(actions(3, first=30, seed=6).embeddings[:, 0])
    assert (found.known < with_background.threshold()).mean() > 0.8


def test_videos_with_several_actions_or_none(learned: MadeUp) -> None:
    pairs = actions(4, seed=7)
    mixed = pairs.embeddings + pairs.embeddings[::-1]
    both = np.clip(pairs.targets + pairs.targets[::-1], 0, 1)
    none = actions(2, first=30, seed=8)
    rejection = fit_rejection(
        np.concatenate([learned.embeddings, mixed, none.embeddings]),
        np.concatenate([learned.targets, both, np.zeros((len(none.embeddings), 4))]),
        [*learned.groups, *pairs.groups, *none.groups],
    )
    assert rejection is not None
    known = rejection.judge(actions(4, seed=1).embeddings[:, 0]).known
    assert auroc(known, rejection.judge(actions(2, first=30, seed=9).embeddings[:, 0]).known) > 0.95


def test_an_action_that_every_video_shows_cannot_be_left_out() -> None:
    learned = actions(3)
    targets = learned.targets.copy()
    targets[:, 0] = 1
    rejection = fit_rejection(learned.embeddings, targets, learned.groups)
    assert rejection is not None
    known = rejection.judge(actions(3, seed=1, num_groups=30).embeddings[:, 0]).known
    assert (known >= rejection.threshold()).mean() >= 0.85


def test_without_a_second_group_no_video_can_be_judged() -> None:
    one = actions(3, num_groups=1)
    assert fit_rejection(one.embeddings, one.targets, one.groups) is None


def test_an_action_of_a_single_group_does_not_spoil_the_threshold(learned: MadeUp) -> None:
    single = actions(1, first=4, num_groups=1, repeats=6, seed=11)
    targets = np.zeros((len(learned.targets) + 6, 5))
    targets[: len(learned.targets), :4], targets[len(learned.targets) :, 4] = learned.targets, 1
    rejection = fit_rejection(
        np.concatenate([learned.embeddings, single.embeddings]), targets, [*learned.groups, *single.groups]
    )
    assert rejection is not None
    known = rejection.judge(actions(4, seed=1, num_groups=30).embeddings[:, 0]).known
    assert (known >= rejection.threshold()).mean() >= 0.85


def test_it_is_the_same_after_it_was_stored(rejection: Rejection) -> None:
    videos = actions(6, seed=1).embeddings[:, 0]
    before = rejection.judge(videos)
    for stored in (
        judge_in(text_of(rejection), 4, 24),
        Rejection.from_arrays({name: array.copy() for name, array in rejection.to_arrays().items()}, 4),
    ):
        after = stored.judge(videos)
        np.testing.assert_array_equal(after.known, before.known)
        np.testing.assert_array_equal(after.unfamiliar, before.unfamiliar)
    assert all(
        np.array_equal(array, array.astype(np.float16))
        for name, array in rejection.to_arrays().items()
        if name in HALVES
    )


def test_it_is_judged_one_by_one_as_it_is_together(rejection: Rejection) -> None:
    videos = actions(6, seed=1).embeddings[:, 0]
    together = rejection.judge(videos).known
    alone = np.concatenate([rejection.judge(video[None]).known for video in videos])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_what_was_fitted_is_the_same_each_time(learned: MadeUp, rejection: Rejection) -> None:
    again = fitted(learned)
    for name, array in rejection.to_arrays().items():
        np.testing.assert_array_equal(getattr(again, name), array)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": np.zeros((3, 144), np.int8)}, "weight_scale is of shape"),
        ({"far": np.array([np.nan], np.float32)}, "far has values that are no numbers"),
        ({"example_labels": np.zeros((64, 4), np.uint8)}, "an action has no example"),
    ],
)
def test_damage_is_named(rejection: Rejection, change: dict[str, np.ndarray], words: str) -> None:  # type: ignore[type-arg]
    arrays = rejection.to_arrays() | change
    with pytest.raises(ConfigError, match=words):
        Rejection.from_arrays(arrays, 4)
    with pytest.raises(ConfigError, match="other arrays than expected: far"):
        Rejection.from_arrays({name: array for name, array in arrays.items() if name != "far"}, 4)


def test_text_that_is_damaged_is_named(rejection: Rejection) -> None:
    with pytest.raises(ConfigError, match="its rejection is damaged"):
        judge_in(text_of(rejection)[:-40], 4, 24)
    with pytest.raises(ConfigError, match="frames 30 wide"):
        judge_in(text_of(rejection), 4, 30)


@pytest.mark.parametrize("kept", [0.0, 1.0, 1.5])
def test_a_fraction_to_keep_lies_between_0_and_1(rejection: Rejection, kept: float) -> None:
    with pytest.raises(ConfigError, match="needs a fraction of known videos to keep"):
        rejection.threshold(kept)


def test_a_video_takes_less_than_a_millisecond() -> None:
    wide = actions(11, num_groups=6, repeats=1, width=2288, num_frames=16)
    rejection, video = fitted(replace(wide)), wide.embeddings[:1, 0]
    rejection.judge(video)
    times = []
    for _ in range(20):
        began = time.process_time()
        rejection.judge(video)
        times.append(time.process_time() - began)
    assert min(times) < 2e-3  # 0.3 ms where it was measured; the machine of a test may be slow
