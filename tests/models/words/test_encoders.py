"""The list of encoders: each is one of open_clip's, with the size that the list says."""

from __future__ import annotations

import pytest

from fewframes.models.config import ModelConfig
from fewframes.models.cost import count_cost
from fewframes.models.files.networks import planned_model
from fewframes.models.words.encoder import tower_of
from fewframes.models.words.encoders import DEFAULT_ENCODER, ENCODERS, licence_words
from fewframes.models.words.image_text import encoder_source

pytest.importorskip("open_clip")


@pytest.mark.parametrize("name", ENCODERS)
def test_sizes_and_cost_are_those_of_open_clip(name: str) -> None:
    source, listed = encoder_source(name), ENCODERS[name]
    config = ModelConfig(
        encoder=name,
        tower=tower_of(source.settings, quick_gelu=source.quick_gelu),
        image_size=source.view.crop_px,
        temporal="mean",
        num_classes=1,
    )
    model = planned_model(config, source.view).eval()
    cost = count_cost(model, 1, source.view.crop_px)
    assert cost.num_parameters - model.frame_width - 1 == listed.num_parameters  # without the head
    assert cost.gmacs + cost.attention_gmacs == pytest.approx(listed.gmacs, abs=0.051)
    assert (source.view.crop_px, model.frame_width) == (listed.image_px, listed.width)


def test_the_default_may_be_used_for_anything() -> None:
    assert licence_words(DEFAULT_ENCODER) == "Apache-2.0"
    assert licence_words("clip:MobileCLIP2-S0/dfndr2b").endswith("forbids any use but research")
