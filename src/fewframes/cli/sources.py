"""Expand the sources that a user names on the command line into videos: folders, globs, lists and standard input."""

from __future__ import annotations

import codecs
import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fewframes.core.storage import as_path, file_system, is_address, store_errors
from fewframes.core.text import count_of
from fewframes.data.folders import counted_reasons, search
from fewframes.errors import FewframesError
from fewframes.video.source import STORE_SUFFIX

STANDARD_INPUT = "standard input"
START_BYTES = 2**16
"""Bytes of standard input that are checked to be text before all of it is read."""
MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
"""The first bytes of texts that are not UTF-8, with their encoding. PowerShell writes such texts."""


def expand(
    sources: Iterable[str], opened: tuple[str, ...] = (), *, note: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """Yield every video that the sources stand for: files and URLs as they are, folders searched, lists and globs opened.

    Of a folder without videos the frame stores are yielded.

    A source that stands for nothing is yielded as it is, so that it is named among the failures.

    Args:
        sources: Files, folders, globs, URLs, lists (.txt), or - for a list on standard input.
        opened: The lists that led here, against a list that leads to itself.
        note: Called with a line about the files of a folder that are no videos.
    """
    for source in sources:
        source = as_path(source)
        if source == "-":
            yield from expand(listed(read_piped()), opened, note=note)
        elif source.lower().endswith(".txt") and (is_address(source) or Path(source).is_file()):
            list_path = source if is_address(source) else os.path.realpath(source)
            if list_path in opened:
                raise FewframesError(f"{source}: a list that leads to itself; take that line out")
            yield from expand(listed(read_list(source)), (*opened, list_path), note=note)
        elif not os.path.exists(source) and glob.has_magic(source) and not is_address(source):
            found = sorted(glob.glob(source, recursive=True))
            yield from expand(found, opened, note=note) if found else [source]
        elif os.path.isdir(source):
            stores = sorted(map(str, Path(source).rglob(f"*{STORE_SUFFIX}")))
            below = search(source)
            if not below.videos and stores:  # written by `embed --frames-store`
                yield from stores
                continue
            if left := counted_reasons(below.left_out):
                note(f"{source}: {count_of(len(below.videos), 'video')}; left out: {left}")
            yield from below.videos or [source]
        else:
            yield source


def read_list(path: str) -> str:
    """Return the text of a list of sources, from a file or a URL. Raises FewframesError if it cannot be read."""
    try:
        system, path_there = file_system(path)
        return text_of(bytes(system.cat_file(path_there)), path)
    except store_errors() as error:
        raise FewframesError(f"{path}: cannot be read ({error}); check the address and the network") from None


def read_piped() -> str:
    """Return the text on standard input. Raises FewframesError if it is closed, or not text."""
    if sys.stdin is None:
        raise FewframesError("-: standard input is closed; pipe a list of videos into it, one a line, or name them")
    start = sys.stdin.buffer.read(START_BYTES)
    text_of(start, STANDARD_INPUT, is_whole=False)  # a video piped in by mistake may be long; its start tells
    return text_of(start + sys.stdin.buffer.read(), STANDARD_INPUT)


def text_of(content: bytes, name: str, *, is_whole: bool = True) -> str:
    """Return the content of a list of sources as text.

    The content is UTF-8, UTF-16 or UTF-32 with a byte order mark, or file names in any bytes if all these files exist.
    Raises FewframesError for anything else.

    Args:
        content: The bytes of the list.
        name: Name of the list, for errors.
        is_whole: False if `content` may end within a character.
    """
    marked = next((encoding for mark, encoding in MARKS if content.startswith(mark)), None)
    if marked is None and b"\0" in content:
        raise FewframesError(
            f"{name}: not text but data (a video?), where a list of videos is read, one a line; name the video itself, or "
            "read one that comes through a pipe with `fewframes stream -`"
        )
    try:
        return content.decode(marked or "utf-8-sig", errors="strict" if is_whole else "ignore")
    except UnicodeDecodeError as error:
        names = os.fsdecode(content)
        if all(os.path.lexists(line) for line in listed(names)):
            return names
        raise FewframesError(
            f"{name}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def listed(text: str) -> list[str]:
    """Return the lines of a list that name a source, without blank lines and # comments; a file may begin with # too."""
    lines = (line.strip() for line in re.split(r"\r\n|\r|\n", text))  # splitlines parts names at rarer characters too
    return [line for line in lines if line and (not line.startswith("#") or os.path.lexists(line))]
