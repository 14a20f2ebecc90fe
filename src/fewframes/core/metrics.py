"""Measures: the accuracy of predictions, and the uncertainty of figures and of scores.

Letters in shapes: N videos, K classes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.settings import Task
from fewframes.core.text import count_of

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]

HIGH = 0.975
"""The quantile at the upper end of an interval of 95 %."""
NORMAL = 1.959964
"""The quantile `HIGH` of the normal distribution."""
MOST_PARTS = 200
"""The most parts of the videos that are left out in turn. If there are more groups, several groups make one part."""
ALIKE, ALIKE_WEIGHT = 0.4, 2.0
"""The correlation of answers inside a group that is assumed before any is seen, and the wrong videos that this counts as."""
ENOUGH_GROUPS = 5
"""An interval over fewer groups has a warning."""


@dataclass(frozen=True)
class Report:
    """The accuracy over held-out videos, as fractions (0-1)."""

    labels: tuple[str, ...]
    """The names of the K classes."""
    num_videos: int
    """The number of videos."""
    top1: float
    """The fraction of videos whose label has the highest score."""
    top5: float
    """The fraction of videos whose label is among the five highest scores."""
    mean_class: float
    """The mean of `recalls` over the labels that have a video."""
    recalls: tuple[float | None, ...]
    """The fraction of right predictions among the videos of each label; None for a label without a video."""
    confusion: Indices
    """The number of videos (K, K) by true label (row) and predicted label (column)."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, fractions rounded to four digits."""
        return {
            "num_videos": self.num_videos,
            "top1": round(self.top1, 4),
            "top5": round(self.top5, 4),
            "mean_class": round(self.mean_class, 4),
            "per_class": {
                label: None if recall is None else round(recall, 4)
                for label, recall in zip(self.labels, self.recalls, strict=True)
            },
            "confusion": self.confusion.tolist(),
        }

    def lines(self) -> list[str]:
        """Return lines for people: the accuracy over all videos, then the right answers for each action that has videos."""
        width = max(len(label) for label in self.labels)
        right, totals = self.confusion.diagonal().tolist(), self.confusion.sum(axis=1).tolist()
        return [
            f"{sum(right)} of {self.num_videos} right, top-1 {self.top1:.1%}, mean over actions {self.mean_class:.1%}",
            *(
                f"  {label:<{width}} {correct:>4} of {total:<4} {correct / total:6.1%}"
                for label, correct, total in zip(self.labels, right, totals, strict=True)
                if total
            ),
        ]

    def __repr__(self) -> str:
        return f"Report({count_of(self.num_videos, 'video')}: top-1 {self.top1:.1%}, mean of classes {self.mean_class:.1%})"


@dataclass(frozen=True)
class MultiLabelReport:
    """The accuracy over held-out videos that may each show any number of actions, as fractions (0-1)."""

    labels: tuple[str, ...]
    """The names of the K classes."""
    num_videos: int
    """The number of videos."""
    mean_ap: float
    """The mean of `average_precisions` over the labels that have a video."""
    f1: float
    """The micro-averaged F1 score of the answers: the labels with a score above their threshold, or above 0.5."""
    average_precisions: tuple[float | None, ...]
    """The average precision of each label; None for a label without a video."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, fractions rounded to four digits."""
        return {
            "num_videos": self.num_videos,
            "mean_ap": round(self.mean_ap, 4),
            "f1": round(self.f1, 4),
            "per_class": {
                label: None if value is None else round(value, 4)
                for label, value in zip(self.labels, self.average_precisions, strict=True)
            },
        }

    def lines(self) -> list[str]:
        """Return lines for people: mAP and F1 over all videos, then the average precision of each action."""
        width = max(len(label) for label in self.labels)
        return [
            f"{count_of(self.num_videos, 'video')}: mAP {self.mean_ap:.1%}, F1 {self.f1:.1%}",
            *(
                f"  {label:<{width}} {'none' if value is None else f'{value:6.1%}'}"
                for label, value in zip(self.labels, self.average_precisions, strict=True)
            ),
        ]

    def __repr__(self) -> str:
        return f"MultiLabelReport({count_of(self.num_videos, 'video')}: mAP {self.mean_ap:.1%}, F1 {self.f1:.1%})"


def report_of(
    task: Task, logits_NK: Floats, targets_NK: Floats, labels: tuple[str, ...], thresholds: Sequence[float] = ()
) -> Report | MultiLabelReport:
    """Return the report that fits the task.

    Args:
        task: `single` for one action a video, `multilabel` for any number of them.
        logits_NK: the logits (N, K).
        targets_NK: the targets (N, K) in 0-1.
        labels: the names of the K classes.
        thresholds: the score from which each label counts as present, in multi-label models; 0.5 if there are none.
    """
    if task == "multilabel":
        return score_multilabel(logits_NK, targets_NK, labels, thresholds)
    return score(logits_NK, targets_NK.argmax(axis=1), labels)


