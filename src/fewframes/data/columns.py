"""The header of a list -> the column that each thing is in, and the rows -> samples.

A column is used, or named as not used, or refused: one that looks like a time, a part or a fold and is not understood would give
other videos than the list means.
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
"""What columns and keys are called; the first is ours. Of several that are there the first is taken."""
STARTS = frozenset("start begin beginning starting onset t0 tstart startsec starttime from".split())
ENDS = frozenset("end stop ending finish t1 tend tstop endsec endtime stoptime to".split())
TIME_FILLERS = frozenset(
    "s sec secs second seconds t time timestamp times clip segment video action temporal trim label at".split()
)
"""Words of the columns of times: `clip_start_time`, `t_end_sec`; beside one word for a side only fillers may stand."""
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
"""Names that are used for other things as well: a split where the cells say so."""
PART_FLAGS = re.compile(
    r"(is_?)?(train|training|test|testing|val|valid|validation)(_?set)?|(k_?)?folds?(_?(id|index|idx|number|no))?"
)
CLOCK = re.compile(r"(?:(?P<hours>\d+):)?(?P<minutes>\d{1,2}):(?P<seconds>\d{1,2}(?:[.,]\d+)?)")
DECIMAL_COMMA = re.compile(r"\d+,(\d{1,2}|\d{4,})")
"""A number as it is written where a comma parts decimals; 1,500 may be a thousand and a half."""
NO_LABEL = frozenset({"nan", "n/a", "#n/a", "<na>"})
"""What tables write where a label is missing."""
WAY_OUT = "rename it to one of ours (path, label, start_s, end_s, split, group), or take it out"

Cells = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Name the column that holds each thing; empty where none does."""

    path: str
    label: str
    start: str = ""
    end: str = ""
    scale: float = 1.0
    """Seconds in one of the times' units."""
    split: str = ""
    group: str = ""
    unused: tuple[str, ...] = ()

    def note(self) -> str:
        """Return a line for people: what was read from which column, and which were not used."""
        unit = " in seconds" if self.scale == 1 else " in milliseconds"
        used = [
            f"{what} from {column!r}{unit if what in ('start', 'end') else ''}"
            for what, column in vars(self).items()
            if what in ("path", "label", "start", "end", "split", "group") and column
        ]
        return f"columns: {', '.join(used)}" + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def as_column(name: str) -> str:
    """Return a column's name as it is compared: `Start Time (s)` is start_time_s."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^\w]+", "_", parted.lower()).strip("_")


def is_header(cells: Sequence[str], *, has_separator: bool) -> bool:
    """Return whether cells are names of columns: those of a path and of a label; between separators one of them is enough, where
    no file is named."""
    names = [as_column(cell) for cell in cells]
    both = any(name in PATHS for name in names) and any(name in LABELS for name in names)
    return both or (has_separator and any(name in (*PATHS, *LABELS) for name in names) and not any(map(is_file, cells)))


def columns_of(where: str, rows: Sequence[Cells], places: ReadOptions, *, path_column: str = "") -> Columns:
    """Return what the columns of these rows hold; `path_column` is told by its cells where its name says nothing.

    Raises DataError where there is no path or no label, and for columns that look like times, parts or folds and are not
    understood.
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
            f"{where}: no column {missing!r} in {', '.join(map(str, names))}; call it {missing}, or another of "
            f"{', '.join(known[:6])}"
        )
    group = as_column(places.group_column)
    if group not in ("group", *by_name):
        raise DataError(f"{where}: no column {places.group_column!r} for groups; {nearest(group, by_name)}")
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
    where: str, row: Cells, columns: Columns, path: str, names: Mapping[str, str], places: ReadOptions
) -> Sample:
    """Return the sample of a row. Raises DataError for times, parts and labels that cannot be right."""
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
        labels=labels_of(where, columns.label, row.get(columns.label), names, places),
        start_s=start_s or 0.0,
        end_s=end_s,
        split=split_of(where, columns.split, as_text(where, columns.split, row.get(columns.split)))
        if columns.split
        else "",
        group=as_text(where, columns.group, row.get(columns.group)) if columns.group else "",
    )


