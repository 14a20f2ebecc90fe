"""Read the boxes of a video from a file: CSV with a header, or the text of the MOT challenge."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewframes.core.text import count_of
from fewframes.errors import DataError
from fewframes.video.regions.boxes import Box, Track, track_of
from fewframes.video.regions.tracker import tracks_of

TIMES, FRAMES = ("time_s", "time"), ("frame", "frame_id")
NAMES = ("track", "track_id", "id")
CORNERS = (("x0", "y0", "x1", "y1"), ("left", "top", "right", "bottom"))
SIZES = (("x", "y", "w", "h"), ("left", "top", "width", "height"), ("x", "y", "width", "height"))
SCORES = ("score", "confidence", "conf")
MOT_COLUMNS = 6
"""The fewest columns of the MOT challenge: frame, id, left, top, width, height."""
NO_ID = -1
"""The id of boxes in MOT files that nobody has followed yet."""


@dataclass(frozen=True)
class BoxRow:
    """A line of a file of boxes: the number of the line, the time or the frame, the id, empty if there is none, and the box."""

    line: int
    time: float
    name: str
    box: Box


@dataclass(frozen=True, eq=False)
class BoxFile:
    """The tracks of a file, and what it was taken for, in one line."""

    tracks: tuple[Track, ...]
    words: str


def read_boxes(path: Path, frames_per_s: float) -> BoxFile:
    """Read the tracks of a video from a file with one line for each box and time.

    CSV has a header: `time_s` in seconds, or `frame` from 0; `x0,y0,x1,y1` or `x,y,w,h`; and the name of the person or thing in
    `track`, `track_id` or `id`. Without a header it is the text of the MOT challenge, frame from 1, id, left, top, width, height.
    Boxes that are 1 or smaller in all their numbers are fractions of the picture, others pixels. Boxes without ids are followed.

    Args:
        path: The file.
        frames_per_s: The frame rate of the video, for files that count frames.

    Raises:
        DataError: the file cannot be read, or a line of it makes no sense; the text names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    numbered = [(number, cells) for number, cells in enumerate(csv.reader(lines), 1) if any(map(str.strip, cells))]
    if not numbered:
        raise DataError(f"{path}: no boxes in it; needs a line for each box and time")
    if _number(numbered[0][1][0]) is None:
        rows, is_time, kind, first = (*_with_header(path, numbered), "CSV", 0)
    else:
        rows, is_time, kind, first = _mot(path, numbered), False, "MOT challenge", 1
    rate = 1.0 if is_time else frames_per_s
    in_pixels = max(abs(side) for row in rows for side in row.box[:4]) > 1
    tracks = _tracks(rows, 0 if is_time else first, rate, in_pixels=in_pixels)
    when = "times in seconds" if is_time else f"frames from {first} at {rate:g} frames/s"
    ids = "" if all(row.name for row in rows) else ", followed because they have no ids"
    unit = "pixels" if in_pixels else "fractions of the picture"
    found = count_of(len(tracks), "track")
    return BoxFile(tracks, f"{path}: {kind}, {count_of(len(rows), 'line')}, boxes in {unit}, {when}: {found}{ids}")