def score_multilabel(
    logits_NK: Floats, targets_NK: Floats, labels: tuple[str, ...], thresholds: Sequence[float] = ()
) -> MultiLabelReport:
    """Return the report of logits (N, K) and targets (N, K) if a video has any number of labels.

    Args:
        logits_NK: the logits.
        targets_NK: the targets in 0-1.
        labels: the names of the K classes.
        thresholds: the score from which each label counts as present; 0.5 if there are none.

    Raises:
        ValueError: there is no video.
    """
    if len(targets_NK) == 0:
        raise ValueError("no videos to score")
    least_K = np.asarray(thresholds or (0.5,) * len(labels))
    wanted_NK, answers_NK = targets_NK > 0.5, logits_NK > np.log(least_K / (1 - least_K))
    precisions = [
        average_precision(wanted_N, logits_N) if wanted_N.any() else None
        for wanted_N, logits_N in zip(wanted_NK.T, logits_NK.T, strict=True)
    ]
    present = [precision for precision in precisions if precision is not None]
    return MultiLabelReport(
        labels=labels,
        num_videos=len(targets_NK),
        mean_ap=sum(present) / len(present) if present else 0.0,
        f1=float(2 * (wanted_NK & answers_NK).sum() / max(1, wanted_NK.sum() + answers_NK.sum())),
        average_precisions=tuple(precisions),
    )


def score(logits_NK: Floats, targets_N: Indices, labels: tuple[str, ...]) -> Report:
    """Return the report of logits (N, K) and the indices of the right labels (N,), one label a video.

    If two logits are equal, the label that comes first counts as predicted. Raises ValueError if there is no video.
    """
    if len(targets_N) == 0:
        raise ValueError("no videos to score")
    num_classes = len(labels)
    ranked_NK = np.argsort(-logits_NK, axis=1, kind="stable")
    right_NK = ranked_NK == targets_N[:, None]
    pairs_N = targets_N * num_classes + ranked_NK[:, 0]
    confusion_KK = np.bincount(pairs_N, minlength=num_classes**2).reshape(num_classes, num_classes)
    totals_K = confusion_KK.sum(axis=1)
    recalls_K = confusion_KK.diagonal() / np.maximum(1, totals_K)
    recalls = tuple(float(recall) if total else None for recall, total in zip(recalls_K, totals_K, strict=True))
    return Report(
        labels=labels,
        num_videos=len(targets_N),
        top1=float(right_NK[:, :1].sum() / len(targets_N)),
        top5=float(right_NK[:, :5].sum() / len(targets_N)),
        mean_class=float(recalls_K[totals_K > 0].mean()),
        recalls=recalls,
        confusion=confusion_KK,
    )


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval of 95 %: the range holds the true value in 95 of 100 data sets."""

    value: float
    """The figure itself."""
    low: float
    """The lower end of the range."""
    high: float
    """The upper end of the range."""
    num_groups: int
    """The number of independent groups of videos that the figure rests on."""

    @property
    def warning(self) -> str:
        """Return a warning in words if the interval rests on fewer than five groups; empty if it does not."""
        if self.num_groups >= ENOUGH_GROUPS:
            return ""
        return (
            f"the interval rests on {count_of(self.num_groups, 'group')} of videos, and fewer than {ENOUGH_GROUPS} say little of "
            "others; take in videos of more recordings or people"
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain values; a warning is among them if there is one."""
        return {**asdict(self), **({"warning": self.warning} if self.warning else {})}

    def __str__(self) -> str:
        groups = count_of(self.num_groups, "group")
        return f"{self.value:.1%} (95 % interval {self.low:.1%} to {self.high:.1%} over {groups})"


def interval_of(figure: Callable[[Indices], float], groups: Sequence[str], generator: np.random.Generator) -> Interval:
    """Return `figure` of all videos, a fraction in 0-1, with its interval. Videos of one group are not counted as independent.

    Each group is left out in turn, and the variance of the figure tells how many independent videos the groups are worth. The
    interval is then that of Clopper and Pearson for this number of videos (Korn and Graubard, Survey Methodology 24, 1998). With
    few groups its ends lie at quantiles farther out, as those of the t distribution do. It has a width even if every answer is
    right. A single group says nothing of others; its interval is 0 to 1.

    Args:
        figure: computes the figure from the indices (N,) of some of the videos.
        groups: the group of each video.
        generator: draws which groups make one part, if there are more than `MOST_PARTS` groups.
    """
    num_videos, sizes = len(groups), np.unique(np.asarray(groups, object), return_counts=True)[1]
    value, variance, num_parts = _left_out(figure, groups, generator)
    if num_parts == 1:
        return Interval(value, 0.0, 1.0, 1)
    worth = num_videos / _design_effect(value, variance, sizes)
    # The variance itself is uncertain if it rests on few parts.
    deviations = NORMAL * t_quantile(HIGH, num_parts - 1) / t_quantile(HIGH, num_videos - 1)
    outside = math.erfc(deviations / math.sqrt(2)) / 2
    right, wrong = value * worth, (1 - value) * worth
    low = beta_quantile(outside, right, wrong + 1) if value > 0 else 0.0
    high = beta_quantile(1 - outside, right + 1, wrong) if value < 1 else 1.0
    return Interval(value, low, high, len(sizes))


