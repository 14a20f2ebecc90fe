"""The table of an index (LanceDB): its columns and settings, commits of whole videos, and conditions on rows."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import SHOWN, content_key, key_of
from fewframes.core.storage import is_address, store_errors, version_of
from fewframes.errors import DataError, needed
from fewframes.inference.detection.spans import Span, clock
from fewframes.results import bars_html

Kind = Literal["video", "frames", "both"]
"""The vector of a window: the video embedding y, the mean of its frame embeddings, or both in one vector."""
Spans = Literal["learned", "windows"]
"""The rows of a video: windows alone, or, beside them, the spans that the model's detector finds."""
EMBEDDING, WORDS = "embedding", "words"
"""The two columns of vectors: by the model, as float32, and, if there is one, by an image-text encoder, as float16."""
WINDOWS, TAUGHT = "windows", "taught"
"""The two tables: a row for each window, and a row for each label that was taught."""
COLUMNS = ("id", "source", "start_s", "end_s", "label", "score")
"""The columns that a hit shows of its row."""


@dataclass(frozen=True)
class WordsColumn:
    """A second vector of each row: the mean of its frames by an image-text encoder, with which words are compared."""

    encoder: str
    """The name of the encoder, such as `clip:ViT-B-16/openai`."""
    weights: str
    """The file or folder of its weights; empty if they are fetched by its name."""
    key: str
    """A key of the weights of its image half, and of its view of frames."""
    width: int
    """The width of the vectors."""


@dataclass(frozen=True)
class IndexSettings:
    """The settings that all rows of an index have in common. A table with other settings takes no rows and answers no search."""

    model: str
    model_key: str
    labels: tuple[str, ...]
    width: int
    window_s: float
    hop_s: float
    embedding: Kind
    merge: int | None = None
    """Patches that each block merges away. None, in an index made before this was saved, is the number used in training."""
    still: float = 0.0
    """Largest change of brightness (0-255) up to which a frame reuses the embedding of one before; 0 is exact."""
    spans: Spans = "windows"
    """`learned` if the spans of the model's detector are rows too. An index made before this was saved has windows alone."""
    words: WordsColumn | None = None
    """The second vector of each row, if rows have one."""


@dataclass(frozen=True)
class HitPart:
    """The fit of a moment to one part of a search: its cosine, and its place among the moments that were looked at (1 is the best).

    The part is `text` or `example`.
    """

    part: str
    similarity: float
    rank: int


@dataclass(frozen=True)
class Hit:
    """A window or a span that was found. `id` names its row.

    `similarity` is a cosine, or a score in 0-1 where a label, or several things at once, were searched. `label` and `score` are the
    model's for the window, or those of the span.
    """

    id: str
    source: str
    start_s: float
    end_s: float
    similarity: float
    label: str
    score: float
    parts: tuple[HitPart, ...] = ()
    """Its fit to each part of a search for several things at once; empty for a search for one."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as `fewframes search --json` writes them."""
        rounded = {name: round(getattr(self, name), 4) for name in ("start_s", "end_s", "similarity", "score")}
        parts = {part.part: {"similarity": round(part.similarity, 4), "rank": part.rank} for part in self.parts}
        values = {**asdict(self), **rounded, "parts": parts}
        return values if parts else {name: value for name, value in values.items() if name != "parts"}


class Hits(tuple[Hit, ...]):
    """The windows that were found, best first: a tuple that notebooks show as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Return the hits as a table for notebooks. The bar is the similarity, from 0 to 1."""
        return bars_html(
            f"{len(self)} result{'s' * (len(self) != 1)}",
            ("start", "end", "action", "video", "id"),
            [
                (
                    clock(hit.start_s),
                    clock(hit.end_s),
                    f"{hit.label} {hit.score:.0%}",
                    os.path.basename(hit.source),
                    hit.id,
                )
                for hit in self
            ],
            [hit.similarity for hit in self],
            score="similarity",
            form=".3f",
        )


@dataclass(frozen=True, eq=False)
class SearchQuery:
    """A query for rows in the direction of `vector` (D,), except those that overlap the queried part of a video itself."""

    vector: NDArray[np.float32]
    content: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    column: str = EMBEDDING
    """The column of vectors that it is compared with."""
    part: str = "example"
    """The name of this part of a search for several things at once: `text` or `example`."""
    rival: NDArray[np.float32] | None = None
    """A vector (D,): rows that are more like it than like `vector` are left out."""


@dataclass(frozen=True, eq=False)
class TaughtLabel:
    """A label learned from examples: rows are scored by sigmoid(weights x embedding + bias).

    `num_gone` of its examples are no longer in the index.
    """

    name: str
    weights: NDArray[np.float32]
    bias: float
    yes: tuple[str, ...]
    no: tuple[str, ...]
    num_gone: int = 0


def lancedb() -> Any:
    """Import lancedb. Raises MissingDependency."""
    # Without this it warns of each of the thousands of parts of a vector index that gets none of a run's new rows.
    os.environ.setdefault("LANCEDB_LOG", "error")
    return needed("lancedb", "search", "an index needs lancedb")


