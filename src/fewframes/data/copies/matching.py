"""Find footprints that show the same footage, by what changes in them and when.

A fixed camera sees the same room in every video, but what moves in it differs. So footprints are compared by the differences of
frames a few steps apart. Short windows of all footprints are compared first, as vectors. The pairs that they name are then compared
frame by frame, where both show the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewframes.data.copies.footprint import LEVELS, SIDE_PX, STEP_S, Footprint
from fewframes.data.copies.found import MOST_STEPS, Copy

APART = 3
"""The steps between two frames whose difference is taken. Over one step compression changes more than people do."""
COARSE_PX = 8
"""The height and the width of a difference in a window."""
WINDOW = np.array([0, 2, 4, 6])
"""The steps of the differences that make a window."""
EVERY = 5
"""The steps between two windows that are looked for. They are looked for among the windows at every step."""
WIDTH = 64
"""The length of a window's vector: so many directions hold most of what differs between windows."""
LEAST_OF_WINDOWS = 0.65
"""The cosine of two windows from which their videos are compared frame by frame."""
LEAST_OF_CHANGES = 0.35
"""The correlation of all common differences from which outlines are compared too. It costs less than they do."""
LEAST_LIKENESS = 0.65
"""The likeness from which two videos show the same footage (docs/decisions/2026-11-29-copies.md)."""
WEIGHT_OF_PLACE = 0.3
"""The weight of the outlines that stay in a likeness; those that move and those that change weigh 1. A fixed camera shares them."""
LEAST_STEPS = 10
"""The fewest steps that two videos must have in common: a second."""
MOST_LAGS = 2
"""The most lags of a pair that are compared frame by frame, by the cosine of their windows."""
OUT_OF_STEP = 1
"""The steps around each lag that are tried too."""
LEAST_CHANGE = 0.1
"""The root mean square of the differences (0-255) below which nothing moves: there is nothing to compare by."""
BLOCK = 1024
"""The number of windows that are looked for at a time. It bounds the memory."""
MOST_FITTED = 20_000
"""The most windows from which the directions are computed."""

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Windows:
    """The windows of all footprints in which something moves: rows (N,), steps (N,), vectors (N, D), mirrored ones."""

    row: Rows
    step: Rows
    vectors: Floats
    mirrored: Floats


def copies_among(footprints: Mapping[int, Footprint | None], contents: Sequence[str]) -> tuple[Copy, ...] | None:
    """Return the copies among some rows of the data; None if there is too much footage to compare.

    Args:
        footprints: The footprint of each row.
        contents: The key of each row's file, of all rows.
    """
    rows = list(footprints)
    if sum(0 if footprint is None else footprint.shape[1] for footprint in footprints.values()) > MOST_STEPS:
        return None
    found = find_copies(list(footprints.values()), [contents[row] for row in rows])
    return tuple(replace(copy, first=rows[copy.first], second=rows[copy.second]) for copy in found)


def find_copies(footprints: Sequence[Footprint | None], contents: Sequence[str]) -> list[Copy]:
    """Return the pairs of videos that show the same footage, in the order of the data.

    Args:
        footprints: The footprint of each video; None if there is none.
        contents: The key of each video's file. Videos of one file are not compared.
    """
    best: dict[tuple[int, int], Copy] = {}
    frames = [None if footprint is None else _centred(footprint) for footprint in footprints]
    changes = [None if views is None else _changes(views) for views in frames]
    for first, second, mirrored, lag in _candidates(_windows(changes)):
        if contents[first] == contents[second]:
            continue
        found = _compared((frames[first], frames[second]), (changes[first], changes[second]), lag, mirrored=mirrored)
        if found is not None and found[0] >= max(LEAST_LIKENESS, _likeness(best.get((first, second)))):
            best[first, second] = _copy(first, second, found, mirrored=mirrored)
    return [best[pair] for pair in sorted(best)]


def _likeness(copy: Copy | None) -> float:
    return 0.0 if copy is None else copy.likeness


def _copy(first: int, second: int, found: tuple[float, int, int], *, mirrored: bool) -> Copy:
    likeness, lag, steps = found
    return Copy(
        first=first,
        second=second,
        first_s=round(max(0, lag) * STEP_S, 1),
        second_s=round(max(0, -lag) * STEP_S, 1),
        length_s=round(steps * STEP_S, 1),
        mirrored=mirrored,
        likeness=round(min(1.0, likeness), 3),
    )


