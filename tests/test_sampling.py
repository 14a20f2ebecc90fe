"""Timestamps by hand, and what holds for every length and number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewframes.core.settings import settings_from
from fewframes.errors import ConfigError
from fewframes.sampling import (
    ONE_PASS,
    Views,
    centre_times,
    clip_times,
    jittered_times,
    steady_times,
    window_indices,
)
from fewframes.video.times import cheapest_times

DURATIONS = st.floats(1e-3, 1e5)


def test_centres_of_equal_parts() -> None:
    assert centre_times(8.0, 4).tolist() == [1.0, 3.0, 5.0, 7.0]
    assert centre_times(8.0, 1).tolist() == [4.0]
    assert centre_times(10.0, 2, start_s=2.0, end_s=6.0).tolist() == [3.0, 5.0]
    assert centre_times(10.0, 2, start_s=6.0, end_s=99.0).tolist() == [7.0, 9.0]


@given(DURATIONS, st.integers(1, 200), st.integers(0, 2**31))
def test_one_time_in_each_part(duration_s: float, num_frames: int, seed: int) -> None:
    times_T = jittered_times(duration_s, np.random.default_rng(seed).random(num_frames))
    parts_T = times_T * num_frames / duration_s
    low_T = np.arange(num_frames)
    assert ((parts_T >= low_T - 1e-6) & (parts_T <= low_T + 1 + 1e-6)).all()


@given(DURATIONS, st.integers(1, 200))
def test_centres_are_evenly_spaced_and_inside(duration_s: float, num_frames: int) -> None:
    times_T = centre_times(duration_s, num_frames)
    assert 0 < times_T[0] <= times_T[-1] < duration_s
    assert np.allclose(np.diff(times_T), duration_s / num_frames)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_windows_of_a_steady_row_are_the_centres_of_their_parts(stride: int) -> None:
    times_N = steady_times(1.0, 11.0, 0.25)
    assert len(times_N) == 40
    indices_WT = window_indices(40, 4, stride=stride, interval=5)
    assert indices_WT[0].tolist() == [0, stride, 2 * stride, 3 * stride]
    assert indices_WT[-1, -1] < 40 <= indices_WT[-1, -1] + 5
    for window_T in times_N[indices_WT]:
        start_s = float(window_T[0]) - stride * 0.25 / 2
        assert np.allclose(window_T, centre_times(99.0, 4, start_s=start_s, end_s=start_s + stride))


def test_a_row_too_short_for_a_window() -> None:
    assert window_indices(6, 4, stride=2).shape == (0, 4)
    assert window_indices(7, 4, stride=2).tolist() == [[0, 2, 4, 6]]
    with pytest.raises(ValueError, match="interval_s = 0"):
        steady_times(0.0, 1.0, 0.0)


def test_times_drawn_in_different_parts_are_independent() -> None:
    generator = np.random.default_rng(0)
    offsets_NT = np.stack([jittered_times(4.0, generator.random(4)) - np.arange(4) for _ in range(1000)])
    assert offsets_NT.mean(axis=0).tolist() == pytest.approx([0.5] * 4, abs=0.05)


def test_a_part_that_fits_but_for_rounding_counts() -> None:
    assert 0.3 / 0.1 < 3
    assert steady_times(0.0, 0.3, 0.1).tolist() == pytest.approx([0.05, 0.15, 0.25])


def test_fractions_lie_in_their_parts() -> None:
    assert jittered_times(8.0, [0.0, 0.5, 0.25, 0.75]).tolist() == [0.0, 3.0, 4.5, 7.5]
    assert jittered_times(8.0, [0.5, 0.5], start_s=4.0).tolist() == [5.0, 7.0]


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(5.0, 5.0), (6.0, 5.0), (10.0, None), (-1.0, None), (float("nan"), None)]
)
def test_empty_range_is_refused(start_s: float, end_s: float | None) -> None:
    with pytest.raises(ValueError, match=r"the video is 10\.000 s long"):
        centre_times(10.0, 4, start_s=start_s, end_s=end_s)


def test_clips_by_hand() -> None:
    three = clip_times(0.0, 10.0, 4, num_clips=3, clip_s=2.0)
    assert three.tolist() == [[0.25, 0.75, 1.25, 1.75], [4.25, 4.75, 5.25, 5.75], [8.25, 8.75, 9.25, 9.75]]
    assert clip_times(0.0, 10.0, 2, num_clips=1, clip_s=2.0).tolist() == [[4.5, 5.5]]  # one alone in the middle
    assert clip_times(0.0, 3.0, 2, num_clips=2, clip_s=2.0).tolist() == [[0.5, 1.5], [1.5, 2.5]]  # they may overlap
    assert clip_times(1.0, 2.0, 2, num_clips=2, clip_s=5.0).tolist() == [[1.25, 1.75]] * 2  # longer than there is


def test_sixteen_frames_of_a_clip_are_every_fifth_of_thirty_a_second() -> None:
    times_T = Views(num_clips=10).times(60.0, 16)[0] * 30
    assert times_T.tolist() == pytest.approx([2.5 + 5 * frame for frame in range(16)])


def test_one_clip_is_the_whole_video_unless_said_otherwise() -> None:
    for views in (ONE_PASS, Views(num_crops=3)):
        assert views.times(8.0, 4).tolist() == [centre_times(8.0, 4).tolist()]
    assert Views(clip_s=2.0).times(8.0, 2, start_s=2.0).tolist() == [[4.5, 5.5]]
    with pytest.raises(ValueError, match="nothing to look at between 9 s and 8 s"):
        Views(num_clips=2).times(8.0, 4, start_s=9.0)


@given(st.floats(0.1, 1e4), st.integers(1, 64), st.integers(1, 20), st.floats(0.01, 1e3))
def test_clips_stay_inside_and_are_mirrored_in_time(
    end_s: float, num_frames: int, num_clips: int, clip_s: float
) -> None:
    times_CT = clip_times(0.0, end_s, num_frames, num_clips=num_clips, clip_s=clip_s)
    assert times_CT.shape == (num_clips, num_frames)
    assert 0 < times_CT.min() <= times_CT.max() < end_s
    assert np.allclose(np.flip(times_CT), end_s - times_CT, rtol=0, atol=1e-9 * end_s)


def test_views_as_people_write_them() -> None:
    assert Views.parse("10x3") == Views(num_clips=10, num_crops=3)
    assert Views.parse("1x1") == ONE_PASS
    assert Views.parse("2x1", 1.5) == Views(num_clips=2, clip_s=1.5)
    assert (len(Views.parse("10x3")), len(ONE_PASS)) == (30, 1)
    for text in ("3", "10x2x1", "x", "-1x3", "1x", "٣x١", "10 x 3"):
        with pytest.raises(ConfigError, match="needs clips x crops, such as 1x1, 1x3 or 10x3"):
            Views.parse(text)
    for text, clip_s, words in (
        ("0x3", None, "views '0x3': num_clips = 0: .*greater than or equal to 1"),
        ("1x0", None, "num_crops = 0"),
        ("101x1", None, "num_clips = 101: .*less than or equal to 100"),
        ("1x1", -1.0, "clip_s = -1"),
        ("1x1", 0.0, "clip_s = 0"),
        ("1x1", float("nan"), "clip_s = nan"),
        ("1x1", float("inf"), "clip_s = inf"),
    ):
        with pytest.raises(ConfigError, match=words):
            Views.parse(text, clip_s)


def test_protocols_are_named() -> None:
    named = {text: Views.parse(text).describe(16) for text in ("1x1", "1x3", "10x3")}
    assert named["1x1"] == "one pass over 16 uniform frames"
    assert named["1x3"] == "3 crops of 16 uniform frames, scores averaged"
    assert named["10x3"] == "10 clips of 2.67 s and 16 frames x 3 crops, scores averaged"
    assert Views(clip_s=2.0).describe(8) == "1 clip of 2.00 s and 8 frames"


def test_cheapest_times_are_the_nearest_key_frames_or_as_early_as_may_be() -> None:
    keys_s = [0.0, 1.0, 2.0, 3.0]
    assert cheapest_times([0.9, 1.2, 2.6], keys_s, 0.25) == pytest.approx([1.0, 1.0, 2.35])
    # 1.4 and 1.6 need what lies between 1.0 and them: only moving the later one saves decoding.
    assert cheapest_times([1.4, 1.6, 2.5], keys_s, 0.1) == [1.4, 1.5, 2.4]
    assert cheapest_times([1.4, 1.95, 2.5], keys_s, 0.1, worth_s=0.2) == [1.4, 2.0, 2.5]
    assert cheapest_times([0.05, 0.5], [0.0], 0.2) == [0.0, 0.3]
    assert cheapest_times([0.1, 2.9], [], 0.2) == pytest.approx([0.1, 2.7])


@given(
    times_s=st.lists(st.floats(0, 100), min_size=1, max_size=20).map(sorted),
    keys_s=st.lists(st.floats(0, 100), max_size=20).map(sorted),
    tolerance_s=st.floats(0, 5),
)
def test_no_time_moves_further_than_it_may(times_s: list[float], keys_s: list[float], tolerance_s: float) -> None:
    moved_s = cheapest_times(times_s, keys_s, tolerance_s)
    assert all(abs(after - before) <= tolerance_s + 1e-9 for before, after in zip(times_s, moved_s, strict=True))


def test_tolerance_is_a_fraction_of_the_interval_between_frames() -> None:
    assert Views(tolerance=0.25).tolerance_s(8.0, 4) == 0.5
    assert Views(tolerance=0.25).tolerance_s(8.0, 4, start_s=2.0, end_s=4.0) == 0.125
    assert Views(num_clips=2, clip_s=1.0, tolerance=0.5).tolerance_s(8.0, 4) == 0.125
    assert ONE_PASS.tolerance_s(8.0, 4) == 0
    with pytest.raises(ConfigError, match=r"tolerance = 0\.7: .*less than or equal to 0\.5"):
        settings_from(Views, {"tolerance": 0.7}, "views")
