"""How weights move: parameter groups with each parameter exactly once, the learning rate's schedule, and their average."""

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
from fewframes.training.config import TrainConfig

BLOCK = re.compile(r"blocks\.(\d+)\.")
FIRST_LAYER = ("patch_embed.", "cls_token", "pos_embed", "time_embed", "conv_stem.", "bn1.")
"""What comes before the blocks of our own frame encoders; everything else outside them comes after."""


def layers_of(frame_encoder: nn.Module) -> dict[str, int]:
    """The layer of each parameter, counted from 0 at the pixels: the stem, then block after block; what follows the blocks
    belongs to the last one, as timm has it."""
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
    """Let `none`, `all` or the `last-N-blocks` of the frame encoder (and what follows them) learn; how many parameters do.

    Raises ConfigError when it has fewer blocks.
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
    return sum(parameter.numel() for parameter in frame_encoder.parameters() if parameter.requires_grad)


def parameter_groups(
    temporal: Mapping[str, nn.Parameter], frame_encoder: nn.Module | None, config: TrainConfig
) -> list[dict[str, object]]:
    """AdamW groups of the parameters that are to be trained, each with its highest learning rate as `peak`.

    Matrices have weight decay; biases, norms, tokens and positions have none. `temporal` are the parameters outside the
    frame encoder, by name; the frame encoder's own rate falls by `layer_decay` for each layer before the last.
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
    """The share (0-1) of the full learning rate at a step: a straight rise, then half a cosine down to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Average:
    """The moving average of a module's trained weights (EMA): `decay` of the old, the rest of the new, each step.

    In the first steps it forgets faster, decay (1 + step) / (10 + step) at most, so that the random start does not linger.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.num_updates = decay, 0
        self.trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.weights = {name: weight.detach().clone() for name, weight in self.trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the module's weights of now."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (9 + self.num_updates))
        for name, weight in self.trained.items():
            self.weights[name].lerp_(weight, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averaged weights inside, its own again after."""
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
        """What `load_state_dict` takes back."""
        return {"num_updates": self.num_updates, **self.weights}

    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> None:
        """Go on from a `state_dict`."""
        self.num_updates = int(state["num_updates"])
        for name, weight in self.weights.items():
            weight.copy_(torch.as_tensor(state[name]))


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith(("cls_token", "pos_embed", "time_embed"))