def _centred(footprint: Footprint) -> Floats:
    """Return the brightness (0-255) of a footprint without the mean of each frame: (V, T, H, W)."""
    frames_VTHW = (footprint / LEVELS).astype(np.float32)
    centred_VTHW: Floats = frames_VTHW - frames_VTHW.mean((2, 3), keepdims=True)
    return centred_VTHW


def _changes(frames_VTHW: Floats) -> Floats:
    """Return the differences of frames APART steps apart."""
    changes_VTHW: Floats = frames_VTHW[:, APART:] - frames_VTHW[:, :-APART]
    return changes_VTHW


def _windows(changes: Sequence[Floats | None]) -> Windows:
    """Return the windows of all views of all footprints."""
    rows, steps, plain, mirrored = [], [], [], []
    size = SIDE_PX // COARSE_PX
    for row, views in enumerate(changes):
        for view_THW in () if views is None else views:
            starts = np.arange(max(0, len(view_THW) - int(WINDOW[-1])))
            coarse_THW = view_THW.reshape(-1, COARSE_PX, size, COARSE_PX, size).mean((2, 4))
            windows_NWHW = coarse_THW[starts[:, None] + WINDOW]
            moves_N = np.sqrt(np.square(windows_NWHW).mean((1, 2, 3))) >= LEAST_CHANGE
            windows_NWHW = windows_NWHW[moves_N]
            rows.append(np.full(len(windows_NWHW), row))
            steps.append(starts[moves_N])
            plain.append(_unit(windows_NWHW))
            mirrored.append(_unit(windows_NWHW[..., ::-1]))
    if not rows:
        rows, steps = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
        plain = mirrored = [np.empty((0, len(WINDOW) * COARSE_PX**2), np.float32)]
    plain_NP, mirrored_NP = np.concatenate(plain), np.concatenate(mirrored)
    fitted_NP = plain_NP[:: len(plain_NP) // MOST_FITTED + 1]
    _, directions_PP = np.linalg.eigh(fitted_NP.T @ fitted_NP)
    directions_PD = directions_PP[:, -WIDTH:].astype(np.float32)
    return Windows(
        np.concatenate(rows), np.concatenate(steps), _unit(plain_NP @ directions_PD), _unit(mirrored_NP @ directions_PD)
    )


def _unit(values: Floats) -> Floats:
    """Return arrays as vectors of length one."""
    flat_NP = values.reshape(len(values), int(np.prod(values.shape[1:])))
    lengths_N1 = np.maximum(np.linalg.norm(flat_NP, axis=1, keepdims=True), 1e-6)
    return (flat_NP / lengths_N1).astype(np.float32)


def _candidates(windows: Windows) -> Iterator[tuple[int, int, bool, int]]:
    """Yield pairs of videos with windows that are alike: first, second, whether mirrored, and the steps that the first is ahead."""
    found: dict[tuple[int, int, bool], dict[int, float]] = {}
    starts_R = np.flatnonzero(np.diff(windows.row, prepend=-1))
    ends_R = np.append(starts_R[1:], len(windows.row))
    sought_N = np.flatnonzero(windows.step % EVERY == 0)
    for begin in range(0, len(sought_N), BLOCK):
        sought_Q = sought_N[begin : begin + BLOCK]
        for mirrored, vectors_ND in ((False, windows.vectors), (True, windows.mirrored)):
            for rows in range(0, len(starts_R), BLOCK):
                starts_A, ends_A = starts_R[rows : rows + BLOCK], ends_R[rows : rows + BLOCK]
                for query, match, likeness in _alike(vectors_ND[sought_Q], windows.vectors, starts_A, ends_A):
                    first, second = int(windows.row[match]), int(windows.row[sought_Q[query]])
                    lag = int(windows.step[match] - windows.step[sought_Q[query]])
                    if first > second:
                        first, second, lag = second, first, -lag
                    if first != second:
                        lags = found.setdefault((first, second, mirrored), {})
                        lags[lag] = max(lags.get(lag, 0.0), likeness)
    for (first, second, mirrored), lags in found.items():
        for lag in sorted(lags, key=lambda lag: -lags[lag])[:MOST_LAGS]:
            yield first, second, mirrored, lag


def _alike(sought_QD: Floats, vectors_ND: Floats, starts_A: Rows, ends_A: Rows) -> Iterator[tuple[int, int, float]]:
    """Yield each window that is looked for with the most like window of each video, and their cosine, if it is enough."""
    likeness_QN = sought_QD @ vectors_ND[starts_A[0] : ends_A[-1]].T
    most_QA = np.maximum.reduceat(likeness_QN, starts_A - starts_A[0], axis=1)
    for query, video in zip(*np.nonzero(most_QA >= LEAST_OF_WINDOWS), strict=True):
        start, end = starts_A[video] - starts_A[0], ends_A[video] - starts_A[0]
        match = int(starts_A[video] + np.argmax(likeness_QN[query, start:end]))
        yield int(query), match, float(most_QA[query, video])


def _compared(
    frames: tuple[Floats | None, Floats | None],
    changes: tuple[Floats | None, Floats | None],
    lag: int,
    *,
    mirrored: bool,
) -> tuple[float, int, int] | None:
    """Return the likeness of two videos near this lag, the lag and the common steps; None if what changes is not alike.

    Args:
        frames: The frames of both.
        changes: Their differences.
        lag: The steps by which the first is ahead.
        mirrored: The second is compared mirrored.
    """
    first_VTHW, second_VTHW = changes
    assert first_VTHW is not None
    assert second_VTHW is not None
    way = slice(None, None, -1 if mirrored else 1)
    best, lag, view, other = max(
        (_in_common(first_VTHW[view], second_VTHW[other, ..., way], near), near, view, other)
        for view in range(len(first_VTHW))
        for other in range(len(second_VTHW))
        for near in range(lag - OUT_OF_STEP, lag + OUT_OF_STEP + 1)
    )
    if best < LEAST_OF_CHANGES:
        return None
    assert frames[0] is not None
    assert frames[1] is not None
    return likeness_at(frames[0][view], frames[1][other, ..., way], lag)


def _in_common(first_THW: Floats, second_THW: Floats, lag: int) -> float:
    """Return the correlation of the differences of two views where they have time in common."""
    start, other = max(0, lag), max(0, -lag)
    length = min(len(first_THW) - start, len(second_THW) - other)
    if length + APART < LEAST_STEPS:
        return 0.0
    return _correlation(first_THW[start : start + length], second_THW[other : other + length])


def likeness_at(first_THW: Floats, second_THW: Floats, lag: int) -> tuple[float, int, int]:
    """Return the likeness of two views where they have time in common, the lag, and the number of common steps.

    It is the weighted mean of three correlations of outlines: of how they differ from their mean over time, of how they change, and
    of their mean. Two people who walk the same way make like patches of brightness, but not like outlines.

    Args:
        first_THW: The frames of one view.
        second_THW: Those of the other.
        lag: The steps by which the first is ahead.
    """
    start, other = max(0, lag), max(0, -lag)
    steps = min(len(first_THW) - start, len(second_THW) - other)
    first_TP, second_TP = _outlines(first_THW[start : start + steps]), _outlines(second_THW[other : other + steps])
    first_P, second_P = first_TP.mean(0), second_TP.mean(0)
    moving = _correlation(first_TP - first_P, second_TP - second_P)
    changing = _correlation(first_TP[APART:] - first_TP[:-APART], second_TP[APART:] - second_TP[:-APART])
    staying = _correlation(first_P, second_P)
    return (moving + changing + WEIGHT_OF_PLACE * staying) / (2 + WEIGHT_OF_PLACE), lag, steps


def _outlines(frames_THW: Floats) -> Floats:
    """Return the differences of neighbouring pixels: (T, P)."""
    parts = [np.diff(frames_THW, axis=axis).reshape(len(frames_THW), -1) for axis in (1, 2)]
    return np.concatenate(parts, axis=1)


def _correlation(first: Floats, second: Floats) -> float:
    """Return the correlation of numbers whose mean is zero; 0 if one of them hardly differs from zero."""
    first_N, second_N = first.reshape(-1), second.reshape(-1)
    norms = float(np.linalg.norm(first_N)), float(np.linalg.norm(second_N))
    if min(norms) < LEAST_CHANGE * len(first_N) ** 0.5:
        return 0.0
    return float(first_N @ second_N) / (norms[0] * norms[1])
