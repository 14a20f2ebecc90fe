"""How often a model is right: one function for the command, for training and for the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix


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

    def __repr__(self) -> str:
        return f"Report({self.num_videos} videos: top-1 {self.top1:.1%}, mean of classes {self.mean_class:.1%})"


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
