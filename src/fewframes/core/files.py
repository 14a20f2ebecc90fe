"""Files and folders of results: checked before the work, written whole or not at all, by one process at a time."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from fewframes.errors import ConfigError, OutputError, needed

TableFormat = Literal["csv", "parquet"]

PART_PREFIX = ".part-"
"""How folders and files begin that wait until they are whole."""
LOCK_FILE, WRITER_FILE = ".lock", ".writer"
"""What a folder holds while somebody writes to it; who that is."""


def check_writable(folder: Path) -> None:
    """Raise ConfigError where no file could be made in the folder, which need not be there yet."""
    folder = folder.resolve()
    nearest_folder = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not nearest_folder.is_dir() or not os.access(nearest_folder, os.W_OK):
        raise ConfigError(f"{folder}: {nearest_folder} is not a folder that can be written to; take another")


def check_not_read(path: Path, sources: Iterable[str]) -> None:
    """Raise ConfigError where a result would take the place of a file that it is made from."""
    if path.exists() and any(os.path.exists(source) and path.samefile(source) for source in sources):
        raise ConfigError(f"{path}: is itself read, and the result would replace it; take another file")


@contextmanager
def writing(folder: Path, advice: str = "make room or take another folder") -> Iterator[None]:
    """Raise OutputError, in one line, for what goes wrong with files inside the block."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{folder}: cannot be written ({reason}); {advice}") from None


@contextmanager
def filled(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Yield a folder for new files of these names; they replace those of `folder` when the block ends well, all of them.

    A name that was not written is removed from `folder`, in which it would be of an earlier time.
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
    """Remove what `filled` left in the folder when its process was killed."""
    for part in folder.glob(f"{PART_PREFIX}*"):
        shutil.rmtree(part, ignore_errors=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8, with a question mark for what is none. Raises OutputError."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    with writing(path, "make room or take another place"):
        if path.exists() and not path.is_file():  # a device or a pipe: nothing can take its place
            path.write_bytes(data)
            return
        target = path.resolve()  # a link stays one
        part = target.with_name(f"{PART_PREFIX}{uuid.uuid4().hex[:12]}")
        try:
            part.write_bytes(data)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes that would write to it. Raises ConfigError, which names the one that does.

    The system gives the lock back when its process ends, however that is.
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
        with suppress(OSError):  # the folder may be gone; Windows removes the lock itself when it is released
            writer.unlink(missing_ok=True)
            (folder / LOCK_FILE).unlink(missing_ok=True)
        lock.release()


def check_format(form: TableFormat) -> None:
    """MissingDependency where Parquet is asked for and pyarrow is not there: before the work, not after."""
    if form == "parquet":
        needed("pyarrow", "parquet", "Parquet needs pyarrow")
