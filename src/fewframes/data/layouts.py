"""Read labelled videos from folders and lists as people have them. The layout is recognised, without flags.

    ROOT/<label>/video.mp4                  a folder for each action
    ROOT/{train,val,test}/<label>/...       the same, already split; also ROOT/<label>/{train,val,test}/...
    path,label[,start_s,end_s][,split][,group]      CSV or TSV with a header, columns in any order and by other usual names
    path label                              a line each, by space, comma or tab, quoted or not, with names or numbers as labels
    trainlist01.txt, testlist01.txt         UCF101, one list or the folder of them
    <label>_test_split1.txt                 HMDB51, the folder of them
    label,youtube_id,time_start,time_end    Kinetics
    id,...,actions                          Charades (several labels each)
    [{"id": "1", "template": ...}]          Something-Something; {"database": ...} ActivityNet
    .xml .eaf .vtt .srt .json               exports of other tools (`exchange/`)
    [{"path": ..., "label": ...}]           JSON, or JSON lines, with the keys of a CSV list; {"a.mp4": "hug"}

Paths are relative to the list, unless a folder of the videos is given. Numbers as labels get their names from a class list beside
the list, if there is one. `folder_layouts.py` reads folders, `list_text.py` parts the text of lists into cells, `columns.py`
recognises columns, and `list_shapes.py` reads published lists.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fewframes.data.columns import (
    PATHS,
    Cells,
    as_column,
    check_labelled,
    columns_of,
    is_header,
    labels_of,
    path_of,
    sample_of,
)
from fewframes.data.exchange.formats import as_list, files_in, format_of
from fewframes.data.folder_layouts import notes_of_labels, read_folder
from fewframes.data.list_shapes import (
    HMDB51_LIST,
    SOMETHING_LIST,
    TABLES,
    UCF101_LIST,
    activitynet_samples,
    read_hmdb51,
    rows_of_object,
    something_samples,
    ucf101_group,
)
from fewframes.data.list_text import COLUMNS, NUMBER, ListRow, ListTable, is_file, lines_of, read_table, text_of
from fewframes.data.samples import LabelledList, ReadOptions, Sample, part_of
from fewframes.errors import DataError

__all__ = ["LabelledList", "ReadOptions", "Sample", "read_layout"]

CLASS_LISTS = ("classInd.txt", "class_list.txt", "classes.txt", "labels.txt", "label_map*.txt")
"""The names of files that name numbered classes: lines such as `1 ApplyEyeMakeup`, or a name on each line, counted from 0."""
HEADER_ADVICE = "write a header that says what they are, such as path,label,start_s,end_s,split"
JSON_LINES = frozenset({".jsonl", ".ndjson", ".jsonlines"})
JOINED = re.compile(r"[^\s;|][;|][^\s;|]")
JSON_START = re.compile(r"\s*(\{|\[\s*[\[{\"])")
"""The beginning of JSON, in a file of any ending."""


def read_layout(source: Path, options: ReadOptions) -> LabelledList:
    """Return the labelled videos of a folder or a list. Raises DataError, which names the line and what is expected."""
    if source.is_dir():
        return _read_folder(source, options)
    if not source.is_file():
        raise DataError(f"{source}: no such folder or file; pass a folder with a folder for each action, or a list")
    read = _read_list(source, options)
    return replace(read, notes=(*read.notes, *options.notes(), *notes_of_labels(read.samples), *_notes_of_rows(read)))


def _read_list(source: Path, options: ReadOptions) -> LabelledList:
    if (form := format_of(source)) and form.read:
        return as_list([source], form, options)
    text = text_of(source)
    if source.suffix.lower() in (".json", *JSON_LINES) or JSON_START.match(text):
        return _read_json_lines(source, options) if _is_json_lines(source, text) else _read_json(source, options)
    return _read_text(source, options)


def _is_json_lines(source: Path, text: str) -> bool:
    """Return whether the first line is an object by itself: of several, or of a path and a label."""
    first, _, rest = text.strip().partition("\n")
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return source.suffix.lower() in JSON_LINES
    names = {as_column(key) for key, value in row.items() if isinstance(value, str)} if isinstance(row, dict) else set()
    return isinstance(row, dict) and (bool(rest) or not names.isdisjoint(PATHS))


def _read_folder(root: Path, options: ReadOptions) -> LabelledList:
    try:
        files = sorted(entry.name for entry in root.iterdir() if entry.is_file())
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror}); check its owner and mode") from None
    for pattern, reader in ((UCF101_LIST, _read_ucf101), (HMDB51_LIST, read_hmdb51), (SOMETHING_LIST, _read_something)):
        if any(pattern.fullmatch(name) for name in files):
            return reader(root, options)
    sources, form = files_in(root)
    if form:
        return as_list(sources, form, options)
    if options.group_column != "group":
        raise DataError(
            f"{root}: a folder has no column {options.group_column!r}; groups need a list: path,label,group"
        )
    return read_folder(root)


def _read_ucf101(root: Path, options: ReadOptions) -> LabelledList:
    samples: list[Sample] = []
    for name in (f"trainlist{options.split_number:02}.txt", f"testlist{options.split_number:02}.txt"):
        if not (root / name).is_file():
            raise DataError(f"{root}: no {name}, so no official split {options.split_number}")
        samples += _read_text(root / name, options).samples
    return LabelledList(tuple(samples), f"UCF101, official split {options.split_number}")


def _read_something(root: Path, options: ReadOptions) -> LabelledList:
    samples: list[Sample] = []
    for path in sorted(root.iterdir()):
        if SOMETHING_LIST.fullmatch(path.name):
            samples += _read_json(path, options).samples
    return LabelledList(tuple(samples), "Something-Something")


def _read_json(path: Path, options: ReadOptions) -> LabelledList:
    try:
        rows = json.loads(text_of(path), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if isinstance(rows, dict) and isinstance(database := rows.get("database"), dict):
        return LabelledList(tuple(activitynet_samples(path, database, options)), "ActivityNet")
    if isinstance(rows, dict):
        rows = rows_of_object(path, rows)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: needs a list of objects, each with a path and a label")
    has_path = any(as_column(key) in PATHS for row in rows for key in row)
    if not has_path and all("id" in row and ("template" in row or "label" in row) for row in rows):
        return LabelledList(tuple(something_samples(path, rows, options)), "Something-Something")
    return _read_objects(
        path, [(f"{path}: object {number}", row) for number, row in enumerate(rows, 1)], "a JSON list", options
    )


def _read_json_lines(path: Path, options: ReadOptions) -> LabelledList:
    rows = []
    for line, text in lines_of(path):
        try:
            row = json.loads(text, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{line}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{line}: needs an object with a path and a label in each line")
        rows.append((f"{path}:{line}", row))
    if not rows:
        raise DataError(f"{path}: empty; needs an object with a path and a label in each line")
    return _read_objects(path, rows, "JSON lines", options)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object of these JSON pairs. Raises ValueError if a key is there twice, since all but the last would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {key!r} is there twice in one object")
    return content


def _read_objects(
    path: Path, rows: Sequence[tuple[str, Mapping[str, object]]], name: str, options: ReadOptions
) -> LabelledList:
    return _read_rows(path, f"{path}:1", rows, name, options, path_column="")


def _read_rows(
    path: Path, header: str, rows: Sequence[tuple[str, Cells]], name: str, options: ReadOptions, *, path_column: str
) -> LabelledList:
    """Return the samples of rows whose columns have names.

    Args:
        path: The list.
        header: The file and line of the header, for error texts.
        rows: The file and line of each row, and its cells by the names of their columns.
        name: Name of the layout.
        options: Says where videos are and how labels are written.
        path_column: A column that holds paths by the look of its cells; empty if none does.
    """
    columns = columns_of(header, [row for _, row in rows], options, path_column=path_column)
    is_own = (
        tuple(rows[0][1]) == COLUMNS
    )  # fewframes wrote the list: its labels are names, even where they look like numbers
    cells = [value for _, row in rows if isinstance(value := row.get(columns.label), str | int)]
    names, classes = ({}, "") if is_own else _class_names(path, [str(cell) for cell in cells])
    samples = []
    for where, row in rows:
        if row.get(columns.label) in (None, "") and not options.label_separator:  # a multi-label video may have none
            raise DataError(
                f"{where}: {columns.path} {row.get(columns.path)!r}, {columns.label} {row.get(columns.label)!r}: needs both"
            )
        if not is_own:
            check_labelled(where, labels_of(where, columns.label, row.get(columns.label), {}, options))
        samples.append(sample_of(where, row, columns, path_of(where, path, columns, row, options), names, options))
    split = match["split"] if (match := SOMETHING_LIST.fullmatch(path.name)) else ""
    if split:
        samples = [replace(sample, split=part_of(split)) for sample in samples]
    return LabelledList(tuple(samples), name, notes=(columns.note(), *([classes] if classes else [])))


def _read_text(path: Path, options: ReadOptions) -> LabelledList:
    table = read_table(path)
    rows = list(table.rows)
    first = rows[0]
    if first.cells[0].startswith("#") and not is_file(first.cells[0]):
        first = ListRow(first.line, (first.cells[0].lstrip("# "), *first.cells[1:]))
        if not first.cells[0]:
            first = ListRow(first.line, first.cells[1:])
    path_column = _unnamed_path(first, rows[1:])
    if is_header(first.cells, has_separator=bool(table.separator)) or path_column or _is_published(first):
        return _read_headed(path, options, first, rows[1:], path_column)
    notes = [f"{table.num_comments} comment lines not used"] if table.num_comments else []
    return _read_pairs(path, options, table, notes)


def _unnamed_path(first: ListRow, rest: Sequence[ListRow]) -> str:
    """Return the name of the column that has a file in all rows but the first, which then is a header; empty if there is none."""
    if any(is_file(cell) for cell in first.cells) or not rest or len(first.cells) < 2:
        return ""
    whole = [row for row in rest if len(row.cells) == len(first.cells)]
    columns = [
        name for index, name in enumerate(first.cells) if whole and all(is_file(row.cells[index]) for row in whole)
    ]
    return columns[0] if columns else ""


def _is_published(first: ListRow) -> bool:
    return any(wanted <= {cell.lower() for cell in first.cells} for wanted, _, _ in TABLES)


def _read_headed(
    path: Path, options: ReadOptions, header: ListRow, rows: Sequence[ListRow], path_column: str
) -> LabelledList:
    if not rows:
        raise DataError(f"{path}: a header and no rows")
    for row in rows:
        if row.cells == header.cells:
            raise DataError(f"{path}:{row.line}: the header of line {header.line} is here again; remove this line")
        if len(row.cells) != len(header.cells):
            raise DataError(
                f"{path}:{row.line}: the row has {len(row.cells)} cells, the header {len(header.cells)}; quote cells that contain "
                "the separator"
            )
    _check_columns(f"{path}:{header.line}", header.cells)
    for wanted, name, reader in TABLES:
        if wanted <= {cell.lower() for cell in header.cells}:
            lower = [cell.lower() for cell in header.cells]
            samples = tuple(
                reader(path, options, ((row.line, dict(zip(lower, row.cells, strict=True))) for row in rows))
            )
            return LabelledList(samples, name, multilabel=name == "Charades")
    named = [(f"{path}:{row.line}", dict(zip(header.cells, row.cells, strict=True))) for row in rows]
    return _read_rows(path, f"{path}:{header.line}", named, "a list with a header", options, path_column=path_column)


def _check_columns(where: str, names: Sequence[str]) -> None:
    """Raise DataError if two columns have the same name, because it would not be known which is meant."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where}: {'two columns are called ' + repr(twice[0])}; rename one")


