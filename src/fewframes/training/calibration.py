"""Fit a temperature to the logits of left-out videos, and to multi-label models a threshold for each label. Arrays alone.

A network that has learned its training videos by heart is surer of new ones than it is right. Dividing its logits by one number
(Guo et al., On calibration of modern neural networks, ICML 2017) changes no answer, and its scores then say how often it is right.
The number is fitted on videos whose groups the network did not learn from.

Letters in shapes: N videos, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.metrics import Floats, Indices, calibration_error, label_calibration_error, log_loss
from fewframes.core.settings import Task
from fewframes.core.text import count_of

LEAST_VIDEOS = 8
"""The fewest left-out videos that a temperature is fitted on."""
MOST_LEFT_OUT = 1000
"""The number of left-out videos from which no further fold is trained. One number is known well enough then."""
EXPECTED_TRAINED, EXPECTED_SOLVED = 2.0, 1.0
"""The temperatures that are expected before a video is seen. Trained networks needed 2 to 7 on all real sets that were measured;
solved heads have chosen a scale by the same loss already (docs/decisions)."""
SPREAD = float(np.log(2))
"""The standard deviation of the logarithm of temperatures around the expected one. A few videos that are all right would otherwise
have a temperature near 0, and a few that are wrong one without limit."""
AMPLE_VIDEOS, AMPLE_GROUPS = 100, 10
"""The numbers of left-out videos and of their groups from which a temperature may be below 1, that is, make scores surer."""
LOWEST, HIGHEST = 0.5, 20.0
"""The limits of temperatures."""
LEAST_POSITIVES = 5
"""The fewest left-out videos with and without a label that its threshold is chosen on. Other labels keep 0.5."""


@dataclass(frozen=True)
class BeforeAfter:
    """A figure on left-out videos with the logits as they were, and as they are divided now."""

    before: float
    after: float

    def to_dict(self) -> dict[str, float]:
        """Return plain values."""
        return {"before": round(self.before, 4), "after": round(self.after, 4)}


@dataclass(frozen=True, kw_only=True)
class CalibrationFit:
    """The number that a model's logits were divided by, how it was fitted, and what that changed.

    The figures are cross-validated: the logits of a fold are divided by what was fitted on the other folds.
    """

    temperature: float = 1.0
    """The divisor of the logits. It is part of the model's weights."""
    thresholds: tuple[float, ...] = ()
    """The score from which each label counts as present; empty for models of one action a video."""
    fitted_on: str = ""
    """The videos that it was fitted on, in words."""
    num_videos: int = 0
    """The number of these videos."""
    num_groups: int = 0
    """The number of their groups."""
    log_loss: BeforeAfter | None = None
    """The cross entropy, mean over videos."""
    error: BeforeAfter | None = None
    """The expected calibration error (0-1)."""
    f1: BeforeAfter | None = None
    """The mean F1 over labels with a threshold of 0.5, and with the label's own; None for models of one action a video."""
    missing: str = ""
    """The reason why nothing could be fitted; empty if it could."""

    def to_dict(self, labels: Sequence[str] = ()) -> dict[str, object]:
        """Return plain values for the record of a model. `labels` name the thresholds."""
        if self.missing:
            return {"temperature": self.temperature, "not_calibrated": self.missing}
        figures = {"log_loss": self.log_loss, "calibration_error": self.error, "f1": self.f1}
        return {
            "temperature": round(self.temperature, 4),
            "fitted_on": self.fitted_on,
            "videos": self.num_videos,
            "groups": self.num_groups,
            **({"thresholds": dict(zip(labels, self.thresholds, strict=True))} if self.thresholds else {}),
            **{name: figure.to_dict() for name, figure in figures.items() if figure is not None},
        }

    def __str__(self) -> str:
        if self.missing:
            return f"scores are not calibrated: {self.missing}"
        assert self.error is not None
        words = (
            f"scores are calibrated on {self.fitted_on} ({count_of(self.num_videos, 'video')} of "
            f"{count_of(self.num_groups, 'group')}): logits divided by {self.temperature:.2f}, calibration error "
            f"{100 * self.error.before:.1f} -> {100 * self.error.after:.1f} points"
        )
        if self.f1 is not None:
            words += f"; a threshold for each label, mean F1 {self.f1.before:.1%} -> {self.f1.after:.1%}"
        return words


@dataclass(frozen=True, eq=False)
class LeftOutLogits:
    """The logits of N videos from models that did not learn from their groups."""

    logits: NDArray[np.float32]
    """The logits (N, K)."""
    targets: Floats
    """The targets (N, K) in 0-1."""
    groups: tuple[str, ...]
    """The group of each video."""
    folds: Indices
    """The fold (N,) of each video: the model that its logits are of."""


