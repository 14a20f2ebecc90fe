"""Recognise the columns of a list by their names, and turn its rows into samples.

A column is used, or named as not used, or refused. One that looks like a time, a part or a fold and is not understood is refused,
because without it the list would mean other videos.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewframes.data.list_text import NUMBER, is_file
from fewframes.data.samples import SPLITS, ReadOptions, Sample, as_label, part_of
from fewframes.errors import DataError, nearest

PATHS = (
    "path", "video", "file", "file_name", "filename", "video_path", "filepath", "file_path", "video_file", "video_filename",
    "video_name", "videoname", "clip", "clip_path", "clip_name", "relative_path", "rel_path", "full_path", "fname", "vid",
    "vid_name", "frame_dir", "frames_dir", "frames_path", "folder", "video_id", "clip_id", "videos", "uri", "url", "src",
)  # fmt: skip
LABELS = (
    "label", "class", "action", "label_name", "class_name", "action_name", "labels", "classes", "actions", "activity", "category",
    "tag", "tags", "target", "targets", "class_label", "action_label", "gesture", "gloss", "verb", "ground_truth", "gt", "cls",
    "classname", "labelname", "label_id", "class_id", "action_id", "category_id", "target_id", "label_idx", "class_idx",
    "label_index", "class_index", "labelid", "classid", "y",
)  # fmt: skip
"""The names of the columns, and keys, of paths and of labels. The first is the one that fewframes writes. If a list has several of
them, the first in this order is taken."""
STARTS = frozenset("start begin beginning starting onset t0 tstart startsec starttime from".split())
ENDS = frozenset("end stop ending finish t1 tend tstop endsec endtime stoptime to".split())
TIME_FILLERS = frozenset(
    "s sec secs second seconds t time timestamp times clip segment video action temporal trim label at".split()
)
"""The words that may stand beside one for the start or the end in the name of a column, as in `clip_start_time` and `t_end_sec`."""
MILLISECONDS = re.compile(r"(?P<side>start|begin|end|stop)(_?time)?_?(ms|msec|msecs|millis|milliseconds?)")
FRAMES = re.compile(
    r"((start|end|begin|stop|first|last)_?(frame|frames|f|idx|index)(_.*)?)|(frame|f)_?(start|end|begin|stop|from|to)"
)
TIME_WORDS = (STARTS | ENDS | {"offset", "t2"}) - {"from", "to"}
MAYBE_TIMES = frozenset(
    "first last beg e anfang beginn ende von bis début debut fin inicio inizio 开始 结束 开始时间 结束时间 開始 終了".split()
)
"""Names of columns that may be times: they are where their cells are numbers or HH:MM:SS. The other side of `e` is `s`."""
FRAME_RATES = ("fps", "frame_rate", "framerate")
TIME_NAMES = frozenset(
    "time times timestamp timestamps segment segments interval intervals window range span timecode trim trims from "
    "to start_end temporal_segment in out sec secs second seconds first_second last_second first_sec last_sec "
    "time_range frame_range frames_range time_interval".split()
)
SPLIT_NAMES = (
    "split",
    "subset",
    "part",
    "partition",
    "data_split",
    "split_name",
    "dataset_split",
    "usage",
    "phase",
    "set",
    "mode",
)
MAYBE_SPLITS = frozenset({"part", "set", "mode", "phase"})
"""The names of a split column that are also used for other things. The cells decide."""
PART_FLAGS = re.compile(
    r"(is_?)?(train|training|test|testing|val|valid|validation)(_?set)?|(k_?)?folds?(_?(id|index|idx|number|no))?"
)
CLOCK = re.compile(r"(?:(?P<hours>\d+):)?(?P<minutes>\d{1,2}):(?P<seconds>\d{1,2}(?:[.,]\d+)?)")
DECIMAL_COMMA = re.compile(r"\d+,(\d{1,2}|\d{4,})")
"""A number as it is written where a comma parts decimals; 1,500 may be a thousand and a half."""
NO_LABEL = frozenset({"nan", "n/a", "#n/a", "<na>"})
"""The cells that stand for a missing label."""
WAY_OUT = "rename it to one of ours (path, label, start_s, end_s, split, group), or take it out"

Cells = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the columns of a list by what they hold; empty if no column does."""

    path: str
    label: str
    start: str = ""
    end: str = ""
    scale: float = 1.0
    """Seconds in one unit of the times."""
    split: str = ""
    group: str = ""
    unused: tuple[str, ...] = ()

    def note(self) -> str:
        """Return a line for people that names the column of each thing, and the columns that were not used."""
        unit = " in seconds" if self.scale == 1 else " in milliseconds"
        used = [
            f"{what} from {column!r}{unit if what in ('start', 'end') else ''}"
            for what, column in vars(self).items()
            if what in ("path", "label", "start", "end", "split", "group") and column
        ]
        return f"columns: {', '.join(used)}" + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def as_column(name: str) -> str:
    """Return a column's name in the form in which names are compared: `Start Time (s)` is start_time_s."""
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())  # startTime is start_time
    return re.sub(r"[^\w]+", "_", separated.lower()).strip("_")


