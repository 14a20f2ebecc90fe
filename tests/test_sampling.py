"""Moments by hand, and what holds for every length and number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewframes.sampling import centre_times, jittered_times

DURATIONS = st.floats(1e-3, 1e5)


def test_centres_of_equal_parts() -> None:
    assert centre_times(8.0, 4).tolist() == [1.0, 3.0, 5.0, 7.0]
    assert centre_times(8.0, 1).tolist() == [4.0]
    assert centre_times(10.0, 2, start_s=2.0, end_s=6.0).tolist() == [3.0, 5.0]
    assert centre_times(10.0, 2, start_s=6.0, end_s=99.0).tolist() == [7.0, 9.0]


@given(DURATIONS, st.integers(1, 200), st.integers(0, 2**31))
def test_one_moment_in_each_part(duration_s: float, num_frames: int, seed: int) -> None:
    times_T = jittered_times(duration_s, num_frames, torch.Generator().manual_seed(seed))
    parts_T = times_T * num_frames / duration_s
    low_T = torch.arange(num_frames, dtype=torch.float64)
    assert ((parts_T >= low_T - 1e-6) & (parts_T <= low_T + 1 + 1e-6)).all()


@given(DURATIONS, st.integers(1, 200))
def test_centres_are_evenly_spaced_and_inside(duration_s: float, num_frames: int) -> None:
    times_T = centre_times(duration_s, num_frames)
    assert 0 < times_T[0] <= times_T[-1] < duration_s
    assert torch.allclose(times_T.diff(), torch.full((num_frames - 1,), duration_s / num_frames, dtype=torch.float64))


def test_seed_decides() -> None:
    one, same, other = (jittered_times(5.0, 8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.tolist() == same.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(5.0, 5.0), (6.0, 5.0), (10.0, None), (-1.0, None), (float("nan"), None)]
)
def test_empty_range_is_refused(start_s: float, end_s: float | None) -> None:
    with pytest.raises(ValueError, match=r"the video is 10\.000 s long"):
        centre_times(10.0, 4, start_s=start_s, end_s=end_s)