def _read_pairs(path: Path, options: ReadOptions, table: ListTable, notes: Sequence[str]) -> LabelledList:
    """Return the samples of a list without a header, whose lines are a path and a label."""
    match = UCF101_LIST.fullmatch(path.name)
    if HMDB51_LIST.fullmatch(path.name) and all(row.cells[-1] in ("0", "1", "2") for row in table.rows):
        raise DataError(
            f"{path}: a list of HMDB51 for one action, whose numbers are parts; pass its folder, {path.parent}"
        )
    pairs = [_pair(path, row, table.separator) for row in table.rows]
    if not match:
        _check_order(path, table, options)
        _check_pairs(path, table, pairs)
    names, classes = _class_names(path, [label for _, label in pairs])
    samples = tuple(
        Sample(
            path=options.find_written(path, name),
            labels=labels_of(f"{path}:{row.line}", "label", label, names, options),
            split=match["split"] if match else "",
            group=ucf101_group(name) if match else "",
        )
        for row, (name, label) in zip(table.rows, pairs, strict=True)
    )
    layout = f"UCF101, {path.name}" if match else "lines of path and label"
    return LabelledList(samples, layout, notes=(*notes, *([classes] if classes else [])))


def _pair(path: Path, row: ListRow, separator: str) -> tuple[str, str]:
    """Return the path and the label of a line. A path alone is labelled by its folder."""
    cells, where = row.cells, f"{path}:{row.line}"
    if len(cells) == 1 and is_file(cells[0]) and (folder := cells[0].replace("\\", "/").split("/")[:-1]) and folder[-1]:
        return cells[0], folder[-1]
    if len(cells) > 2 and all(NUMBER.fullmatch(cell) for cell in cells[1:]):
        raise DataError(
            f"{where}: {len(cells) - 1} numbers after the path (a count of frames, times, labels?); {HEADER_ADVICE}"
        )
    if len(cells) != 2 or not all(cells):
        text = (separator or " ").join(cells)
        raise DataError(
            f"{where}: {text!r}: needs a path and a label; quote names with spaces or commas, or {HEADER_ADVICE}"
        )
    return cells[0], cells[1]


