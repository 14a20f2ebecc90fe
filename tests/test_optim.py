"""Each parameter once, and the learning rate by hand."""

from __future__ import annotations

import pytest

from conftest import TINY
from fewframes.config import ViewConfig
from fewframes.optim import parameter_groups, warmup_cosine
from fewframes.weights import build_model


def test_each_trained_parameter_is_in_exactly_one_group() -> None:
    model = build_model(TINY, ViewConfig(resize_px=36, crop_px=32))
    model.frame_encoder.requires_grad_(False)
    decayed, plain = parameter_groups(model, 1e-3, 0.05)
    grouped = [id(parameter) for group in (decayed, plain) for parameter in group["params"]]  # type: ignore[attr-defined]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    undecayed = {id(parameter) for parameter in plain["params"]}  # type: ignore[attr-defined]
    temporal = model.temporal_encoder
    assert {id(temporal.pos_embed), id(temporal.cls_token), id(model.head.bias), id(temporal.norm.weight)} <= undecayed
    assert id(model.head.weight) not in undecayed


def test_warm_up_then_cosine() -> None:
    rates = [warmup_cosine(step, 14, 4) for step in range(14)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[9] == pytest.approx(0.5)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert warmup_cosine(14, 14, 4) == pytest.approx(0)
    assert warmup_cosine(0, 1, 0) == 1.0
