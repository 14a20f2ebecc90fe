"""Model files of several heads over the packaged frame encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fewframes.models.files.model_file import ModelFile, read_model_file, write_model_file
from fewframes.models.files.names import find_model
from fewframes.runtime.file_graphs import WEIGHTS_OF
from fewframes.runtime.open import DEFAULT_MODEL
from fewframes.training.solved.model import SOLVED_MODEL
from helpers.boundaries import drawn_boundaries


@cache
def packaged() -> ModelFile:
    return read_model_file(find_model(DEFAULT_MODEL))


def solved_head(seed: int, num_classes: int, **config: Any) -> ModelFile:
    """A model as `--head solved` writes it, with random weights; one of eleven actions has the packaged judge of unknowns."""
    first, draw = packaged(), np.random.default_rng(seed)
    settings: Mapping[str, Any] = {**SOLVED_MODEL, "num_classes": num_classes, **config}
    width = first.tensors["moment_head.linear.weight"].shape[1]
    weights = {
        "head.weight": np.zeros((num_classes, width // 9), np.float32),
        "head.bias": np.zeros(num_classes, np.float32),
        "moment_head.linear.weight": 0.02 * draw.standard_normal((num_classes, width), np.float32),
        "moment_head.linear.bias": draw.standard_normal(num_classes, np.float32),
    }
    encoder = {key: array for key, array in first.tensors.items() if key.startswith(WEIGHTS_OF["frames"])}
    return ModelFile(
        config=replace(first.config, **settings),
        view=first.view,
        labels=tuple(f"action {seed}.{number}" for number in range(num_classes)),
        tensors=encoder | weights,
        graphs={"frames": first.graphs["frames"]},
        rejection=first.rejection if num_classes == len(first.labels) else None,
    )


def transformer_head(seed: int) -> ModelFile:
    """The packaged model with other weights in its heads."""
    first, draw = packaged(), np.random.default_rng(seed)
    changed = {
        key: array + 0.1 * draw.standard_normal(array.shape, np.float32)
        for key, array in first.tensors.items()
        if key.startswith("head.")
    }
    return replace(first, tensors={**first.tensors, **changed}, labels=tuple(f"t {label}" for label in first.labels))


def with_detector(file: ModelFile, interval_s: float) -> ModelFile:
    """The same model with a detector of drawn weights, which knows frames this far apart and is sure of what it finds."""
    drawn = drawn_boundaries(file.tensors["moment_head.linear.weight"].shape[1] // 9, len(file.labels))
    sure = np.array([0.1, 1.0], np.float32)
    return replace(file, boundaries=replace(drawn, interval_s=interval_s, coefficients=sure))


def with_clips_of(file: ModelFile, length_s: float) -> ModelFile:
    """The same model, which says how long the clips of its training were."""
    return replace(file, provenance={**file.provenance, "clip_length_s": length_s})


def write_heads(folder: Path) -> list[str]:
    """Write four heads to a folder, one of them in a folder of its own, and return their names in the order of a folder."""
    files = {
        "a.safetensors": solved_head(1, 3),
        "b/model.safetensors": solved_head(2, 11),
        "c.safetensors": solved_head(3, 2, task="multilabel"),
        "d.safetensors": transformer_head(4),
    }
    for name, file in files.items():
        write_model_file(folder / name, file)
    return [str(folder / name.removesuffix("/model.safetensors")) for name in files]