def difference_of(
    figure: Callable[[Indices], float], groups: Sequence[str], generator: np.random.Generator
) -> Interval:
    """Return `figure` of all videos, a difference between two systems on any scale, with its interval over groups.

    Each group is left out in turn. The interval is that of the t distribution for the variance that this gives. A single group
    says nothing of others; its interval has no ends.

    Args:
        figure: computes the figure from the indices (N,) of some of the videos.
        groups: the group of each video.
        generator: draws which groups make one part, if there are more than `MOST_PARTS` groups.
    """
    value, variance, num_parts = _left_out(figure, groups, generator)
    half = t_quantile(HIGH, num_parts - 1) * math.sqrt(variance) if num_parts > 1 else math.inf
    return Interval(value, value - half, value + half, len(set(groups)))


def _left_out(
    figure: Callable[[Indices], float], groups: Sequence[str], generator: np.random.Generator
) -> tuple[float, float, int]:
    """Return the figure of all videos, its variance from leaving out each group in turn, and the number of parts left out."""
    names = sorted(set(groups))
    num_parts = min(len(names), MOST_PARTS)
    everything = np.arange(len(groups))
    value = figure(everything)
    if num_parts == 1:
        return value, 0.0, 1
    part_of = dict(zip(names, (generator.permutation(len(names)) % num_parts).tolist(), strict=True))
    part_N = np.array([part_of[group] for group in groups])
    without = np.array([figure(everything[part_N != part]) for part in range(num_parts)])
    return value, float((num_parts - 1) * without.var()), num_parts


def _design_effect(value: float, variance: float, sizes: Indices) -> float:
    """Return how many videos of these groups are worth one independent video: 1 if each is a group of its own.

    Where nearly every video is right (or wrong), leaving out groups hardly tells how alike the videos of a group are: a single
    wrong one tells nothing. So a correlation of `ALIKE` is assumed, with the weight of `ALIKE_WEIGHT` further wrong videos.

    Args:
        value: the figure of all videos.
        variance: its variance, from leaving out groups.
        sizes: the number of videos of each group.
    """
    num_videos = int(sizes.sum())
    assumed = 1 + (float(np.square(sizes).sum()) / num_videos - 1) * ALIKE
    seen = variance * num_videos / (value * (1 - value)) if 0 < value < 1 else 1.0
    rare = max(0.0, num_videos * min(value, 1 - value) - 1)
    return max(1.0, seen, (rare * seen + ALIKE_WEIGHT * assumed) / (rare + ALIKE_WEIGHT))


def calibration_error(logits_NK: Floats, targets_N: Indices, num_bins: int = 15) -> float:
    """Return the expected calibration error: how far confidence is from the fraction of right answers, over equal bins of it.

    Args:
        logits_NK: the logits (N, K).
        targets_N: the index of the right label of each video.
        num_bins: the number of bins between a confidence of 0 and of 1.
    """
    return mean_gap(np.exp(log_softmax(logits_NK).max(axis=1)), logits_NK.argmax(axis=1) == targets_N, num_bins)


def label_calibration_error(logits_NK: Floats, targets_NK: Floats, num_bins: int = 15) -> float:
    """Return the calibration error of a multi-label model, over all pairs of a video and a label.

    Args:
        logits_NK: the logits (N, K).
        targets_NK: the targets (N, K) in 0-1.
        num_bins: the number of bins between a score of 0 and of 1.
    """
    return mean_gap(0.5 * (1 + np.tanh(0.5 * logits_NK.astype(np.float64))).ravel(), targets_NK.ravel(), num_bins)


