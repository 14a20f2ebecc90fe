"""Accuracy counted by hand, and its picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fewframes.evaluate import score
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


def test_nothing_to_score() -> None:
    with pytest.raises(ValueError, match="no videos"):
        score(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), LABELS)


def test_picture_is_written(tmp_path: Path) -> None:
    report = score(torch.eye(4), torch.arange(4), LABELS)
    save_confusion(report, tmp_path / "sub" / "confusion.png", "held out")
    with Image.open(tmp_path / "sub" / "confusion.png") as image:
        assert min(image.size) > 300
