"""Tell which footprints show the same footage, from what changes in them.

A fixed camera sees the same room in every video. What moves in it, and when, differs. So two footprints match if the differences
between their frames, a few steps apart, correlate. Candidates come from a few moments of each footprint: those of the greatest
change, which a copy has too, wherever it was cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.data.copies.footprint import SIDE_PX, STEP_S, Footprint
from fewframes.data.copies.found import Copy

APART = 3
"""The steps between two frames whose difference counts. Over a single step compression changes more than people do."""
COARSE_PX = 8
"""The height and width of the two pictures that describe a moment: what is there, and what changes."""
WEIGHT_OF_CHANGE = 0.7
"""The weight of what changes in the likeness of two moments; the rest is that of what is there."""
LEAST_OF_MOMENTS = 0.65
"""The likeness of two moments from which their videos are compared (docs/decisions/2026-11-29-copies.md)."""
LEAST_LIKENESS = 0.6
"""The correlation of the differences from which two footprints show the same footage (docs/decisions/2026-11-29-copies.md)."""
LEAST_STEPS = 10
"""The fewest steps that two footprints must have in common: a second. Videos that are shorter are compared whole."""
MOST_LAGS = 4
"""The most lags, by the likeness of their moments, at which two footprints are compared."""
OUT_OF_STEP = 2
"""The steps around each lag at which they are compared too: a frame rate or a cut moves the moment of the greatest change."""
BLOCK = 1024
"""The number of moments that are compared with as many at a time. It bounds the memory."""
SILENT = 0.02
"""The root mean square of the differences, in levels of brightness, up to which nothing changes at all."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Moments:
    """Moments of great change in all footprints."""

    rows: NDArray[np.intp]
    """The footprint of each."""
    steps: NDArray[np.intp]
    """The step at which it begins."""
    vectors: Floats
    """What is there and what changes, as a vector of length one."""
    mirrored: Floats
    """The vectors of the mirrored footprints."""


def find_copies(footprints: Sequence[Footprint | None], contents: Sequence[str]) -> list[Copy]:
    """Return the pairs of videos that show the same footage, in the order of the data.

    Args:
        footprints: The footprint of each video; None if there is none.
        contents: The key of each video's file. Videos of one file are not compared.
    """
    moments = moments_of(footprints)
    copies = []
    for (first, second, mirrored), lags in sorted(_candidates(moments, contents).items()):
        views, others = footprints[first], footprints[second]
        assert views is not None
        assert others is not None
        found = _compared(views, others[..., ::-1] if mirrored else others, lags)
        if found[0] >= LEAST_LIKENESS:
            copies.append(_copy(first, second, mirrored, found))
    best: dict[tuple[int, int], Copy] = {}
    for copy in copies:  # a symmetrical picture may match both ways
        pair = copy.first, copy.second
        if pair not in best or best[pair].likeness < copy.likeness:
            best[pair] = copy
    return list(best.values())


def moments_of(footprints: Sequence[Footprint | None]) -> Moments:
    """Return the moments of the greatest change of each footprint, in all its views."""
    rows, steps, vectors, mirrored = [], [], [], []
    for row, footprint in enumerate(footprints):
        for frames_THW in () if footprint is None else normal(footprint):
            coarse_THW = _coarse(frames_THW)
            changes_THW = coarse_THW[APART:] - coarse_THW[:-APART]
            peaks = _peaks(np.square(changes_THW).sum((1, 2)))
            there_MHW = (coarse_THW[APART:] + coarse_THW[:-APART])[peaks]
            rows.append(np.full(len(peaks), row))
            steps.append(peaks)
            vectors.append(_vectors(there_MHW, changes_THW[peaks]))
            mirrored.append(_vectors(there_MHW[..., ::-1], changes_THW[peaks][..., ::-1]))
    if not rows:
        none = np.empty((0, 2 * COARSE_PX**2), np.float32)
        return Moments(np.empty(0, np.intp), np.empty(0, np.intp), none, none)
    return Moments(*map(np.concatenate, (rows, steps, vectors, mirrored)))


def normal(footprint: Footprint) -> Floats:
    """Return a footprint without the mean of each frame: (V, T, H, W), in levels of brightness."""
    frames_VTHW = footprint.astype(np.float32) / 256
    centred_VTHW: Floats = frames_VTHW - frames_VTHW.mean((2, 3), keepdims=True)
    return centred_VTHW


def _coarse(frames_THW: Floats) -> Floats:
    """Return frames with the mean of every few pixels: (T, COARSE_PX, COARSE_PX)."""
    size = SIDE_PX // COARSE_PX
    coarse_THW: Floats = frames_THW.reshape(-1, COARSE_PX, size, COARSE_PX, size).mean((2, 4))
    return coarse_THW


