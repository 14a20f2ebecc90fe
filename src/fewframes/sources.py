"""What a person names on the command line -> the videos that stand behind it."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from fewframes.errors import FewframesError
from fewframes.stores import file_system, store_errors
from fewframes.video import find_videos


def expand(sources: Iterable[str], opened: tuple[str, ...] = ()) -> Iterator[str]:
    """Every video that the sources stand for: files and URLs as they are, folders searched, lists and globs opened.

    What stands for nothing comes out as it is, to be named among the failures. `opened` are the lists that led here.
    """
    for source in sources:
        if source == "-":
            yield from expand(listed(sys.stdin.read()), opened)
        elif source.endswith(".txt") and ("://" in source or Path(source).is_file()):
            place = source if "://" in source else os.path.realpath(source)
            if place in opened:
                raise FewframesError(f"{source}: a list that leads to itself")
            yield from expand(listed(read_list(source)), (*opened, place))
        elif not os.path.exists(source) and glob.has_magic(source) and "://" not in source:
            found = sorted(glob.glob(source, recursive=True))
            yield from expand(found, opened) if found else [source]
        elif os.path.isdir(source):
            yield from find_videos(source) or [source]
        else:
            yield source


def read_list(path: str) -> str:
    """The text of a list of sources, from a file or a URL of fsspec's."""
    try:
        system, place = file_system(path)
        return bytes(system.cat_file(place)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FewframesError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    except store_errors() as error:
        raise FewframesError(f"{path}: cannot be read ({error}); check the address and the network") from None


def listed(text: str) -> list[str]:
    """The lines that name something: no blanks, no # comments."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
