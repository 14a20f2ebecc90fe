"""Code rows of whole numbers that change little from row to row, without loss. Numpy alone.

The changes from row to row are coded by asymmetric numeral systems (Duda, 2013, "Asymmetric numeral systems", arXiv:1311.2540), one
coder a column, so that a row is a few operations on arrays. How likely a change is depends on its context: the number before it,
and how much its column and its row change. Tables of that are counted beforehand and are part of the code.

Letters in shapes: N rows, D columns, C contexts, S symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.integer[Any]]

MOST_CHANGE = 15
"""The largest change that has a symbol of its own. Larger ones are written down beside the code."""
NUM_SYMBOLS = 2 * MOST_CHANGE + 1
COLUMN_CLASSES, ROW_CLASSES = 16, 8
NEAR = (-5, 6)
"""The range to which the number before is cut in a context."""
NUM_NEAR = NEAR[1] - NEAR[0] + 1
NUM_CONTEXTS = COLUMN_CLASSES * ROW_CLASSES * NUM_NEAR
TABLE_BITS = 10
"""The frequencies of a context are whole numbers that sum to this power of two."""
WORD_BITS = 16
LOWEST_STATE = 1 << WORD_BITS
FREQUENCY_AT, OFFSET_AT, FIELD = 16, 32, 0xFFFF
"""The bits at which the fields of a slot begin, and the mask of one."""


class DamagedCode(ValueError):
    """A code that was not made by `encode`."""


@dataclass(frozen=True, eq=False)
class CodedRows:
    """Coded rows: what `decode` needs, as arrays."""

    words: NDArray[np.uint16]
    """The code (L,)."""
    states: NDArray[np.uint32]
    """The state of the coder of each column (D,)."""
    columns: NDArray[np.uint8]
    """The class of each column (D,)."""
    rows: NDArray[np.uint8]
    """The class of each row (N,)."""
    tables: NDArray[np.uint16]
    """The frequencies of the symbols in each context (C, S)."""
    far: NDArray[np.int64]
    """The large changes (F, 2): the index in the flattened rows, and the change."""


def encode(rows_ND: Whole) -> CodedRows:
    """Return the code of whole numbers (N, D), N and D at least 1."""
    rows_ND = np.asarray(rows_ND, np.int64)
    num_rows, num_columns = rows_ND.shape
    before_ND = np.concatenate([np.zeros((1, num_columns), np.int64), rows_ND[:-1]])
    change_ND = rows_ND - before_ND
    far_F = np.flatnonzero(np.abs(change_ND) > MOST_CHANGE)
    far_F2 = np.stack([far_F, change_ND.ravel()[far_F]], axis=1)
    symbol_ND = np.clip(change_ND, -MOST_CHANGE, MOST_CHANGE) + MOST_CHANGE
    size_ND = np.minimum(np.abs(change_ND), MOST_CHANGE)
    columns, rows = _classes(size_ND.mean(axis=0), COLUMN_CLASSES), _classes(size_ND.mean(axis=1), ROW_CLASSES)
    context_ND = _contexts(rows[:, None], columns, before_ND)
    keys_ND = context_ND * NUM_SYMBOLS + symbol_ND
    counts_CS = np.bincount(keys_ND.ravel(), minlength=NUM_CONTEXTS * NUM_SYMBOLS).reshape(NUM_CONTEXTS, NUM_SYMBOLS)
    tables_CS = _frequencies(counts_CS)
    frequency, first = tables_CS.astype(np.uint64).ravel(), _firsts(tables_CS).ravel()
    states_D = np.full(num_columns, LOWEST_STATE, np.uint64)
    words: list[NDArray[np.uint16]] = []
    for number in range(num_rows - 1, -1, -1):  # what is coded last is decoded first
        keys_D = keys_ND[number]
        frequency_D = frequency[keys_D]
        full_D = states_D >= frequency_D << np.uint64(2 * WORD_BITS - TABLE_BITS)
        words.append((states_D[full_D] & np.uint64(LOWEST_STATE - 1)).astype(np.uint16))
        states_D[full_D] >>= np.uint64(WORD_BITS)
        whole_D, rest_D = np.divmod(states_D, frequency_D)
        states_D = (whole_D << np.uint64(TABLE_BITS)) + rest_D + first[keys_D]
    return CodedRows(np.concatenate(words[::-1]), states_D.astype(np.uint32), columns, rows, tables_CS, far_F2)


def decode(code: CodedRows) -> NDArray[np.int32]:
    """Return the rows (N, D) of a code. Raises DamagedCode."""
    num_rows, num_columns = len(code.rows), len(code.columns)
    _check(code)
    starts_C, slots = _slots(code.tables)
    size = 1 << TABLE_BITS
    starts_RD = _contexts(np.arange(ROW_CLASSES)[:, None], code.columns, np.array(NEAR[0]))
    states_D, at, words = code.states.astype(np.int64), 0, code.words.astype(np.int64)
    far_at = np.searchsorted(code.far[:, 0], np.arange(num_rows + 1) * num_columns)
    found_ND = np.empty((num_rows, num_columns), np.int32)
    row_D = np.zeros(num_columns, np.int64)
    for number, row_class in enumerate(code.rows.tolist()):
        near_D = np.minimum(np.maximum(row_D, NEAR[0]), NEAR[1]) - NEAR[0]
        slots_D = slots[starts_C[starts_RD[row_class] + near_D] + (states_D & (size - 1))]
        states_D = (slots_D >> FREQUENCY_AT & FIELD) * (states_D >> TABLE_BITS) + (slots_D >> OFFSET_AT & FIELD)
        row_D = row_D + ((slots_D & FIELD) - MOST_CHANGE)
        short_D = np.flatnonzero(states_D < LOWEST_STATE)
        if at + len(short_D) > len(words):
            raise DamagedCode("the code ends too early")
        states_D[short_D] = states_D[short_D] << WORD_BITS | words[at : at + len(short_D)]
        at += len(short_D)
        if far_at[number] < far_at[number + 1]:
            index_F, change_F = code.far[far_at[number] : far_at[number + 1]].T
            row_D[index_F - number * num_columns] += change_F - np.clip(change_F, -MOST_CHANGE, MOST_CHANGE)
        found_ND[number] = row_D
    if at != len(words) or (states_D != LOWEST_STATE).any():
        raise DamagedCode("the code does not end where it began")
    return found_ND


def _slots(tables_CS: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first slot of each context (C,), and the slots of all contexts in use, one after the other.

    A slot holds three fields: the symbol, its frequency, and the number of the slot among those of its symbol. One look at the
    memory then finds all three.
    """
    used = np.flatnonzero(tables_CS.any(axis=1))
    starts_C = np.zeros(NUM_CONTEXTS, np.int64)
    starts_C[used] = np.arange(len(used)) << TABLE_BITS
    frequencies = tables_CS[used].astype(np.int64).ravel()
    symbols = np.repeat(np.tile(np.arange(NUM_SYMBOLS), len(used)), frequencies)
    firsts = np.repeat(_firsts(tables_CS[used]).astype(np.int64).ravel(), frequencies)
    offsets = np.tile(np.arange(1 << TABLE_BITS), len(used)) - firsts
    return starts_C, symbols | np.repeat(frequencies, frequencies) << FREQUENCY_AT | offsets << OFFSET_AT


