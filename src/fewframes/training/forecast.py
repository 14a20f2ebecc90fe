"""Forecast what more clips would bring: how often a solved read-out is right with a quarter, half and all of them. Arrays alone.

Every video is predicted by a read-out of clips of other groups. A straight line through the logarithms of error and number of clips
is followed to twice the clips: errors fall as a power of the number of clips. Clips are left away at random, with each label's
share kept, so the forecast is for more clips of the same kind: as many groups of them as there are.

Letters in shapes: B videos, V views of each, M = B*V, T frames, D width, K classes, R draws, N some of the videos.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.core.metrics import ENOUGH_GROUPS, Floats, Indices
from fewframes.core.text import count_of
from fewframes.models.moments import SOLVED_MOMENTS, MomentSet
from fewframes.models.read_out.problem import RIDGE
from fewframes.models.read_out.solve import products_of_views
from fewframes.training.calibration import calibration_folds

SHARES = (0.25, 0.5, 1.0)
"""The parts of the clips that are learned from."""
MOST_VIDEOS = 600
"""From more videos, as many are drawn."""
NUM_VIEWS = 2
"""The views of a video that are learned from: the first ones, which are the video as it is and mirrored."""
NUM_FOLDS = 10
"""The parts of the groups that are left out in turn."""
LEAST_PER_LABEL = 4
"""The least clips of a label, in the mean, so that a quarter of them is one."""
NORMAL_90 = 1.645
"""The quantile of the normal distribution at the upper end of a range that holds 90 %."""


@dataclass(frozen=True)
class Forecast:
    """The change of the accuracy that twice the clips would bring, in fractions (0-1), with the range that holds 9 of 10."""

    more: float = 0.0
    """The accuracy with twice the clips, less that of today. It is 0 if there is nothing to be said."""
    low: float = 0.0
    """The lower end of the range."""
    high: float = 0.0
    """The upper end of the range."""
    num_videos: int = 0
    """The number of clips that it rests on."""
    num_groups: int = 0
    """The number of their groups."""
    right: tuple[float, ...] = ()
    """The fraction of left-out clips that are right when a quarter, half and all of the others are learned from."""
    missing: str = ""
    """The reason why there is no forecast; empty if there is one."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, in points."""
        if self.missing:
            return {"none": self.missing}
        return {
            "points_more_with_twice_the_clips": round(100 * self.more, 1),
            "low": round(100 * self.low, 1),
            "high": round(100 * self.high, 1),
            "clips": self.num_videos,
            "groups": self.num_groups,
            "right_percent_with": {
                f"{share:g} of the clips": round(100 * right, 1)
                for share, right in zip(SHARES, self.right, strict=True)
            },
        }

    def __str__(self) -> str:
        if self.missing:
            return f"no forecast of what more clips would bring: {self.missing}"
        percents = [f"{right:.0%}" for right in self.right]
        return (
            f"forecast: about {_points(self.more)} more with twice the clips "
            f"({round(100 * self.low)} to {round(100 * self.high)}); a solved head is right on {percents[0]} of left-out groups' "
            f"clips with a quarter of the {self.num_videos} clips of {self.num_groups} groups, {percents[1]} with half, "
            f"{percents[2]} with all"
        )


