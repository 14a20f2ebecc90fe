"""Folders and lists of labelled videos as people have them -> samples; the layout is told by its looks, without flags.

    ROOT/<label>/video.mp4                  a folder for each action
    ROOT/{train,val,test}/<label>/...       the same, already split
    path,label[,start_s,end_s][,split][,group]      CSV or TSV with a header, columns in any order
    path label                              a line each, by space, comma or tab, quoted or not, with names or numbers as labels
    trainlist01.txt, testlist01.txt         UCF101, one list or the folder of them
    <label>_test_split1.txt                 HMDB51, the folder of them
    label,youtube_id,time_start,time_end    Kinetics
    id,...,actions                          Charades (several labels each)
    [{"id": "1", "template": ...}]          Something-Something; also any JSON list of objects with a path and a label

Paths are relative to the list, unless the videos' own folder is given. Numbers as labels get their names from a class list
beside the list, where there is one.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fewframes.errors import DataError, nearest
from fewframes.picture_video import IMAGE_SUFFIXES
from fewframes.stores import as_path, is_address
from fewframes.video import VIDEO_SUFFIXES

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names of parts, of folders and in lists, and what they stand for."""
PATHS = ("path", "video", "file", "file_name", "filename", "video_path")
LABELS = ("label", "class", "action", "label_name")
"""What columns and keys are called; the first is ours."""
CLASS_LISTS = ("classInd.txt", "class_list.txt", "classes.txt", "labels.txt", "label_map*.txt")
"""Files that name numbered classes: `1 ApplyEyeMakeup` a line, or one name a line counted from 0."""
CHARADES_CLASSES = "Charades_v1_classes.txt"
HMDB51_LIST = re.compile(r"(?P<label>.+)_test_split(?P<number>\d)\.txt")
UCF101_LIST = re.compile(r"(?P<split>train|test)list(?P<number>\d\d)\.txt")
UCF101_GROUP = re.compile(r"_g(\d+)_c\d+$")
SOMETHING_LIST = re.compile(r"something-something-v2-(?P<split>train|validation)\.json")
SUFFIXED = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))}))\s+(\S.*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled video, or the part of it between two moments."""

    path: str
    labels: tuple[str, ...]
    """One for most data; any number where `Layout.multilabel`."""
    start_s: float = 0.0
    end_s: float | None = None
    split: str = ""
    group: str = ""
    """What must not be torn apart: a recording, a person; each video for itself when empty."""


@dataclass(frozen=True)
class Layout:
    """What was read: the samples, the name of the layout they were in, and whether a sample may have any number of labels."""

    samples: tuple[Sample, ...]
    name: str
    multilabel: bool = False


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where to look: the folder of the videos when it is not the list's, the column of groups, which of several official
    splits, and how labels are written."""

    videos: Path | None = None
    group_column: str = "group"
    split_number: int = 1
    label_mark: str = ""
    """What parts several labels in one cell; empty where a cell holds one."""

    def labels(self, text: str) -> tuple[str, ...]:
        """The labels in one cell."""
        parts = text.split(self.label_mark) if self.label_mark else [text]
        return tuple(sorted({part.strip() for part in parts if part.strip()}))

    def find(self, source: Path, *names: str) -> str:
        """The first of these names that exists, relative to the videos' folder or the list; else where the first should be."""
        bases = [self.videos] if self.videos is not None else [source.parent, source.parent / "videos"]
        candidates = [os.path.normpath(base / name) for base in bases for name in names]
        return next((path for path in candidates if os.path.exists(path)), candidates[0])


def read_layout(source: Path, places: Places) -> Layout:
    """The labelled videos of a folder or a list; DataError says what was found, in which line, and what is expected."""
    if source.is_dir():
        return _read_folder(source, places)
    if not source.is_file():
        raise DataError(f"{source}: no such folder or file; pass a folder with a folder for each action, or a list")
    if source.suffix.lower() == ".json":
        return _read_json(source, places)
    return _read_text(source, places)


def _read_folder(root: Path, places: Places) -> Layout:
    files = sorted(entry.name for entry in root.iterdir() if entry.is_file())
    for pattern, reader in (
        (UCF101_LIST, _read_ucf101),
        (HMDB51_LIST, _read_hmdb51),
        (SOMETHING_LIST, _read_something),
    ):
        if any(pattern.fullmatch(name) for name in files):
            return reader(root, places)
    if places.group_column != "group":
        raise DataError(f"{root}: a folder has no column {places.group_column!r}; groups need a list: path,label,group")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    found = {folder: _videos_below(folder) for folder in folders}
    filled = [folder for folder in folders if found[folder]]
    if filled and all(_is_part(folder) for folder in filled):
        samples = [
            Sample(path=str(path), labels=(path.relative_to(part).parts[0],), split=SPLITS[part.name.lower()])
            for part in filled
            for path in found[part]
        ]
        return Layout(tuple(samples), "a folder for each action, already split")
    samples = [Sample(path=str(path), labels=(folder.name,)) for folder in filled for path in found[folder]]
    if not samples:
        names = ", ".join(folder.name for folder in folders[:5]) or "no folders"
        raise DataError(f"{root}: no videos in folders of actions (found: {names}); expected {root}/<action>/<video>")
    return Layout(tuple(samples), "a folder for each action")


def _is_part(folder: Path) -> bool:
    """Whether a folder of videos is a part of a split, with a folder for each action in it, and not an action itself."""
    return folder.name.lower() in SPLITS and not any(
        entry.suffix.lower() in VIDEO_SUFFIXES for entry in folder.iterdir()
    )


def _videos_below(folder: Path) -> list[Path]:
    """Every video at any depth, and every folder of two images or more, but nothing hidden."""
    videos = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            videos += [entry] if entry.suffix.lower() in VIDEO_SUFFIXES else []
        elif sum(file.suffix.lower() in IMAGE_SUFFIXES for file in entry.iterdir()) >= 2:
            videos.append(entry)
        else:
            videos += _videos_below(entry)
    return videos


def _read_ucf101(root: Path, places: Places) -> Layout:
    samples: list[Sample] = []
    for name in (f"trainlist{places.split_number:02}.txt", f"testlist{places.split_number:02}.txt"):
        if not (root / name).is_file():
            raise DataError(f"{root}: no {name}, so no official split {places.split_number}")
        samples += _read_text(root / name, places).samples
    return Layout(tuple(samples), f"UCF101, official split {places.split_number}")


def _read_hmdb51(root: Path, places: Places) -> Layout:
    samples = []
    for path in sorted(root.iterdir()):
        match = HMDB51_LIST.fullmatch(path.name)
        if match is None or int(match["number"]) != places.split_number:
            continue
        for line, text in _lines(path):
            name, _, number = text.rpartition(" ")
            if number not in ("0", "1", "2") or not name:
                raise DataError(f"{path}:{line}: {text!r}: needs a file and 1 (train), 2 (test) or 0 (neither)")
            if number != "0":
                where = places.find(path, f"{match['label']}/{name}", name)
                samples.append(Sample(path=where, labels=(match["label"],), split="train" if number == "1" else "test"))
    if not samples:
        raise DataError(f"{root}: no lists of official split {places.split_number}")
    return Layout(tuple(samples), f"HMDB51, official split {places.split_number}")


def _read_something(root: Path, places: Places) -> Layout:
    samples: list[Sample] = []
    for path in sorted(root.iterdir()):
        if SOMETHING_LIST.fullmatch(path.name):
            samples += _read_json(path, places).samples
    return Layout(tuple(samples), "Something-Something")


def _read_json(path: Path, places: Places) -> Layout:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: needs a list of objects, each with a path and a label")
    match = SOMETHING_LIST.fullmatch(path.name)
    split = SPLITS[match["split"]] if match else ""
    if all("id" in row and ("template" in row or "label" in row) for row in rows):
        samples = [
            Sample(
                path=places.find(path, f"{row['id']}.webm", f"{row['id']}.mp4"),
                labels=(re.sub(r"[\[\]]", "", str(row.get("template", row.get("label")))),),
                split=split,
            )
            for row in rows
        ]
        return Layout(tuple(samples), "Something-Something")
    keys = [str(key) for key in rows[0]]
    path_key, label_key = _named(path, 1, keys, PATHS), _named(path, 1, keys, LABELS)
    samples = []
    for number, row in enumerate(rows, 1):
        if not row.get(path_key) or row.get(label_key) in (None, ""):
            raise DataError(f"{path}: object {number} has no {path_key!r} or no {label_key!r}")
        samples.append(Sample(path=_path(path, str(row[path_key]), places), labels=(str(row[label_key]),), split=split))
    return Layout(tuple(samples), "a JSON list")


def _read_text(path: Path, places: Places) -> Layout:
    lines = list(_lines(path))
    if not lines:
        raise DataError(f"{path}: empty; needs a line for each video: its path and its label")
    first = lines[0][1]
    delimiter = next((mark for mark in "\t,;" if mark in first), "")
    columns = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter or " "))]
    for wanted, name, reader in TABLES:
        if delimiter and wanted <= set(columns):
            samples = tuple(reader(path, places, _rows(path, delimiter)))
            if not samples:
                raise DataError(f"{path}: a header and no rows")
            return Layout(samples, name, multilabel=reader is _charades_samples)
    if delimiter and set(columns) & {*PATHS, *LABELS}:
        _named(path, 1, columns, PATHS)
        _named(path, 1, columns, LABELS)
        samples = tuple(_own_samples(path, places, _rows(path, delimiter)))
        if not samples:
            raise DataError(f"{path}: a header and no rows")
        return Layout(samples, "a list with a header")
    match = UCF101_LIST.fullmatch(path.name)
    pairs = [(line, *_pair(path, line, text, delimiter)) for line, text in lines]
    names = _class_names(path, [label for _, _, label in pairs])
    samples = tuple(
        Sample(
            path=_path(path, name, places),
            labels=places.labels(names.get(label, label)),
            split=match["split"] if match else "",
            group=_ucf101_group(name) if match else "",
        )
        for _, name, label in pairs
    )
    return Layout(samples, f"UCF101, {path.name}" if match else "lines of path and label")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with something in them, with their numbers; # begins a comment only where a list has no such file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _pair(path: Path, line: int, text: str, delimiter: str) -> tuple[str, str]:
    """Path and label of a line; a path alone is labelled by its folder."""
    where = f"{path}:{line}"
    if delimiter or text.startswith('"'):
        cells = [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter or " ", skipinitialspace=True))]
    elif match := SUFFIXED.fullmatch(text):
        cells = [match[1], match[2].strip("\"'")]
    else:
        cells = text.split()
    if len(cells) == 1 and Path(cells[0]).parent.name:
        return cells[0], Path(cells[0]).parent.name
    if len(cells) != 2 or not all(cells):
        raise DataError(f"{where}: {text!r}: needs a path and a label; quote what holds spaces or commas")
    return cells[0], cells[1]


