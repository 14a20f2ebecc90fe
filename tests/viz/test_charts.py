"""Pictures of results are pictures, and large enough to read."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from fewframes.core.metrics import reliability, score
from fewframes.viz.charts import confusion_png, curve_png, reliability_png, shortened

LABELS = ("hug", "kick", "push", "wave")


def size_of(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return image.size


def test_pictures() -> None:
    width, height = size_of(confusion_png(LABELS, np.eye(4), "held out"))
    assert min(width, height) > 300
    bins = reliability(np.array([0.2, 0.9, 0.95]), np.array([0, 1, 1]))
    assert size_of(reliability_png({"before": bins, "after": bins[:1]}, "how sure, how right")) == (506, 484)
    assert size_of(curve_png([(0.1, 1.0), (1.0, 0.8)], "answered", "right", "doubt")) == (572, 396)


def test_many_and_odd_labels_still_make_a_readable_picture() -> None:
    sizes = {}
    for num_labels in (30, 101, 400):
        labels = tuple(f"$5 for _a_ ^ {number} and a very long story about a table" for number in range(num_labels))
        report = score(np.eye(num_labels), np.arange(num_labels), labels)
        sizes[num_labels] = size_of(confusion_png(report.labels, report.confusion, "in $ and _"))
    assert 101 * 13 < sizes[101][1] < 2000  # 13 pixels a label hold letters of 6.5 points
    assert max(sizes[30] + sizes[400]) < 2700
    assert shortened("Pushing something from left to right 17") == "Pushing something…o right 17"
    assert shortened("hug") == "hug"
