"""Parts of the encoders."""

from __future__ import annotations

import pytest
import torch

from fewframes.models.layers import pixels_of


def test_pixels_are_between_zero_and_one() -> None:
    assert pixels_of(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])