Row = Mapping[str, str]
Rows = Iterator[tuple[int, Row]]


def _rows(path: Path, delimiter: str) -> Rows:
    """Each row of a table with its line, cells by lower-case column."""
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), delimiter=delimiter)
    reader.fieldnames = [column.strip().lower() for column in reader.fieldnames or []]
    for row in reader:
        if None in row or None in row.values():
            raise DataError(
                f"{path}:{reader.line_num}: the row has another number of cells than the header; quote cells that hold commas"
            )
        yield reader.line_num, {key: value.strip() for key, value in row.items()}


def _own_samples(path: Path, places: Places, rows: Rows) -> Iterator[Sample]:
    group_column = places.group_column.lower()
    for line, row in rows:
        where = f"{path}:{line}"
        path_key, label_key = _named(path, 1, list(row), PATHS), _named(path, 1, list(row), LABELS)
        if group_column not in ("group", *row):
            raise DataError(f"{path}:1: no column {group_column!r} for groups; {nearest(group_column, row)}")
        if not row[path_key] or not (row[label_key] or places.label_mark):  # none of several labels is an answer too
            raise DataError(f"{where}: path {row[path_key]!r}, label {row[label_key]!r}: needs both")
        start_s, end_s = (_seconds(where, name, row.get(name, "")) for name in ("start_s", "end_s"))
        if end_s is not None and end_s <= (start_s or 0.0):
            raise DataError(f"{where}: end_s {end_s:g} is not after start_s {start_s or 0.0:g}")
        yield Sample(
            path=_path(path, row[path_key], places),
            labels=places.labels(row[label_key]),
            start_s=start_s or 0.0,
            end_s=end_s,
            split=_split(where, row.get("split", "")),
            group=row.get(group_column, ""),
        )


