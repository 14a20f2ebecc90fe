"""Escaping of text from outside (names of files, labels, error messages), with one function for each medium that shows it.

A file name can contain characters that control a terminal, reverse the text, or begin a new line, a tag or a formula. Text stays
unchanged as data in Python. It is escaped only where it is written.
"""

from __future__ import annotations

import html
import json
import logging
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""The characters to escape: control characters, line ends, marks that change the direction of text, and bytes that are no text."""
FORMULA = re.compile(r"[=+\-@]")
"""The characters that begin a formula in a spreadsheet."""


STYLE = Path(__file__).parent / "templates" / "style.css"
"""The one style sheet of all pages."""
PAGE_SCRIPT = Path(__file__).parent / "templates" / "dom.js"
"""The script that the pages of servers share: it makes elements, in which text is never taken for HTML."""


def plain(words: object) -> str:
    """Return text as one line for terminals, logs and pictures. Control characters become escapes as in a string of Python."""
    return STEERING.sub(lambda found: repr(found[0])[1:-1], str(words))


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun: `1 video`, `3 videos`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def html_of(template: str, values: Mapping[str, object]) -> str:
    """Return a template of the package, filled with values, as HTML.

    Text in the values can hold no tags, and its control characters become escapes as in a string of Python.

    Args:
        template: Path of the template in the package, such as `viz/templates/timeline.html`.
        values: The values by the names that the template has for them.
    """
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # late, because few commands write HTML

    return Environment(
        loader=FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if hasattr(value, "__html__") else plain(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def for_subtitles(words: object) -> str:
    """Return text as one line of WebVTT. It can hold no tags, and it cannot end a cue."""
    return html.escape(" ".join(plain(words).split()), quote=False)


def stamp(time_s: float, point: str = ".") -> str:
    """Return a time as subtitles have it, `00:01:02.500`, with this decimal point."""
    minutes, thousandths = divmod(round(1000 * time_s), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{thousandths // 1000:02d}{point}{thousandths % 1000:03d}"


def for_csv(cell: object) -> object:
    """Return a cell of a CSV table. Text that a spreadsheet would take for a formula gets the usual apostrophe in front."""
    if not isinstance(cell, str):
        return cell
    text = plain(cell)
    return f"'{text}" if FORMULA.match(text) else text


def json_line(values: object, *, indent: int | None = None) -> str:
    """Return values as JSON that reads back the same. Only characters that control a terminal are escaped."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return STEERING.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


class OneLine(logging.Filter):
    """A filter that turns every log message into one line, so that text from outside cannot look like a message of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message of the record by its escaped text."""
        record.msg, record.args = plain(record.getMessage()), ()
        return True


def printable(cell: str | None) -> str | None:
    """Return a cell that is valid UTF-8, as strings in Parquet must be. Names of files need not be."""
    return None if cell is None else cell.encode(errors="replace").decode()
