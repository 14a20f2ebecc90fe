"""Count the cost of a network: its parameters, and the multiply-adds for one video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


OF_TIMM = re.compile(r"\.(backbone|trunk)\.")
"""The names of weights of timm: those of its backbones, and those in an image half of open_clip."""


@dataclass(frozen=True)
class Cost:
    """The cost of a network: its size, and the arithmetic for one video."""

    num_parameters: int
    """The number of parameters."""
    gmacs: float
    """The multiply-adds in units of 1e9, without the products inside attention. The paper's tables count in this way."""
    attention_gmacs: float
    """The multiply-adds of the products inside attention, q k^T and (weights) v, in units of 1e9."""

    @property
    def gflops(self) -> float:
        """Return all floating-point operations in units of 1e9. A multiply-add counts as two."""
        return 2 * (self.gmacs + self.attention_gmacs)


def count_cost(model: nn.Module, num_frames: int, image_size: int) -> Cost:
    """Count the cost of one video of `num_frames` frames with sides of `image_size` pixels, by torch's FlopCounterMode.

    The model stays on its own device. On the "meta" device nothing is computed and no memory is needed.
    """
    import torch  # late, because a `Cost` alone needs no torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    pixels_BTCHW = torch.zeros(1, num_frames, 3, image_size, image_size, device=device)
    # The counter fails on a module whose input is a parameter that learns, such as the query of SigLIP's pooling. Only weights of
    # timm are detached: torch folds products with other weights in another way then, and they would count as attention's.
    fixed = {name: weight.detach() for name, weight in model.named_parameters() if OF_TIMM.search(name)}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.func.functional_call(model, fixed, (pixels_BTCHW,))
    flops = counter.get_flop_counts()["Global"]
    # These two operations multiply activations with activations, which only attention does.
    attention = sum(count for op, count in flops.items() if "bmm" in str(op) or "scaled_dot_product" in str(op))
    total = sum(flops.values())
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(num_parameters, (total - attention) / 2e9, attention / 2e9)