def mean_gap(confidence_M: Floats, right_M: NDArray[Any], num_bins: int) -> float:
    """Return how far confidence is from the fraction of right answers (0-1): mean over bins, weighted by their size.

    Args:
        confidence_M: the confidence of each answer, 0-1.
        right_M: 1 where the answer is right, else 0.
        num_bins: the number of bins between a confidence of 0 and of 1.
    """
    found = reliability(confidence_M, right_M, num_bins)
    return sum(part.num_videos * abs(part.confidence - part.right) for part in found) / len(right_M)


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of about the same confidence. If scores are right about themselves, `confidence` and `right` are equal."""

    confidence: float
    """Their mean confidence (0-1)."""
    right: float
    """The fraction of them that are right."""
    num_videos: int
    """Their number."""


def reliability(confidence_N: Floats, right_N: NDArray[Any], num_bins: int = 10) -> list[ReliabilityBin]:
    """Return how often answers of about the same confidence are right, for equal bins of it. Empty bins are left out.

    Args:
        confidence_N: the confidence of each answer, 0-1.
        right_N: 1 where the answer is right, else 0.
        num_bins: the number of bins between a confidence of 0 and of 1.
    """
    bins_N = (np.ceil(confidence_N * num_bins).astype(int) - 1).clip(0, num_bins - 1)
    return [
        ReliabilityBin(float(confidence_N[rows].mean()), float(right_N[rows].mean()), len(rows))
        for rows in (np.flatnonzero(bins_N == number) for number in range(num_bins))
        if len(rows)
    ]


def log_loss(task: Task, logits_NK: Floats, targets_NK: Floats) -> float:
    """Return the cross entropy, mean over videos: of one choice, or the sum of K binary choices for a multi-label model.

    Args:
        task: the kind of labels.
        logits_NK: the logits (N, K).
        targets_NK: the targets (N, K) in 0-1.
    """
    if task == "multilabel":
        logits_NK = logits_NK.astype(np.float64)
        return float((np.logaddexp(0, logits_NK) - targets_NK * logits_NK).sum(axis=1).mean())
    return float(-(targets_NK * log_softmax(logits_NK)).sum(axis=1).mean())


def fit_temperature(logits_NK: Floats, targets_N: Indices) -> float:
    """Return the temperature that makes the right labels (N,) likeliest when the logits (N, K) are divided by it.

    It is the best of 200 values from 1/20 to 20.
    """
    temperatures = np.logspace(-1, 1, 200, base=20.0).tolist()
    rows_N = np.arange(len(targets_N))
    return min(temperatures, key=lambda value: float(-log_softmax(logits_NK / value)[rows_N, targets_N].mean()))


def rejection_curve(logits_NK: Floats, targets_N: Indices) -> list[tuple[float, float]]:
    """Return the accuracy if only the most confident 10, 20, ... 100 % of the videos are answered.

    Each pair is (fraction of videos answered, fraction of these that are right).
    """
    order_N = np.argsort(-log_softmax(logits_NK).max(axis=1), kind="stable")
    right_N = (logits_NK.argmax(axis=1) == targets_N)[order_N]
    counts = [max(1, round(tenths * len(right_N) / 10)) for tenths in range(1, 11)]
    return [(count / len(right_N), float(right_N[:count].mean())) for count in counts]


def log_softmax(logits_NK: Floats) -> NDArray[np.float64]:
    """Return the logarithms of the softmax of logits (N, K)."""
    shifted_NK = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    found_NK: NDArray[np.float64] = shifted_NK - np.log(np.exp(shifted_NK).sum(axis=1, keepdims=True))
    return found_NK


def average_precision(wanted_N: NDArray[np.bool_], scores_N: Floats) -> float:
    """Return the average precision of scores: the mean of the precision over recall, with equal scores taken together.

    Args:
        wanted_N: True for the videos that show the action; at least one.
        scores_N: the scores, on any scale.
    """
    order_N = np.argsort(-scores_N, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores_N[order_N]) != 0, True))  # the last video of each score
    found = wanted_N[order_N].cumsum()[ends]
    return float((np.diff(found, prepend=0) / found[-1] * (found / (ends + 1))).sum())


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return the quantile of the beta distribution with parameters `a` and `b`.

    The density over the log odds of x has one peak and falls off exponentially on both sides, so a sum over a grid that is dense
    at the peak and sparse in the tails is exact to 1e-6.
    """
    peak, scale = np.log(a / b), 1 / np.sqrt(1 + min(a, b))
    reach = abs(peak) + 40 / min(a, b, 1.0)
    steps = np.linspace(-1, 1, 50_001) * np.arcsinh(reach / scale)
    odds = peak + scale * np.sinh(steps)
    log_density = -a * np.logaddexp(0, -odds) - b * np.logaddexp(0, odds)
    density = np.exp(log_density - log_density.max()) * np.cosh(steps)
    cumulated = density.cumsum() - density / 2  # half of a point's own step lies above it
    return float(0.5 * (1 + np.tanh(np.interp(probability, cumulated / cumulated[-1], odds) / 2)))


@functools.cache
def t_quantile(probability: float, freedom: float) -> float:
    """Return the quantile above the median of Student's t distribution with these degrees of freedom."""
    fraction = beta_quantile(2 * probability - 1, 0.5, freedom / 2)  # of t^2 / (freedom + t^2)
    return float(np.sqrt(freedom * fraction / (1 - fraction)))
