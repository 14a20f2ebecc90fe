"""Folders that results are written to: checked before the work, filled whole or not at all, and errors in one line."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from fewframes.errors import ConfigError, OutputError

PART_PREFIX = ".part-"
"""How folders begin in which files wait until all of them are whole."""


def check_writable(folder: Path) -> None:
    """Raise ConfigError where no file could be made in the folder, which need not be there yet."""
    folder = folder.resolve()
    nearest_folder = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not nearest_folder.is_dir() or not os.access(nearest_folder, os.W_OK):
        raise ConfigError(f"{folder}: {nearest_folder} is not a folder that can be written to; take another")


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