def _kinetics_samples(path: Path, places: Places, rows: Rows) -> Iterator[Sample]:
    for line, row in rows:
        where = f"{path}:{line}"
        label, name, split = row["label"], row["youtube_id"], row.get("split", "")
        start_s, end_s = (_seconds(where, key, row[key]) for key in ("time_start", "time_end"))
        if not label or not name or start_s is None or end_s is None:
            raise DataError(f"{where}: needs label, youtube_id, time_start and time_end; got {', '.join(row.values())}")
        cut = f"{name}_{round(start_s):06}_{round(end_s):06}.mp4"
        folders = ("", f"{label}/", f"{split}/", f"{split}/{label}/")
        found = places.find(path, *(folder + cut for folder in folders))
        whole = places.find(path, *(f"{folder}{name}.mp4" for folder in folders))
        sample = Sample(path=found, labels=(label,), split=_split(where, split), group=name)
        if not Path(found).exists() and Path(whole).exists():  # the video as uploaded, not yet cut
            sample = replace(sample, path=whole, start_s=start_s, end_s=end_s)
        yield sample


def _charades_samples(path: Path, places: Places, rows: Rows) -> Iterator[Sample]:
    names = {}
    if (path.parent / CHARADES_CLASSES).is_file():
        names = dict(text.split(" ", 1) for _, text in _lines(path.parent / CHARADES_CLASSES) if " " in text)
    split = next((part for word, part in SPLITS.items() if word in path.stem.lower()), "")
    for line, row in rows:
        codes = [action.split() for action in row["actions"].split(";") if action.strip()]
        if not row["id"] or any(len(code) != 3 for code in codes):
            raise DataError(f"{path}:{line}: actions {row['actions']!r}: needs `c092 11.90 21.20;...`")
        labels = tuple(sorted({names.get(code, code) for code, _, _ in codes}))
        group = row.get("subject", "")
        yield Sample(path=places.find(path, f"{row['id']}.mp4"), labels=labels, split=split, group=group)