def labels_of(where: str, column: str, value: object, names: Mapping[str, str], places: ReadOptions) -> tuple[str, ...]:
    """Return the labels in a cell or value, by their names where they are numbers of a class list."""
    if isinstance(value, list):
        cells = sorted({as_label(as_text(where, column, item)) for item in value} - {""})
        if len(cells) > 1 and not places.label_mark:
            raise DataError(f"{where}: {column} holds {len(cells)} labels; take the task 'multilabel', or write one")
        labels = tuple(cells)
    else:
        labels = places.labels(as_text(where, column, value))
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
    """Return a cell as text. Raises DataError for what is nested, as it may be in JSON."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise DataError(
            f"{where}: {column} holds {type(value).__name__} {json.dumps(value)[:60]}; needs a text or a number"
        )
    return value.strip()


def split_of(where: str, column: str, name: str) -> str:
    """Return the part that a cell names."""
    if name and not part_of(name):
        raise DataError(f"{where}: {column} {name!r}; {nearest(name, SPLITS)}")
    return part_of(name)


def _times(where: str, by_name: Mapping[str, str], free: set[str]) -> tuple[str, str, float]:
    """Return the columns of the start and the end, and how many seconds one of their units is."""
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
                f"{where}: {by_name[key]!r} counts frames, and lists differ in whether they count from 0 or 1 and mean the last "
                "one too; write start_s and end_s in seconds (frame / frames per second)"
            )
    if (start and set(start.split("_")) & {"from", "onset"} and not end) or (end == "to" and not start):
        column = by_name[start or end]
        raise DataError(f"{where}: column {column!r} looks like a time, and there is no other side of it; {WAY_OUT}")
    others = [key for key in ("duration", "length", "duration_s", "clip_duration", "dur") if key in free]
    if start and not end and others:
        raise DataError(
            f"{where}: {by_name[start]!r} beside {by_name[others[0]]!r}: a segment, or how long the video is? write end_s, or take "
            f"{by_name[others[0]]!r} out"
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
            return key  # a part that is not known is refused with its line
        if key not in MAYBE_SPLITS or any(part_of(cell) for cell in cells):
            raise DataError(
                f"{where}: column {by_name[key]!r} looks like parts of a split, but {unknown[0]!r} is none; call them train, val "
                f"and test, or {WAY_OUT}"
            )
    return ""


def _refuse_unknown(where: str, name: str, key: str, cells: Sequence[str], *, is_timed: bool) -> None:
    """Raise DataError for a column that would change which videos are meant. Where start and end are known another time says the
    same again."""
    words = set(key.split("_"))
    is_named = bool(words & MAYBE_TIMES) and words <= MAYBE_TIMES | TIME_FILLERS
    may_be_time = is_named and all(NUMBER.fullmatch(cell) or CLOCK.fullmatch(cell) for cell in cells)
    if not is_timed and (
        key in TIME_NAMES or words & TIME_WORDS or MILLISECONDS.fullmatch(key) or FRAMES.fullmatch(key) or may_be_time
    ):
        raise DataError(f"{where}: column {name!r} looks like a time and is not understood; {WAY_OUT}")
    if PART_FLAGS.fullmatch(key):
        fold = "; --group keeps what has one number together" if "fold" in key else ""
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
    """Return a time in seconds from a number or HH:MM:SS; None for an empty cell."""
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


def path_of(where: str, source: Path, columns: Columns, row: Cells, places: ReadOptions) -> str:
    """Return where the video of a row is. Raises DataError where the row names none."""
    text = as_text(where, columns.path, row.get(columns.path))
    if not text:
        raise DataError(f"{where}: no {columns.path!r}; each row needs a path and a label")
    return places.find_written(source, text)
