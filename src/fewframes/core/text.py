"""Words of others (names of files, labels, reasons) made fit for what shows them: one function for each medium.

A name can hold what steers a terminal, turns text around, or begins a new line, a tag or a formula. What is data in Python stays
as it is; it is made fit where it is written.
"""

from __future__ import annotations

import html
import json
import logging
import re

STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters and line ends, marks that turn text around, and bytes that are no text."""
FORMULA = re.compile(r"[=+\-@]")


def plain(words: object) -> str:
    """Return words as one line for people, in terminals, logs and pictures: what would steer is shown as Python writes it."""
    return STEERING.sub(lambda found: repr(found[0])[1:-1], str(words))


def for_html(words: object) -> str:
    """Return words as text or as a quoted attribute of a page."""
    return html.escape(plain(words), quote=True)


def for_subtitles(words: object) -> str:
    """Return words as one line of WebVTT without tags; neither can they end a cue."""
    return html.escape(" ".join(plain(words).split()), quote=False)


def for_csv(cell: object) -> object:
    """Return a cell of a table; text that a spreadsheet would compute begins with an apostrophe, as is usual against that."""
    if not isinstance(cell, str):
        return cell
    text = plain(cell)
    return f"'{text}" if FORMULA.match(text) else text


def json_line(values: object, *, indent: int | None = None) -> str:
    """Return values as JSON that reads back the same, readable but for what would steer a terminal."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return STEERING.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


class OneLine(logging.Filter):
    """Makes every message that is logged one line: names and reasons of others cannot look like messages of their own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the finished words into the record."""
        record.msg, record.args = plain(record.getMessage()), ()
        return True


def printable(cell: str | None) -> str | None:
    """Names of files need not be text; Parquet's strings are."""
    return None if cell is None else cell.encode(errors="replace").decode()
