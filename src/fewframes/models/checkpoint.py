"""Networks and their weights: build, start from image weights, save, load, pull.

One file is a whole model: safetensors whose header carries architecture, view, sampling, labels, training provenance,
metrics and licences. Loading is strict: keys that are missing, unknown or of another shape are listed and refused.
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
from fewframes.models.networks import build_model, check_fit, load_strictly, planned_model
from fewframes.models.stam import STAM
from fewframes.models.tensor_files import one_line, read_shapes, read_tensors
from fewframes.video.view import ViewConfig

MODEL_FILE = "model.safetensors"
"""What training calls the model in its output folder; the folder's name stands for it."""
FORMAT = 1
"""Version of the header; a file with a higher one was written by a newer fewframes."""
HEADER_KEY = "fewframes"
HEADER_FIELDS = {"format", "sampling", "model", "view", "labels", "provenance", "metrics", "licences"}
SAMPLING = "uniform"
"""How frames are chosen, the only way there is: the centre of each of T equal parts of the whole video."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole model: the network with its weights, its input, its labels, and where it comes from."""

    model: STAM
    view: ViewConfig
    labels: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained: data, fingerprint, settings, versions."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, with the protocol."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Licence of the code, the weights it started from, and the data."""
    exits: ExitPlan | None = None
    """When to stop looking at a video, where that was fitted."""


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> None:
    """Write a whole model to one file, all at once or not at all; `dtype` stores its real numbers narrower."""
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
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")  # two writers do not meet in one
    try:
        part.touch()
        mode = part.stat().st_mode  # safetensors' own files can be read by their owner alone
        save_file(tensors, part, metadata={HEADER_KEY: json.dumps(header)})
        part.chmod(mode)
        part.replace(path)
    except SafetensorError as error:  # a full disk, among others
        raise OSError(f"{path}: cannot be written ({one_line(error)})") from None
    finally:
        part.unlink(missing_ok=True)


def from_header(path: Path, header: Mapping[str, Any]) -> Checkpoint:
    """Return the model of a safetensors file. Its head is checked, and its shapes compared, before a network is built."""
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
            exits.check(planned)
        model = build_model(config, view)
    except (ConfigError, RecursionError) as error:
        raise WeightsError(
            str(error) if str(path) in str(error) else f"{path}: its header is damaged ({error})"
        ) from None
    load_strictly(model, read_tensors(path), str(path))
    return Checkpoint(model.eval(), view, labels, header["provenance"], header["metrics"], header["licences"], exits)


def _labels(values: object, num_classes: int, path: Path) -> tuple[str, ...]:
    """Return the labels of a header; WeightsError where they are not one word for each class."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise WeightsError(f"{path}: its header is damaged (labels are no list of words)")
    if len(values) != num_classes:
        raise WeightsError(f"{path}: its header is damaged ({len(values)} labels for {num_classes} classes)")
    return tuple(values)