def fit_calibration(
    left_out: LeftOutLogits, task: Task, fitted_on: str, expected: float = EXPECTED_TRAINED
) -> CalibrationFit:
    """Fit the temperature, and the thresholds of a multi-label model, to left-out videos.

    Args:
        left_out: the logits of the videos.
        task: one action a video, or any number of them.
        fitted_on: the videos in words, for the record.
        expected: the temperature that is expected before a video is seen.
    """
    num_videos, num_groups = len(left_out.targets), len(set(left_out.groups))
    if num_videos < LEAST_VIDEOS or num_groups < 2:
        found = f"{count_of(num_videos, 'video')} of {count_of(num_groups, 'group')} could be left out"
        return CalibrationFit(missing=f"{found}, and it takes {LEAST_VIDEOS} videos of 2 groups")
    scaled_NK, thresholds_NK = cross_validated(left_out, task, expected)
    temperature = temperature_of(left_out, task, expected)
    halves = np.full_like(thresholds_NK, 0.5)
    f1: BeforeAfter | None = None
    thresholds: tuple[float, ...] = ()
    if task == "multilabel":
        f1 = BeforeAfter(
            mean_f1(scaled_NK, left_out.targets, halves), mean_f1(scaled_NK, left_out.targets, thresholds_NK)
        )
        if f1.after < f1.before:  # too few videos to choose on
            f1, thresholds = BeforeAfter(f1.before, f1.before), (0.5,) * left_out.targets.shape[1]
        else:
            thresholds = thresholds_of(left_out.logits / temperature, left_out.targets)
    return CalibrationFit(
        temperature=temperature,
        thresholds=thresholds,
        fitted_on=fitted_on,
        num_videos=num_videos,
        num_groups=num_groups,
        log_loss=BeforeAfter(
            log_loss(task, left_out.logits, left_out.targets), log_loss(task, scaled_NK, left_out.targets)
        ),
        error=BeforeAfter(_error(task, left_out.logits, left_out.targets), _error(task, scaled_NK, left_out.targets)),
        f1=f1,
    )


def cross_validated(left_out: LeftOutLogits, task: Task, expected: float = EXPECTED_TRAINED) -> tuple[Floats, Floats]:
    """Return the logits (N, K) of each fold divided by the temperature of the other folds, and their thresholds (N, K) from there.

    With one fold, each half of the groups takes what suits the other half. The thresholds are 0.5 for models of one action a video.

    Args:
        left_out: the logits of the videos.
        task: one action a video, or any number of them.
        expected: the temperature that is expected before a video is seen.
    """
    scaled_NK, thresholds_NK = left_out.logits.astype(np.float64), np.full(left_out.targets.shape, 0.5)
    for part in _parts(left_out):
        rest = _rows(left_out, ~part)
        temperature = temperature_of(rest, task, expected)
        scaled_NK[part] /= temperature
        if task == "multilabel":
            thresholds_NK[part] = thresholds_of(rest.logits / temperature, rest.targets)
    return scaled_NK, thresholds_NK


def temperature_of(left_out: LeftOutLogits, task: Task, expected: float) -> float:
    """Return the likeliest temperature, given the videos and the expected one (a log-normal prior of `SPREAD`).

    Below `AMPLE_VIDEOS` or `AMPLE_GROUPS` it is at least 1: scores are never made surer on the word of a few videos.
    """
    num_videos = len(left_out.targets)
    ample = num_videos >= AMPLE_VIDEOS and len(set(left_out.groups)) >= AMPLE_GROUPS
    temperatures = np.geomspace(LOWEST if ample else 1.0, HIGHEST, 200).tolist()

    def cost(temperature: float) -> float:
        surprise = (np.log(temperature / expected) / SPREAD) ** 2 / 2
        return num_videos * log_loss(task, left_out.logits / temperature, left_out.targets) + float(surprise)

    # There is one least cost. It is near the best of every eighth temperature.
    near = min(range(0, len(temperatures), 8), key=lambda number: cost(temperatures[number]))
    return float(min(temperatures[max(0, near - 8) : near + 9], key=cost))


def thresholds_of(logits_NK: Floats, targets_NK: Floats) -> tuple[float, ...]:
    """Return for each label the score from which it counts as present, with the highest F1 on these videos.

    Labels with fewer than `LEAST_POSITIVES` videos with it, or without it, keep 0.5.

    Args:
        logits_NK: the logits (N, K), divided by the temperature.
        targets_NK: the targets (N, K) in 0-1.
    """
    scores_NK = 0.5 * (1 + np.tanh(0.5 * logits_NK.astype(np.float64)))
    found = zip(scores_NK.T, targets_NK.T > 0.5, strict=True)
    return tuple(_threshold(scores_N, wanted_N) for scores_N, wanted_N in found)


