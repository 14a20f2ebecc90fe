"""A system of the paper's comparison with weights of one's own, as a classifier of clips: `baseline:NAME=FILE`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fewframes.core.settings import Task
from fewframes.errors import ConfigError, WeightsError, nearest
from fewframes.models.baselines.catalogue import BASELINES, OURS
from fewframes.models.baselines.systems import NUM_CLASSES, TRANSFORMERS, BaselineNetwork, build, load_weights
from fewframes.models.devices import float32_products
from fewframes.models.files.names import BASELINE_PREFIX
from fewframes.models.files.release import kinetics_labels


class BaselineClassifier:
    """A system of the comparison with its weights, its view and the labels of Kinetics-400. Its clip embedding is its logits."""

    kind = "baseline"
    task: Task = "single"
    licence = "unknown"
    """The licence of the weights, which no file of theirs tells."""

    def __init__(self, name: str) -> None:
        """Build the network and load its weights.

        Args:
            name: `baseline:NAME=FILE`, with a name of `fewframes bench --list`.

        Raises:
            ConfigError: There is no such system, it is a model of ours or of transformers, or no file is named.
            WeightsError: The file cannot be read, or has other weights.
            MissingDependency: The package that the network needs is not installed.
        """
        system, _, file = name.removeprefix(BASELINE_PREFIX).partition("=")
        if system not in BASELINES:
            raise ConfigError(f"{name}: no system {system!r}; {nearest(system, set(BASELINES) - set(OURS))}")
        baseline = BASELINES[system]
        if system in OURS:
            raise ConfigError(f"{name}: {system} is a model of fewframes; give its name, or its file, as it is")
        if baseline.package == TRANSFORMERS:
            raise ConfigError(f"{name}: {system} is a model of transformers; give its folder as hf:FOLDER")
        if not file:
            raise ConfigError(
                f"{name}: {system} has no weights of its own here, and random ones answer nothing; name a file of Kinetics-400 "
                f"weights with the names of its library: {BASELINE_PREFIX}{system}=FILE"
            )
        if not Path(file).is_file():
            raise WeightsError(f"{name}: {file}: no such file")
        network = build(baseline)
        assert isinstance(network, BaselineNetwork)
        load_weights(network, baseline, file)
        self.name, self.network, self.view = name, network, baseline.view
        self.files = (Path(file),)
        self.num_frames = baseline.frames_a_pass
        self.labels = kinetics_labels(NUM_CLASSES)
        self.width = len(self.labels)
        self.architecture = system
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the network to a device, in a precision."""
        self.network.to(device, dtype)
        self.device, self.dtype = device, dtype

    def embed(self, frames_BTCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits of clips: (B, T, C, H, W) uint8 -> (B, K). Each clip runs by itself."""
        rows = []
        with torch.inference_mode(), float32_products(self.device, tf32=False):
            for clip_TCHW in frames_BTCHW:
                pixels_TCHW = torch.from_numpy(np.ascontiguousarray(clip_TCHW)).to(self.device).to(self.dtype) / 255
                rows.append(self.network(pixels_TCHW[None]).float().reshape(1, self.width).cpu())
        return torch.cat(rows).numpy()

    def classify(self, embeddings_BD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits (B, K) of clip embeddings (B, D), which are the logits."""
        return embeddings_BD
