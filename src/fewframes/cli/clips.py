"""The options of `stream` for clips of events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewframes.cli.console import tell
from fewframes.core.text import count_of

if TYPE_CHECKING:
    from fewframes.watch.clips.keeper import ClipKeeper
    from fewframes.watch.settings import WatchSettings
    from fewframes.watch.watch import Watch

CLIPS = "Clips"
BEFORE_S = AFTER_S = 5.0
UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]b)", re.IGNORECASE)
ClipsOption = Annotated[
    Path | None,
    typer.Option(
        "--clips",
        metavar="FOLDER",
        help="Keep a clip, a picture and a JSON file of each event in this folder, with a page index.html that plays them. Nothing "
        "is decoded or encoded for a clip.",
        rich_help_panel=CLIPS,
    ),
]
BeforeOption = Annotated[
    float, typer.Option("--before", help="Seconds of a clip before its event.", rich_help_panel=CLIPS)
]
AfterOption = Annotated[
    float, typer.Option("--after", help="Seconds of a clip after its event.", rich_help_panel=CLIPS)
]
ClipsMostOption = Annotated[
    str | None,
    typer.Option(
        "--clips-most",
        metavar="SIZE",
        help="Delete the oldest events when the folder is larger than this, such as 500MB or 2GB.",
        show_default="no limit",
        rich_help_panel=CLIPS,
    ),
]


def bytes_of(text: str, option: str) -> int:
    """Return the bytes of a size such as 500MB. Raises BadParameter, which names `option`, for anything else."""
    found = SIZE.fullmatch(text.strip())
    size = 0 if found is None else round(float(found[1]) * UNITS[found[2].lower()])
    if size <= 0:
        raise typer.BadParameter(f"{option} {text!r}: needs a number above 0 with kB, MB, GB or TB, such as 2GB")
    return size


def check_clips(folder: Path | None, before_s: float, after_s: float, most: str | None) -> None:
    """Raise BadParameter for options about clips where no folder is named."""
    if folder is None and (most is not None or (before_s, after_s) != (BEFORE_S, AFTER_S)):
        raise typer.BadParameter("--before, --after and --clips-most are about clips; add --clips FOLDER")


@contextmanager
def recording(
    folder: Path | None,
    before_s: float,
    after_s: float,
    most: str | None,
    window_s: float,
    watched: WatchSettings | None,
) -> Iterator[ClipKeeper | None]:
    """Yield the keeper of clips, and release its folder after the block; None if no folder is named.

    Args:
        folder: The folder.
        before_s: Seconds of a clip before its event.
        after_s: Seconds of a clip after it.
        most: The most that all events may take, as text.
        window_s: The seconds that each answer is about.
        watched: The rules of events.
    """
    if folder is None or watched is None:
        yield None
        return
    from fewframes.watch.clips.folder import ClipSettings
    from fewframes.watch.clips.keeper import ClipKeeper, kept_s

    most_bytes = None if most is None else bytes_of(most, "--clips-most")
    settings = ClipSettings(before_s=before_s, after_s=after_s, most_bytes=most_bytes)
    with ClipKeeper(folder, settings, kept_s(settings, window_s, watched.book), tell) as keeper:
        yield keeper


@contextmanager
def keeping(keeper: ClipKeeper | None, watch: Watch | None) -> Iterator[None]:
    """Keep clips of the events of a watch inside the block, and tell how many after it."""
    if keeper is None or watch is None:
        yield
        return
    try:
        with keeper.keeping(watch):
            yield
    finally:
        counts = keeper.folder.counts
        words = f"clips: {count_of(counts.written, 'event')}"
        words += f", {counts.without_clip} without a clip" if counts.without_clip else ""
        words += f"; {counts.deleted} older ones deleted" if counts.deleted else ""
        tell(f"{words}; open {keeper.folder.folder / 'index.html'}")