def _contexts(row_classes: Whole | np.integer[Any], columns: Whole, before: Whole) -> NDArray[np.int64]:
    """Return the context of each number, from the class of its row and column and from the number before it."""
    near = np.minimum(np.maximum(before, NEAR[0]), NEAR[1]) - NEAR[0]
    classes = np.asarray(row_classes, np.int64) * COLUMN_CLASSES + columns
    contexts: NDArray[np.int64] = classes * NUM_NEAR + near
    return contexts


def _classes(sizes: NDArray[np.float64], most: int) -> NDArray[np.uint8]:
    """Return the class of each row or column by its mean change: equally many in each class."""
    edges = np.quantile(sizes, np.arange(1, most) / most)
    return np.searchsorted(edges, sizes).astype(np.uint8)


def _frequencies(counts_CS: Whole) -> NDArray[np.uint16]:
    """Return counts as whole frequencies that sum to 2 ** `TABLE_BITS` in each context in use, 1 or more for each symbol seen."""
    size = 1 << TABLE_BITS
    totals_C = counts_CS.sum(axis=1, keepdims=True)
    frequencies_CS = counts_CS * size // np.maximum(1, totals_C)
    frequencies_CS = np.where(counts_CS > 0, np.maximum(1, frequencies_CS), 0)
    # The likeliest symbol takes what rounding left over; it has more than all others took too much.
    used = np.flatnonzero(totals_C)
    likeliest = counts_CS[used].argmax(axis=1)
    frequencies_CS[used, likeliest] += size - frequencies_CS[used].sum(axis=1)
    return frequencies_CS.astype(np.uint16)


def _firsts(tables_CS: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Return the first slot of each symbol in each context (C, S)."""
    return np.cumsum(tables_CS, axis=1, dtype=np.uint64) - tables_CS


def _check(code: CodedRows) -> None:
    """Raise DamagedCode where arrays do not fit each other, so that no index leads outside of them."""
    sums_C = code.tables.sum(axis=1, dtype=np.int64)
    fits = (
        code.tables.shape == (NUM_CONTEXTS, NUM_SYMBOLS)
        and np.isin(sums_C, (0, 1 << TABLE_BITS)).all()
        and len(code.states) == len(code.columns)
        and (code.columns < COLUMN_CLASSES).all()
        and (code.rows < ROW_CLASSES).all()
        and ((code.far[:, 0] >= 0) & (code.far[:, 0] < len(code.rows) * len(code.columns))).all()
    )
    if not fits:
        raise DamagedCode("the tables of the code do not fit its rows")