def _with_header(path: Path, numbered: Sequence[tuple[int, list[str]]]) -> tuple[list[BoxRow], bool]:
    """Return the rows of a CSV file with a header, and True if it has times rather than frames. Raises DataError."""
    header = [cell.strip().lower() for cell in numbered[0][1]]

    def column(names: Sequence[str]) -> int | None:
        return next((header.index(name) for name in names if name in header), None)

    time, frame, name = column(TIMES), column(FRAMES), column(NAMES)
    when = frame if time is None else time
    corners = next((names for names in CORNERS if set(names) <= set(header)), None)
    sizes = next((names for names in SIZES if set(names) <= set(header)), None)
    sides = corners or sizes
    if when is None or sides is None:
        raise DataError(
            f"{path}: its header is {','.join(header)!r}; needs time_s or frame, and x0,y0,x1,y1 or x,y,w,h, such as "
            "time_s,track,x0,y0,x1,y1"
        )
    places, score = [header.index(side) for side in sides], column(SCORES)
    rows = []
    for line, cells in numbered[1:]:
        if len(cells) != len(header):
            raise DataError(f"{path}: line {line} has {len(cells)} cells, and its header {len(header)}")
        values = _numbers(path, line, [cells[place] for place in (when, *places)])
        sure = 1.0 if score is None else _numbers(path, line, [cells[score]])[0]
        named = "" if name is None else cells[name].strip()
        rows.append(BoxRow(line, values[0], named, _box(path, line, values[1:], sure, is_size=corners is None)))
    if not rows:
        raise DataError(f"{path}: a header and no boxes; needs a line for each box and time")
    return rows, time is not None


def _mot(path: Path, numbered: Sequence[tuple[int, list[str]]]) -> list[BoxRow]:
    """Return the rows of a text of the MOT challenge, without those that are marked to be left out by a seventh number of 0."""
    rows = []
    for line, cells in numbered:
        if len(cells) < MOT_COLUMNS:
            raise DataError(
                f"{path}: line {line} has {len(cells)} cells; without a header it needs those of the MOT challenge: "
                "frame,id,left,top,width,height"
            )
        values = _numbers(path, line, cells[: MOT_COLUMNS + 1])
        score = values[MOT_COLUMNS] if len(values) > MOT_COLUMNS else 1.0
        if values[0] < 1:
            raise DataError(f"{path}: line {line} is of frame {values[0]:g}; frames of the MOT challenge begin with 1")
        if score != 0:
            name = "" if values[1] == NO_ID else f"{values[1]:g}"
            rows.append(BoxRow(line, values[0], name, _box(path, line, values[2:6], score, is_size=True)))
    if not rows:
        raise DataError(f"{path}: all of its boxes are marked to be left out (their seventh number is 0)")
    return rows


def _box(path: Path, line: int, sides: Sequence[float], score: float, *, is_size: bool) -> Box:
    """Return the box of two corners, or of a corner and a size. Raises DataError if it is empty."""
    x0, y0, x1, y1 = sides
    box = Box(x0, y0, x0 + x1, y0 + y1, score) if is_size else Box(x0, y0, x1, y1, score)
    if box.x1 <= box.x0 or box.y1 <= box.y0:
        raise DataError(f"{path}: line {line}: the box {x0:g},{y0:g},{x1:g},{y1:g} is empty")
    return box


def _number(text: str) -> float | None:
    """Return a finite number, or None for other texts."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(path: Path, line: int, cells: Sequence[str]) -> list[float]:
    """Return the numbers of cells. Raises DataError if one is none."""
    values = []
    for cell in cells:
        value = _number(cell)
        if value is None:
            raise DataError(f"{path}: line {line}: {cell.strip()!r} is no number")
        values.append(value)
    return values


def _tracks(rows: Sequence[BoxRow], first: int, rate: float, *, in_pixels: bool) -> tuple[Track, ...]:
    """Return the track of each id in the order in which they come, and of boxes without an id those that are found."""
    by_name: dict[str, list[BoxRow]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    at = {row: (row.time - first) / rate for row in rows}
    tracks = [
        track_of(name, [at[row] for row in own], [row.box for row in own], in_pixels=in_pixels)
        for name, own in by_name.items()
        if name
    ]
    if "" in by_name:
        by_time: dict[float, list[Box]] = {}
        for row in by_name[""]:
            by_time.setdefault(at[row], []).append(row.box)
        taken = {track.name for track in tracks}
        followed = tracks_of(sorted(by_time.items()), in_pixels=in_pixels)
        tracks += [track for track in followed if track.name not in taken]
    return tuple(sorted(tracks, key=lambda track: float(np.min(track.times_s))))