def _check_order(path: Path, table: ListTable, options: ReadOptions) -> None:
    """Raise DataError where a label stands before a path that exists, parted by a space, which a path alone may hold too."""
    for row in table.rows:
        label, _, name = row.cells[0].partition(" ")
        is_missing = len(row.cells) == 1 and name and not os.path.exists(options.find(path, row.cells[0]))
        if is_missing and os.path.exists(options.find(path, name.strip())):
            raise DataError(
                f"{path}:{row.line}: {label!r} stands before the file; write the path first, then the label"
            )


def _check_pairs(path: Path, table: ListTable, pairs: Sequence[tuple[str, str]]) -> None:
    """Raise DataError if all labels look like something else: files, parts of a split, or labels with a count."""
    first, labels = table.rows[0], [label for _, label in pairs]
    where = f"{path}:{first.line}"
    if all(map(is_file, labels)) and not any(is_file(name) for name, _ in pairs):
        raise DataError(f"{where}: the second column has files, the first does not; write the header label,path")
    for row, label in zip(table.rows, labels, strict=True):
        check_labelled(f"{path}:{row.line}", [label])
    if all(part_of(label) for label in labels):
        raise DataError(f"{where}: all labels are names of parts ({labels[0]!r}); actions are needed: path,label,split")
    words = [label.split() for label in labels]
    if all(len(cells) > 1 and (NUMBER.fullmatch(cells[0]) or NUMBER.fullmatch(cells[-1])) for cells in words):
        raise DataError(f"{where}: a number beside each label ({labels[0]!r}: a count, a time?); {HEADER_ADVICE}")


