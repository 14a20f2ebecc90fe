"""Tell which footprints show the same footage, from what changes in them.

A fixed camera sees the same room in every video. What moves in it, and when, differs. So two footprints match if the differences
between their frames, a few steps apart, correlate. Candidates come from a few moments of each footprint: those of the greatest
change, which a copy has too, wherever it was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.data.copies.footprint import LEVELS, SIDE_PX, STEP_S, Footprint
from fewframes.data.copies.found import Copy

APART = 3
"""The steps between two frames whose difference counts. Over a single step compression changes more than people do."""
COARSE_PX = 8
"""The height and width of the two pictures that describe a moment: what is there, and what changes."""
REGULAR = 5
"""The steps between moments that are taken whatever changes, beside those of the greatest change."""
WEIGHT_OF_CHANGE = 0.5
"""The weight of what changes in the likeness of two moments; the rest is that of what is there."""
LEAST_OF_MOMENTS = 0.6
"""The likeness of two moments from which their videos are compared (docs/decisions/2026-11-29-copies.md)."""
LEAST_COARSE = 0.2
"""The correlation of coarse differences from which two videos are compared in full."""
LEAST_LIKENESS = 0.55
"""The correlation of the outlines of differences from which two videos show the same footage, if the shorter is in the other as a
whole."""
FOR_THE_REST = 0.4
"""What is added to that for a shorter video that has nothing in common. People often do the same for a second."""
LEAST_STEPS = 10
"""The fewest steps that two videos must have in common: a second. Videos that are shorter are compared whole."""
MOST_LAGS = 6
"""The most lags, by the likeness of their moments, at which two videos are compared."""
OUT_OF_STEP = 2
"""The steps around the best lag at which they are compared too: a frame rate or a cut moves the moment of the greatest change."""
BLOCK = 1024
"""The number of moments that are compared with as many at a time. It bounds the memory."""
SILENT = 0.02
"""The root mean square of the differences, in levels of brightness, up to which nothing changes at all."""

NOTHING: Footprint = np.empty((0, 0, SIDE_PX, SIDE_PX), np.uint16)
"""The footprint of a video that has none."""

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


@dataclass(frozen=True)
class Alignment:
    """Two videos, one laid over the other."""

    likeness: float = 0.0
    """The correlation of their differences."""
    lag: int = 0
    """The steps by which the second begins after the first."""
    steps: int = 0
    """The steps that they have in common."""
    fraction: float = 0.0
    """The fraction of the shorter video that they have in common."""

    @property
    def is_copy(self) -> bool:
        """Return True if they show the same footage."""
        return self.likeness >= LEAST_LIKENESS + FOR_THE_REST * (1 - self.fraction)


def find_copies(footprints: Sequence[Footprint | None], contents: Sequence[str]) -> list[Copy]:
    """Return the pairs of videos that show the same footage, in the order of the data.

    Args:
        footprints: The footprint of each video; None if there is none.
        contents: The key of each video's file. Videos of one file are not compared.
    """
    known = [NOTHING if footprint is None else footprint for footprint in footprints]
    coarse = [_differences(_coarse(normal(footprint))) for footprint in known]
    copies = []
    for (first, second, mirrored), lags in sorted(_candidates(moments_of(known), contents).items()):
        other, coarse_other = known[second], coarse[second]
        if mirrored:
            other, coarse_other = other[..., ::-1], coarse_other[..., ::-1]
        rough = _best(coarse[first], coarse_other, lags)
        if rough.likeness < LEAST_COARSE:
            continue
        near = range(rough.lag - OUT_OF_STEP, rough.lag + OUT_OF_STEP + 1)
        found = _best(_differences(_outlines(known[first])), _differences(_outlines(other)), near, between=True)
        if found.is_copy:
            copies.append(_copy(first, second, found, mirrored=mirrored))
    best: dict[tuple[int, int], Copy] = {}
    for copy in copies:  # a symmetrical picture may match both ways
        pair = copy.first, copy.second
        if pair not in best or best[pair].likeness < copy.likeness:
            best[pair] = copy
    return list(best.values())


def moments_of(footprints: Sequence[Footprint]) -> Moments:
    """Return the moments of the greatest change of each footprint, in all its views."""
    rows, steps, vectors, mirrored = [], [], [], []
    for row, footprint in enumerate(footprints):
        for coarse_THW in _coarse(normal(footprint)):
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
    frames_VTHW: Floats = np.divide(footprint, LEVELS, dtype=np.float32)
    centred_VTHW: Floats = frames_VTHW - frames_VTHW.mean((2, 3), keepdims=True)
    return centred_VTHW


def _outlines(footprint: Footprint) -> Floats:
    """Return the differences between neighbours across the corner of each pixel: (V, T, H - 1, W - 1), in levels of brightness.

    Two people who walk the same way cast the same large shapes. Their outlines differ.
    """
    frames_VTHW: Floats = np.divide(footprint, LEVELS, dtype=np.float32)
    outlines_VTHW: Floats = frames_VTHW[..., 1:, 1:] - frames_VTHW[..., :-1, :-1]
    return outlines_VTHW


def _coarse(frames_VTHW: Floats) -> Floats:
    """Return frames with the mean of every few pixels: (V, T, COARSE_PX, COARSE_PX)."""
    size = SIDE_PX // COARSE_PX
    coarse_VTHW: Floats = frames_VTHW.reshape(*frames_VTHW.shape[:2], COARSE_PX, size, COARSE_PX, size).mean((3, 5))
    return coarse_VTHW


def _differences(frames_VTHW: Floats) -> Floats:
    """Return the differences of frames that are APART steps apart: (V, T - APART, H, W)."""
    return frames_VTHW[:, APART:] - frames_VTHW[:, :-APART]


def _peaks(change_T: Floats) -> NDArray[np.intp]:
    """Return the steps at which there is no greater change within APART steps, and regular ones, if anything changes at them."""
    if not len(change_T):
        return np.empty(0, np.intp)
    around_TN = np.lib.stride_tricks.sliding_window_view(np.pad(change_T, APART), 2 * APART + 1)
    is_regular_T = np.arange(len(change_T)) % REGULAR == 0
    return np.flatnonzero(((change_T >= around_TN.max(1)) | is_regular_T) & (change_T > (SILENT * COARSE_PX) ** 2))


def _vectors(there_MHW: Floats, changes_MHW: Floats) -> Floats:
    """Return vectors of length one, whose products are the likenesses of moments."""
    parts = []
    for weight, pictures in ((1 - WEIGHT_OF_CHANGE, there_MHW), (WEIGHT_OF_CHANGE, changes_MHW)):
        flat_MP = pictures.reshape(len(pictures), COARSE_PX**2)
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


def _best(first_VTHW: Floats, second_VTHW: Floats, lags: Iterable[int], *, between: bool = False) -> Alignment:
    """Return the alignment of two videos' differences, in any of their views, at which they are most alike.

    Args:
        first_VTHW: The differences of the first video.
        second_VTHW: Those of the second.
        lags: The steps by which the second may begin after the first.
        between: Compare half a step later as well. A cut is seldom a whole number of steps after the start.
    """
    tried = sorted(set(lags))
    best = Alignment()
    for first_THW in first_VTHW:
        first_TP = first_THW.reshape(len(first_THW), -1)
        between_TP = (first_TP[1:] + first_TP[:-1]) / 2 if between else first_TP[:0]
        for second_THW in second_VTHW:
            second_TP = second_THW.reshape(len(second_THW), -1)
            found = [alignment(one_TP, second_TP, lag) for one_TP in (first_TP, between_TP) for lag in tried]
            best = max(best, *found, key=lambda one: one.likeness)
    return best


def alignment(first_TP: Floats, second_TP: Floats, lag: int) -> Alignment:
    """Return how alike the differences of two videos (T, P) are, if the second begins `lag` steps after the first.

    They are not alike at all if they have too few frames in common, or if nothing changes in one of them.
    """
    start = max(0, lag)
    length = min(len(first_TP) - start, len(second_TP) - (start - lag))
    shorter = min(len(first_TP), len(second_TP))
    if length < 1 or length < min(LEAST_STEPS - APART, shorter):
        return Alignment()
    first_N = first_TP[start : start + length].reshape(-1)
    second_N = second_TP[start - lag : start - lag + length].reshape(-1)
    powers = float(first_N @ first_N), float(second_N @ second_N)
    if min(powers) < SILENT**2 * len(first_N):
        return Alignment()
    return Alignment(float(first_N @ second_N) / (powers[0] * powers[1]) ** 0.5, lag, length + APART, length / shorter)


def _copy(first: int, second: int, found: Alignment, *, mirrored: bool) -> Copy:
    return Copy(
        first=first,
        second=second,
        first_s=round(max(0, found.lag) * STEP_S, 1),
        second_s=round(max(0, -found.lag) * STEP_S, 1),
        length_s=round(found.steps * STEP_S, 1),
        mirrored=mirrored,
        likeness=round(min(1.0, found.likeness), 3),
    )
