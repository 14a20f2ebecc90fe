"""The list of encoders: each is one of its library's, with the size, cost, licence and speed that the list says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewframes.models.config import TIMM, ModelConfig
from fewframes.models.cost import count_cost
from fewframes.models.encoders.listed import ENCODERS, META_TERMS, RESEARCH_ONLY
from fewframes.models.encoders.named import named_encoder
from fewframes.models.files.networks import planned_model
from fewframes.models.words.encoders import DEFAULT_ENCODER
from fewframes.video.view import ViewConfig

pytest.importorskip("open_clip")
RESULT = Path(__file__).parents[3] / "benchmarks" / "speed" / "encoders.json"
SHORT = {"apache-2.0": "Apache-2.0", "mit": "MIT", "dinov3-license": META_TERMS}
"""timm's names of licences, as the list writes them."""


@pytest.mark.parametrize("name", ENCODERS)
def test_sizes_cost_and_licence_are_those_of_the_library(name: str) -> None:
    import timm

    if name.startswith(TIMM) and timm.get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True) is None:
        pytest.skip(f"timm {timm.__version__} is older than {name}")
    named, listed = named_encoder(name), ENCODERS[name]
    view = ViewConfig(**named.view)
    model = planned_model(ModelConfig(**{**named.fields, "temporal": "mean", "num_classes": 1}), view).eval()
    cost = count_cost(model, 1, view.crop_px)
    assert cost.num_parameters - model.frame_width - 1 == listed.num_parameters  # without the head
    assert cost.gmacs + cost.attention_gmacs == pytest.approx(listed.gmacs, abs=0.051)
    assert (view.crop_px, model.frame_width) == (listed.image_px, listed.width)
    said, _, forbids = named.licence.partition("; ")
    licence = said.partition(" (")[0]
    licence = SHORT.get(licence, licence)
    assert listed.licence == (RESEARCH_ONLY if "research" in forbids else licence)


def test_speeds_are_those_of_the_committed_result() -> None:
    measured = json.loads(RESULT.read_text())["speeds"]
    assert {name: encoder.ms_per_frame for name, encoder in ENCODERS.items()} == {
        name: speed["median_ms"] for name, speed in measured.items()
    }


def test_the_default_may_be_used_for_anything() -> None:
    assert ENCODERS[DEFAULT_ENCODER].licence == "Apache-2.0"
    assert ENCODERS["clip:MobileCLIP2-S0/dfndr2b"].licence.endswith("forbids any use but research")
