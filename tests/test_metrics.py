"""The cost of every preset, pinned; the paper's own figures beside."""

from __future__ import annotations

import pytest
import torch

from fewframes.config import PRESETS
from fewframes.metrics import count_cost
from fewframes.weights import build_model

PAPER_GMACS = {  # its "Flops [G]" column: multiply-adds without attention's products
    "stam-paper-4": 67,
    "stam-paper-8": 135,
    "stam-paper-16": 270,
    "stam-paper-32": 540,
    "stam-paper-64": 1080,
    "resnet50-16": 70,
}


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_and_macs_of_every_preset(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        model = build_model(preset.model, preset.view).eval()
    cost = count_cost(model, preset.model.num_frames, preset.model.image_size)
    assert cost.num_parameters == preset.num_parameters
    assert cost.gmacs == pytest.approx(preset.gmacs, abs=0.0006)
    assert cost.attention_gmacs == pytest.approx(preset.attention_gmacs, abs=0.0006)
    assert cost.gflops == pytest.approx(2 * (preset.gmacs + preset.attention_gmacs), abs=0.003)
    assert preset.licence
    assert preset.weights or preset.init


@pytest.mark.parametrize(("name", "gmacs"), PAPER_GMACS.items())
def test_the_papers_convention_gives_the_papers_column(name: str, gmacs: float) -> None:
    assert PRESETS[name].gmacs == pytest.approx(gmacs, rel=0.01)


def test_release_is_the_size_it_is_and_not_the_tables() -> None:
    assert PRESETS["stam-16"].num_parameters == 119_205_520  # the paper's table says 96 M


def test_attention_products_are_counted_apart() -> None:
    preset = PRESETS["stam-paper-16"]
    # 12 layers, 16 frames, 197 tokens, twice (q k^T and the sum of v), 768 wide; and 6 layers of 17 tokens.
    by_hand = (12 * 16 * 197**2 * 2 * 768 + 6 * 17**2 * 2 * 768) / 1e9
    assert preset.attention_gmacs == pytest.approx(by_hand, rel=1e-4)
