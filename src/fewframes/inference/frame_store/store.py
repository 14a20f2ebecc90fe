"""The file of a frame store: the embeddings of a video's frames at a steady rate, in safetensors, checked when it is read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from typing_extensions import TypeIs

from fewframes.core.files import write_file
from fewframes.core.storage import as_path, file_system, is_address, store_errors
from fewframes.core.version import __version__
from fewframes.errors import MissingVideo, VideoError
from fewframes.inference.frame_features import Gap, Indices, Times
from fewframes.inference.frame_store.coder import DamagedCode
from fewframes.inference.frame_store.quantise import CodedPart, decode_part
from fewframes.runtime.protocol import Floats
from fewframes.video.source import STORE_SUFFIX

FORMAT = "1"
"""The version of the file. Another one is refused."""
ABOUT = "fewframes_frames"
"""The key of the metadata that says everything but the embeddings, as JSON."""


@dataclass(frozen=True)
class StoreInfo:
    """The properties of a frame store."""

    source: str
    """The name of the video."""
    content: str
    """A hash of the video's file; empty for a video that is no local file."""
    duration_s: float
    """Its length in seconds."""
    rate: float
    """Frames a second."""
    num_frames: int
    """N, the number of frames. Frame n was taken (n + 1/2) / rate seconds after the start."""
    width: int
    """D, the width of an embedding."""
    model: str
    """The name of the model that embedded the frames. Any model of the same frame encoder reads them."""
    encoder: str
    """A key of the frame encoder: its weights, precision and view."""
    precision: str
    """The precision in which it computed."""
    still: float
    """The level of the gate for frames that show nothing new (0: exact)."""
    gaps: tuple[Gap, ...] = ()
    """Parts of the video that could not be decoded."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {**self.__dict__, "gaps": [gap.__dict__ for gap in self.gaps]}


class FrameStore:
    """The frame embeddings of a video, read from a file; it takes the place of the video in `fewframes.timeline`."""

    def __init__(self, path: str, info: StoreInfo, parts: Sequence[tuple[int, CodedPart]], missing: Indices) -> None:
        """Hold what a file says. `read_frame_store` makes this.

        Args:
            path: The file.
            info: Its properties.
            parts: The coded parts, each with its number of frames.
            missing: Indices of frames that could not be decoded.
        """
        self.path, self.info = path, info
        self._parts, self._missing = parts, missing

    @property
    def times_s(self) -> Times:
        """Return the timestamps (N,) of the frames, in seconds."""
        times_N: Times = (np.arange(self.info.num_frames, dtype=np.float64) + 0.5) * (1 / self.info.rate)
        return times_N

    @property
    def missing(self) -> Indices:
        """Return the indices of frames that could not be decoded."""
        return self._missing

    def chunks(self, indices: Indices) -> Iterator[Floats]:
        """Yield the embeddings (n, D) of frames, part after part, NaN where a frame could not be decoded. Raises VideoError.

        Args:
            indices: The frames' indices, ascending.
        """
        first = 0
        for num_frames, part in self._parts:
            wanted = indices[(indices >= first) & (indices < first + num_frames)]
            if len(wanted):
                try:
                    found_ND = decode_part(part, num_frames, self.info.width)[wanted - first]
                except DamagedCode as error:
                    raise damaged(self.path, str(error)) from None
                found_ND[np.isin(wanted, self._missing)] = np.nan
                yield found_ND
            first += num_frames

    def embeddings(self) -> Floats:
        """Return all embeddings (N, D) float32, NaN where a frame could not be decoded. Raises VideoError."""
        return np.concatenate(list(self.chunks(np.arange(self.info.num_frames))))

    def __repr__(self) -> str:
        info = self.info
        return f"FrameStore({self.path!r}: {info.num_frames} frames at {info.rate:g}/s of {info.source!r})"


def is_frame_store(source: object) -> TypeIs[str | os.PathLike[str]]:
    """Return True for a path or address that ends as frame stores do."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(STORE_SUFFIX)


def save_frame_store(
    path: Path, info: StoreInfo, parts: Sequence[tuple[int, CodedPart]], missing: Sequence[int]
) -> None:
    """Write a frame store, whole or not at all. Raises OutputError.

    Args:
        path: The file.
        info: The properties of the store.
        parts: The coded parts, each with its number of frames.
        missing: Indices of frames that could not be decoded.
    """
    tensors: dict[str, NDArray[Any]] = {
        f"{number}.{name}": array
        for number, (_, part) in enumerate(parts)
        for name, array in (("words", part.words), ("about", part.about))
    }
    tensors["missing"] = np.asarray(missing, np.int64)
    about = {
        "format": FORMAT,
        "fewframes": __version__,
        **info.to_dict(),
        "parts": [num_frames for num_frames, _ in parts],
    }
    metadata = {ABOUT: json.dumps(about), "checksum": _checksum(tensors, json.dumps(about))}
    write_file(path, save(tensors, metadata=metadata))


def read_frame_store(source: str | os.PathLike[str]) -> FrameStore:
    """Return the frame store of a file or address. Its checksum is checked; embeddings are decoded when they are asked for.

    Raises MissingVideo, and VideoError for a file that is damaged, or no frame store.
    """
    path = as_path(os.fspath(source))
    content = _content(path)
    try:
        tensors = load(content)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise damaged(path, str(error)) from None
    if ABOUT not in metadata:
        raise VideoError(f"{path}: no frame store; `fewframes embed VIDEO --frames-store FOLDER` writes one")
    if metadata.get("checksum") != _checksum(tensors, metadata[ABOUT]):
        raise damaged(path, "its checksum is wrong")
    about = json.loads(metadata[ABOUT])
    if about["format"] != FORMAT:
        raise VideoError(
            f"{path}: a frame store of format {about['format']} (fewframes {about['fewframes']}), and this version reads "
            f"{FORMAT}; install that version, or write the store again from the video"
        )
    info = StoreInfo(
        **{name: about[name] for name in StoreInfo.__dataclass_fields__ if name != "gaps"},
        gaps=tuple(Gap(**gap) for gap in about["gaps"]),
    )
    parts = [
        (num_frames, CodedPart(tensors[f"{number}.words"], tensors[f"{number}.about"]))
        for number, num_frames in enumerate(about["parts"])
    ]
    return FrameStore(path, info, parts, tensors["missing"])


def damaged(path: str, reason: str) -> VideoError:
    """Return the error for a file that cannot be read as a frame store."""
    return VideoError(f"{path}: a damaged frame store ({reason}); copy it again, or write it again from the video")


def _content(path: str) -> bytes:
    """Return the bytes of a file or address. Raises MissingVideo and VideoError."""
    try:
        if is_address(path):
            system, path_there = file_system(path)
            return bytes(system.cat_file(path_there))
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise MissingVideo(f"{path}: no such file; check the path") from None
    except store_errors() as error:  # OSError among them
        raise VideoError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _checksum(tensors: Mapping[str, NDArray[Any]], about: str) -> str:
    """Return a hash of the arrays and of what is said about them."""
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
