"""Write the rows of many videos to a folder of Parquet files, with exactly one row for each input even if workers die.

The inputs, in their order, are cut into shards. A shard is one file that appears complete or not at all. So the files that are
there are done and all else is still to do; no engine keeps books about it. Engines compute rows; one process writes them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from fsspec.implementations.local import LocalFileSystem

from fewframes.core.files import check_format, parquet_rows, whole
from fewframes.core.storage import file_system, store_errors
from fewframes.core.text import printable
from fewframes.errors import ConfigError

RUN_FILE = "_run.json"
"""The file beside the shards that describes the run. Readers of Parquet folders leave out names that begin with _."""
SHOWN_FAILURES = 10
FOOTERS_AT_ONCE = 16
"""Files whose ends are read in parallel, because an object store answers each request after tens of milliseconds."""
END_MARK_BYTES, TAIL_BYTES = 8, 2**16
"""Bytes of a Parquet file's end mark (the length of the footer before it, and PAR1), and bytes read at once of a file's end."""
SEAL, DIGEST_BYTES = b"digest-", 20
"""The mark before a footer's digest, and the digest's length. The digest is that of the footer with 0 in its place. Damaged footers
must not reach pyarrow, because some of them end the process.
"""
NO_DIGEST = b"0" * 2 * DIGEST_BYTES
FORMAT = 2
"""The version of the files written here; 2 has digests."""

RowValues = Mapping[str, object]
"""A row's values by column; values that are left out are null."""


class Rows(Protocol):
    """The work that one process does with videos."""

    @property
    def about(self) -> Mapping[str, str]:
        """Everything that rows depend on apart from the videos."""

    def rows(self, sources: Sequence[str]) -> Iterator[RowValues]:
        """Yield one row for each source, in their order. A source that cannot be read gives a row with an `error`."""


class RowTable(Rows, Protocol):
    """The work whose rows become a table."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """The columns of the rows with types of pyarrow, among them `source` and `error`."""


class Job(Protocol):
    """Settings that can be pickled, from which each process makes its own work."""

    def start(self) -> Rows:
        """Load the model and whatever else is needed, once per process."""


@dataclass(frozen=True)
class Shard:
    """Inputs that become one file, or a piece of them. `first` is the index of its first input among all inputs."""

    number: int
    first: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class ShardSummary:
    """The contents of a finished run: rows, rows with an error, files, and the first few errors."""

    num_rows: int
    num_failed: int
    num_shards: int
    errors: tuple[str, ...]


@dataclass(frozen=True)
class ShardFolder:
    """A folder of shards: a path, or a URL that fsspec understands."""

    location: str
    key: str = ""
    """The run's key, which stands in each file."""

    @cached_property
    def _system(self) -> tuple[Any, str]:
        system, path = file_system(self.location)
        return system, path.rstrip("/")

    def path(self, name: str) -> str:
        """Return the path of a file in the folder, as its file system knows it."""
        return f"{self._system[1]}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where there is no such file."""
        system, _ = self._system
        try:
            return bytes(system.cat_file(self.path(name)))
        except FileNotFoundError:
            return None

    def names(self) -> set[str]:
        """Return the names of the files in the folder."""
        system, path = self._system
        system.invalidate_cache()  # other processes may have written since the last listing
        try:
            return {str(name).rsplit("/", maxsplit=1)[-1] for name in system.ls(path, detail=False)}
        except FileNotFoundError:
            return set()

    def open(self, name: str) -> Any:
        """Open a file in the folder for reading."""
        return self._system[0].open(self.path(name), "rb")

    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        system, path = self._system
        if not isinstance(system, LocalFileSystem):
            system.pipe_file(self.path(name), content)  # one put: object stores show a file once it is complete
            return
        os.makedirs(path, exist_ok=True)
        with whole(Path(self.path(name))) as part, part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # otherwise a machine that loses power may have the name and not the content


def name_of(number: int) -> str:
    """Return the name of a shard's file."""
    return f"part-{number:06d}.parquet"


def cut(sources: Sequence[str], shard_rows: int) -> list[Shard]:
    """Cut all inputs into shards of `shard_rows`; the last one may be shorter."""
    if shard_rows < 1:
        raise ValueError(f"shard_rows = {shard_rows}: needs at least 1")
    firsts = range(0, len(sources), shard_rows)
    return [Shard(number, first, tuple(sources[first : first + shard_rows])) for number, first in enumerate(firsts)]


