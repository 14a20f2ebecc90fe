"""Optimise weights: which parameters learn, at what rate, on what schedule, and the moving average of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewframes.errors import ConfigError
from fewframes.models.backbones import TimmFrameEncoder
from fewframes.models.layers import FrameGrid
from fewframes.training.config import TrainConfig

BLOCK = re.compile(r"blocks\.(\d+)\.")
FIRST_LAYER = ("patch_embed.", "cls_token", "pos_embed", "time_embed", "conv_stem.", "bn1.")
"""The beginnings of the names of parameters before the blocks of our own frame encoders. All other parameters outside the blocks
come after them."""


def layers_of(frame_encoder: nn.Module) -> dict[str, int]:
    """Return the layer of each parameter by its name, counted from 0 at the pixels: the stem is 0, the first block 1.

    Parameters after the blocks belong to the last block's layer, as in timm.
    """
    if isinstance(frame_encoder, TimmFrameEncoder):
        from timm.models import group_parameters  # late: timm is slow to import

        backbone: Any = frame_encoder.backbone
        found: dict[str, int] = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
        return {f"backbone.{name}": layer for name, layer in found.items()}
    layers = {}
    names = [name for name, _ in frame_encoder.named_parameters()]
    last = 1 + max(int(match[1]) for name in names if (match := BLOCK.match(name)))
    for name in names:
        match = BLOCK.match(name)
        layers[name] = 1 + int(match[1]) if match else 0 if name.startswith(FIRST_LAYER) else last
    return layers


def unfreeze(frame_encoder: nn.Module, what: str) -> int:
    """Let a part of the frame encoder learn, and return the number of parameters that do.

    Args:
        frame_encoder: The encoder, whose parameters are switched on or off in place.
        what: `none`, `all`, or `last-N-blocks`, which includes what follows these blocks.

    Raises:
        ConfigError: The encoder has fewer than N blocks.
    """
    frame_encoder.requires_grad_(what == "all")
    if what.startswith("last-"):
        count = int(what.split("-")[1])
        layers = layers_of(frame_encoder)
        num_blocks = max(layers.values())
        if count > num_blocks:
            raise ConfigError(f"unfreeze = {what!r}: the frame encoder has {num_blocks} blocks; take 'all' or fewer")
        for name, parameter in frame_encoder.named_parameters():
            parameter.requires_grad_(layers[name] > num_blocks - count)
    for module in frame_encoder.modules():
        if isinstance(module, FrameGrid):
            module.requires_grad_(False)  # a fixed projection
    return sum(parameter.numel() for parameter in frame_encoder.parameters() if parameter.requires_grad)


def parameter_groups(
    temporal: Mapping[str, nn.Parameter], frame_encoder: nn.Module | None, config: TrainConfig
) -> list[dict[str, object]]:
    """Return AdamW groups of the parameters that learn, each of them exactly once. The highest learning rate of a group is `peak`.

    Matrices have weight decay; biases, norms, tokens and positions have none.

    Args:
        temporal: The parameters outside the frame encoder, by name.
        frame_encoder: The frame encoder; None if it is frozen. Its rate falls by `layer_decay` for each layer before the last.
        config: Names the rates and the decay.
    """
    rates = {name: (parameter, config.learning_rate) for name, parameter in temporal.items() if parameter.requires_grad}
    if frame_encoder is not None:
        layers = layers_of(frame_encoder)
        last = max(layers.values())
        for name, parameter in frame_encoder.named_parameters():
            if parameter.requires_grad:
                rate = config.encoder_learning_rate * config.layer_decay ** (last - layers[name])
                rates[f"frame_encoder.{name}"] = parameter, rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, (parameter, rate) in rates.items():
        decay = config.weight_decay if _is_decayed(name, parameter) else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def warmup_cosine(step: int, num_steps: int, warmup_steps: int) -> float:
    """Return the fraction (0-1) of the full learning rate at a step: a linear rise, then half a cosine down to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Average:
    """The exponential moving average (EMA) of a module's trained weights: each step, `decay` of the old and the rest of the new.

    In the first steps it forgets faster: the decay is at most (1 + step) / (10 + step), so that the random start does not linger.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.num_updates = decay, 0
        self.trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.weights = {name: weight.detach().clone() for name, weight in self.trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the module's present weights."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (9 + self.num_updates))
        for name, weight in self.trained.items():
            self.weights[name].lerp_(weight, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the module the averaged weights inside the block, and its own again after it."""
        with torch.no_grad():
            own = {name: weight.detach().clone() for name, weight in self.trained.items()}
            for name, weight in self.trained.items():
                weight.copy_(self.weights[name])
            try:
                yield
            finally:
                for name, weight in self.trained.items():
                    weight.copy_(own[name])

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return the state that `load_state_dict` takes."""
        return {"num_updates": self.num_updates, **self.weights}

    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> None:
        """Continue from a state that `state_dict` returned."""
        self.num_updates = int(state["num_updates"])
        for name, weight in self.weights.items():
            weight.copy_(torch.as_tensor(state[name]))


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith(("cls_token", "pos_embed", "time_embed"))
