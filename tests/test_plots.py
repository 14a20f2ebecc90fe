"""Pictures of results are pictures, and large enough to read."""

from __future__ import annotations

import io

import torch
from PIL import Image

from fewframes.metrics import score
from fewframes.plots import confusion_png, curve_png, strips_png

LABELS = ("hug", "kick", "push", "wave")


def size_of(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return image.size


def test_pictures() -> None:
    width, height = size_of(confusion_png(score(torch.eye(4), torch.arange(4), LABELS), "held out"))
    assert min(width, height) > 300
    assert size_of(curve_png([(0.1, 1.0), (1.0, 0.8)], "answered", "right", "doubt")) == (572, 396)
    frames_TCHW = torch.zeros(3, 3, 40, 60, dtype=torch.uint8)
    short, tall = size_of(strips_png([("one", frames_TCHW)])), size_of(strips_png([("one", frames_TCHW)] * 3))
    assert tall[0] == short[0]
    assert abs(tall[1] - 3 * short[1]) < 4