def is_header(cells: Sequence[str], *, has_separator: bool) -> bool:
    """Return True if the cells of a first row are names of columns: of a path and of a label.

    If the list has a separator, one of these is enough, as long as no cell names a file.
    """
    names = [as_column(cell) for cell in cells]
    both = any(name in PATHS for name in names) and any(name in LABELS for name in names)
    return both or (has_separator and any(name in (*PATHS, *LABELS) for name in names) and not any(map(is_file, cells)))


def columns_of(where: str, rows: Sequence[Cells], options: ReadOptions, *, path_column: str = "") -> Columns:
    """Return the column of each thing.

    Args:
        where: The file and line of the header, for error texts.
        rows: The rows, as cells by the names of their columns.
        options: Names the column of groups.
        path_column: A column that holds paths by the look of its cells. It is taken if no column has the name of one.

    Raises:
        DataError: There is no path or no label, or a column looks like a time, a part or a fold and is not understood.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    by_name = {}
    for name in names:
        if as_column(name) in by_name:
            raise DataError(f"{where}: two columns are called {name!r}; rename one")
        by_name[as_column(name)] = name
    filled = {key for key, name in by_name.items() if any(row.get(name) not in (None, "", []) for row in rows)}
    path = next((key for key in PATHS if key in by_name), "") or as_column(path_column)
    no_labels = {path, "y"} if "x" in by_name else {path}  # y beside x is a place in the picture
    label = next((key for key in LABELS if key in by_name and key not in no_labels), "")
    if path and not label and len(by_name) == 2 and path_column:
        label = next(key for key in by_name if key != path)
    if not path or not label:
        missing, known = ("path", PATHS) if not path else ("label", LABELS)
        raise DataError(
            f"{where}: no column {missing!r} in {', '.join(map(str, names))}; name one of them {missing}, or another of "
            f"{', '.join(known[:6])}"
        )
    group = as_column(options.group_column)
    if group not in ("group", *by_name):
        raise DataError(f"{where}: no column {options.group_column!r} for groups; {nearest(group, by_name)}")
    used = {path, label, group}
    start, end, scale = _times(where, by_name, filled - used)
    _check_unit(where, by_name, filled, (start, end), rows)
    split = _split_column(where, by_name, filled - used - {start, end}, rows)
    used |= {start, end, split}
    for key in sorted(filled - used):
        _refuse_unknown(where, by_name[key], key, _cells(rows, by_name[key]), is_timed=bool(start and end))
    if group in filled:
        _refuse_parts(where, by_name[group], _cells(rows, by_name[group]))
    return Columns(
        path=by_name[path],
        label=by_name[label],
        start=by_name.get(start, ""),
        end=by_name.get(end, ""),
        scale=scale,
        split=by_name.get(split, ""),
        group=by_name.get(group, ""),
        unused=tuple(name for key, name in by_name.items() if key not in used and name),
    )


def sample_of(
    where: str, row: Cells, columns: Columns, path: str, names: Mapping[str, str], options: ReadOptions
) -> Sample:
    """Return the sample of a row. Raises DataError for times, parts and labels that cannot be right.

    Args:
        where: The file and line of the row, for error texts.
        row: Cells by the names of their columns.
        columns: The column of each thing.
        path: The path of the video.
        names: Names of numbered labels; empty if labels are names.
        options: Says how labels are written.
    """
    start_s, end_s = (
        seconds_of(where, column, row.get(column), columns.scale) if column else None
        for column in (columns.start, columns.end)
    )
    if end_s is not None and end_s <= (start_s or 0.0):
        raise DataError(
            f"{where}: {columns.end} {end_s:g} is not after {columns.start or 'the start'} {start_s or 0.0:g}"
        )
    return Sample(
        path=path,
        labels=labels_of(where, columns.label, row.get(columns.label), names, options),
        start_s=start_s or 0.0,
        end_s=end_s,
        split=split_of(where, columns.split, as_text(where, columns.split, row.get(columns.split)))
        if columns.split
        else "",
        group=as_text(where, columns.group, row.get(columns.group)) if columns.group else "",
    )


def labels_of(
    where: str, column: str, value: object, names: Mapping[str, str], options: ReadOptions
) -> tuple[str, ...]:
    """Return the labels in a cell, or in a JSON list.

    Args:
        where: The file and line of the row, for error texts.
        column: The column of labels, for error texts.
        value: The cell.
        names: Names of numbered labels; empty if labels are names.
        options: Says how labels are written.

    Raises:
        DataError: A number has no name, or there are several labels and a single one is expected.
    """
    if isinstance(value, list):
        cells = sorted({as_label(as_text(where, column, item)) for item in value} - {""})
        if len(cells) > 1 and not options.label_separator:
            raise DataError(f"{where}: {column} has {len(cells)} labels; use the task 'multilabel', or write one label")
        labels = tuple(cells)
    else:
        labels = options.labels(as_text(where, column, value))
    if names and (unnamed := [label for label in labels if label not in names]):
        raise DataError(
            f"{where}: label {unnamed[0]!r} is not in the class list beside the list ({len(names)} classes)"
        )
    return tuple(sorted({names[label] for label in labels})) if names else labels


def check_labelled(where: str, labels: Sequence[str]) -> None:
    """Raise DataError for what a table writes where a label is missing."""
    if missing := next((label for label in labels if label.lower() in NO_LABEL), ""):
        raise DataError(
            f"{where}: label {missing!r} is what tables write for a missing one; take the row out, or label it"
        )


def as_text(where: str, column: str, value: object) -> str:
    """Return a cell as text. Raises DataError for a list or an object, which JSON may have there."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise DataError(
            f"{where}: {column} has a {type(value).__name__}, {json.dumps(value)[:60]}; needs a text or a number"
        )
    return value.strip()


