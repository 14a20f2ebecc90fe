"""Choosing what to label next: what is preferred, what is never offered, and an order in which neighbours look alike."""

from __future__ import annotations

import numpy as np

from fewframes.label.choosing import FEATURES, compress, likeness_order, next_windows

rng = np.random.default_rng(0)


def rows(*angles: float) -> np.ndarray:
    found = np.zeros((len(angles), FEATURES), np.float16)
    found[:, 0], found[:, 1] = np.cos(angles), np.sin(angles)
    return found


def test_uncertain_windows_are_offered_before_sure_ones() -> None:
    features = rows(0.0, 1.0, 2.0)
    scores = np.array([[0.9, 0.1], [0.55, 0.45], [0.8, 0.2]])
    choices = next_windows(features, scores, features[:0], np.ones(3, bool), 3)
    assert choices[0].index == 1
    assert sorted(choice.index for choice in choices) == [0, 1, 2]
    assert choices[0].reason == "uncertain"


def test_closed_windows_are_not_offered() -> None:
    features = rows(0.0, 1.0, 2.0)
    choices = next_windows(features, None, features[:1], np.array([False, True, False]), 3)
    assert [choice.index for choice in choices] == [1]
    assert next_windows(features, None, features[:1], np.zeros(3, bool), 3) == []


def test_without_scores_what_is_far_from_all_examples_comes_first() -> None:
    features = rows(0.1, 0.9, 1.5)
    (choice,) = next_windows(features, None, rows(0.0, 0.8), np.ones(3, bool), 1)
    assert (choice.index, choice.reason) == (2, "new")


def test_the_first_window_is_a_typical_one() -> None:
    features = rows(0.0, 0.1, 0.2, 0.1 + np.pi)
    (choice,) = next_windows(features, None, features[:0], np.ones(4, bool), 1)
    assert (choice.index, choice.reason) == (1, "first")


def test_compressed_features_keep_angles() -> None:
    moments = rng.standard_normal((20, 9 * 64))
    moments[10:] = moments[:10] + 0.1 * rng.standard_normal((10, 9 * 64))
    features = compress(moments).astype(np.float32)
    assert features.shape == (20, FEATURES)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=2e-3)
    likeness = features @ features.T
    np.fill_diagonal(likeness, -1)
    assert likeness[:10].argmax(axis=1).tolist() == list(range(10, 20))


def test_neighbours_in_the_order_of_likeness_look_alike() -> None:
    centres = rng.standard_normal((6, FEATURES))
    kinds = rng.permutation(np.repeat(np.arange(6), 20))
    order = likeness_order((centres[kinds] + 0.3 * rng.standard_normal((120, FEATURES))).astype(np.float16))
    assert sorted(order.tolist()) == list(range(120))
    assert np.count_nonzero(np.diff(kinds[order])) == 5
