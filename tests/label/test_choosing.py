"""Choosing what to label next: what is preferred, what is never offered, and an order in which neighbours look alike."""

from __future__ import annotations

import numpy as np
import pytest

from fewframes.label.choosing import CHAINED, NOISE, SHORTLIST, Compression, Features, likeness_order, next_windows

rng = np.random.default_rng(0)


def rows(*angles: float) -> Features:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)


NOTHING = rows()


def test_windows_are_offered_in_the_order_of_their_margins() -> None:
    features = np.eye(3, dtype=np.float16)
    scores = np.array([[0.9, 0.1], [0.55, 0.45], [0.8, 0.2]])
    choices = next_windows(features, scores, features, np.ones(3, bool), 3)
    assert [choice.index for choice in choices] == [1, 2, 0]
    assert choices[0].reason == "uncertain"


def test_the_value_is_the_variance_that_a_label_takes_away() -> None:
    (choice,) = next_windows(rows(0.0, 0.0, np.pi / 2), None, NOTHING, np.ones(3, bool), 1)
    assert (choice.index, choice.reason) == (0, "first")
    assert choice.value == pytest.approx(2 / (1 + NOISE))


def test_without_scores_what_is_far_from_all_examples_comes_first() -> None:
    (choice,) = next_windows(rows(0.1, 0.2, 1.5), None, rows(0.0, 0.3), np.ones(3, bool), 1)
    assert (choice.index, choice.reason) == (2, "new")


def test_several_windows_are_not_copies_of_each_other() -> None:
    first, second = next_windows(rows(0.0, 0.1, 0.2, np.pi / 2), None, NOTHING, np.ones(4, bool), 2)
    assert first.index < 3
    assert second.index == 3


def test_closed_windows_are_not_offered() -> None:
    features = rows(0.0, 1.0, 2.0)
    choices = next_windows(features, None, features[:1], np.array([False, True, False]), 3)
    assert [choice.index for choice in choices] == [1]
    assert next_windows(features, None, features[:1], np.zeros(3, bool), 3) == []


def test_a_doubtful_window_is_found_among_more_than_the_shortlist() -> None:
    features = rng.standard_normal((3 * SHORTLIST, 8))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16)
    scores = np.tile([[1.0, 0.0]], (len(features), 1))
    scores[2345] = 0.5
    (choice,) = next_windows(features, scores, features[2345:2346], np.ones(len(features), bool), 1)
    assert (choice.index, choice.reason) == (2345, "uncertain")


def test_compressed_features_keep_the_angles_of_standardised_moments() -> None:
    moments = rng.standard_normal((20, 9 * 64)) * rng.uniform(0.1, 10, 9 * 64)
    compression = Compression.fit(moments)
    features = compression.compress(moments).astype(np.float32)
    assert features.shape == (20, 19)  # 20 windows differ in 19 directions
    scaled = moments - moments.mean(axis=0)
    scaled /= scaled.std(axis=0) + 0.3 * scaled.std(axis=0).reshape(9, -1).mean(axis=1).repeat(64)
    scaled *= np.sqrt(np.repeat([0.2, 0.2, 0.2, 1, 1, 1, 1, 0.2, 0.2], 64))
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    np.testing.assert_allclose(features @ features.T, scaled @ scaled.T, atol=5e-3)


def test_windows_that_do_not_differ_are_compressed_too() -> None:
    same = np.ones((4, 9 * 8))
    assert np.isfinite(Compression.fit(same).compress(same)).all()


@pytest.mark.parametrize("copies", [20, CHAINED])
def test_neighbours_in_the_order_of_likeness_look_alike(copies: int) -> None:
    kinds = rng.permutation(np.repeat(np.arange(4), copies))
    features = 10 * np.eye(4, 16)[kinds] + rng.standard_normal((len(kinds), 16))
    order = likeness_order((features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16))
    assert sorted(order.tolist()) == list(range(len(kinds)))
    assert np.count_nonzero(np.diff(kinds[order])) <= 3 + 0.01 * len(kinds)