def _class_names(path: Path, labels: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return the names of numbered labels from a class list beside the list, and a note about it.

    Names are empty if there is no class list. Both are empty if labels are names already.
    """
    if not labels or not all(label.isdecimal() for label in labels):
        return {}, ""
    for pattern in CLASS_LISTS:
        for classes in sorted(path.parent.glob(pattern)):
            if classes == path:
                continue
            rows = [text for _, text in lines_of(classes)]
            if all(re.match(r"\d+\s+\S", row) for row in rows):
                names = {row.split(None, 1)[0]: row.split(None, 1)[1] for row in rows}
            else:
                names = {str(number): name for number, name in enumerate(rows)}
            return names, f"numbers named by {classes.name} ({len(names)} classes)"
    return {}, f"labels are numbers without names; {' or '.join(CLASS_LISTS[1:3])} beside the list would name them"


def _notes_of_rows(layout: LabelledList) -> Iterator[str]:
    """Yield a note if rows are there twice, and a note if the same video has different labels."""
    twice = sum(count - 1 for count in Counter(layout.samples).values())
    if twice:
        yield f"repeated rows: {twice}"
    labels = [label for sample in layout.samples for label in sample.labels if JOINED.search(label)]
    if labels and not layout.multilabel:
        yield f"labels that look like several: {len(labels)}, such as {labels[0]!r}; --task multilabel parts them at ;"
    if not layout.multilabel and (example := contradiction(layout.samples)):
        yield example


def contradiction(samples: Sequence[Sample]) -> str:
    """Return a note that names a video with different labels; empty if there is none."""
    labels: dict[tuple[str, float, float | None], set[tuple[str, ...]]] = {}
    for sample in samples:
        labels.setdefault((sample.path, sample.start_s, sample.end_s), set()).add(sample.labels)
    contradicting = [(path, found) for (path, _, _), found in labels.items() if len(found) > 1]
    if not contradicting:
        return ""
    path, found = contradicting[0]
    named = " and ".join(", ".join(label) or "none" for label in sorted(found))
    return f"videos with different labels: {len(contradicting)}, such as {path} ({named}); `data check` leaves them out"
