"""Accuracy counted by hand, and its picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fewframes.evaluate import report_of, score, score_multilabel
from fewframes.plots import save_confusion

LABELS = ("hug", "kick", "push", "wave")


def test_counts_by_hand() -> None:
    predicted = [0, 0, 1, 1, 1, 0]
    targets = torch.tensor([0, 0, 0, 1, 1, 2])  # no video of wave
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 4).float()
    report = score(logits, targets, LABELS)
    assert report.num_videos == 6
    assert report.top1 == pytest.approx(4 / 6)
    assert report.top5 == 1.0
    assert report.recalls[0] == pytest.approx(2 / 3)
    assert report.recalls[1:] == (1.0, 0.0, None)
    assert report.mean_class == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert report.confusion.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    values = report.to_dict()
    assert values["per_class"] == {"hug": 0.6667, "kick": 1.0, "push": 0.0, "wave": None}


def test_average_precision_by_hand() -> None:
    targets_NK = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    logits_NK = torch.tensor([[3.0, 2, 1], [1, 1, 1], [2, -1, 1], [-1, -2, 1]])
    report = score_multilabel(logits_NK, targets_NK, LABELS[:3])
    # First label, by falling score: right, wrong, right: (1/1 + 2/3) / 2. Second: wrong, right, right: (1/2 + 2/3) / 2.
    assert report.average_precisions[0] == pytest.approx((1 + 2 / 3) / 2)
    assert report.average_precisions[1] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert report.average_precisions[2] is None
    assert report.mean_ap == pytest.approx((5 / 6 + 7 / 12) / 2)
    # Above 0.5: 3 + 2 + 4 answers, of which 2 + 1 + 0 are right; 4 labels are there.
    assert report.f1 == pytest.approx(2 * 3 / (9 + 4))
    assert report == report_of("multilabel", logits_NK, targets_NK, LABELS[:3])
    assert report.lines()[0].startswith("4 videos: mAP 70.8%")
    with pytest.raises(ValueError, match="no videos"):
        score_multilabel(logits_NK[:0], targets_NK[:0], LABELS[:3])


def test_nothing_to_score() -> None:
    with pytest.raises(ValueError, match="no videos"):
        score(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), LABELS)


def test_picture_is_written(tmp_path: Path) -> None:
    report = score(torch.eye(4), torch.arange(4), LABELS)
    save_confusion(report, tmp_path / "sub" / "confusion.png", "held out")
    with Image.open(tmp_path / "sub" / "confusion.png") as image:
        assert min(image.size) > 300
