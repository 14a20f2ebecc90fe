"""Part the text of a list into rows of cells with their line numbers. Separator and comments are decided from all lines.

The meaning of the cells is left to `columns.py` and `layouts.py`.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewframes.data.folders import is_video_name
from fewframes.errors import DataError
from fewframes.video.source import VIDEO_SUFFIXES

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NO_LISTS = (
    (b"PK\x03\x04", "an Excel workbook or a ZIP archive; save the table as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save the table as CSV (UTF-8)"),
    (b"PAR1", "a Parquet file; save the table as CSV (UTF-8)"),
    (b"SQLite format 3", "a database; save the table as CSV (UTF-8)"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"{\\rtf", "a document of a word processor (RTF); save the table as plain text (UTF-8)"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the list; fetch it with: git lfs pull"),
    (b"<", "HTML or XML, not a list; download the file itself, or save the table as CSV"),
)
"""The first bytes of other kinds of files, and what the error says of each."""
OTHER_TEXTS = frozenset({".yaml", ".yml", ".toml", ".xml", ".html", ".htm"})
"""Endings of texts that are read neither as lines of cells nor as JSON."""
EXCELS_SEPARATOR = re.compile(r"\s*\"?sep=(.)\"?\s*\n", re.IGNORECASE)
"""A first line that is for Excel alone."""
RULE = re.compile(r":?-{2,}:?|={2,}")
"""A cell of the line below the header of a table drawn with characters."""
SEPARATORS = "\t,;|"
SUFFIXED = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))}))\s+(\S.*)", re.IGNORECASE)
COLUMNS = ("path", "label", "start_s", "end_s", "split", "group")
"""The header of the lists that fewframes writes."""
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
MAX_CELL = 2**31 - 1
"""The most characters in a cell. Python's own limit is too small for a cell of many labels."""


@dataclass(frozen=True)
class ListRow:
    """A row of cells, with the number of the line in which it ends."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ListTable:
    """The rows of a list, and the separator of their cells; an empty one stands for spaces."""

    rows: tuple[ListRow, ...]
    separator: str
    num_comments: int = 0


def text_of(path: Path) -> str:
    """Return the text of a list, with lines that end in \\n. Raises DataError if the file is not text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if words := next(
        (words for start, words in NO_LISTS if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start)), ""
    ):
        raise DataError(f"{path}: {words}")
    if path.suffix.lower() in OTHER_TEXTS:
        raise DataError(f"{path}: {path.suffix[1:].upper()} is not read; save the list as CSV or JSON")
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "")
    if not encoding and b"\0" in content:  # UTF-16 without its mark: with mostly Latin letters, every second byte is 0
        even, odd = content[::2].count(0), content[1::2].count(0)
        encoding = "utf-16-le" if odd > 10 * even else "utf-16-be" if even > 10 * odd else ""
        if not encoding or 2 * max(even, odd) < len(content) // 4:
            raise DataError(f"{path}: contains null bytes, so it is not text; pass a list saved as UTF-8 text")
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not {encoding or 'UTF-8'} text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise DataError(f"{path}: contains a null character; pass a list saved as UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line that is not empty, counted from 1."""
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def read_table(path: Path) -> ListTable:
    """Return the rows of a list.

    The separator is the one that parts most lines into equally many cells, with file names in one column.

    Raises:
        DataError: The list is empty, or a quote does not end.
    """
    text = text_of(path)
    if text.startswith(",".join(COLUMNS) + "\n"):
        return ListTable(tuple(_split(path, text, ",")), ",")  # fewframes wrote it: nothing to guess, and no comments
    text = EXCELS_SEPARATOR.sub("\n", text, count=1) if EXCELS_SEPARATOR.match(text) else text
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    comments = {number for number, line in lines if is_comment(path, line)}
    if (
        '"' in text
    ):  # a line that begins with # may be part of a quoted cell: only the lines before the first row are comments
        first = lines[0][0] if lines else 0
        leading = 0
        for number, _ in lines:
            if number not in comments:
                break
            leading = number
        comments = {number for number in comments if first <= number <= leading}
    text = "\n".join("" if number in comments else line for number, line in enumerate(text.split("\n"), 1))
    if not text.strip():
        raise DataError(f"{path}: empty; needs a line for each video: its path and its label")
    tables: list[tuple[str, list[ListRow]]] = []
    failed: list[DataError] = []
    for separator in (separator for separator in SEPARATORS if separator in text):
        try:
            tables.append((separator, _split(path, text, separator)))
        except DataError as error:
            failed.append(error)
    tables.append(("", _split_at_spaces(text)))
    separator, rows = max(tables, key=lambda table: _fitness(*table))
    if failed and _fitness(separator, rows)[1] < 1:
        raise failed[0]
    rows = [row for row in rows if not all(RULE.fullmatch(cell) for cell in row.cells if cell)]
    return ListTable(tuple(_without_quotes(_without_last_separator(rows))), separator, len(comments))


def is_comment(path: Path, line: str) -> bool:
    """Return True if a line is a comment: it begins with #, and is neither a header nor the name of a file with # in it."""
    text = line.strip()
    if not text.startswith("#"):
        return False
    cells = [cell.strip().strip("\"'").lower() for cell in re.split(r"[\t,;|\s]+", text[1:].strip())]
    if {"path", "label"} <= set(cells):
        return False
    name = match[1] if (match := SUFFIXED.fullmatch(text)) else re.split(r"[\t,;|]", text)[0].strip()
    if not is_video_name(name):
        return True
    return not os.path.exists(path.parent / name) and (
        text[1:2].isspace() or os.path.exists(path.parent / name.lstrip("# "))
    )


def _split(path: Path, text: str, separator: str) -> list[ListRow]:
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        rows = [ListRow(reader.line_num, tuple(cell.strip() for cell in cells)) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None
    return [row for row in rows if any(row.cells)]


def _split_at_spaces(text: str) -> list[ListRow]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        if line.startswith('"'):
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=" ", skipinitialspace=True))]
        elif match := SUFFIXED.fullmatch(line):
            rest = match[2].split()
            numbers = len(rest) > 1 and all(NUMBER.fullmatch(cell) for cell in rest)
            cells = [match[1], *rest] if numbers else [match[1], match[2].strip("\"'")]
        elif is_video_name(line):
            cells = [line]  # a path alone, labelled by its folder
        else:
            cells = line.split()
        rows.append(ListRow(number, tuple(cells)))
    return rows


