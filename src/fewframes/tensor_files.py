"""Files of named tensors, read without running code of theirs: safetensors, and what torch.save wrote."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewframes.errors import WeightsError

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80\x02"
"""How files of torch.save begin, today's and those before 2020."""
STATE_KEYS = ("model", "model_state", "state_dict")
"""Under which trainers put the tensors beside what else they save: timm and the release, PyTorchVideo, Lightning."""
BAD_PICKLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
)
"""What torch's restricted unpickler raises on code, damage and garbage."""


def read_header(path: Path, key: str) -> dict[str, Any] | None:
    """The JSON object under `key` in the head of a safetensors file; None for any other kind of file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        header: dict[str, Any] | None = json.loads(metadata[key]) if key in metadata else None
        if header is not None and not isinstance(header, dict):
            raise WeightsError(f"{path}: its header is damaged ({type(header).__name__}, not an object)")
    except (SafetensorError, ValueError):
        return None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
    return header


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file or of a pickled state dict (opened without running code), real ones float32."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError):
        state = _read_pickle(path)
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not start.startswith((ZIP_START, PICKLE_START)):
        raise WeightsError(f"{path}: neither safetensors nor a file of torch.save (begins {start!r})")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except BAD_PICKLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{path}: not a file of plain tensors ({reason})") from None
    for key in STATE_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not (isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())):
        raise WeightsError(f"{path}: holds {type(content).__name__}, not a dictionary of tensors")
    return dict(content)
