"""Objects of JSON in the shapes in which people keep labelled videos -> rows, each with the names of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fewframes.data.columns import PATHS, as_column
from fewframes.data.list_text import is_file
from fewframes.data.samples import part_of
from fewframes.errors import DataError

Content = Mapping[str, object]


def rows_of_object(path: Path, content: Content) -> object:
    """Return the rows of a JSON object: {path: label}, {label: [path]}, {path: {...}}, a list for each column, any of these for
    each part, or the only list of objects in it. Raises DataError where it is none of these."""
    if content and all(part_of(key) for key in content):
        return [row for part, inner in content.items() for row in _rows_of_part(path, part, inner)]
    lists = [
        key for key, value in content.items() if isinstance(value, list) and any(isinstance(row, dict) for row in value)
    ]
    if len(lists) == 1:
        (name,) = lists
        return _rows_of_part(path, name, content[name]) if part_of(name) else content[name]
    if lists:
        raise DataError(
            f"{path}: {len(lists)} lists ({', '.join(lists)}), tables that refer to each other; write path,label"
        )
    if content and all(isinstance(value, dict) for value in content.values()):
        return [{"path": key, **value} for key, value in content.items() if isinstance(value, dict)]
    columns = {key: value for key, value in content.items() if isinstance(value, list)}
    if columns and len(columns) == len(content) and (rows := _rows_of_lists(path, columns)):
        return rows
    if content and all(isinstance(value, str | int | list) for value in content.values()):
        if not all(is_file(key) for key in content):
            raise DataError(f"{path}: {next(iter(content))!r} is no path; needs {{path: label}}, or a list of objects")
        return [{"path": key, "label": value} for key, value in content.items()]
    return content


def _rows_of_part(path: Path, part: str, inner: object) -> list[dict[str, object]]:
    """Return the rows of one part. Raises DataError where they are none, or name another part."""
    rows = rows_of_object(path, inner) if isinstance(inner, dict) else inner
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: {part!r} needs a list of objects, each with a path and a label")
    named = next((row[key] for row in rows for key in row if as_column(key) == "split"), part)
    if part_of(str(named)) != part_of(part):
        raise DataError(f"{path}: a row in {part!r} says that it is of {named!r}; write one of them")
    return [{"split": part, **row} for row in rows]


def _rows_of_lists(path: Path, columns: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """Return the rows of {column: [cell]} or of {label: [path]}; none where it is neither."""
    if not {as_column(key) for key in columns}.isdisjoint(PATHS):
        if len({len(cells) for cells in columns.values()}) > 1:
            raise DataError(f"{path}: its columns {', '.join(columns)} are not equally long; each row needs all")
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if all(isinstance(cell, str) and is_file(cell) for cells in columns.values() for cell in cells):
        return [{"path": name, "label": key} for key, cells in columns.items() for name in cells]
    return []
