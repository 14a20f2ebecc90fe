"""The judge by phrases, on vectors whose answers can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewframes.errors import ConfigError
from fewframes.models.moments import WindowMoments
from fewframes.models.rejection.judge import judge_in, judge_of, text_of
from fewframes.models.rejection.phrases import PhraseJudge

JUDGE = PhraseJudge.of(
    np.eye(4, dtype=np.float32)[:2], np.eye(4, dtype=np.float32)[2:], 10.0, ("an empty room", "a cat")
)


def video(*mean: float) -> np.ndarray:  # type: ignore[type-arg]
    """One video of two frames with this mean embedding."""
    change = np.array([0.1, -0.1, 0.1, 0.0])
    return np.stack([np.array(mean) + change, np.array(mean) - change])[None].astype(np.float32)


def test_known_is_the_odds_of_the_best_label_against_the_best_phrase() -> None:
    found = JUDGE.judge(np.concatenate([video(0.5, 0.1, 0.3, 0.2), video(0.1, 0.2, 0.1, 0.6)]))
    np.testing.assert_allclose(found.known, [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(4))], atol=1e-6)
    assert JUDGE.threshold() == 0.5
    assert JUDGE.reason(found, 0, ("x", "y"), unknown=False) == ""
    assert JUDGE.reason(found, 1, ("x", "y"), unknown=True) == "more like 'a cat' than like any of its labels"
    assert not found.unfamiliar.any()


def test_moments_that_models_share_give_the_same() -> None:
    windows = video(0.5, 0.1, 0.3, 0.2)
    assert JUDGE.judge_moments(WindowMoments(windows)).known == JUDGE.judge(windows).known


def test_no_fraction_of_videos_can_be_kept() -> None:
    with pytest.raises(ConfigError, match="made from words, so no video of its labels was ever seen"):
        JUDGE.threshold(0.9)


def test_it_is_the_same_after_it_was_stored() -> None:
    for stored in (judge_in(text_of(JUDGE), 2, 4), judge_of(JUDGE.to_arrays(), 2, 4)):
        assert isinstance(stored, PhraseJudge)
        assert stored.names == ("an empty room", "a cat")
        windows = video(0.5, 0.1, 0.3, 0.2)
        assert stored.judge(windows).known == JUDGE.judge(windows).known


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label_vectors": np.zeros((3, 4), np.float32)}, "label_vectors is of shape"),
        ({"phrase_vectors": np.full((2, 4), np.nan, np.float32)}, "phrase_vectors is of shape"),
        ({"phrases": np.array([255, 254], np.uint8)}, "phrases that are no text"),
        ({"phrases": np.frombuffer(b"one", np.uint8)}, "phrase_vectors is of shape"),
        ({"another": np.zeros(1)}, "other arrays than expected: another"),
    ],
)
def test_damage_is_named(change: dict[str, np.ndarray], words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=words):
        judge_of(JUDGE.to_arrays() | change, 2, 4)