def tables_at(url: str) -> tuple[Any, Any] | None:
    """Return the database at a folder or URL and its windows; None where there are none. Nothing is created."""
    package, folder = lancedb(), url.removeprefix("file:")
    if not is_address(folder) and not os.path.isdir(folder):  # connecting would make the folder
        return None
    database = package.connect(url)
    return (database, database.open_table(WINDOWS)) if WINDOWS in database.list_tables().tables else None


@contextmanager
def index_errors(url: str) -> Iterator[None]:
    """Turn an error of lancedb, which is one of these three, into a DataError of one line that names the index."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        words = " ".join(str(error).split())
        raise DataError(f"{url}: {words[:300]}") from None


def schema_of(settings: IndexSettings) -> Any:
    """Return the columns, with the settings in the schema's metadata."""
    pa = importlib.import_module("pyarrow")
    columns = {
        "id": pa.string(),
        "source": pa.string(),
        "content": pa.string(),
        "number": pa.int32(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "duration_s": pa.float64(),
        "label": pa.string(),
        "score": pa.float32(),
        **({"kind": pa.string()} if settings.spans == "learned" else {}),
        EMBEDDING: pa.list_(pa.float32(), settings.width),
        **({} if settings.words is None else {WORDS: pa.list_(pa.float16(), settings.words.width)}),
    }
    return pa.schema(list(columns.items()), metadata={"fewframes": json.dumps(asdict(settings))})


def is_window(row_id: str) -> bool:
    """Return True if the id is that of a window."""
    return row_id.count("-") == 1


def rows_of(
    schema: Any,
    video: tuple[str, str, float],
    windows: Sequence[Span],
    vectors_RD: NDArray[np.float32],
    spans: Sequence[Span] | None = (),
) -> Any:
    """Return the windows and the spans of a video as rows.

    Args:
        schema: The columns.
        video: Its path, the key of its content, and its length in seconds.
        windows: Seconds, label and score of each window.
        vectors_RD: The vector of each window, and then of each span. If there is a second column of vectors, each row has first
            the one and then the other.
        spans: Seconds, label and confidence of each span; None if the video is too short for the detector, so that its windows
            stand for spans.
    """
    pa = importlib.import_module("pyarrow")
    (path, content, duration_s), kind, spans = video, "span" if spans is None else "window", spans or ()
    rows = [*windows, *spans]
    stem, count = key_of(path, content)[:16], len(rows)
    columns = {
        # The id of a span tells its place, so that another model's span has it only where it is the same one.
        "id": [f"{stem}-{number}" for number in range(len(windows))]
        + [
            f"{stem}-{round(1000 * span.start_s)}-{round(1000 * span.end_s)}-{key_of(span.label)[:8]}" for span in spans
        ],
        "source": [path] * count,
        "content": [content] * count,
        "number": list(range(count)),
        "start_s": [row.start_s for row in rows],
        "end_s": [row.end_s for row in rows],
        "duration_s": [duration_s] * count,
        "label": [row.label for row in rows],
        "score": [row.confidence for row in rows],
    }
    if "kind" in schema.names:
        columns["kind"] = [kind] * len(windows) + ["span"] * len(spans)
    arrays = [pa.array(column, schema.field(name).type) for name, column in columns.items()]
    first = 0
    for name in (column for column in (EMBEDDING, WORDS) if column in schema.names):
        kind = schema.field(name).type
        own_RD = vectors_RD[:, first : first + kind.list_size].astype(kind.value_type.to_pandas_dtype())
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(own_RD.ravel(), kind.value_type), kind.list_size))
        first += kind.list_size
    return pa.Table.from_arrays(arrays, schema=schema)


def settings_in(url: str, table: Any) -> IndexSettings:
    """Return the settings that a table was made with. Raises DataError for a table that is not ours."""
    about = (table.schema.metadata or {}).get(b"fewframes")
    if about is None:
        raise DataError(f"{url}: its table {WINDOWS!r} was not made by fewframes; choose another folder")
    values = json.loads(about)
    if unknown := sorted({*values} - {field.name for field in fields(IndexSettings)}):
        raise DataError(f"{url}: made by a newer fewframes ({', '.join(unknown)} not known here); install that version")
    words = values.get("words")
    values |= {"labels": tuple(values["labels"]), "words": None if words is None else WordsColumn(**words)}
    return IndexSettings(**values)


def content_of(path: str) -> str:
    """Return the key of a video's content, or of its address and version where it is no file on this machine.

    The key is empty for a video that cannot be read, which then fails when it is opened. Raises MissingDependency.
    """
    try:
        return key_of(path, version_of(path), SHOWN.decode()) if is_address(path) else content_key(path)
    except store_errors():  # ValueError among them: a null character in the name, or a protocol that nobody knows
        return ""


def quoted(text: str) -> str:
    """Return text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def among(column: str, values: Iterable[str]) -> str:
    """Return the condition that a column holds one of these values."""
    return f"{column} IN ({', '.join(map(quoted, sorted(set(values))))})"
