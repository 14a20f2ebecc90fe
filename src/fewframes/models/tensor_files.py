"""Files of named tensors, read without running code of theirs: safetensors, and what torch.save wrote."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
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
MOST_REASON = 300
"""Characters of an error that is passed on."""
BAD_PICKLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    OverflowError,
    ImportError,
    OSError,
    zipfile.BadZipFile,
)
"""What torch's restricted unpickler raises on code, damage and garbage."""


def read_header(path: Path, key: str) -> dict[str, Any] | None:
    """Return the JSON object under `key` in the head of a safetensors file; None for any other kind of file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError:
        return None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
    if key not in metadata:
        return None
    try:
        header = json.loads(metadata[key])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its header is damaged ({type(error).__name__}: not JSON)") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: its header is damaged ({type(header).__name__}, not an object)")
    return header


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that the head of a safetensors file names, without reading one."""
    with safe_open(path, framework="pt") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a dict)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file or of a pickled state dict (opened without running code), real ones float32."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError:
        state = _read_pickle(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({one_line(error)})") from None
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
        if start == ZIP_START and any(entry.compress_type for entry in zipfile.ZipFile(path).infolist()):
            raise WeightsError(
                f"{path}: not a file of torch.save, which compresses nothing"
            )  # it could fill the memory
        content = torch.load(path, map_location="cpu", weights_only=True)
    except BAD_PICKLE as error:
        raise WeightsError(f"{path}: not a file of plain tensors ({one_line(error)})") from None
    for key in STATE_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not (isinstance(content, Mapping) and all(map(_is_named_tensor, content.items()))):
        raise WeightsError(f"{path}: holds {type(content).__name__}, not a dictionary of tensors")
    damaged = [key for key, tensor in content.items() if not _is_whole(tensor)]
    if damaged:
        raise WeightsError(f"{path}: damaged; not all numbers of {damaged[0]!r} are in the file")
    return dict(content)


def one_line(error: Exception) -> str:
    """Return the first line of what an error says, or its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:MOST_REASON] if lines else type(error).__name__


def _is_named_tensor(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _is_whole(tensor: Tensor) -> bool:
    """Return whether a tensor is plain and has a number in the file for each of its own: a few bytes can claim any shape."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
