"""Conversions for modules that still take tensors. Each becomes its argument once that module takes arrays, and goes away then."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def taken(array: NDArray[Any]) -> Any:
    """Return an array as the cache, the metrics and the network take it: a tensor in the same memory, where torch is installed."""
    try:
        import torch
    except ImportError:
        return array
    return torch.from_numpy(np.ascontiguousarray(array))


def seeded(seed: int) -> Any:
    """Return a random generator as the metrics take it: torch's where they compute with torch, else numpy's."""
    from fewframes.core import metrics

    torch = getattr(metrics, "torch", None)
    return np.random.default_rng(seed) if torch is None else torch.Generator().manual_seed(seed)
