"""Measures: the cost of a network in multiply-adds, the accuracy of predictions, and the uncertainty of figures and of scores.

Letters in shapes: N videos, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.core.settings import Task
from fewframes.core.text import count_of

LOW, HIGH = 0.025, 0.975
"""The two quantiles that an interval of 95 % lies between."""
MOST_PARTS = 200
"""The most parts of the videos that are left out in turn. If there are more groups, several groups make one part."""


@dataclass(frozen=True)
class Cost:
    """The cost of a network: its size, and the arithmetic for one video."""

    num_parameters: int
    """The number of parameters."""
    gmacs: float
    """The multiply-adds in units of 1e9, without the products inside attention. The paper's tables count in this way."""
    attention_gmacs: float
    """The multiply-adds of the products inside attention, q k^T and (weights) v, in units of 1e9."""

    @property
    def gflops(self) -> float:
        """Return all floating-point operations in units of 1e9. A multiply-add counts as two."""
        return 2 * (self.gmacs + self.attention_gmacs)


def count_cost(model: nn.Module, num_frames: int, image_size: int) -> Cost:
    """Count the cost of one video of `num_frames` frames with sides of `image_size` pixels, by torch's FlopCounterMode.

    The model stays on its own device. On the "meta" device nothing is computed and no memory is needed.
    """
    from torch.utils.flop_counter import FlopCounterMode  # late, because it loads triton

    device = next(model.parameters()).device
    pixels_BTCHW = torch.zeros(1, num_frames, 3, image_size, image_size, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixels_BTCHW)
    flops = counter.get_flop_counts()["Global"]
    # These two operations multiply activations with activations, which only attention does.
    attention = sum(count for op, count in flops.items() if "bmm" in str(op) or "scaled_dot_product" in str(op))
    total = sum(flops.values())
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(num_parameters, (total - attention) / 2e9, attention / 2e9)


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
    confusion: Tensor
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
        right, totals = self.confusion.diagonal().tolist(), self.confusion.sum(dim=1).tolist()
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
    """The micro-averaged F1 score of the answers with a score above 0.5."""
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


def report_of(task: Task, logits_NK: Tensor, targets_NK: Tensor, labels: tuple[str, ...]) -> Report | MultiLabelReport:
    """Return the report that fits the task.

    Args:
        task: `single` for one action a video, `multilabel` for any number of them.
        logits_NK: the logits (N, K).
        targets_NK: the targets (N, K) in 0-1.
        labels: the names of the K classes.
    """
    if task == "multilabel":
        return score_multilabel(logits_NK, targets_NK, labels)
    return score(logits_NK, targets_NK.argmax(dim=1), labels)


def score_multilabel(logits_NK: Tensor, targets_NK: Tensor, labels: tuple[str, ...]) -> MultiLabelReport:
    """Return the report of logits (N, K) and targets (N, K) if a video has any number of labels.

    Raises ValueError if there is no video.
    """
    if len(targets_NK) == 0:
        raise ValueError("no videos to score")
    from sklearn.metrics import average_precision_score  # late, because it is slow to import and few models need it

    wanted_NK, answers_NK = targets_NK > 0.5, logits_NK > 0
    precisions = [
        float(average_precision_score(wanted_N, logits_N)) if wanted_N.any() else None
        for wanted_N, logits_N in zip(wanted_NK.T.numpy(), logits_NK.T.numpy(), strict=True)
    ]
    present = [precision for precision in precisions if precision is not None]
    return MultiLabelReport(
        labels=labels,
        num_videos=len(targets_NK),
        mean_ap=sum(present) / len(present) if present else 0.0,
        f1=float(2 * (wanted_NK & answers_NK).sum() / (wanted_NK.sum() + answers_NK.sum()).clamp(min=1)),
        average_precisions=tuple(precisions),
    )


def score(logits_NK: Tensor, targets_N: Tensor, labels: tuple[str, ...]) -> Report:
    """Return the report of logits (N, K) and the indices of the right labels (N,), one label a video.

    If two logits are equal, the label that comes first counts as predicted. Raises ValueError if there is no video.
    """
    if len(targets_N) == 0:
        raise ValueError("no videos to score")
    num_classes = len(labels)
    ranked_NK = logits_NK.argsort(dim=1, descending=True, stable=True)
    right_NK = ranked_NK == targets_N[:, None]
    pairs_N = targets_N * num_classes + ranked_NK[:, 0]
    confusion_KK = torch.bincount(pairs_N, minlength=num_classes**2).view(num_classes, num_classes)
    totals_K = confusion_KK.sum(dim=1)
    recalls_K = confusion_KK.diagonal() / totals_K
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

    def __str__(self) -> str:
        groups = count_of(self.num_groups, "group")
        return f"{self.value:.1%} (95 % interval {self.low:.1%} to {self.high:.1%} over {groups})"


