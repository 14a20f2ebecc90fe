"""Reading of files of named tensors: safetensors, and files of torch.save. No code inside such a file is ever run."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewframes.errors import WeightsError
from fewframes.models.files.model_file import one_line

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80\x02"
"""The first bytes of a file of torch.save, today and before 2020."""
STATE_KEYS = ("model", "model_state", "state_dict")
"""The keys under which training programs store the tensors among other things: timm and the release, PyTorchVideo, Lightning."""
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
"""The errors that torch's restricted unpickler raises on code, damage and garbage."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file or of a pickled state dict, real numbers as float32.

    A pickle is opened without running code. Raises WeightsError if the file cannot be read or holds anything but tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError:
        state = _read_pickle(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({one_line(error)})") from None
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of torch.save. Raises WeightsError for damage, code, and anything but a dict of tensors."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not start.startswith((ZIP_START, PICKLE_START)):
        raise WeightsError(f"{path}: neither safetensors nor a file of torch.save (begins {start!r})")
    try:
        # A small compressed file could fill the memory.
        if start == ZIP_START and any(entry.compress_type for entry in zipfile.ZipFile(path).infolist()):
            raise WeightsError(f"{path}: not a file of torch.save, which compresses nothing")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # by torch itself, as it words an error
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
        raise WeightsError(f"{path}: damaged; some numbers of {damaged[0]!r} are not in the file")
    return dict(content)


def _is_named_tensor(item: tuple[object, object]) -> bool:
    """Return True if the key of an item is a text and its value a tensor."""
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _is_whole(tensor: Tensor) -> bool:
    """Return True if a tensor is plain and all of its numbers are in the file. A few bytes of a pickle can claim any shape."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
