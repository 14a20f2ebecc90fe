"""Turn frame embeddings into a few hundred bytes each, and back.

Each channel is rounded to multiples of its own step, a fraction of its spread over the frames of a part. Channels are not mixed,
as a rotation onto principal components would do: heads look at how much each channel changes from frame to frame, and the error
of one channel must not look like a change of another (docs/decisions). Frames that are equal stay equal, but for those beside a
change.

Letters in shapes: N frames, D width.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.inference.frame_store.coder import (
    NUM_CONTEXTS,
    NUM_SYMBOLS,
    CodedRows,
    DamagedCode,
    decode,
    encode,
)
from fewframes.runtime.protocol import Floats

STEP = 0.15
"""The step of a channel, as a fraction of its spread and of `SPREAD_FLOOR` times the mean spread."""
SPREAD_FLOOR = 1.0
STEPS_IN_TWO = 8
"""Steps are powers of the 8th root of 2, so that the exponent is all that is written of them."""
LEAST_STEP = 2.0**-12
"""The smallest step as a fraction of the median of a channel: a channel that never changes needs no smaller one."""
MOST_BYTES, FIXED_BYTES = 438, 12_000
"""The bytes that a part of N frames may have: so many a frame, and so many beside. Where it has more, its steps grow."""
COARSER = 1.02
"""The least factor by which steps grow at once."""
TINY = 2.0**-100


@dataclass(frozen=True, eq=False)
class CodedPart:
    """Coded embeddings of N frames: the code, and what else is needed to read it, packed."""

    words: NDArray[np.uint16]
    """The code (L,)."""
    about: NDArray[np.uint8]
    """The steps, medians, classes, states, tables and large changes, compressed by zlib."""

    @property
    def num_bytes(self) -> int:
        """Return its size."""
        return self.words.nbytes + self.about.nbytes


def code_part(embeddings_ND: Floats) -> CodedPart:
    """Return the code of finite embeddings (N, D), N at least 1. Its size is at most `MOST_BYTES` a frame and `FIXED_BYTES`."""
    exact_ND = np.asarray(embeddings_ND, np.float64)
    num_frames, width = exact_ND.shape
    some_ND = exact_ND[:: max(1, num_frames // 1024)]
    median_D, spread_D = np.median(some_ND, axis=0), exact_ND.std(axis=0)
    wanted_D = STEP * (spread_D + SPREAD_FLOOR * spread_D.mean())
    most = MOST_BYTES * num_frames + FIXED_BYTES
    coarser = 1.0
    while True:
        step_D = np.maximum(coarser * wanted_D, LEAST_STEP * np.abs(median_D))
        exponents_D = np.rint(STEPS_IN_TWO * np.log2(np.maximum(step_D, TINY))).astype(np.int16)
        step_D = _steps(exponents_D)
        middle_D = np.rint(median_D / step_D)
        rows = encode((np.rint(exact_ND / step_D) - middle_D).astype(np.int64))
        part = CodedPart(rows.words, _packed(exponents_D, middle_D.astype(np.int32), rows))
        excess = (part.num_bytes - most) / num_frames
        if excess <= 0 or width > most:
            return part
        coarser *= max(COARSER, 2 ** (8 * excess / width))


def decode_part(part: CodedPart, num_frames: int, width: int) -> Floats:
    """Return the embeddings (N, D) of a part. Raises DamagedCode."""
    exponents_D, middle_D, rows = _unpacked(part, num_frames, width)
    found_ND = _eased(decode(rows))
    found_ND += middle_D.astype(np.float32)
    found_ND *= _steps(exponents_D).astype(np.float32)
    return found_ND


def _eased(rows_ND: NDArray[np.int32]) -> Floats:
    """Return rows in which a change of one step, with none just before and after it, is spread over three frames.

    A number that has just crossed the border between two steps was close to it. The sum of all changes stays as it is.
    """
    eased_ND: Floats = rows_ND.astype(np.float32)
    change_ND = np.diff(rows_ND, axis=0)
    still_ND = change_ND == 0
    alone_ND = np.abs(change_ND) == 1
    alone_ND[1:] &= still_ND[:-1]
    alone_ND[:-1] &= still_ND[1:]
    quarter_ND = np.where(alone_ND, change_ND, 0) * np.float32(0.25)
    eased_ND[:-1] += quarter_ND
    eased_ND[1:] -= quarter_ND
    return eased_ND


def _steps(exponents_D: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return the steps (D,) of their exponents."""
    steps_D: NDArray[np.float64] = np.exp2(exponents_D / STEPS_IN_TWO)
    return steps_D


def _packed(exponents_D: NDArray[np.int16], middle_D: NDArray[np.int32], rows: CodedRows) -> NDArray[np.uint8]:
    """Return everything of a part but its code, as compressed bytes."""
    arrays: tuple[NDArray[Any], ...] = (
        exponents_D,
        middle_D,
        rows.states,
        rows.columns,
        rows.rows,
        rows.tables,
        rows.far.astype(np.int64),
    )
    return np.frombuffer(zlib.compress(b"".join(array.tobytes() for array in arrays), 9), np.uint8)


def _unpacked(part: CodedPart, num_frames: int, width: int) -> tuple[NDArray[np.int16], NDArray[np.int32], CodedRows]:
    """Return the exponents of the steps (D,), the medians in steps (D,), and the coded rows. Raises DamagedCode."""
    try:
        content = zlib.decompress(part.about.tobytes())
    except zlib.error as error:
        raise DamagedCode(str(error)) from None
    at = 0

    def take(kind: type[np.generic], count: int) -> NDArray[Any]:
        nonlocal at
        if at + count * np.dtype(kind).itemsize > len(content):
            raise DamagedCode("a part ends too early")
        array = np.frombuffer(content, kind, count, at)
        at += array.nbytes
        return array

    exponents_D, middle_D = take(np.int16, width), take(np.int32, width)
    states, columns, rows = take(np.uint32, width), take(np.uint8, width), take(np.uint8, num_frames)
    tables = take(np.uint16, NUM_CONTEXTS * NUM_SYMBOLS).reshape(NUM_CONTEXTS, NUM_SYMBOLS)
    far = take(np.int64, (len(content) - at) // 16 * 2).reshape(-1, 2)
    if at != len(content):
        raise DamagedCode("a part does not end where it should")
    return exponents_D, middle_D, CodedRows(part.words, states, columns, rows, tables, far)