def interval_of(figure: Callable[[Tensor], float], groups: Sequence[str], generator: torch.Generator) -> Interval:
    """Return `figure` of all videos, a fraction in 0-1, with its interval. Videos of one group are not counted as independent.

    Each group is left out in turn, and the variance of the figure tells how many independent videos the groups are worth. That
    number is reduced further if there are few groups. The interval is then that of Clopper and Pearson for this number of
    videos (Korn and Graubard, Survey Methodology 24, 1998), so it has a width even if every answer is right. A single group
    says nothing of others; its interval is 0 to 1.

    Args:
        figure: computes the figure from the indices (N,) of some of the videos.
        groups: the group of each video.
        generator: draws which groups make one part, if there are more than `MOST_PARTS` groups.
    """
    from scipy.stats import beta, t  # late, because it is slow to import

    names = sorted(set(groups))
    num_videos, num_groups, num_parts = len(groups), len(names), min(len(names), MOST_PARTS)
    everything = torch.arange(num_videos)
    value = figure(everything)
    if num_groups == 1:
        return Interval(value, 0.0, 1.0, 1)
    part_of = dict(zip(names, (torch.randperm(num_groups, generator=generator) % num_parts).tolist(), strict=True))
    part_N = torch.tensor([part_of[group] for group in groups])
    without = torch.tensor([figure(everything[part_N != part]) for part in range(num_parts)], dtype=torch.float64)
    variance = float((num_parts - 1) * without.var(correction=0))
    # So many independent videos, each right or wrong, would give the figure this variance.
    effective_videos = float(num_videos)
    if variance > 0 and 0 < value < 1:
        effective_videos = value * (1 - value) / variance
    # The variance itself is uncertain if it rests on few parts.
    effective_videos *= float(t.ppf(HIGH, num_videos - 1) / t.ppf(HIGH, num_parts - 1)) ** 2
    effective_videos = min(effective_videos, num_videos)
    right, wrong = value * effective_videos, (1 - value) * effective_videos
    low = float(beta.ppf(LOW, right, wrong + 1)) if value > 0 else 0.0
    high = float(beta.ppf(HIGH, right + 1, wrong)) if value < 1 else 1.0
    return Interval(value, low, high, num_groups)


def bootstrap(
    figure: Callable[[Tensor], float], groups: Sequence[str], generator: torch.Generator, num_draws: int = 1000
) -> Interval:
    """Return `figure` of all videos, on any scale, with an interval from drawing whole groups with replacement.

    This suits differences between systems over many groups. With few groups the interval is too narrow; see `interval_of`.

    Args:
        figure: computes the figure from the indices (N,) of some of the videos.
        groups: the group of each video.
        generator: draws the groups.
        num_draws: the number of times that all groups are drawn.
    """
    names = sorted(set(groups))
    rows_of = [torch.tensor([row for row, group in enumerate(groups) if group == name]) for name in names]
    draws = torch.randint(len(names), (num_draws, len(names)), generator=generator)
    values = torch.tensor([figure(torch.cat([rows_of[index] for index in draw])) for draw in draws.tolist()])
    low, high = values.quantile(torch.tensor([LOW, HIGH])).tolist()
    return Interval(figure(torch.arange(len(groups))), low, high, len(names))


def calibration_error(logits_NK: Tensor, targets_N: Tensor, num_bins: int = 15) -> float:
    """Return the expected calibration error: how far confidence is from the fraction of right answers, over equal bins of it.

    Args:
        logits_NK: the logits (N, K).
        targets_N: the index of the right label of each video.
        num_bins: the number of bins between a confidence of 0 and of 1.
    """
    confidence_N, predicted_N = logits_NK.softmax(dim=1).max(dim=1)
    gap_N = confidence_N - (predicted_N == targets_N).float()
    bins_N = (confidence_N * num_bins).ceil().long() - 1
    gaps = torch.zeros(num_bins).index_add(0, bins_N.clamp(0, num_bins - 1), gap_N)
    return float(gaps.abs().sum() / len(targets_N))


def fit_temperature(logits_NK: Tensor, targets_N: Tensor) -> float:
    """Return the temperature that makes the right labels (N,) likeliest when the logits (N, K) are divided by it.

    It is the best of 200 values from 1/20 to 20.
    """
    temperatures = torch.logspace(-1, 1, 200, base=20.0).tolist()
    return min(temperatures, key=lambda value: float(F.cross_entropy(logits_NK / value, targets_N)))


def rejection_curve(logits_NK: Tensor, targets_N: Tensor) -> list[tuple[float, float]]:
    """Return the accuracy if only the most confident 10, 20, ... 100 % of the videos are answered.

    Each pair is (fraction of videos answered, fraction of these that are right).
    """
    order_N = logits_NK.softmax(dim=1).amax(dim=1).argsort(descending=True, stable=True)
    right_N = (logits_NK.argmax(dim=1) == targets_N)[order_N].double()
    counts = [max(1, round(tenths * len(right_N) / 10)) for tenths in range(1, 11)]
    return [(count / len(right_N), float(right_N[:count].mean())) for count in counts]