def forecast_twice(
    embeddings_BVTD: NDArray[np.floating],
    targets_BK: Floats,
    groups: Sequence[str],
    *,
    multilabel: bool = False,
    moments: MomentSet = SOLVED_MOMENTS,
    seed: int = 0,
) -> Forecast:
    """Return the forecast for twice the clips. There is none for data of several labels a video, and for few groups or clips.

    Args:
        embeddings_BVTD: the frame embeddings of V views of each video; the first is the video as it is.
        targets_BK: the targets in 0-1.
        groups: the group of each video.
        multilabel: a video may show several actions.
        moments: the set of moments of the read-out.
        seed: draws the clips that are learned from.
    """
    if reason := _missing(np.asarray(targets_BK), groups, multilabel=multilabel):
        return Forecast(missing=reason)
    generator = np.random.default_rng(seed)
    names, group_B = np.unique(np.asarray(groups), return_inverse=True)
    label_B = np.asarray(targets_BK).argmax(axis=1)
    rows_N = _some(label_B, MOST_VIDEOS / len(label_B), generator)
    curve = Curve(embeddings_BVTD[rows_N, :NUM_VIEWS], label_B[rows_N], group_B[rows_N], moments)
    num_draws = max(5, min(20, 4000 // len(rows_N)))
    right = [curve.right_with(share, num_draws, generator) for share in SHARES]
    return _extrapolated(right, curve.group_B, len(names), len(label_B))


class Curve:
    """The accuracy of read-outs that are solved from some of B videos, on videos of other groups.

    Args:
        embeddings_BVTD: the frame embeddings of the videos.
        label_B: the index of each video's label.
        group_B: the group of each video.
        moments: the set of moments of the read-out.
    """

    def __init__(
        self, embeddings_BVTD: NDArray[np.floating], label_B: Indices, group_B: Indices, moments: MomentSet
    ) -> None:
        self.products_MM = products_of_views(embeddings_BVTD, moments).astype(np.float64, copy=False)
        self.num_views = embeddings_BVTD.shape[1]
        self.group_B = group_B
        self.label_B = np.unique(label_B, return_inverse=True)[1]
        self.targets_BK = np.eye(int(self.label_B.max()) + 1)[self.label_B]
        self.folds = calibration_folds(self.targets_BK, [str(group) for group in group_B.tolist()], NUM_FOLDS)

    def right_with(self, share: float, num_draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return which videos (R, B) are right, as 0 or 1, in draws of a part of the clips. All clips are drawn once.

        Args:
            share: the part of the clips of each label that is learned from.
            num_draws: the number of draws.
            generator: draws them.
        """
        draws = [_some(self.label_B, share, generator) for _ in range(1 if share >= 1 else num_draws)]
        return np.stack([self.right(rows_N, self.folds) for rows_N in draws])

    def right(self, learned_N: Indices, folds: Sequence[Indices]) -> NDArray[np.float64]:
        """Return which videos (B,) are right, as 0 or 1. Each fold is predicted from those learned videos that are not in it.

        Args:
            learned_N: the videos that are learned from.
            folds: the videos of each fold. Videos in no fold count as wrong.
        """
        right_B = np.zeros(len(self.label_B))
        for fold in folds:
            rest_N = np.setdiff1d(learned_N, fold)
            if len(rest_N):
                right_B[fold] = self.scores(rest_N, fold).argmax(axis=1) == self.label_B[fold]
        return right_B

    def scores(self, learned_N: Indices, asked: Indices) -> Floats:
        """Return the scores of the first view of some videos, from a read-out that is solved from all views of others."""
        views_M = (learned_N[:, None] * self.num_views + np.arange(self.num_views)).ravel()
        kernel_MM = self.products_MM[np.ix_(views_M, views_M)]
        mean_M = kernel_MM.mean(axis=0)
        kernel_MM = kernel_MM - mean_M - mean_M[:, None] + mean_M.mean()
        kernel_MM[np.diag_indices(len(views_M))] += RIDGE * max(1e-6, float(kernel_MM.diagonal().mean()))
        wanted_MK = self.targets_BK[learned_N].repeat(self.num_views, axis=0)
        prior_K = wanted_MK.mean(axis=0)
        asked_NM = self.products_MM[np.ix_(asked * self.num_views, views_M)]
        asked_NM = asked_NM - asked_NM.mean(axis=1, keepdims=True) - mean_M + mean_M.mean()
        scores_NK: Floats = asked_NM @ np.linalg.solve(kernel_MM, wanted_MK - prior_K) + prior_K
        return scores_NK


def _missing(targets_BK: Floats, groups: Sequence[str], *, multilabel: bool) -> str:
    """Return the reason why nothing can be forecast; empty if something can."""
    if multilabel:
        return "it is made for one action a video, and these have several"
    if (num_groups := len(set(groups))) < ENOUGH_GROUPS:
        return f"it needs {ENOUGH_GROUPS} groups of videos, and there are {num_groups}"
    num_labels = int((targets_BK.sum(axis=0) > 0).sum())
    if num_labels < 2:
        return "there is one action alone"
    if len(groups) < LEAST_PER_LABEL * num_labels:
        return f"it needs {LEAST_PER_LABEL} clips an action, and there are {count_of(len(groups), 'clip')} of {num_labels} actions"
    return ""


def _some(label_B: Indices, share: float, generator: np.random.Generator) -> Indices:
    """Return a part of the videos at random, in their order, with at least one of each label."""
    if share >= 1:
        return np.arange(len(label_B))
    kept = []
    for label in np.unique(label_B):
        rows = generator.permutation(np.flatnonzero(label_B == label))
        kept.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(kept))


def _extrapolated(right: Sequence[NDArray[np.float64]], group_B: Indices, num_groups: int, num_videos: int) -> Forecast:
    """Return the forecast from which videos are right with each part of the clips.

    The range has two parts. One is how much the forecast changes when a group is left away. The other is luck with which clips
    come: how much the accuracy differs between draws of half, of which more clips show less.
    """
    growth = num_videos / len(group_B)
    more = gain_of_twice([right_RB.mean() for right_RB in right], len(group_B), growth)
    without = np.array(list(_without_each(right, group_B, growth)))
    variance = (len(without) - 1) * float(without.var()) + float(right[1].mean(axis=1).var()) / 2 / growth
    half, error = NORMAL_90 * math.sqrt(variance), 1 - float(right[-1].mean())
    return Forecast(
        more=more,
        low=more - half,
        high=min(error, more + half),
        num_videos=num_videos,
        num_groups=num_groups,
        right=tuple(float(right_RB.mean()) for right_RB in right),
    )


def _without_each(right: Sequence[NDArray[np.float64]], group_B: Indices, growth: float) -> Iterator[float]:
    for group in np.unique(group_B):
        kept_B = group_B != group
        yield gain_of_twice([right_RB[:, kept_B].mean() for right_RB in right], int(kept_B.sum()), growth)


def gain_of_twice(right: Sequence[float], num_videos: int, growth: float) -> float:
    """Return the accuracy that twice the clips add, if the error is a power of their number.

    Args:
        right: the accuracy with each of `SHARES` of the clips.
        num_videos: the number of videos that it was measured on, which limits how small an error can be told from none.
        growth: the number of clips that there are, as a multiple of those that were drawn.
    """
    errors = np.maximum(1 - np.array(right), 0.5 / num_videos)
    slope = min(0.0, float(np.polyfit(np.log2(SHARES), np.log2(errors), 1)[0]))
    error_today = (1 - right[-1]) * growth**slope
    return float(error_today * (1 - 2**slope))


def _points(fraction: float) -> str:
    return count_of(round(100 * fraction), "point")