def pieces(shards: Sequence[Shard], most: int) -> list[Shard]:
    """Cut shards into pieces of at most `most` inputs; no piece holds inputs of two shards."""
    return [
        Shard(shard.number, shard.first + offset, shard.sources[offset : offset + most])
        for shard in shards
        for offset in range(0, len(shard.sources), most)
    ]


class ShardWriter:
    """A collector that puts shards together from the rows of pieces, which come in any order."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = {shard.number: shard for shard in shards}
        self._waiting: dict[int, dict[int, RowValues]] = {}

    def add(self, piece: Shard, rows: Sequence[RowValues]) -> tuple[Shard, list[RowValues]] | None:
        """Take the rows of a piece. Return the shard with all its rows where these were the last ones."""
        shard, rows_by_index = self._shards[piece.number], self._waiting.setdefault(piece.number, {})
        rows_by_index.update(enumerate(rows, piece.first))
        if len(rows_by_index) < len(shard.sources):
            return None
        del self._waiting[piece.number]
        return shard, [rows_by_index[index] for index in sorted(rows_by_index)]


def begin(location: str, about: Mapping[str, str], shards: Sequence[Shard]) -> ShardFolder:
    """Open the folder of a run, a new one or one to continue.

    Raises ConfigError where it holds anything else, or cannot be written.

    Args:
        location: A path or URL.
        about: Everything that rows depend on apart from the videos.
        shards: All shards of the run.
    """
    check_format("parquet")
    run: dict[str, str | int] = {
        **about,
        "format": FORMAT,
        "inputs": _key_of([shard.sources for shard in shards]),
        "num_inputs": sum(len(shard.sources) for shard in shards),
        "num_shards": len(shards),
    }
    folder = ShardFolder(location, _key_of(run))
    with writing_to(location):
        found = folder.read(RUN_FILE)
        if found is None:
            if any(name.startswith("part-") for name in folder.names()):
                raise ConfigError(
                    f"{location}: holds part- files but no {RUN_FILE} that says which run made them; choose another folder"
                )
            folder.put(RUN_FILE, json.dumps(run, indent=1).encode())
            return folder
    try:
        former = json.loads(found)
    except ValueError:
        former = {}
    if former != run:
        differing = ", ".join(sorted(name for name in {*former, *run} if former.get(name) != run.get(name)))
        raise ConfigError(
            f"{location}: holds another run, which differs in {differing}; choose another folder, or repeat that run"
        )
    return folder


def _key_of(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=20).hexdigest()


@contextmanager
def writing_to(location: str) -> Iterator[None]:
    """Turn an error of the folder's file system into a ConfigError that names the folder."""
    try:
        yield
    except store_errors() as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{location}: cannot be written or read ({reason}); choose another folder") from None


def remaining(folder: ShardFolder, shards: Sequence[Shard]) -> list[Shard]:
    """Return the shards whose files are missing or damaged. Raises ConfigError for a file of another run."""
    with writing_to(folder.location), ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        names = folder.names()
        existing = [shard for shard in shards if name_of(shard.number) in names]
        complete = {
            shard.number
            for shard, found in zip(existing, pool.map(lambda s: _rows_in(folder, s), existing), strict=True)
            if found
        }
    return [shard for shard in shards if shard.number not in complete]


def put_shard(folder: ShardFolder, shard: Shard, work: RowTable, rows: Iterable[RowValues]) -> None:
    """Write one shard and number its rows. Nothing is written unless there is exactly one row for each source.

    Args:
        folder: Where it is written.
        shard: The shard.
        work: The work that computed the rows; its columns and settings are written too.
        rows: The rows, in the order of the shard's sources.
    """
    import pyarrow  # late: an optional package

    about = {**work.about, "run": folder.key, "shard": str(shard.number), "footer": (SEAL + NO_DIGEST).decode()}
    columns = {"row": pyarrow.int64(), **work.columns}
    numbered = []
    for index, (source, row) in enumerate(zip(shard.sources, rows, strict=True), shard.first):
        assert row["source"] == printable(source), f"a row of {row['source']} for {source}"
        numbered.append({"row": index, **row})
    content = BytesIO()
    with parquet_rows(content, columns, about) as add:
        add(numbered)
    with writing_to(folder.location):
        folder.put(name_of(shard.number), _sealed(content.getvalue()))


