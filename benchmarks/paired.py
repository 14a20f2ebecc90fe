"""Figures over seeds and the differences between systems, as the ablations report them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fewframes.core.metrics import bootstrap

NUM_DRAWS = 2000


def spread(values: Sequence[float]) -> dict[str, float]:
    """The mean over seeds, the least and the most."""
    numbers = {"value": statistics.mean(values), "min": min(values), "max": max(values)}
    return {name: round(number, 2) for name, number in numbers.items()}


def difference(first_SB: Tensor, second_SB: Tensor, groups: Sequence[str]) -> dict[str, float]:
    """Mean of first minus second, in points, with its 95 % interval over groups drawn anew; rows are 0 or 1 for each video."""
    gains_B = 100 * (first_SB - second_SB).mean(dim=0)
    figure: Callable[[Tensor], float] = lambda rows: float(gains_B[rows].mean())  # noqa: E731
    interval = bootstrap(figure, groups, torch.Generator().manual_seed(0), num_draws=NUM_DRAWS)
    return {"points": round(interval.value, 2), "low": round(interval.low, 2), "high": round(interval.high, 2)}
