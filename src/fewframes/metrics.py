"""What is measured: the cost of a network in multiply-adds, and how often predictions are right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """What one video costs: `num_parameters`; `gmacs`, multiply-adds in units of 1e9 without attention's products
    (the convention of the paper's tables); `attention_gmacs`, what q k^T and (weights) v add."""

    num_parameters: int
    gmacs: float
    attention_gmacs: float

    @property
    def gflops(self) -> float:
        """Floating-point operations in units of 1e9, everything included: two a multiply-add."""
        return 2 * (self.gmacs + self.attention_gmacs)


def count_cost(model: nn.Module, num_frames: int, image_size: int) -> Cost:
    """The cost of one video of `num_frames` frames, counted by torch's FlopCounterMode on the model's own device.

    On the "meta" device nothing is computed and no memory is needed.
    """
    device = next(model.parameters()).device
    pixels_BTCHW = torch.zeros(1, num_frames, 3, image_size, image_size, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixels_BTCHW)
    flops = counter.get_flop_counts()["Global"]
    # With operands of three or more axes both are products of activations: only attention has them.
    attention = sum(count for op, count in flops.items() if "bmm" in str(op) or "scaled_dot_product" in str(op))
    total = sum(flops.values())
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(num_parameters, (total - attention) / 2e9, attention / 2e9)