def _threshold(scores_N: Floats, wanted_N: NDArray[np.bool_]) -> float:
    num_wanted = int(wanted_N.sum())
    if min(num_wanted, len(wanted_N) - num_wanted) < LEAST_POSITIVES:
        return 0.5
    order_N = np.argsort(-scores_N, kind="stable")
    sorted_N, right_N = scores_N[order_N], wanted_N[order_N].cumsum()
    f1_N = 2 * right_N / (np.arange(1, len(order_N) + 1) + num_wanted)
    ends = np.flatnonzero(np.append(np.diff(sorted_N) < 0, True))  # a threshold lies between two different scores
    best = int(ends[f1_N[ends].argmax()])
    below = float(sorted_N[best + 1]) if best + 1 < len(sorted_N) else 0.0
    return round(min(0.99, max(0.01, (float(sorted_N[best]) + below) / 2)), 4)


def mean_f1(logits_NK: Floats, targets_NK: Floats, thresholds_NK: Floats) -> float:
    """Return the F1 of the labels that score above their thresholds, mean over the labels that some video has."""
    wanted_NK = targets_NK > 0.5
    answers_NK = logits_NK > np.log(thresholds_NK / (1 - thresholds_NK))
    totals_K = wanted_NK.sum(axis=0)
    f1_K = 2 * (wanted_NK & answers_NK).sum(axis=0) / np.maximum(1, totals_K + answers_NK.sum(axis=0))
    return float(f1_K[totals_K > 0].mean()) if totals_K.any() else 0.0


def calibration_folds(targets_BK: Floats, groups: Sequence[str], num_folds: int) -> list[Indices]:
    """Return the indices of the videos of each fold, in whole groups, with about as many videos of each label in every fold.

    Groups are dealt out one by one, the most uneven first, each to the fold where the labels are the most even afterwards. The
    result depends on the order of the videos' groups by name alone.

    Args:
        targets_BK: the targets in 0-1.
        groups: the group of each video.
        num_folds: the number of folds; there are never more than groups.
    """
    names, group_B = np.unique(np.array(groups), return_inverse=True)
    counts_GK = np.zeros((len(names), targets_BK.shape[1] + 1))
    np.add.at(
        counts_GK, group_B, np.column_stack([targets_BK, np.ones(len(targets_BK))])
    )  # the last column: all videos
    shares_GK = counts_GK / np.maximum(1, counts_GK.sum(axis=0))
    fold_FK = np.zeros((min(num_folds, len(names)), counts_GK.shape[1]))
    fold_G = np.zeros(len(names), np.int64)
    for group in np.argsort(-np.square(shares_GK).sum(axis=1), kind="stable").tolist():
        # Filling the emptiest fold first evens out what a group adds.
        grown_FK = np.square(fold_FK + shares_GK[group]).sum(axis=1) - np.square(fold_FK).sum(axis=1)
        fold_G[group] = int(grown_FK.argmin())
        fold_FK[fold_G[group]] += shares_GK[group]
    return [np.flatnonzero(fold_G[group_B] == fold) for fold in range(len(fold_FK)) if (fold_G == fold).any()]


def known_calibration(provenance: Mapping[str, Any]) -> bool:
    """Return True if the record of a model says that its scores are calibrated."""
    found = provenance.get("calibration")
    return isinstance(found, dict) and "not_calibrated" not in found


def _parts(left_out: LeftOutLogits) -> list[NDArray[np.bool_]]:
    """Return the rows (N,) of each fold, or of each half of the groups if there is but one fold."""
    fold_N = left_out.folds
    if len(set(fold_N.tolist())) < 2:
        _, group_N = np.unique(np.array(left_out.groups), return_inverse=True)
        fold_N = group_N % 2
    return [fold_N == fold for fold in np.unique(fold_N)]


def _rows(left_out: LeftOutLogits, rows_N: NDArray[np.bool_]) -> LeftOutLogits:
    groups = tuple(group for group, kept in zip(left_out.groups, rows_N.tolist(), strict=True) if kept)
    return LeftOutLogits(left_out.logits[rows_N], left_out.targets[rows_N], groups, left_out.folds[rows_N])


def _error(task: Task, logits_NK: Floats, targets_NK: Floats) -> float:
    if task == "multilabel":
        return label_calibration_error(logits_NK, targets_NK)
    return calibration_error(logits_NK, targets_NK.argmax(axis=1))