def split_of(where: str, column: str, name: str) -> str:
    """Return the part of the split that a cell names; empty for an empty cell. Raises DataError for a name that is none."""
    if name and not part_of(name):
        raise DataError(f"{where}: {column} {name!r}; {nearest(name, SPLITS)}")
    return part_of(name)


def _times(where: str, by_name: Mapping[str, str], free: set[str]) -> tuple[str, str, float]:
    """Return the columns of the start and the end, and the seconds in one of their units.

    Args:
        where: The file and line of the header, for error texts.
        by_name: Columns by their names as they are compared.
        free: Names of the columns that are not used for anything else.

    Raises:
        DataError: Columns count frames, or could mean times in more than one way.
    """
    start, end = _sides(free)
    if start and end:
        return start, end, 1.0
    milliseconds = {match["side"]: key for key in free if (match := MILLISECONDS.fullmatch(key))}
    if milliseconds and not start and not end:
        start = milliseconds.get("start") or milliseconds.get("begin", "")
        return start, milliseconds.get("end") or milliseconds.get("stop", ""), 1e-3
    for key in sorted(free):
        if FRAMES.fullmatch(key):
            raise DataError(
                f"{where}: {by_name[key]!r} counts frames, and lists differ in how: from 0 or 1, with or without the last one; "
                "write start_s and end_s in seconds (frame / frames per second)"
            )
    if (start and set(start.split("_")) & {"from", "onset"} and not end) or (end == "to" and not start):
        column = by_name[start or end]
        raise DataError(f"{where}: column {column!r} looks like a time, but the other end of it is missing; {WAY_OUT}")
    others = [key for key in ("duration", "length", "duration_s", "clip_duration", "dur") if key in free]
    if start and not end and others:
        raise DataError(
            f"{where}: {by_name[others[0]]!r} beside {by_name[start]!r} may be the length of the segment or of the video; write "
            f"end_s, or take {by_name[others[0]]!r} out"
        )
    return start, end, 1.0


def _sides(free: set[str]) -> tuple[str, str]:
    """Return the columns that are named as the start and the end of a segment in seconds, empty where none is.

    Of several, those whose other words are the same belong together; `start_time` goes before `start`, which may count frames.
    """
    starts, ends = _side(STARTS, free), _side(ENDS, free)
    if {"onset", "offset"} <= free and not ends:
        ends = {"offset": starts["onset"]}
    together = [(start, end) for start, words in starts.items() for end in ends if ends[end] == words]
    if together:
        return min(together, key=lambda pair: (not starts[pair[0]], len(pair[0]), pair))
    first = (min(side, key=lambda key: (len(key), key), default="") for side in (starts, ends))
    return next(first), next(first)


def _side(words: frozenset[str], free: set[str]) -> dict[str, frozenset[str]]:
    """Return the columns that are named as one side of a segment in seconds, with their other words."""
    parted = {key: frozenset(key.split("_")) for key in free}
    return {key: found - words for key, found in parted.items() if found & words and found - words <= TIME_FILLERS}


