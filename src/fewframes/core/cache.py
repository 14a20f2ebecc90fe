"""A cache of frame embeddings on disk. Each is computed once for a video, encoder and view, and checked each time it is read.

A frame embedding depends on its own frame alone, so it serves every temporal part, head and window. The key is made of the
content of the video (not its name), the weights and precision of the encoder, and the exact views and timestamps.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fewframes.core.files import whole
from fewframes.core.natural import in_natural_order

log = logging.getLogger("fewframes")

WHOLE_BYTES = 256 * 2**20
"""The size up to which a file is hashed whole. Of a larger file, its size and `NUM_SPOTS` spots of `SPOT_BYTES` are hashed."""
SHOWN = b"shown 3"
"""The version of how frames are made from the bytes of a file, a part of each key. A new value makes all older entries unreachable,
so it changes whenever the same bytes give other frames."""
NUM_SPOTS, SPOT_BYTES = 64, 2**20
"""The number of spots of a large file that are hashed, and the bytes of each. They lie at equal distances."""
SETTLED_S = 2.0
"""Seconds after a change of a file from which its state tells a later change. Some file systems count time in steps of that."""


@dataclass(frozen=True)
class KnownFile:
    """The key of the content of a video file, and its length in seconds, which hold while the state of the file stays."""

    content: str
    duration_s: float


@dataclass(frozen=True)
class FileState:
    """The state of a file as the file system tells it, without a byte of it being read. A change of the content changes it."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    """The time at which the file or its attributes changed. Unlike `modified_ns`, it cannot be set back."""
    inode: int

    @classmethod
    def of(cls, path: str) -> FileState:
        """Return the state of a file. Raises OSError."""
        found = os.stat(path)
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    @property
    def is_settled(self) -> bool:
        """Return True if the last change is so long ago that another one would give another state."""
        return time.time() - max(self.modified_ns, self.changed_ns) / 1e9 > SETTLED_S


class EmbeddingCache:
    """A folder of float32 arrays by key. It can be interrupted and shared, because a file appears whole or not at all.

    `num_found` counts the arrays that `get` returned, `num_damaged` the files that it could not use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_found, self.num_damaged = 0, 0
        self._gave_up_writing = False

    def get(self, key: str) -> NDArray[np.float32] | None:
        """Return the array of this key, or None if there is none.

        A file with a wrong checksum is counted as damaged, and gives None too.
        """
        path = self._path(key)
        try:
            # The file is read once. `safe_open` would open it by name twice, and another process may replace it in between.
            content = path.read_bytes()
            array = load(content)["embeddings"]
            # `load` drops the metadata, so the header is parsed here: its length in eight bytes, then JSON.
            head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            checksum = head.get("__metadata__", {}).get("checksum")
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        except (SafetensorError, OSError, LookupError):
            self.num_damaged += 1
            return None
        if checksum != _checksum(array):
            self.num_damaged += 1
            return None
        self.num_found += 1
        return array

    def put(self, key: str, array: NDArray[np.float32]) -> None:
        """Store the array under this key. Raises OSError, and leaves no file, if the folder cannot be written to."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = save({"embeddings": np.ascontiguousarray(array)}, metadata={"checksum": _checksum(array)})
        with whole(path) as part:
            part.write_bytes(content)

    def put_or_warn(self, key: str, array: NDArray[np.float32]) -> bool:
        """Store the array and return True, or log a warning and return False if the folder cannot be written to.

        A full or read-only disk must not end a run: the next one only computes the embeddings anew. After the first failure
        nothing more is written, and no second warning is logged.
        """
        if self._gave_up_writing:
            return False
        try:
            self.put(key, array)
        except OSError as error:
            self._gave_up_writing = True
            log.warning("%s: frame embeddings are not cached (%s)", self.folder, error.strerror or error)
            return False
        return True

    def recall(self, key: str, state: FileState) -> KnownFile | None:
        """Return what `remember` stored under this key, if the file is still in this state."""
        try:
            found = json.loads(self._record(key).read_bytes())
            return KnownFile(**found["known"]) if found["state"] == asdict(state) else None
        except (OSError, ValueError, LookupError, TypeError):  # none, or not one of ours: the file is read again
            return None

    def remember(self, key: str, state: FileState, known: KnownFile) -> None:
        """Store what is known of a file in this state. Nothing is stored while a change could still leave the state as it is."""
        if not state.is_settled:
            return
        path = self._record(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as part:
                part.write_text(json.dumps({"state": asdict(state), "known": asdict(known)}), encoding="utf-8")
        except OSError as error:  # the file is read again next time, and `put_or_warn` says that nothing can be written
            log.debug("%s: %s", path, error)

    def _record(self, key: str) -> Path:
        return self.folder / "files" / key[:2] / f"{key}.json"

    def _path(self, key: str) -> Path:
        """Return the file of this key. A second level of folders keeps each of them small."""
        return self.folder / key[:2] / f"{key}.safetensors"


def key_of(*parts: Mapping[str, Any] | str) -> str:
    """Return one key made of several parts: settings as plain values, and other keys."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=20).hexdigest()


def content_key(path: str) -> str:
    """Return a key of the content of a file, or of each file in a folder, whatever their names are."""
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


def arrays_key(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return a key of named arrays, such as the weights of a network. Their order does not matter."""
    digest = hashlib.blake2b(digest_size=20)
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _checksum(array: NDArray[Any]) -> str:
    """Return a hash of the numbers of an array."""
    return hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