def _sealed(content: bytes) -> bytes:
    """Return a Parquet file's content with the digest of its footer in its footer."""
    start = len(content) - _footer_bytes(content)
    return content[:start] + _with_digest(content[start:])


def _footer_bytes(end: bytes) -> int:
    """Return the length of a file's footer with its end mark, read from the file's last bytes."""
    return END_MARK_BYTES + int.from_bytes(end[-8:-4], "little")


def _with_digest(footer: bytes) -> bytes:
    """Return a footer with its digest written in."""
    # The last mark is the digest's: names of videos, which come before it, may hold the same bytes.
    start = footer.rindex(SEAL) + len(SEAL)
    before, after = footer[:start], footer[start + 2 * DIGEST_BYTES :]
    blank = before + NO_DIGEST + after
    return before + hashlib.blake2b(blank, digest_size=DIGEST_BYTES).hexdigest().encode() + after


def _footer_in(file: Any) -> bytes | None:
    """Return the footer, with its end mark, of a file that `_sealed` made; None where it is not as it was written."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL_BYTES))
    tail: bytes = file.read()
    length = _footer_bytes(tail)
    if tail[-4:] != b"PAR1" or length > size:
        return None
    if length > len(tail):  # a footer of many columns or row groups may be longer than what was read at once
        file.seek(size - length)
        tail = file.read()
    footer = tail[-length:]
    return footer if SEAL in footer and _with_digest(footer) == footer else None


def run_here(folder: ShardFolder, work: RowTable, shards: Iterable[Shard]) -> Iterator[int]:
    """Compute shards in this process, one after another. Yields the number of new rows each time."""
    for shard in shards:
        rows = []
        for row in work.rows(shard.sources):
            rows.append(row)
            yield 1
        put_shard(folder, shard, work, rows)


def count(folder: ShardFolder, shards: Sequence[Shard]) -> ShardSummary:
    """Count the rows of a finished run from the ends of its files. Raises ConfigError where a shard is missing."""
    with writing_to(folder.location), ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        found = list(pool.map(lambda shard: _rows_in(folder, shard), shards))
    missing = [name_of(shard.number) for shard, rows in zip(shards, found, strict=True) if rows is None]
    if missing:
        raise ConfigError(f"{folder.location}: {', '.join(missing[:3])} missing or damaged; run the same command again")
    failed = [(shard, rows[1]) for shard, rows in zip(shards, found, strict=True) if rows is not None and rows[1]]
    errors: list[str] = []
    for shard, _ in failed:
        if len(errors) < SHOWN_FAILURES:
            errors += _errors_in(folder, shard)
    num_rows = sum(len(shard.sources) for shard in shards)
    return ShardSummary(num_rows, sum(number for _, number in failed), len(shards), tuple(errors[:SHOWN_FAILURES]))


def _rows_in(folder: ShardFolder, shard: Shard) -> tuple[int, int] | None:
    """Return how many rows a shard's file has, and how many have an error; None where the file or its end is missing or damaged.

    Raises ConfigError for a file of another run.
    """
    from pyarrow import parquet

    try:
        with folder.open(name_of(shard.number)) as file:
            content = _footer_in(file)
    except FileNotFoundError:
        return None
    if content is None:
        return None
    footer = parquet.read_metadata(BytesIO(b"PAR1" + content))
    about = footer.metadata or {}
    if about.get(b"run") != folder.key.encode() or footer.num_rows != len(shard.sources):
        raise ConfigError(f"{folder.location}: {name_of(shard.number)} belongs to another run; choose another folder")
    # By its path, because a field inside another column may be named error, too.
    column = [footer.schema.column(number).path for number in range(len(footer.schema.names))].index("error")
    groups = [footer.row_group(group).column(column).statistics for group in range(footer.num_row_groups)]
    return footer.num_rows, footer.num_rows - sum(group.null_count for group in groups)


def _errors_in(folder: ShardFolder, shard: Shard) -> list[str]:
    from pyarrow import parquet

    with folder.open(name_of(shard.number)) as file:
        # Not `read_table`: its threads release Python's file late, and abort the process if the interpreter is gone by then.
        table = parquet.ParquetFile(file, pre_buffer=False).read(columns=["error"], use_threads=False)
    cells = table.column("error").to_pylist()
    return [cell for cell in cells if cell]
