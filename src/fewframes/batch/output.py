"""Many videos -> a folder of Parquet files with exactly one row for each input, whoever computes them and whoever dies.

The inputs, in their order, are cut into shards. A shard is one file that appears whole or not at all, so what is there is done
and all else is still to do: that, and no bookkeeping of an engine's, is the promise. Engines compute rows; one process writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from fsspec.implementations.local import LocalFileSystem

from fewframes.core.files import check_format
from fewframes.core.storage import file_system, store_errors
from fewframes.core.text import printable
from fewframes.errors import ConfigError

RUN_FILE = "_run.json"
"""What was run, in the folder beside the shards; readers of Parquet folders leave out what begins with _."""
SHOWN_FAILURES = 10
FOOTERS_AT_ONCE = 16
"""Files whose ends are read side by side: an object store answers each after tens of milliseconds."""
END_MARK_BYTES, TAIL_BYTES = 8, 2**16
"""A Parquet file's last, the length of the footer before it and PAR1; what is read at once of a file's end."""
SEAL, DIGEST_BYTES = b"digest-", 20
"""What stands before a footer's digest, which is of the footer with 0 in its place. Damaged footers must not reach pyarrow: of some
it ends the process."""
NO_DIGEST = b"0" * 2 * DIGEST_BYTES
FORMAT = 2
"""Of what is written here: 2 has digests."""

RowValues = Mapping[str, object]
"""A row's values by column; those left out are null."""


class Rows(Protocol):
    """What one process does with videos."""

    @property
    def about(self) -> Mapping[str, str]:
        """All that rows depend on beside the videos."""

    def rows(self, sources: Sequence[str]) -> Iterator[RowValues]:
        """One row for each source, in their order; what cannot be read is a row with an `error`."""


class RowTable(Rows, Protocol):
    """The same, where rows become a table."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """The rows' columns with types of pyarrow, among them `source` and `error`."""


class Job(Protocol):
    """Settings that can be pickled, from which each process makes its own work."""

    def start(self) -> Rows:
        """Load what is needed, once a process."""


@dataclass(frozen=True)
class Shard:
    """Inputs that become one file, or a piece of them; `first` is the place of the first of them among all inputs."""

    number: int
    first: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class ShardSummary:
    """What a finished run holds: rows, those of them with an error, files, and the first few errors."""

    num_rows: int
    num_failed: int
    num_shards: int
    errors: tuple[str, ...]


@dataclass(frozen=True)
class ShardFolder:
    """Where shards lie: a path, or a URL of fsspec's."""

    place: str
    key: str = ""
    """Of the run: it stands in each file."""

    @cached_property
    def _system(self) -> tuple[Any, str]:
        system, path = file_system(self.place)
        return system, path.rstrip("/")

    def path(self, name: str) -> str:
        """Of a file in it, as its file system has it."""
        return f"{self._system[1]}/{name}"

    def read(self, name: str) -> bytes | None:
        """What the file holds; None where there is none."""
        system, _ = self._system
        try:
            return bytes(system.cat_file(self.path(name)))
        except FileNotFoundError:
            return None

    def names(self) -> set[str]:
        """Of the files in it."""
        system, path = self._system
        system.invalidate_cache()
        try:
            return {str(name).rsplit("/", maxsplit=1)[-1] for name in system.ls(path, detail=False)}
        except FileNotFoundError:
            return set()

    def open(self, name: str) -> Any:
        """A file in it, to read."""
        return self._system[0].open(self.path(name), "rb")

    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        system, path = self._system
        if not isinstance(system, LocalFileSystem):
            system.pipe_file(self.path(name), content)  # one put: object stores show a file when it is whole
            return
        os.makedirs(path, exist_ok=True)
        part = Path(path) / f".part-{uuid.uuid4().hex}"
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # or a machine that loses power keeps the name and not the content
            part.replace(self.path(name))
        finally:
            part.unlink(missing_ok=True)


