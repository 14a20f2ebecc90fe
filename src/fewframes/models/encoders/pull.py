"""Fetch a frame encoder by name, and store it as a model file without actions: `--model timm:NAME` is that file then."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fewframes.core.files import writing
from fewframes.core.settings import settings_from
from fewframes.errors import WeightsError
from fewframes.models.config import CLIP, TIMM, ModelConfig
from fewframes.models.encoders.named import NamedEncoder, named_encoder
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.files.names import UNNAMED, encoder_path, hash_path, sha256_of
from fewframes.models.files.networks import build_model
from fewframes.models.stam import STAM
from fewframes.video.view import ViewConfig

WEIGHTS_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""The files of weights in a folder of the hub, in the order in which they are looked for."""


def pull_encoder(name: str, *, file: str | os.PathLike[str] | None = None) -> Path:
    """Fetch the weights of a frame encoder, check that they load, and store it in the cache folder. Return the path.

    Args:
        name: `timm:NAME` or `clip:ARCHITECTURE/TAG`.
        file: a file of weights, or a folder with one as the hub has it, instead of a download.

    Raises:
        ConfigError: there is no such encoder.
        WeightsError: its weights cannot be fetched, read or stored.
        MissingDependency: open_clip is not installed, for one of its names.
    """
    target = encoder_path(name)
    checkpoint = encoder_checkpoint(name, file=file)
    with writing(target):
        save_checkpoint(target, checkpoint)
        hash_path(target).write_text(sha256_of(target) + "\n")
    return target


def encoder_checkpoint(name: str, *, file: str | os.PathLike[str] | None = None) -> Checkpoint:
    """Return a model that is a frame encoder alone. Its video embedding is the mean over frames, and it names no action.

    The arguments and errors are those of `pull_encoder`.
    """
    if file is not None:
        weights = _weights_in(os.fspath(file), name)
    elif "@" in name:  # all poolings have the same weights, which may be stored already
        weights = named_encoder(name.partition("@")[0]).weights
    else:
        weights = name if name.startswith(CLIP) else name.removeprefix(TIMM)
    named, config, view = _settings(name)
    library = "open_clip_torch" if name.startswith(CLIP) else "timm"
    record = {
        "name": name,
        "weights": "" if file is None else os.path.abspath(file),
        "versions": {library: version(library)},
    }
    return _alone(start_model(config, view, weights), view, {"encoder": record}, named.licence)


def random_checkpoint(name: str) -> Checkpoint:
    """Return the model of a frame encoder with random weights, whose speed is that of published ones. Nothing is fetched.

    The errors are those of `named_encoder`.
    """
    named, config, view = _settings(name)
    return _alone(build_model(config, view), view, {}, named.licence)


def _settings(name: str) -> tuple[NamedEncoder, ModelConfig, ViewConfig]:
    """Return what follows from a name, and the settings of the model that is this encoder alone."""
    named = named_encoder(name)
    config = settings_from(ModelConfig, {**named.fields, "temporal": "mean", "num_classes": 1}, name)
    return named, config, settings_from(ViewConfig, named.view, f"{name}: view")


def _alone(model: STAM, view: ViewConfig, provenance: dict[str, Any], licence: str) -> Checkpoint:
    """Return a network as a model that names no action. Its head is zero, so that pulled twice it is the same model."""
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    licences = {"frame encoder": licence}
    return Checkpoint(model.eval(), view, (UNNAMED,), provenance=provenance, licences=licences)


def _weights_in(path: str, name: str) -> str:
    """Return the file of weights: the path itself, or one in the folder. Raises WeightsError if there is none."""
    if os.path.isfile(path):
        return path
    found = next((file for file in WEIGHTS_FILES if os.path.isfile(os.path.join(path, file))), None)
    if found is None:
        what = f"a folder without {' or '.join(WEIGHTS_FILES)}" if os.path.isdir(path) else "no such file"
        raise WeightsError(f"{path}: {what}; name the file that has the weights of {name}")
    return os.path.join(path, found)
