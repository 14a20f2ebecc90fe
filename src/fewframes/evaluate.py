"""How often a model is right: one function for the command, for training and for the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multilabel_f1_score,
)

from fewframes.config import Task


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
    scores_NK, wanted_NK = logits_NK.sigmoid(), targets_NK.round().long()
    precisions = [
        float(average_precision_score(wanted_N, scores_N)) if wanted_N.any() else None
        for wanted_N, scores_N in zip(wanted_NK.T.numpy(), scores_NK.T.numpy(), strict=True)
    ]
    present = [precision for precision in precisions if precision is not None]
    return MultiLabelReport(
        labels=labels,
        num_videos=len(targets_NK),
        mean_ap=sum(present) / len(present) if present else 0.0,
        f1=float(multilabel_f1_score(scores_NK, wanted_NK, len(labels), average="micro")),
        average_precisions=tuple(precisions),
    )


def score(logits_NK: Tensor, targets_N: Tensor, labels: tuple[str, ...]) -> Report:
    """The report of these logits; ties count as torch's topk breaks them. Raises ValueError without a video."""
    if len(targets_N) == 0:
        raise ValueError("no videos to score")
    num_classes = len(labels)
    confusion_KK = multiclass_confusion_matrix(logits_NK, targets_N, num_classes)
    totals_K = confusion_KK.sum(dim=1)
    shares_K = confusion_KK.diagonal() / totals_K
    recalls = tuple(float(share) if total else None for share, total in zip(shares_K, totals_K, strict=True))
    top1, top5 = (
        float(multiclass_accuracy(logits_NK, targets_N, num_classes, average="micro", top_k=min(k, num_classes)))
        for k in (1, 5)
    )
    return Report(
        labels=labels,
        num_videos=len(targets_N),
        top1=top1,
        top5=top5,
        mean_class=float(shares_K[totals_K > 0].mean()),
        recalls=recalls,
        confusion=confusion_KK.to(torch.int64),
    )
