"""A small detector with drawn weights."""

from __future__ import annotations

import numpy as np
import torch

from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.models.boundaries.features import NUM_FEATURES, fit_projection
from fewframes.training.boundaries.network import DetectorNetwork

WIDTH, NUM_LABELS = 40, 3


def network_weights(num_labels: int = NUM_LABELS, seed: int = 0) -> dict[str, np.ndarray]:
    torch.manual_seed(seed)
    network = DetectorNetwork(NUM_FEATURES, num_labels)
    return {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}


def drawn_boundaries(width: int = WIDTH, num_labels: int = NUM_LABELS) -> Boundaries:
    generator = np.random.default_rng(0)
    clips = [generator.normal(size=(30, width)).astype(np.float32) for _ in range(4)]
    mean, projection, change_mean, change_spread = fit_projection(clips, width // 2, generator)
    return Boundaries(
        mean=mean.astype(np.float16).astype(np.float32),
        projection=projection.astype(np.float16).astype(np.float32),
        change_mean=change_mean.astype(np.float32),
        change_spread=change_spread.astype(np.float32),
        weights={
            name: array.astype(np.float16).astype(np.float32) for name, array in network_weights(num_labels).items()
        },
        coefficients=np.array([1.2, 0.3], np.float32),
        interval_s=0.25,
        threshold=0.5,
    )