def name_of(number: int) -> str:
    """Of a shard's file."""
    return f"part-{number:06d}.parquet"


def cut(sources: Sequence[str], shard_rows: int) -> list[Shard]:
    """All inputs in shards of so many, the last one shorter."""
    if shard_rows < 1:
        raise ValueError(f"shard_rows = {shard_rows}: needs at least 1")
    firsts = range(0, len(sources), shard_rows)
    return [Shard(number, first, tuple(sources[first : first + shard_rows])) for number, first in enumerate(firsts)]


def pieces(shards: Sequence[Shard], most: int) -> list[Shard]:
    """The same inputs in pieces of at most so many, none of two shards."""
    return [
        Shard(shard.number, shard.first + offset, shard.sources[offset : offset + most])
        for shard in shards
        for offset in range(0, len(shard.sources), most)
    ]


class ShardWriter:
    """Puts shards together from rows of pieces, which come in any order."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = {shard.number: shard for shard in shards}
        self._waiting: dict[int, dict[int, RowValues]] = {}

    def add(self, piece: Shard, rows: Sequence[RowValues]) -> tuple[Shard, list[RowValues]] | None:
        """The shard and its rows, where these were the last of it."""
        shard, there = self._shards[piece.number], self._waiting.setdefault(piece.number, {})
        there.update(enumerate(rows, piece.first))
        if len(there) < len(shard.sources):
            return None
        del self._waiting[piece.number]
        return shard, [there[place] for place in sorted(there)]


def begin(place: str, about: Mapping[str, str], shards: Sequence[Shard]) -> ShardFolder:
    """The folder of a run, new or to be gone on with. ConfigError where it holds anything else, or cannot be written."""
    check_format("parquet")
    run: dict[str, str | int] = {
        **about,
        "format": FORMAT,
        "inputs": _key_of([shard.sources for shard in shards]),
        "num_inputs": sum(len(shard.sources) for shard in shards),
        "num_shards": len(shards),
    }
    folder = ShardFolder(place, _key_of(run))
    with writing_to(place):
        found = folder.read(RUN_FILE)
        if found is None:
            if any(name.startswith("part-") for name in folder.names()):
                raise ConfigError(
                    f"{place}: holds part- files but no {RUN_FILE} that says of what; take another folder"
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
            f"{place}: holds another run, with other {differing}; take another folder, or repeat that run"
        )
    return folder


def _key_of(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=20).hexdigest()


@contextmanager
def writing_to(place: str) -> Iterator[None]:
    """What goes wrong with the folder, as an error that says so."""
    try:
        yield
    except store_errors() as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{place}: cannot be written or read ({reason}); take another folder") from None


def remaining(folder: ShardFolder, shards: Sequence[Shard]) -> list[Shard]:
    """The shards that are not there, or not whole; ConfigError for one of another run."""
    with writing_to(folder.place), ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        names = folder.names()
        there = [shard for shard in shards if name_of(shard.number) in names]
        whole = {
            shard.number
            for shard, found in zip(there, pool.map(lambda s: _rows_in(folder, s), there), strict=True)
            if found
        }
    return [shard for shard in shards if shard.number not in whole]


def put_shard(folder: ShardFolder, shard: Shard, work: RowTable, rows: Iterable[RowValues]) -> None:
    """Write one shard; its rows get their numbers. Nothing is written unless there is exactly one for each source."""
    import pyarrow  # late: an optional package
    from pyarrow import parquet

    about = {**work.about, "run": folder.key, "shard": str(shard.number), "footer": (SEAL + NO_DIGEST).decode()}
    columns = [("row", pyarrow.int64()), *work.columns.items()]
    numbered = []
    for place, (source, row) in enumerate(zip(shard.sources, rows, strict=True)):
        assert row["source"] == printable(source), f"a row of {row['source']} for {source}"
        numbered.append({"row": shard.first + place, **row})
    table = pyarrow.Table.from_pylist(numbered, schema=pyarrow.schema(columns, metadata=about))
    content = BytesIO()
    parquet.write_table(table, content, write_page_checksum=True)
    with writing_to(folder.place):
        folder.put(name_of(shard.number), _sealed(content.getvalue()))


def _sealed(content: bytes) -> bytes:
    """A Parquet file with the digest of its footer in its footer."""
    start = len(content) - _footer_bytes(content)
    return content[:start] + _with_digest(content[start:])


def _footer_bytes(end: bytes) -> int:
    """How long a file's footer is, with its end mark, by the file's last bytes."""
    return END_MARK_BYTES + int.from_bytes(end[-8:-4], "little")


def _with_digest(footer: bytes) -> bytes:
    """The same with its digest in its place: the last one, for names of files before it may look the same."""
    place = footer.rindex(SEAL) + len(SEAL)
    before, after = footer[:place], footer[place + 2 * DIGEST_BYTES :]
    blank = before + NO_DIGEST + after
    return before + hashlib.blake2b(blank, digest_size=DIGEST_BYTES).hexdigest().encode() + after


def _footer_in(file: Any) -> bytes | None:
    """The footer of a file that `_sealed` made, with its end mark; None where it is not as it was written."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL_BYTES))
    tail: bytes = file.read()
    length = _footer_bytes(tail)
    if tail[-4:] != b"PAR1" or length > size:
        return None
    if length > len(tail):
        file.seek(size - length)
        tail = file.read()
    footer = tail[-length:]
    return footer if SEAL in footer and _with_digest(footer) == footer else None


