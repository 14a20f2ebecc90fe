"""Open and list the videos below the folders that a server may read from, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

from fewframes.errors import ConfigError, FewframesError, Refusal
from fewframes.serve.fetch import open_below
from fewframes.video.source import VIDEO_SUFFIXES

MOST_SEEN = 100_000
"""The most files that a list looks at."""


class Roots:
    """The folders that a server may read from. Links are followed first, so that none leads out of them."""

    def __init__(self, folders: Sequence[Path], max_bytes: int) -> None:
        """Take the folders. Raises ConfigError for one that does not exist."""
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"--root {folder}: no such folder; name one that exists")
        self.folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))
        self._max_bytes = max_bytes

    def open(self, name: str) -> IO[bytes]:
        """Open a file by its absolute path, or its path relative to one of the roots.

        Raises Refusal for a file outside of them or above the size limit, MissingVideo for one that does not exist.
        """
        refusals: list[FewframesError] = []
        for folder in self.folders:
            try:
                return open_below(str(folder), name, self._max_bytes)
            except FewframesError as error:
                refusals.append(error)
        # "No such file" in one root tells more than "outside" of all others.
        inside = [error for error in refusals if not (isinstance(error, Refusal) and error.status == 403)]
        raise (inside or refusals)[0]

    def path(self, name: str) -> str:
        """Return the whole path of a file, for what opens videos by path. Raises as `open` does."""
        with closing(self.open(name)) as file:
            return os.path.realpath(file.name)

    def videos(self, folder: str, most: int) -> dict[str, object]:
        """Return the paths of videos below a folder, or below all roots, with their sizes. Raises Refusal for one elsewhere."""
        found: list[dict[str, object]] = []
        num_seen = num_left = 0
        for path in (path for start in self._starts(folder) for path in _files(start)):
            num_seen += 1
            if num_seen > MOST_SEEN:
                break
            if path.suffix.lower() not in VIDEO_SUFFIXES or not self._holds(path.resolve()) or not path.is_file():
                continue
            if len(found) == most:
                num_left += 1
            else:
                found.append({"path": str(path), "mb": round(path.stat().st_size / 1e6, 3)})
        return {"videos": found, "not_listed": num_left, "all_seen": num_seen <= MOST_SEEN}

    def _holds(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self.folders)

    def _starts(self, name: str) -> tuple[Path, ...]:
        """Return the folders to search. Raises Refusal if the named one is in no root."""
        if not name:
            return self.folders
        try:
            named = [(folder / name).resolve() for folder in self.folders]
        except (OSError, ValueError, RuntimeError) as error:
            raise Refusal(403, f"{name!r}: not a path ({error})") from None
        inside = [path for path in named if self._holds(path)]
        if not inside:
            raise Refusal(403, f"{name}: outside of the folders that this server reads from; `about` lists them")
        folders = [path for path in inside if path.is_dir()]
        if not folders:
            raise Refusal(404, f"{name}: no such folder; leave it out to list all roots")
        return (folders[0],)


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder in order, without following links to folders. Hidden ones are left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(files) if not name.startswith("."))
