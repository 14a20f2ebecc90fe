"""How weights move: parameter groups with each parameter exactly once, and the learning rate's schedule."""

from __future__ import annotations

import math

from torch import nn


def parameter_groups(model: nn.Module, learning_rate: float, weight_decay: float) -> list[dict[str, object]]:
    """AdamW groups of the parameters that are to be trained: matrices with weight decay; biases, norms, tokens and
    positions without."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in named if _is_decayed(name, parameter)]
    plain = [parameter for name, parameter in named if not _is_decayed(name, parameter)]
    return [
        {"params": decayed, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": plain, "lr": learning_rate, "weight_decay": 0.0},
    ]


def warmup_cosine(step: int, num_steps: int, warmup_steps: int) -> float:
    """The share (0-1) of the full learning rate at a step: a straight rise, then half a cosine down to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith(("cls_token", "pos_embed", "time_embed"))
