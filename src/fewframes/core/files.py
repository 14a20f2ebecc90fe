"""Files and folders of results. They are checked before the work, and written whole or not at all, by one process at a time."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from fewframes.errors import ConfigError, OutputError, needed

TableFormat = Literal["csv", "parquet"]

PART_PREFIX = ".part-"
"""The prefix of folders whose files are not finished yet."""
LOCK_FILE, WRITER_FILE = ".lock", ".writer"
"""The names of two files in a folder that a process is writing to: the lock, and a description of that process."""


def check_writable(folder: Path) -> None:
    """Raise ConfigError if no file can be made in the folder. The folder need not exist yet."""
    folder = folder.resolve()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"{folder}: {existing} is not a folder that can be written to; take another")


def check_not_read(path: Path, sources: Iterable[str]) -> None:
    """Raise ConfigError where a result would take the place of a file that it is made from."""
    if path.exists() and any(os.path.exists(source) and path.samefile(source) for source in sources):
        raise ConfigError(f"{path}: is itself read, and the result would replace it; take another file")


@contextmanager
def writing(folder: Path, advice: str = "make room or take another folder") -> Iterator[None]:
    """Turn errors of files inside the block into an OutputError of one line, which names the folder and ends with `advice`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{folder}: cannot be written ({reason}); {advice}") from None


@contextmanager
def filled(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Yield a temporary folder for new files of these names. They replace those of `folder` if the block ends without an error.

    A name that the block did not write is removed from `folder`, because the old file would not belong to the new ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=PART_PREFIX) as name:
        part = Path(name)
        yield part
        for file in names:
            if (part / file).exists():
                (part / file).replace(folder / file)
            else:
                (folder / file).unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove unfinished folders that `filled` and `whole` left behind when its process was killed."""
    for part in folder.glob(f"{PART_PREFIX}*"):
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same name. Its file replaces that of `path` if the block ends without an error.

    Each writer has a folder of its own, so two of them cannot mix their bytes, and the block may put other files beside its own.
    """
    target = path.resolve()  # the file behind a link is replaced, so the link stays a link
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=PART_PREFIX) as folder:
        part = Path(folder) / target.name
        yield part
        part.replace(target)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all. Raises OutputError if that fails.

    Text is written as UTF-8, with a question mark for each character that cannot be encoded.
    """
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    with writing(path, "make room or take another path"):
        if path.exists() and not path.is_file():  # a device or a pipe, which cannot be replaced by a file
            path.write_bytes(data)
            return
        with whole(path) as part:
            part.write_bytes(data)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes that would write to it.

    Raises ConfigError, which names the other process, if one is writing to it already. The operating system releases the lock
    when its process ends, even if the process is killed.
    """
    lock, writer = FileLock(folder / LOCK_FILE, timeout=0), folder / WRITER_FILE
    with writing(folder):
        try:
            lock.acquire()
        except Timeout:
            who = writer.read_text(encoding="utf-8") if writer.exists() else "another process"
            raise ConfigError(f"{folder}: {who} is writing to it; wait for it, or take another folder") from None
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        writer.write_text(f"process {os.getpid()} on {platform.node()}, since {began},", encoding="utf-8")
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may have been removed, and Windows removes the lock file on release
            writer.unlink(missing_ok=True)
            (folder / LOCK_FILE).unlink(missing_ok=True)
        lock.release()


def check_format(form: TableFormat) -> None:
    """Raise MissingDependency if the format is Parquet and pyarrow is not installed.

    This is called before the work, so that a missing package does not lose a result.
    """
    if form == "parquet":
        needed("pyarrow", "parquet", "Parquet needs pyarrow")


@contextmanager
def parquet_rows(
    target: Path | IO[bytes], columns: Mapping[str, Any], about: Mapping[str, str]
) -> Iterator[Callable[[Sequence[Mapping[str, object]]], None]]:
    """Yield a function that writes rows, as values by column, to a Parquet file. Each call makes one row group.

    Args:
        target: The file, or its content in memory.
        columns: The columns, with types of pyarrow.
        about: The metadata of the file.
    """
    import pyarrow  # late: an optional package
    from pyarrow import parquet

    schema = pyarrow.schema(list(columns.items()), metadata=dict(about))
    with parquet.ParquetWriter(target, schema, write_page_checksum=True) as writer:
        yield lambda rows: writer.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema)) if rows else None
