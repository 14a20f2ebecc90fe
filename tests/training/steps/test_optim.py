"""Each parameter once, layers that learn slower the deeper they lie, the learning rate by hand, and averages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from fewframes.errors import ConfigError
from fewframes.models.backbones import EfficientNetLite, timm_frame_encoder
from fewframes.models.files.networks import build_model
from fewframes.models.stam import SpatialEncoder
from fewframes.training.config import TrainConfig
from fewframes.training.steps.optim import Average, layers_of, parameter_groups, unfreeze, warmup_cosine
from fewframes.video.view import ViewConfig
from helpers.models import TINY

SETTINGS = TrainConfig(learning_rate=1e-3, encoder_learning_rate=1e-4, layer_decay=0.5, weight_decay=0.05)


def groups_of(what: str) -> tuple[nn.Module, list[dict[str, Any]]]:
    model = build_model(replace(TINY, depth=3), ViewConfig(resize_px=36, crop_px=32))
    unfreeze(model.frame_encoder, what)
    rest = {name: weight for name, weight in model.named_parameters() if not name.startswith("frame_encoder.")}
    return model, parameter_groups(rest, model.frame_encoder, SETTINGS)


@pytest.mark.parametrize("what", ["none", "last-1-blocks", "all"])
def test_each_trained_parameter_is_in_exactly_one_group(what: str) -> None:
    model, groups = groups_of(what)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)


def test_matrices_decay_and_the_rest_does_not() -> None:
    model, groups = groups_of("none")
    undecayed = {id(parameter) for group in groups if group["weight_decay"] == 0 for parameter in group["params"]}
    temporal: Any = model.temporal_encoder
    head: Any = model.head
    assert {id(temporal.pos_embed), id(temporal.cls_token), id(head.bias), id(temporal.norm.weight)} <= undecayed
    assert id(head.weight) not in undecayed


def test_deeper_layers_learn_slower() -> None:
    model, groups = groups_of("all")
    rates = {id(parameter): group["peak"] for group in groups for parameter in group["params"]}
    encoder: Any = model.frame_encoder
    head: Any = model.head
    assert rates[id(head.weight)] == 1e-3
    assert rates[id(encoder.norm.weight)] == 1e-4
    assert [rates[id(block.mlp.fc1.weight)] for block in encoder.blocks] == pytest.approx([2.5e-5, 5e-5, 1e-4])
    assert rates[id(encoder.pos_embed)] == rates[id(encoder.patch_embed.proj.weight)] == pytest.approx(1.25e-5)


def test_what_is_unfrozen() -> None:
    encoder = SpatialEncoder(replace(TINY, depth=3))
    unfreeze(encoder, "last-1-blocks")
    learning = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"blocks", "norm"}
    assert {name.split(".")[1] for name in learning if name.startswith("blocks")} == {"2"}
    assert unfreeze(encoder, "none") == 0
    assert unfreeze(encoder, "all") == sum(parameter.numel() for parameter in encoder.parameters())
    with pytest.raises(ConfigError, match="'last-4-blocks': the frame encoder has 3 blocks"):
        unfreeze(encoder, "last-4-blocks")


@pytest.mark.parametrize("what", ["all", "last-2-blocks"])
def test_the_projection_of_a_grid_never_learns(what: str) -> None:
    encoder = EfficientNetLite(cells=2, cell_width=4)
    assert encoder.grid is not None
    unfreeze(encoder, what)
    assert not any(weight.requires_grad for weight in encoder.grid.parameters())
    assert all(weight.requires_grad for weight in encoder.conv_head.parameters())


def test_lite0_and_timm_have_layers_from_pixels_to_features() -> None:
    layers = layers_of(EfficientNetLite())
    assert (layers["conv_stem.weight"], layers["blocks.0.0.conv_dw.weight"], layers["blocks.6.0.conv_pw.weight"]) == (
        0,
        1,
        7,
    )
    assert layers["conv_head.weight"] == layers["bn2.weight"] == 7
    layers = layers_of(timm_frame_encoder("vit_tiny_patch16_224", image_size=32))
    assert layers["backbone.pos_embed"] == 0
    assert [layers[f"backbone.blocks.{index}.attn.qkv.weight"] for index in (0, 11)] == [1, 12]
    assert layers["backbone.norm.weight"] == 12


def test_warm_up_then_cosine() -> None:
    rates = [warmup_cosine(step, 14, 4) for step in range(14)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[9] == pytest.approx(0.5)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert warmup_cosine(14, 14, 4) == pytest.approx(0)
    assert warmup_cosine(0, 1, 0) == 1.0


def test_the_average_by_hand() -> None:
    linear = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        linear.weight.fill_(0.0)
        average = Average(linear, decay=0.5)
        for value in (1.0, 2.0):
            linear.weight.fill_(value)
            average.update()
    # decay is 1/10, then 2/11: 0.9 * 1, then 0.9 * 2/11 + 2 * 9/11
    expected = 0.9 * 2 / 11 + 2 * 9 / 11
    with average.applied():
        assert linear.weight.item() == pytest.approx(expected)
    assert linear.weight.item() == 2
    other = Average(nn.Linear(1, 1, bias=False), decay=0.5)
    other.load_state_dict(average.state_dict())
    assert other.num_updates == 2
    assert other.weights["weight"].item() == pytest.approx(expected)