def _check_unit(
    where: str, by_name: Mapping[str, str], filled: set[str], times: tuple[str, str], rows: Sequence[Cells]
) -> None:
    """Raise DataError for whole numbers whose unit is not named, beside a rate of frames: they may count frames."""
    start, end = times
    rate = next((key for key in FRAME_RATES if key in filled), "")
    if not rate or start not in STARTS or end not in ENDS or "sec" in start or "time" in start:
        return
    if all(cell.isdecimal() for key in times for cell in _cells(rows, by_name[key])):
        raise DataError(
            f"{where}: {by_name[start]!r} and {by_name[end]!r} are whole numbers beside {by_name[rate]!r}: frames, or seconds? "
            "write start_s and end_s in seconds (frame / frames per second)"
        )


def _split_column(where: str, by_name: Mapping[str, str], free: set[str], rows: Sequence[Cells]) -> str:
    for key in SPLIT_NAMES:
        if key not in free:
            continue
        cells = Counter(str(row.get(by_name[key]) or "") for row in rows)
        unknown = [cell for cell in cells if cell and not part_of(cell)]
        if key == "split" or not unknown:
            return key  # unknown parts in a column `split` are refused later, with the line
        if key not in MAYBE_SPLITS or any(part_of(cell) for cell in cells):
            raise DataError(
                f"{where}: column {by_name[key]!r} looks like parts of a split, but {unknown[0]!r} is none; name them train, val "
                f"and test, or {WAY_OUT}"
            )
    return ""


def _refuse_unknown(where: str, name: str, key: str, cells: Sequence[str], *, is_timed: bool) -> None:
    """Raise DataError for an unused column that would change which videos are meant.

    Args:
        where: The file and line of the header, for error texts.
        name: The column as it is written.
        key: Its name as it is compared.
        cells: What stands in it.
        is_timed: True if start and end are known. Another column of times then only repeats them.
    """
    words = set(key.split("_"))
    is_named = bool(words & MAYBE_TIMES) and words <= MAYBE_TIMES | TIME_FILLERS
    may_be_time = is_named and all(NUMBER.fullmatch(cell) or CLOCK.fullmatch(cell) for cell in cells)
    if not is_timed and (
        key in TIME_NAMES or words & TIME_WORDS or MILLISECONDS.fullmatch(key) or FRAMES.fullmatch(key) or may_be_time
    ):
        raise DataError(f"{where}: column {name!r} looks like a time and is not understood; {WAY_OUT}")
    if PART_FLAGS.fullmatch(key):
        fold = "; --group keeps videos of one fold together" if "fold" in key else ""
        raise DataError(f"{where}: column {name!r} looks like parts of a split and is not understood; {WAY_OUT}{fold}")
    _refuse_parts(where, name, cells)


def _refuse_parts(where: str, name: str, cells: Sequence[str]) -> None:
    """Raise DataError for a column of other things whose cells are the names of several parts."""
    if len({part_of(cell) for cell in cells}) > 1 and all(map(part_of, cells)):
        raise DataError(
            f"{where}: column {name!r} holds parts of a split ({', '.join(sorted(set(cells))[:3])}); call it split, or take it out"
        )


def _cells(rows: Sequence[Cells], name: str) -> list[str]:
    """Return what stands in a column, without empty cells."""
    return [str(row[name]).strip() for row in rows if row.get(name) not in (None, "", [])]


def seconds_of(where: str, name: str, value: object, scale: float) -> float | None:
    """Return a time in seconds from a number or HH:MM:SS; None for an empty cell.

    Args:
        where: The file and line, for error texts.
        name: The column, for error texts.
        value: The cell.
        scale: Seconds in one unit of a number.
    """
    text = as_text(where, name, value)
    if not text:
        return None
    if match := CLOCK.fullmatch(text):
        minutes, seconds = int(match["minutes"]), float(match["seconds"].replace(",", "."))
        if seconds < 60 and (minutes < 60 or not match["hours"]) and scale == 1:
            return 3600 * int(match["hours"] or 0) + 60 * minutes + seconds
    try:
        number = float(text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        unit = "seconds, 0 or more, or HH:MM:SS" if scale == 1 else "milliseconds, 0 or more"
        raise DataError(f"{where}: {name} {text!r}: needs {unit}")
    return number * scale


def path_of(where: str, source: Path, columns: Columns, row: Cells, options: ReadOptions) -> str:
    """Return the path of a row's video. Raises DataError if the row names none.

    Args:
        where: The file and line of the row, for error texts.
        source: The list, to which paths are relative.
        columns: The column of each thing.
        row: Cells by the names of their columns.
        options: Says where videos are.
    """
    text = as_text(where, columns.path, row.get(columns.path))
    if not text:
        raise DataError(f"{where}: no {columns.path!r}; each row needs a path and a label")
    return options.find_written(source, text)