TABLES: tuple[tuple[set[str], str, Callable[[Path, Places, Rows], Iterator[Sample]]], ...] = (
    ({"label", "youtube_id", "time_start", "time_end"}, "Kinetics", _kinetics_samples),
    ({"id", "actions"}, "Charades", _charades_samples),
)
"""Published tables: the columns that tell them, what they are called, and who reads them."""


def _named(path: Path, line: int, columns: Sequence[str], names: Sequence[str]) -> str:
    """Which of the columns is called one of these names."""
    found = next((name for name in names if name in columns), None)
    if found is None:
        raise DataError(f"{path}:{line}: no column {names[0]!r} in {', '.join(columns)}")
    return found


def _path(source: Path, name: str, places: Places) -> str:
    name = as_path(name)
    return name if is_address(name) else places.find(source, name)


def _split(where: str, name: str) -> str:
    if name and name.lower() not in SPLITS:
        raise DataError(f"{where}: split {name!r}; {nearest(name, SPLITS)}")
    return SPLITS.get(name.lower(), "")


def _seconds(where: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(f"{where}: {name} {text!r}: needs seconds, 0 or more")
    return seconds


def _class_names(path: Path, labels: Sequence[str]) -> dict[str, str]:
    """Names of numbered labels, from a class list beside the list; empty when labels are names or no list is there."""
    if not all(label.isdecimal() for label in labels):
        return {}
    for pattern in CLASS_LISTS:
        for classes in sorted(path.parent.glob(pattern)):
            rows = [text for _, text in _lines(classes)]
            if all(re.match(r"\d+\s+\S", row) for row in rows):
                return {row.split(None, 1)[0]: row.split(None, 1)[1] for row in rows}
            return {str(number): name for number, name in enumerate(rows)}
    return {}


def _ucf101_group(name: str) -> str:
    """`v_Archery_g08_c01.avi` is of group 8 of its class; takes of one group look alike."""
    match = UCF101_GROUP.search(Path(name).stem)
    return f"{Path(name).parent.name} {match[1]}" if match else ""
