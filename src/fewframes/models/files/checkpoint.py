"""Whole models of torch: saved to one file and loaded from it.

Loading is strict: a tensor that is missing, unknown or of another shape is an error that names it. model_file.py reads and writes
the files. Names of models and files of other origin are the matter of hub.py and release.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fewframes.errors import ConfigError
from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.models.config import ExitPlan
from fewframes.models.files.model_file import ModelFile, damaged, write_model_file
from fewframes.models.files.networks import build_model, check_fit, load_strictly, planned_model
from fewframes.models.rejection.judge import Judge
from fewframes.models.stam import STAM
from fewframes.video.view import ViewConfig

REAL = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""The types of real numbers in which a model can be saved."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole model: the network with its weights, the view of its input, its labels, and its origin."""

    model: STAM
    """The network."""
    view: ViewConfig
    """The size and normalisation of the frames that it takes."""
    labels: tuple[str, ...]
    """The names of the K actions."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """The training that made the model: data, fingerprint, settings, versions."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """The measurements of the model, with their protocol."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """The licences of the code, of the weights that training started from, and of the data."""
    exits: ExitPlan | None = None
    """The plan of an early exit, if one was fitted."""
    graphs: Mapping[str, bytes] = field(default_factory=dict)
    """The graphs that ONNX Runtime runs with these weights (export/file_graphs.py). Empty if none were made."""
    thresholds: tuple[float, ...] = ()
    """The score from which each label of a multi-label model counts as present; empty if none were fitted."""
    rejection: Judge | None = None
    """The judge of videos that show none of the actions, if one was fitted."""
    boundaries: Boundaries | None = None
    """The detector of spans in long videos, if one was trained."""


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> None:
    """Write a whole model to one file, all at once or not at all.

    Args:
        path: the file to write; its folder is made if it is missing.
        checkpoint: the model.
        dtype: a narrower precision for its real numbers, such as torch.float16; None keeps theirs.

    Raises:
        ConfigError: `dtype` is not a type of real numbers.
        OSError: the file cannot be written.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in REAL):
        raise ConfigError(f"dtype = {dtype}: needs a type of real numbers, such as torch.float16")
    state = {key: tensor.detach().cpu() for key, tensor in checkpoint.model.state_dict().items()}
    real = {key: dtype or tensor.dtype for key, tensor in state.items() if tensor.is_floating_point()}
    file = ModelFile(
        config=checkpoint.model.config,
        view=checkpoint.view,
        labels=checkpoint.labels,
        # numpy has no bfloat16, which is widened without loss.
        tensors={
            key: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy() for key, tensor in state.items()
        },
        provenance=checkpoint.provenance,
        metrics=checkpoint.metrics,
        licences=checkpoint.licences,
        exits=checkpoint.exits,
        graphs=checkpoint.graphs,
        thresholds=checkpoint.thresholds,
        rejection=checkpoint.rejection,
        boundaries=checkpoint.boundaries,
    )
    write_model_file(path, file, stored_as={key: str(kind).removeprefix("torch.") for key, kind in real.items()})


def checkpoint_of(file: ModelFile, path: Path, *, frame_encoder: torch.nn.Module | None = None) -> Checkpoint:
    """Return the model of a model file, in eval mode. Raises WeightsError.

    The shapes are compared before a network is built, so that a damaged file cannot fill the memory.

    Args:
        file: the content of the file.
        path: the file, for errors.
        frame_encoder: a network with the frame encoder's weights of the file, which the model then uses.
    """
    try:
        planned = planned_model(file.config, file.view)
        check_fit(planned, {key: array.shape for key, array in file.tensors.items()}, str(path))
        model = build_model(file.config, file.view) if frame_encoder is None else _with_encoder(file, frame_encoder)
    except (ConfigError, RecursionError) as error:  # the file is at fault here, not a setting of the caller
        raise damaged(path, error) from None
    load_strictly(model, {key: torch.from_numpy(array) for key, array in file.tensors.items()}, str(path))
    return Checkpoint(
        model=model.eval(),
        view=file.view,
        labels=file.labels,
        provenance=file.provenance,
        metrics=file.metrics,
        licences=file.licences,
        exits=file.exits,
        graphs=file.graphs,
        thresholds=file.thresholds,
        rejection=file.rejection,
        boundaries=file.boundaries,
    )


def _with_encoder(file: ModelFile, frame_encoder: torch.nn.Module) -> STAM:
    """Return a network of the settings of a file around a frame encoder that is there already."""
    width = frame_encoder.width
    assert isinstance(width, int)
    return STAM(file.config, file.view, frame_encoder, width)
