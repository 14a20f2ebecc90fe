"""Coding of whole numbers: nothing is lost, whatever they are; little is written where little changes; damage is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fewframes.inference.frame_store.coder import DamagedCode, decode, encode


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_rows=st.integers(1, 60),
    num_columns=st.integers(1, 40),
    size=st.sampled_from([0.0, 0.3, 2.0, 30.0, 1e6]),
)
def test_any_rows_come_back(seed: int, num_rows: int, num_columns: int, size: float) -> None:
    generator = np.random.default_rng(seed)
    rows_ND = np.rint(size * generator.standard_normal((num_rows, num_columns))).astype(np.int64)
    assert_array_equal(decode(encode(rows_ND)), rows_ND)


def test_rows_that_never_change_take_next_to_nothing() -> None:
    rows_ND = np.repeat(np.arange(-50, 50)[None], 1000, axis=0)
    assert encode(rows_ND).words.nbytes < 500


def test_a_fair_coin_takes_a_bit() -> None:
    rows_ND = np.random.default_rng(0).integers(0, 2, (2000, 64))
    assert encode(rows_ND).words.nbytes == pytest.approx(2000 * 64 / 8, rel=0.02)


def test_a_changed_or_shortened_code_is_refused() -> None:
    code = encode(np.random.default_rng(0).integers(-3, 4, (200, 16)))
    changed = code.words.copy()
    changed[len(changed) // 2] ^= 1
    for words in (code.words[:-3], np.append(code.words, np.uint16(7)), changed):
        with pytest.raises(DamagedCode):
            decode(replace(code, words=words))


def test_tables_that_do_not_fit_are_refused() -> None:
    code = encode(np.random.default_rng(0).integers(-3, 4, (20, 4)))
    tables = code.tables.copy()
    tables[tables.any(axis=1).argmax(), 0] += 1
    with pytest.raises(DamagedCode, match="do not fit"):
        decode(replace(code, tables=tables))
