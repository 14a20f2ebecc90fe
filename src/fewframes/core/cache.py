"""Frame embeddings on disk: computed once for each video, encoder and view, and checked each time they are read.

A frame embedding depends on its own frame alone, so it serves every temporal part, head and window. The key is the
content of the video (not its name), the weights and precision of the encoder, and the exact views and moments.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from fewframes.core.natural import in_natural_order

log = logging.getLogger("fewframes")

WHOLE_BYTES = 256 * 2**20
"""Files up to this size are hashed whole; of larger ones the size and `NUM_SPOTS` spots of `SPOT_BYTES`."""
SHOWN = b"shown 2"
"""Which pictures are made of a file's bytes; another one where embeddings of the former pictures are not to be found any more."""
NUM_SPOTS, SPOT_BYTES = 64, 2**20


class EmbeddingCache:
    """Tensors by key in a folder; safe to interrupt and to share: files appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_found, self.num_damaged = 0, 0
        self._takes_no_more = False

    def get(self, key: str) -> Tensor | None:
        """The tensor of this key, or None; one whose checksum is off is counted as damaged and None."""
        path = self._path(key)
        try:
            # Read once: safe_open opens a file by its name twice, and in between another process may have put a new one there.
            content = path.read_bytes()
            tensor = load(content)["embeddings"]
            head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            checksum = head.get("__metadata__", {}).get("checksum")
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        except (SafetensorError, OSError, LookupError):
            self.num_damaged += 1
            return None
        if checksum != _checksum(tensor):
            self.num_damaged += 1
            return None
        self.num_found += 1
        return tensor

    def put(self, key: str, tensor: Tensor) -> None:
        """Keep the tensor under this key. Raises OSError where the folder cannot be written, and leaves nothing there."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = save({"embeddings": tensor.contiguous()}, metadata={"checksum": _checksum(tensor)})
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False, suffix=".part") as part:
            try:
                part.write(content)
                part.flush()
                Path(part.name).replace(path)
            except BaseException:
                Path(part.name).unlink()
                raise

    def put_or_warn(self, key: str, tensor: Tensor) -> bool:
        """Keep the tensor, and return whether it is kept. A full or forbidden disk costs the next run its time, not this one its
        work: it is said once, and nothing more is tried."""
        if self._takes_no_more:
            return False
        try:
            self.put(key, tensor)
        except OSError as error:
            self._takes_no_more = True
            log.warning("%s: frame embeddings are not kept (%s)", self.folder, error.strerror or error)
            return False
        return True

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def key_of(*parts: Mapping[str, Any] | str) -> str:
    """One key from several: settings as plain values, and other keys."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=20).hexdigest()


def content_key(path: str) -> str:
    """Return a key of the pictures that a file (or each file of a folder) holds, whatever it is called."""
    if os.path.isdir(path):
        return key_of(*(content_key(os.path.join(path, name)) for name in in_natural_order(os.listdir(path))))
    digest = hashlib.blake2b(digest_size=20, person=SHOWN)
    size_bytes = os.path.getsize(path)
    digest.update(str(size_bytes).encode())
    with open(path, "rb") as file:
        if size_bytes <= WHOLE_BYTES:
            while block := file.read(2**20):
                digest.update(block)
        else:
            for spot in range(NUM_SPOTS):
                file.seek(spot * (size_bytes - SPOT_BYTES) // (NUM_SPOTS - 1))
                digest.update(file.read(SPOT_BYTES))
    return digest.hexdigest()


def module_key(module: nn.Module) -> str:
    """A key of a module's weights and their precision."""
    digest = hashlib.blake2b(digest_size=20)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _checksum(tensor: Tensor) -> str:
    return hashlib.blake2b(_bytes_of(tensor), digest_size=16).hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    # Flattened first: channels-last tensors with axes of length 1 count as contiguous with any stride.
    return tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()
