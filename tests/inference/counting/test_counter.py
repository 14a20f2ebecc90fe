"""Repetitions found in embeddings that are made with a known number of them: speeds, pauses, stretches, and none at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewframes.inference.counting.config import CountConfig
from fewframes.inference.counting.counter import FoundRepetition, RepetitionCounter
from fewframes.runtime.protocol import Floats
from helpers.repeated import Movement, held, repeated, wandering

PLAN = CountConfig(longest_s=8.0, pause_s=4.0).plan(1 / 8)


def found_in(frames_ND: Floats) -> list[list[FoundRepetition]]:
    counter = RepetitionCounter(PLAN)
    counter.push(frames_ND)
    chains = counter.found()
    assert counter.count == sum(map(len, chains))
    return chains


@pytest.mark.parametrize("length", [6.0, 8.0, 13.7, 24.5, 47.9])
@pytest.mark.parametrize("count", [2, 3, 7, 18])
def test_repetitions_of_any_length_are_counted_and_lie_where_they_were(length: float, count: int) -> None:
    (chain,) = found_in(repeated(Movement(3), [length] * count))
    assert (
        abs(len(chain) - count) <= count // 10
    )  # repetitions of no whole number of frames may add up to one more or less
    for one in chain:
        assert abs(one.end - one.start - length) <= max(2.0, 0.3 * length)
        assert one.fit > 0.6


@pytest.mark.parametrize("seed", range(6))
def test_speed_may_change_from_repetition_to_repetition(seed: int) -> None:
    speeds = np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.15, 12)))
    lengths = (16 * np.clip(speeds, 0.5, 2)).tolist()
    (chain,) = found_in(repeated(Movement(seed), lengths))
    assert len(chain) == 12


def test_pauses_belong_to_no_repetition() -> None:
    movement = Movement(1)
    once = repeated(movement, [20.0] * 3)
    frames_ND = np.concatenate([once, held(movement, 0.999, 24), once, held(movement, 0.999, 12), once])
    (chain,) = found_in(frames_ND)
    assert len(chain) == 9
    starts = [one.start for one in chain]
    assert starts == pytest.approx([0, 20, 40, 84, 104, 124, 156, 176, 196], abs=4)


def test_two_movements_are_two_stretches() -> None:
    quiet = held(Movement(8), 0.0, 48)
    frames_ND = np.concatenate([repeated(Movement(4), [12.0] * 5), quiet, repeated(Movement(5), [21.0] * 4)])
    assert [len(chain) for chain in found_in(frames_ND)] == [5, 4]


@pytest.mark.parametrize("seed", range(8))
def test_nothing_repeats_where_nothing_does(seed: int) -> None:
    assert found_in(wandering(300, seed)) == []
    assert found_in(held(Movement(seed), 0.3, 300, seed=seed)) == []
    assert found_in(np.repeat(Movement(seed).at(0.2)[None], 300, axis=0).astype(np.float32)) == []
    assert found_in(repeated(Movement(seed), [60.0])) == []


def test_a_movement_that_only_goes_on_is_no_repetition() -> None:
    frames_ND: Floats = np.outer(np.arange(200.0), Movement(2).at(0.1)).astype(np.float32)
    assert found_in(frames_ND) == []


def test_another_light_in_each_repetition_hides_none() -> None:
    rng = np.random.default_rng(6)
    once = repeated(Movement(7), [24.0])
    offsets_RD = rng.normal(0, 0.25, (6, once.shape[1]))
    frames_ND: Floats = np.concatenate([once + offset_D for offset_D in offsets_RD]).astype(np.float32)
    (chain,) = found_in(frames_ND)
    assert len(chain) == 6


def test_frames_that_could_not_be_decoded_cost_at_most_the_repetitions_they_are_in() -> None:
    frames_ND = repeated(Movement(9), [16.0] * 12)
    frames_ND[70:76] = np.nan
    assert 10 <= sum(map(len, found_in(frames_ND))) <= 12
    frames_ND[:] = np.nan
    assert found_in(frames_ND) == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 300), st.integers(9, 30), st.integers(4, 14), st.floats(0, 0.99))
def test_cropping_costs_at_most_the_repetition_that_is_cut(seed: int, length: int, count: int, cut: float) -> None:
    frames_ND = repeated(Movement(seed), [float(length)] * count)
    whole = sum(map(len, found_in(frames_ND)))
    assert whole == count
    part = sum(map(len, found_in(frames_ND[round(cut * length) :])))
    assert count - 1 <= part <= count
    before = held(Movement(seed + 1), 0.5, 7 + round(20 * cut))
    assert sum(map(len, found_in(np.concatenate([before, frames_ND])))) == count


def test_chunks_make_no_difference_and_memory_is_constant_without_a_path() -> None:
    frames_ND = repeated(Movement(11), [14.0] * 60)
    whole, pieces = RepetitionCounter(PLAN), RepetitionCounter(PLAN, keeps_path=False)
    whole.push(frames_ND)
    sizes, counts = [], []
    for start in range(0, len(frames_ND), 7):
        pieces.push(frames_ND[start : start + 7])
        counts.append(pieces.count)
        sizes.append(sum(value.nbytes for value in vars(pieces).values() if isinstance(value, np.ndarray)))
    assert whole.count == pieces.count == 60
    assert len(set(sizes)) == 1
    # A live count is ahead of what was shown by one at most.
    assert all(count <= 7 * (number + 1) / 14 + 1 for number, count in enumerate(counts))
