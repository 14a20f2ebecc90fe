"""What is measured: the cost of a network in multiply-adds, how often predictions are right, and how far to trust that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.core.settings import Task

LOW, HIGH = 0.025, 0.975
"""Ends of an interval of 95 %."""
MOST_PARTS = 200
"""Parts of the videos that are left out in turn: with more groups, several make a part."""


@dataclass(frozen=True)
class Cost:
    """What one video costs: `num_parameters`; `gmacs`, multiply-adds in units of 1e9 without attention's products
    (the convention of the paper's tables); `attention_gmacs`, what q k^T and (weights) v add."""

    num_parameters: int
    gmacs: float
    attention_gmacs: float

    @property
    def gflops(self) -> float:
        """Floating-point operations in units of 1e9, everything included: two a multiply-add."""
        return 2 * (self.gmacs + self.attention_gmacs)


def count_cost(model: nn.Module, num_frames: int, image_size: int) -> Cost:
    """The cost of one video of `num_frames` frames, counted by torch's FlopCounterMode on the model's own device.

    On the "meta" device nothing is computed and no memory is needed.
    """
    from torch.utils.flop_counter import FlopCounterMode  # late: it loads triton

    device = next(model.parameters()).device
    pixels_BTCHW = torch.zeros(1, num_frames, 3, image_size, image_size, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixels_BTCHW)
    flops = counter.get_flop_counts()["Global"]
    # With operands of three or more axes both are products of activations: only attention has them.
    attention = sum(count for op, count in flops.items() if "bmm" in str(op) or "scaled_dot_product" in str(op))
    total = sum(flops.values())
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(num_parameters, (total - attention) / 2e9, attention / 2e9)


@dataclass(frozen=True)
class Report:
    """Accuracy over held-out videos, in shares (0-1).

    `recalls` is one for each label (None where it has no video), `confusion` (K, K) counts true labels by row and
    predicted ones by column.
    """

    labels: tuple[str, ...]
    num_videos: int
    top1: float
    top5: float
    mean_class: float
    recalls: tuple[float | None, ...]
    confusion: Tensor

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
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
        """For people: how often each action was named right."""
        width = max(len(label) for label in self.labels)
        right, totals = self.confusion.diagonal().tolist(), self.confusion.sum(dim=1).tolist()
        return [
            f"{sum(right)} of {self.num_videos} right, top-1 {self.top1:.1%}, mean over actions {self.mean_class:.1%}",
            *(
                f"  {label:<{width}} {correct:>4} of {total:<4}" + (f" {correct / total:6.1%}" if total else "")
                for label, correct, total in zip(self.labels, right, totals, strict=True)
            ),
        ]

    def __repr__(self) -> str:
        return f"Report({self.num_videos} videos: top-1 {self.top1:.1%}, mean of classes {self.mean_class:.1%})"


@dataclass(frozen=True)
class MultiLabelReport:
    """How well any number of actions are told, in shares (0-1).

    `mean_ap` is the mean over labels of `average_precisions` (None where no video has the label), `f1` the micro-averaged F1
    score of the answers above 0.5.
    """

    labels: tuple[str, ...]
    num_videos: int
    mean_ap: float
    f1: float
    average_precisions: tuple[float | None, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
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
        """For people: the average precision of each action."""
        width = max(len(label) for label in self.labels)
        return [
            f"{self.num_videos} videos: mAP {self.mean_ap:.1%}, F1 {self.f1:.1%}",
            *(
                f"  {label:<{width}} {'none' if value is None else f'{value:6.1%}'}"
                for label, value in zip(self.labels, self.average_precisions, strict=True)
            ),
        ]

    def __repr__(self) -> str:
        return f"MultiLabelReport({self.num_videos} videos: mAP {self.mean_ap:.1%}, F1 {self.f1:.1%})"


def report_of(task: Task, logits_NK: Tensor, targets_NK: Tensor, labels: tuple[str, ...]) -> Report | MultiLabelReport:
    """The report that fits the task; targets (N, K) in 0-1."""
    if task == "multilabel":
        return score_multilabel(logits_NK, targets_NK, labels)
    return score(logits_NK, targets_NK.argmax(dim=1), labels)


def score_multilabel(logits_NK: Tensor, targets_NK: Tensor, labels: tuple[str, ...]) -> MultiLabelReport:
    """The report of logits where a video has any number of labels. Raises ValueError without a video."""
    if len(targets_NK) == 0:
        raise ValueError("no videos to score")
    from sklearn.metrics import average_precision_score  # late: scikit-learn is slow to import, and few models need it

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
    """The report of these logits; of equal logits the first label counts as named. Raises ValueError without a video."""
    if len(targets_N) == 0:
        raise ValueError("no videos to score")
    num_classes = len(labels)
    ranked_NK = logits_NK.argsort(dim=1, descending=True, stable=True)
    right_NK = ranked_NK == targets_N[:, None]
    pairs_N = targets_N * num_classes + ranked_NK[:, 0]
    confusion_KK = torch.bincount(pairs_N, minlength=num_classes**2).view(num_classes, num_classes)
    totals_K = confusion_KK.sum(dim=1)
    shares_K = confusion_KK.diagonal() / totals_K
    recalls = tuple(float(share) if total else None for share, total in zip(shares_K, totals_K, strict=True))
    return Report(
        labels=labels,
        num_videos=len(targets_N),
        top1=float(right_NK[:, :1].sum() / len(targets_N)),
        top5=float(right_NK[:, :5].sum() / len(targets_N)),
        mean_class=float(shares_K[totals_K > 0].mean()),
        recalls=recalls,
        confusion=confusion_KK,
    )


@dataclass(frozen=True)
class Interval:
    """A figure with a range that holds the true one in 95 of 100 data sets, and how many independent groups it rests on."""

    value: float
    low: float
    high: float
    num_groups: int

    def __str__(self) -> str:
        groups = "1 group" if self.num_groups == 1 else f"{self.num_groups} groups"
        return f"{self.value:.1%} (95 % interval {self.low:.1%} to {self.high:.1%} over {groups})"


def interval_of(figure: Callable[[Tensor], float], groups: Sequence[str], generator: torch.Generator) -> Interval:
    """Return `figure(rows)`, a share in 0-1, with its interval; what one group's videos share counts once.

    Leaving out each group in turn says how many independent videos the groups are worth; with so many, fewer still where the
    groups are few, the interval is that of Clopper and Pearson (Korn and Graubard, Survey Methodology 24, 1998). So it has a
    width where all are right. One group says nothing of others: 0 to 1.

    Args:
        figure: the figure of some rows (N,) of the videos.
        groups: the group of each video.
        generator: joins groups to `MOST_PARTS` parts where there are more.
    """
    from scipy.stats import beta, t  # late: slow to import

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
    worth = float(num_videos)
    if variance > 0 and 0 < value < 1:
        worth = value * (1 - value) / variance
    worth *= float(t.ppf(HIGH, num_videos - 1) / t.ppf(HIGH, num_parts - 1)) ** 2
    worth = min(worth, num_videos)
    right, wrong = value * worth, (1 - value) * worth
    low = float(beta.ppf(LOW, right, wrong + 1)) if value > 0 else 0.0
    high = float(beta.ppf(HIGH, right + 1, wrong)) if value < 1 else 1.0
    return Interval(value, low, high, num_groups)


def bootstrap(
    figure: Callable[[Tensor], float], groups: Sequence[str], generator: torch.Generator, num_draws: int = 1000
) -> Interval:
    """Return the interval of `figure(rows)`, of any scale, when whole groups are drawn anew with replacement.

    For differences between systems over many groups. Of few it is too narrow: see `interval_of`."""
    names = sorted(set(groups))
    rows_of = [torch.tensor([row for row, group in enumerate(groups) if group == name]) for name in names]
    draws = torch.randint(len(names), (num_draws, len(names)), generator=generator)
    values = torch.tensor([figure(torch.cat([rows_of[index] for index in draw])) for draw in draws.tolist()])
    low, high = values.quantile(torch.tensor([LOW, HIGH])).tolist()
    return Interval(figure(torch.arange(len(groups))), low, high, len(names))


def calibration_error(logits_NK: Tensor, targets_N: Tensor, num_bins: int = 15) -> float:
    """Expected calibration error over equal bins of confidence: how far scores are from shares of right answers."""
    confidence_N, named_N = logits_NK.softmax(dim=1).max(dim=1)
    gap_N = confidence_N - (named_N == targets_N).float()
    bins_N = (confidence_N * num_bins).ceil().long() - 1
    gaps = torch.zeros(num_bins).index_add(0, bins_N.clamp(0, num_bins - 1), gap_N)
    return float(gaps.abs().sum() / len(targets_N))


def fit_temperature(logits_NK: Tensor, targets_N: Tensor) -> float:
    """What to divide logits by so that these videos' own labels are likeliest, of 200 values from 1/20 to 20."""
    temperatures = torch.logspace(-1, 1, 200, base=20.0).tolist()
    return min(temperatures, key=lambda value: float(F.cross_entropy(logits_NK / value, targets_N)))


def rejection_curve(logits_NK: Tensor, targets_N: Tensor) -> list[tuple[float, float]]:
    """(share answered, share of these right) when only the most confident 10, 20, ... 100 % of videos are answered."""
    order_N = logits_NK.softmax(dim=1).amax(dim=1).argsort(descending=True, stable=True)
    right_N = (logits_NK.argmax(dim=1) == targets_N)[order_N].double()
    counts = [max(1, round(share * len(right_N) / 10)) for share in range(1, 11)]
    return [(count / len(right_N), float(right_N[:count].mean())) for count in counts]
