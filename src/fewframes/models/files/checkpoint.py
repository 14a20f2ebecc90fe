"""Model files: how a whole model is saved to one file and read back.

The file is safetensors. Its header has the architecture, view, sampling, labels, training provenance, metrics and licences.
Loading is strict: a tensor that is missing, unknown or of another shape is an error that names it. Names of models and files of
other origin are the matter of hub.py and release.py.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from fewframes.core.settings import settings_from
from fewframes.errors import ConfigError, WeightsError
from fewframes.models.config import ModelConfig
from fewframes.models.exit_plan import ExitPlan
from fewframes.models.files.networks import build_model, check_fit, load_strictly, planned_model
from fewframes.models.files.tensor_files import one_line, read_shapes, read_tensors
from fewframes.models.stam import STAM
from fewframes.video.view import ViewConfig

MODEL_FILE = "model.safetensors"
"""The name of the model in the output folder of training. The path of that folder stands for it."""
FORMAT = 1
"""The version of the header. A file with a higher version was written by a newer fewframes."""
HEADER_KEY = "fewframes"
"""The key of the header in the metadata of a safetensors file."""
HEADER_FIELDS = {"format", "sampling", "model", "view", "labels", "provenance", "metrics", "licences"}
"""The fields that every header has."""
SAMPLING = "uniform"
"""The only rule for choosing frames: the centre of each of T equal parts of the whole video."""


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
    path = Path(path)
    model = checkpoint.model
    if len(checkpoint.labels) != model.config.num_classes:
        raise ValueError(f"{len(checkpoint.labels)} labels for {model.config.num_classes} classes")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype = {dtype}: needs a type of real numbers, such as torch.float16")
    header = {
        "format": FORMAT,
        "sampling": SAMPLING,
        "model": asdict(model.config),
        "view": asdict(checkpoint.view),
        "labels": list(checkpoint.labels),
        "provenance": dict(checkpoint.provenance),
        "metrics": dict(checkpoint.metrics),
        "licences": dict(checkpoint.licences),
        **({} if checkpoint.exits is None else {"exits": checkpoint.exits.to_dict()}),
    }
    tensors = {
        key: tensor.to(dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype).contiguous()
        for key, tensor in model.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each writer has a file of its own, so that two of them cannot mix their bytes.
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # the user's usual mode; safetensors would let only the owner read the file
        save_file(tensors, part, metadata={HEADER_KEY: json.dumps(header)})
        part.chmod(mode)
        part.replace(path)
    except SafetensorError as error:  # a full disk, among others
        raise OSError(f"{path}: cannot be written ({one_line(error)})") from None
    finally:
        part.unlink(missing_ok=True)


def from_header(path: Path, header: Mapping[str, Any]) -> Checkpoint:
    """Return the model of a safetensors file with this header.

    The header is checked and the shapes are compared before a network is built, so that a damaged file cannot fill the memory.
    Raises WeightsError.
    """
    version = header.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise WeightsError(f"{path}: its header is damaged (format {version!r})")
    if version > FORMAT or header.get("sampling") != SAMPLING:
        raise WeightsError(
            f"{path}: header format {version}, sampling {header.get('sampling')!r}; this fewframes reads "
            f"format {FORMAT}, sampling {SAMPLING!r}: install a newer one"
        )
    if HEADER_FIELDS - set(header):
        raise WeightsError(f"{path}: its header is damaged; missing: {', '.join(sorted(HEADER_FIELDS - set(header)))}")
    objects = {name: header[name] for name in ("model", "view", "provenance", "metrics", "licences")}
    wrong = next((name for name, value in objects.items() if not isinstance(value, dict)), None)
    if wrong is not None:
        raise WeightsError(f"{path}: its header is damaged ({wrong} is {type(objects[wrong]).__name__}, not an object)")
    try:
        config = settings_from(ModelConfig, header["model"], f"{path}: model")
        view = settings_from(ViewConfig, header["view"], f"{path}: view")
        exits = ExitPlan.from_dict(header["exits"], f"{path}: exits") if "exits" in header else None
        labels = _labels(header["labels"], config.num_classes, path)
        planned = planned_model(config, view)
        check_fit(planned, read_shapes(path), str(path))
        if exits is not None:
            exits.check(config)
        model = build_model(config, view)
    except (ConfigError, RecursionError) as error:  # the file is at fault here, not a setting of the caller
        raise WeightsError(
            str(error) if str(path) in str(error) else f"{path}: its header is damaged ({error})"
        ) from None
    load_strictly(model, read_tensors(path), str(path))
    return Checkpoint(model.eval(), view, labels, header["provenance"], header["metrics"], header["licences"], exits)


def _labels(values: object, num_classes: int, path: Path) -> tuple[str, ...]:
    """Return the labels of a header. Raises WeightsError unless they are one text for each class."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise WeightsError(f"{path}: its header is damaged (labels are not a list of texts)")
    if len(values) != num_classes:
        raise WeightsError(f"{path}: its header is damaged ({len(values)} labels for {num_classes} classes)")
    return tuple(values)