def _fitness(separator: str, rows: Sequence[ListRow]) -> tuple[float, float, int]:
    """Return how well rows look like a list, as numbers of which larger is better.

    The first is the fraction of rows with the usual number of cells, weighed by the fraction with a file name in one column. The
    second is the former fraction alone. The last is the usual number of cells.
    """
    counts = [len(row.cells) for row in rows]
    usual = max(set(counts), key=counts.count)
    even = counts.count(usual) / len(rows) if usual > 1 else 0.0
    columns = list(zip(*(row.cells for row in rows if len(row.cells) == usual), strict=True))
    named = max((sum(map(is_file, column)) for column in columns), default=0)
    if separator:  # a cell such as `world.mp4 0` shows that spaces are the separator, not this one
        named -= sum(any(SUFFIXED.fullmatch(cell) and not is_video_name(cell) for cell in row.cells) for row in rows)
    return round(even * (0.2 + max(0, named) / len(rows)), 6), even, usual


def is_file(cell: str) -> bool:
    """Return True if a cell names a file: it ends like a video, or contains a path."""
    return is_video_name(cell) or (("/" in cell or "\\" in cell) and not SUFFIXED.fullmatch(cell))


def _without_quotes(rows: list[ListRow]) -> list[ListRow]:
    """Take single quotes away where all first cells but a header's stand in them, as programs write texts."""
    quoted = [row for row in rows if re.fullmatch(r"'[^']*'", row.cells[0])]
    if len(quoted) < max(1, len(rows) - 1):
        return rows
    return [ListRow(row.line, tuple(re.sub(r"^'([^']*)'$", r"\1", cell) for cell in row.cells)) for row in rows]


def _without_last_separator(rows: list[ListRow]) -> list[ListRow]:
    """Return the rows without empty cells at their ends, such as a separator at the end of each line leaves.

    Rows of different lengths are cut to the shortest, if the cells beyond that are empty in all of them.
    """
    usual = min(len(row.cells) for row in rows)
    while any(len(row.cells) > usual for row in rows):
        if any(cell for row in rows for cell in row.cells[usual:]):
            return rows
        rows = [ListRow(row.line, row.cells[:usual]) for row in rows]
    while len(rows[0].cells) > 1 and all(not row.cells[-1] for row in rows):
        rows = [ListRow(row.line, row.cells[:-1]) for row in rows]
    return rows
