"""Write the embeddings of many videos as one file for other tools: one row per video as Parquet, or tensors as safetensors.

Results are written as they come, so memory does not grow with the number of videos. The file gets its name once it is complete.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.files import check_format, parquet_rows, whole
from fewframes.core.text import count_of, printable
from fewframes.core.version import __version__
from fewframes.errors import ConfigError, DataError
from fewframes.inference.predictor import Predictor
from fewframes.results import Failure, Prediction

ENDINGS = (".parquet", ".safetensors")
ROW_VALUES = 2**20
"""Numbers that a row group of Parquet holds before it is written."""
ALIGN_BYTES = 8
"""Alignment of a safetensors header, and so of the tensors behind it."""


@dataclass(frozen=True)
class EmbeddingSummary:
    """The number of videos in the file, and the failures, which are not."""

    num_videos: int
    failures: tuple[Failure, ...]


def check_embedding_file(path: Path) -> None:
    """Raise ConfigError for a file of another kind, and MissingDependency where Parquet needs pyarrow, before any work is done."""
    if path.suffix not in ENDINGS or (path.exists() and not path.is_file()):  # a folder, a pipe
        raise ConfigError(
            f"{path}: embeddings are written as .parquet or .safetensors files; name a file with one of these endings"
        )
    if path.suffix == ".parquet":
        check_format("parquet")


def write_embeddings(
    results: Iterable[Prediction | Failure], path: Path, predictor: Predictor, *, per_frame: bool = False
) -> EmbeddingSummary:
    """Write video embeddings y (Eq. 12), and frame embeddings f_t (Eq. 10) on request, in the order of the results.

    A Parquet file has the columns source, label, score, times_s, embedding, frame_embeddings and error; videos that failed are rows
    with the reason. A safetensors file has the tensors embedding (N, D), score (N,), label (N,), times_s (N, T) and
    frame_embeddings (N, T, D) of the N videos that could be read; sources, labels and failures are JSON in its metadata. Both name
    the model and its weights. Raises ConfigError where the file cannot be written, DataError when no video could be read; a former
    file then stays.

    Args:
        results: Results of `Predictor.predict_many`.
        path: The file, .parquet or .safetensors.
        predictor: The predictor that the results come from.
        per_frame: Write frame embeddings too.
    """
    check_embedding_file(path)
    about = {
        "fewframes": __version__,
        "model": predictor.name,
        "weights": predictor.runtime.model_key(),
        "precision": predictor.runtime.precision,
        "labels": json.dumps([printable(label) for label in predictor.labels]),
    }
    num_videos, failures = 0, []
    try:
        with whole(path) as unfinished:
            writing = (
                _parquet(unfinished, embedding_columns(predictor, per_frame=per_frame), about, per_frame=per_frame)
                if path.suffix == ".parquet"
                else _safetensors(unfinished, about, per_frame=per_frame)
            )
            with writing as add:
                for result in results:
                    if isinstance(result, Failure):
                        failures.append(result)
                    else:
                        num_videos += 1
                    add(result)
            if not num_videos:
                first = f"; the first: {failures[0].error}" if failures else ""
                raise DataError(
                    f"{path}: not written, because none of {count_of(len(failures), 'video')} could be read{first}"
                )
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error}); choose another folder") from None
    return EmbeddingSummary(num_videos, tuple(failures))


def embedding_columns(predictor: Predictor, *, per_frame: bool) -> dict[str, Any]:
    """Return the columns of the Parquet file with their types."""
    import pyarrow  # late: an optional package

    number, text = pyarrow.float32(), pyarrow.string()
    frames = pyarrow.list_(pyarrow.list_(number, predictor.runtime.frame_width))
    return {
        "source": text,
        "label": text,
        "score": number,
        "times_s": pyarrow.list_(number),
        "embedding": pyarrow.list_(number, predictor.runtime.video_width),
        **({"frame_embeddings": frames} if per_frame else {}),
        "error": text,
    }


def embedding_row(result: Prediction | Failure, *, per_frame: bool) -> dict[str, object]:
    """Return the values of one row; values that are left out are null."""
    if isinstance(result, Failure):
        return {"source": printable(result.source), "error": printable(result.error)}
    best = result.top(1)[0]
    return {
        "source": printable(result.source),
        "label": printable(best.label),
        "score": best.score,
        "times_s": result.times_s,
        "embedding": result.embedding,
        **({"frame_embeddings": list(result.frame_embeddings)} if per_frame else {}),
    }


@contextmanager
def _parquet(
    path: Path, columns: Mapping[str, Any], about: Mapping[str, str], *, per_frame: bool
) -> Iterator[Callable[[Prediction | Failure], None]]:
    """Yield a function that writes a result as a row of a Parquet file."""
    rows: list[dict[str, object]] = []
    num_values = 0

    def add(result: Prediction | Failure) -> None:
        nonlocal num_values
        rows.append(embedding_row(result, per_frame=per_frame))
        if isinstance(result, Prediction):
            num_values += result.embedding.size + result.frame_embeddings.size * per_frame
        if num_values > ROW_VALUES:
            write(rows)
            rows.clear()
            num_values = 0

    with parquet_rows(path, columns, about) as write:
        yield add
        write(rows)


@contextmanager
def _safetensors(
    path: Path, about: Mapping[str, str], *, per_frame: bool
) -> Iterator[Callable[[Prediction | Failure], None]]:
    """Yield a function that adds a result to the tensors of a safetensors file."""
    writer = _Safetensors(path, about, per_frame=per_frame)
    yield writer.add
    writer.finish()


class _Safetensors:
    """A writer of safetensors: the header's length in 8 bytes, a JSON header of names, types, shapes and offsets, then the tensors.

    The safetensors library writes only what is in memory, so here each tensor grows in a file of its own until all are joined.
    """

    def __init__(self, path: Path, about: Mapping[str, str], *, per_frame: bool) -> None:
        self._path, self._about, self._per_frame = path, about, per_frame
        self._sources: list[str] = []
        self._failures: list[dict[str, str | None]] = []
        self._kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}

    def add(self, result: Prediction | Failure) -> None:
        if isinstance(result, Failure):
            self._failures.append({"source": printable(result.source), "error": printable(result.error)})
            return
        self._sources.append(printable(result.source) or "")
        index = result.scores.argmax()
        self._append("embedding", result.embedding)
        self._append("score", np.asarray(result.scores[index]))
        self._append("label", np.asarray(index))
        self._append("times_s", result.times_s)
        if self._per_frame:
            self._append("frame_embeddings", result.frame_embeddings)

    def finish(self) -> None:
        texts = {"sources": json.dumps(self._sources), "failures": json.dumps(self._failures)}
        header: dict[str, object] = {"__metadata__": {**self._about, **texts}}
        end = 0
        for name, (dtype, shape) in self._kinds.items():
            begin, end = end, end + self._tensor_file(name).stat().st_size
            kind = {"float32": "F32", "int64": "I64"}[dtype.name]
            header[name] = {"dtype": kind, "shape": [len(self._sources), *shape], "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % ALIGN_BYTES)
        with self._path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in self._kinds:
                with self._tensor_file(name).open("rb") as part:
                    while block := part.read(2**24):
                        file.write(block)

    def _append(self, name: str, values: NDArray[Any]) -> None:
        kind = values.dtype, values.shape
        assert self._kinds.setdefault(name, kind) == kind, f"{name}: {kind} after {self._kinds[name]}"
        with self._tensor_file(name).open("ab") as file:
            file.write(values.tobytes())

    def _tensor_file(self, name: str) -> Path:
        return self._path.with_name(f"{name}.bytes")