def run_here(folder: ShardFolder, work: RowTable, shards: Iterable[Shard]) -> Iterator[int]:
    """Compute shards in this process, one after another; yields how many rows are new each time."""
    for shard in shards:
        rows = []
        for row in work.rows(shard.sources):
            rows.append(row)
            yield 1
        put_shard(folder, shard, work, rows)


def count(folder: ShardFolder, shards: Sequence[Shard]) -> ShardSummary:
    """What a finished run holds, from the files' ends. ConfigError where a shard is not there."""
    with writing_to(folder.place), ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        found = list(pool.map(lambda shard: _rows_in(folder, shard), shards))
    missing = [name_of(shard.number) for shard, rows in zip(shards, found, strict=True) if rows is None]
    if missing:
        raise ConfigError(
            f"{folder.place}: {', '.join(missing[:3])} not there or not whole; run the same command again"
        )
    failed = [(shard, rows[1]) for shard, rows in zip(shards, found, strict=True) if rows is not None and rows[1]]
    errors: list[str] = []
    for shard, _ in failed:
        if len(errors) < SHOWN_FAILURES:
            errors += _errors_in(folder, shard)
    num_rows = sum(len(shard.sources) for shard in shards)
    return ShardSummary(num_rows, sum(number for _, number in failed), len(shards), tuple(errors[:SHOWN_FAILURES]))


def _rows_in(folder: ShardFolder, shard: Shard) -> tuple[int, int] | None:
    """Rows of a shard's file and those with an error; None where it, or its end, is not there or damaged. ConfigError for another
    run's."""
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
        raise ConfigError(f"{folder.place}: {name_of(shard.number)} is of another run; take another folder")
    place = footer.schema.names.index("error")
    groups = [footer.row_group(group).column(place).statistics for group in range(footer.num_row_groups)]
    return footer.num_rows, footer.num_rows - sum(group.null_count for group in groups)


def _errors_in(folder: ShardFolder, shard: Shard) -> list[str]:
    from pyarrow import parquet

    with folder.open(name_of(shard.number)) as file:
        # Not `read_table`: its threads let go of Python's file late, and abort the process where the interpreter is gone by then.
        table = parquet.ParquetFile(file, pre_buffer=False).read(columns=["error"], use_threads=False)
    cells = table.column("error").to_pylist()
    return [cell for cell in cells if cell]
