"""Read lists of shapes of their own: those of published data sets, and objects of JSON as people keep labelled videos in them.

The data sets are UCF101 (whose lines `layouts.py` reads), HMDB51, Something-Something, ActivityNet, Kinetics and Charades.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fewframes.data.columns import PATHS, as_column, as_text, seconds_of, split_of
from fewframes.data.list_text import is_file, lines_of
from fewframes.data.samples import LabelledList, ReadOptions, Sample, part_of
from fewframes.errors import DataError

CHARADES_CLASSES = "Charades_v1_classes.txt"
CHARADES_PARTS = {"train": "train", "val": "val", "test": "test"}
HMDB51_LIST = re.compile(r"(?P<label>.+)_test_split(?P<number>\d)\.txt")
UCF101_LIST = re.compile(r"(?P<split>train|test)list(?P<number>\d\d)\.txt")
UCF101_GROUP = re.compile(r"_g(\d+)_c\d+$")
SOMETHING_LIST = re.compile(r"something-something-v2-(?P<split>train|validation)\.json")

Content = Mapping[str, object]
OfficialRow = Mapping[str, str]
Rows = Iterable[tuple[int, OfficialRow]]


def read_hmdb51(root: Path, options: ReadOptions) -> LabelledList:
    """Return the videos of HMDB51's lists, of which there is one for each action and split."""
    samples = []
    for path in sorted(root.iterdir()):
        match = HMDB51_LIST.fullmatch(path.name)
        if match is None or int(match["number"]) != options.split_number:
            continue
        for line, text in lines_of(path):
            name, _, number = text.rpartition(" ")
            if number not in ("0", "1", "2") or not name:
                raise DataError(f"{path}:{line}: {text!r}: needs a file and 1 (train), 2 (test) or 0 (neither)")
            if number != "0":
                where = options.find(path, f"{match['label']}/{name}", name)
                samples.append(Sample(path=where, labels=(match["label"],), split="train" if number == "1" else "test"))
    if not samples:
        raise DataError(f"{root}: no lists of official split {options.split_number}")
    return LabelledList(tuple(samples), f"HMDB51, official split {options.split_number}")


def something_samples(path: Path, rows: Sequence[Mapping[str, object]], options: ReadOptions) -> list[Sample]:
    """Return the videos of a list of Something-Something. Each has an id, and its template is the label."""
    match = SOMETHING_LIST.fullmatch(path.name)
    return [
        Sample(
            path=options.find(path, f"{row['id']}.webm", f"{row['id']}.mp4"),
            labels=(re.sub(r"[\[\]]", "", str(row.get("template", row.get("label")))),),
            split=part_of(match["split"]) if match else "",
        )
        for row in rows
    ]


def activitynet_samples(source: Path, database: Mapping[str, object], options: ReadOptions) -> list[Sample]:
    """Return a sample for each annotation in a `database` of ActivityNet's form. Raises DataError if it has another form."""
    samples = []
    for name, video in database.items():
        where = f"{source}: {name}"
        annotations = video.get("annotations") if isinstance(video, dict) else None
        if not isinstance(video, dict) or not isinstance(annotations, list):
            raise DataError(f"{where}: needs `annotations`, a list of objects with `segment` and `label`")
        path = options.find_stem(source, f"v_{name}", name)
        for annotation in annotations:
            segment = annotation.get("segment") if isinstance(annotation, dict) else None
            if not isinstance(segment, list) or len(segment) != 2 or not annotation.get("label"):
                raise DataError(f"{where}: {annotation!r}: needs a `segment` of two times in seconds, and a `label`")
            start_s, end_s = (seconds_of(where, "segment", time, 1.0) or 0.0 for time in segment)
            if end_s <= start_s:
                raise DataError(f"{where}: segment {segment}: its end is not after its start")
            split = split_of(where, "subset", as_text(where, "subset", video.get("subset")))
            label = as_text(where, "label", annotation["label"])
            samples.append(
                Sample(
                    path=path,
                    labels=(label,),
                    start_s=start_s,
                    end_s=end_s,
                    split=split,
                    group=name,
                )
            )
    return samples


def _kinetics_samples(path: Path, options: ReadOptions, rows: Rows) -> Iterator[Sample]:
    """Yield the videos of a table of Kinetics: files cut to the segment, or the whole video if only that is there."""
    for line, row in rows:
        where = f"{path}:{line}"
        label, name, split = row["label"], row["youtube_id"], row.get("split", "")
        start_s, end_s = (seconds_of(where, key, row[key], 1.0) for key in ("time_start", "time_end"))
        if not label or not name or start_s is None or end_s is None:
            raise DataError(f"{where}: needs label, youtube_id, time_start and time_end; got {', '.join(row.values())}")
        cut = f"{name}_{round(start_s):06}_{round(end_s):06}.mp4"
        folders = ("", f"{label}/", f"{split}/", f"{split}/{label}/")
        found = options.find(path, *(folder + cut for folder in folders))
        whole = options.find_stem(path, *(f"{folder}{name}" for folder in folders))
        sample = Sample(path=found, labels=(label,), split=split_of(where, "split", split), group=name)
        if not Path(found).exists() and Path(whole).exists():  # the video as uploaded, not cut
            sample = replace(sample, path=whole, start_s=start_s, end_s=end_s)
        yield sample


def _charades_samples(path: Path, options: ReadOptions, rows: Rows) -> Iterator[Sample]:
    """Yield the videos of a table of Charades, each with all of its actions. The times of the actions are not used."""
    names = {}
    if (path.parent / CHARADES_CLASSES).is_file():
        names = dict(text.split(" ", 1) for _, text in lines_of(path.parent / CHARADES_CLASSES) if " " in text)
    split = next((part for word, part in CHARADES_PARTS.items() if word in path.stem.lower()), "")
    for line, row in rows:
        codes = [action.split() for action in row["actions"].split(";") if action.strip()]
        if not row["id"] or any(len(code) != 3 for code in codes):
            raise DataError(f"{path}:{line}: actions {row['actions']!r}: needs `c092 11.90 21.20;...`")
        labels = tuple(sorted({names.get(code, code) for code, _, _ in codes}))
        group = row.get("subject", "")
        yield Sample(path=options.find(path, f"{row['id']}.mp4"), labels=labels, split=split, group=group)


TABLES: tuple[tuple[set[str], str, Callable[[Path, ReadOptions, Rows], Iterator[Sample]]], ...] = (
    ({"label", "youtube_id", "time_start", "time_end"}, "Kinetics", _kinetics_samples),
    ({"id", "actions"}, "Charades", _charades_samples),
)
"""The published tables: the columns by which each is recognised, its name, and the function that reads it."""


def ucf101_group(name: str) -> str:
    """Return the group of a file: `v_Archery_g08_c01.avi` is in group 8 of its class. Videos of one group look alike."""
    match = UCF101_GROUP.search(Path(name).stem)
    return f"{Path(name).parent.name} {match[1]}" if match else ""


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