def _peaks(change_T: Floats) -> NDArray[np.intp]:
    """Return the steps at which there is no greater change within APART steps, and at which anything changes."""
    if not len(change_T):
        return np.empty(0, np.intp)
    around_TN = np.lib.stride_tricks.sliding_window_view(np.pad(change_T, APART), 2 * APART + 1)
    return np.flatnonzero((change_T >= around_TN.max(1)) & (change_T > (SILENT * COARSE_PX) ** 2))


def _vectors(there_MHW: Floats, changes_MHW: Floats) -> Floats:
    """Return vectors of length one, whose products are the likenesses of moments."""
    parts = []
    for weight, pictures in ((1 - WEIGHT_OF_CHANGE, there_MHW), (WEIGHT_OF_CHANGE, changes_MHW)):
        flat_MP = pictures.reshape(len(pictures), -1)
        length_M1 = np.linalg.norm(flat_MP, axis=1, keepdims=True)
        parts.append(np.sqrt(weight, dtype=np.float32) * flat_MP / np.maximum(length_M1, 1e-6))
    return np.concatenate(parts, axis=1)


def _candidates(moments: Moments, contents: Sequence[str]) -> dict[tuple[int, int, bool], list[int]]:
    """Return pairs of videos with similar moments, and whether one is mirrored: the lags of the second that are to be tried."""
    found: dict[tuple[int, int, bool], dict[int, float]] = {}
    key_of_content = {content: number for number, content in enumerate(dict.fromkeys(contents))}
    content_M = np.array([key_of_content[contents[row]] for row in moments.rows], np.intp)
    for ahead, behind, mirrored, likeness_N in _similar(moments):
        first_N, second_N = moments.rows[behind], moments.rows[ahead]
        lag_N = moments.steps[behind] - moments.steps[ahead]
        other_N = content_M[behind] != content_M[ahead]
        for first, second, lag, likeness in zip(
            *(values[other_N].tolist() for values in (first_N, second_N, lag_N, likeness_N)), strict=True
        ):
            lags = found.setdefault((first, second, mirrored), {})
            lags[lag] = max(lags.get(lag, 0.0), likeness)
    return {pair: sorted(lags, key=lambda lag: -lags[lag])[:MOST_LAGS] for pair, lags in found.items()}


def _similar(moments: Moments) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], bool, Floats]]:
    """Yield pairs of moments that are alike, of which the second comes before: indices, whether one is mirrored, likenesses."""
    num_moments = len(moments.rows)
    for start in range(0, num_moments, BLOCK):
        for mirrored, vectors_MD in ((False, moments.vectors), (True, moments.mirrored)):
            block_AD = vectors_MD[start : start + BLOCK]
            for other in range(0, start + 1, BLOCK):
                likeness_AB = block_AD @ moments.vectors[other : other + BLOCK].T
                ahead, behind = np.nonzero(likeness_AB >= LEAST_OF_MOMENTS)
                earlier = moments.rows[behind + other] < moments.rows[ahead + start]
                ahead, behind = ahead[earlier], behind[earlier]
                if len(ahead):
                    yield ahead + start, behind + other, mirrored, likeness_AB[ahead, behind]


def _compared(first_VTHW: Footprint, second_VTHW: Footprint, lags: Sequence[int]) -> tuple[float, int, int]:
    """Return the greatest likeness at any of these lags and near them, the lag, and the steps in common."""
    tried = sorted({lag + shift for lag in lags for shift in range(-OUT_OF_STEP, OUT_OF_STEP + 1)})
    best = 0.0, 0, 0
    others = [_flat(view_THW) for view_THW in normal(second_VTHW)]
    for view_TP in map(_flat, normal(first_VTHW)):
        for other_TP in others:
            for lag in tried:
                likeness, steps = likeness_at(view_TP, other_TP, lag)
                best = max(best, (likeness, lag, steps))
    return best


def _flat(view_THW: Floats) -> Floats:
    """Return the differences of frames that are APART steps apart: (T - APART, P)."""
    differences_THW: Floats = view_THW[APART:] - view_THW[:-APART]
    return differences_THW.reshape(len(differences_THW), -1)


def likeness_at(first_TP: Floats, second_TP: Floats, lag: int) -> tuple[float, int]:
    """Return the correlation of two videos' differences, the second's `lag` steps later, and the number of common frames.

    It is 0 if they have too few frames in common, or if nothing changes in one of them.
    """
    start = max(0, lag)
    length = min(len(first_TP) - start, len(second_TP) - (start - lag))
    steps = length + APART
    if length < 1 or steps < min(LEAST_STEPS, len(first_TP) + APART, len(second_TP) + APART):
        return 0.0, steps
    first_N = first_TP[start : start + length].reshape(-1)
    second_N = second_TP[start - lag : start - lag + length].reshape(-1)
    powers = float(first_N @ first_N), float(second_N @ second_N)
    if min(powers) < SILENT**2 * len(first_N):
        return 0.0, steps
    return float(first_N @ second_N) / (powers[0] * powers[1]) ** 0.5, steps


def _copy(first: int, second: int, mirrored: bool, found: tuple[float, int, int]) -> Copy:
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
