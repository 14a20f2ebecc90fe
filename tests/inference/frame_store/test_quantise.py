"""Quantised embeddings: close to the exact ones, within the bytes that were promised, and equal where those are equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fewframes.inference.frame_store.coder import DamagedCode
from fewframes.inference.frame_store.quantise import (
    FIXED_BYTES,
    LEAST_STEP,
    MOST_BYTES,
    SPREAD_FLOOR,
    STEP,
    STEPS_IN_TWO,
    code_part,
    decode_part,
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_frames=st.integers(1, 80),
    width=st.integers(1, 50),
    size=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
    offset=st.sampled_from([0.0, 1.0, -300.0]),
)
def test_every_number_is_within_three_quarters_of_a_step(
    seed: int, num_frames: int, width: int, size: float, offset: float
) -> None:
    draw = np.random.default_rng(seed)
    exact_ND = (offset + size * draw.standard_normal((num_frames, width)) * draw.random(width)).astype(np.float32)
    found_ND = decode_part(code_part(exact_ND), num_frames, width)
    spread_D = exact_ND.std(axis=0, dtype=np.float64)
    step_D = np.maximum(
        STEP * (spread_D + SPREAD_FLOOR * spread_D.mean()), LEAST_STEP * np.abs(np.median(exact_ND, axis=0))
    )
    step_D *= 2 ** (0.5 / STEPS_IN_TWO)
    assert (np.abs(found_ND - exact_ND) <= 0.75 * step_D + 1e-6 * np.abs(exact_ND) + 1e-25).all()


def test_still_frames_stay_equal() -> None:
    shots_ND = np.random.default_rng(0).standard_normal((50, 30)).astype(np.float32)
    found_ND = decode_part(code_part(shots_ND.repeat(4, axis=0)), 200, 30)
    assert_array_equal(found_ND[1::4], found_ND[2::4])  # the first and the last frame of a shot lie beside a cut


def test_a_slow_change_keeps_its_size_and_zeros_stay_zeros() -> None:
    frames_ND = np.zeros((400, 3), np.float32)
    frames_ND[:, 1] = np.linspace(0, 1, 400)
    frames_ND[200:, 2] = 5.0
    found_ND = decode_part(code_part(frames_ND), 400, 3)
    assert (found_ND[:, 0] == 0).all()
    assert np.abs(np.diff(found_ND[:, 1])).sum() == pytest.approx(1, abs=0.1)


def test_even_noise_fits_into_the_bytes() -> None:
    frames_ND = np.random.default_rng(0).standard_normal((600, 2288)).astype(np.float32)
    part = code_part(frames_ND)
    assert part.num_bytes <= MOST_BYTES * 600 + FIXED_BYTES
    error_ND = decode_part(part, 600, 2288) - frames_ND
    assert 0.1 < error_ND.std() < 0.5  # its steps had to grow


def test_a_part_of_other_sizes_or_bytes_is_refused() -> None:
    part = code_part(np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32))
    for num_frames, width in ((41, 8), (40, 9), (10_000_000, 8)):
        with pytest.raises(DamagedCode):
            decode_part(part, num_frames, width)
    with pytest.raises(DamagedCode):
        decode_part(replace(part, about=part.about[:-5]), 40, 8)
