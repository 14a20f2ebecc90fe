"""Published lists: ActivityNet's JSON and Kinetics' CSV, which `layouts.py` reads, and AVA's CSV, which is read here.

They name videos by ids without endings. AVA labels boxes at whole seconds; a span is a run of seconds with one label.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from fewframes.core.storage import is_address
from fewframes.core.text import count_of
from fewframes.data.exchange.files import json_text, number, whole_number, written_path
from fewframes.data.exchange.spans import LabelledSpans, VideoSpan, by_video, checked_span
from fewframes.data.exchange.videos import Videos
from fewframes.data.list_text import text_of
from fewframes.data.samples import ReadOptions, is_text
from fewframes.errors import DataError

SUBSETS = {"train": "training", "val": "validation", "test": "testing"}
AVA_ROW = re.compile(r"[^,\s\"]+,\d+(\.\d+)?(,(0|1|[01]?\.\d+)?){4},\d*(,(\d+(\.\d+)?)?)?\s*(\n|$)")
"""The first line of a list of AVA: an id, a time, a box in fractions of the picture, an action, and a person or a score."""
HALF_S = 0.5
"""The seconds before and after its timestamp for which a label of AVA holds; there is one a second."""
NAMES = re.compile(r"\bname:\s*(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')")
UNESCAPED = re.compile(r'(?<!\\)"')
NUMBERS = re.compile(r"\b(?:label_)?id:\s*(\d+)")


def read_ava(source: Path, options: ReadOptions, videos: Videos) -> LabelledSpans:
    """Return a span for each run of seconds in which a video has one action, whoever does it. Raises DataError for broken rows."""
    del videos  # times are seconds
    times_s: dict[tuple[str, int], set[float]] = {}
    scores: dict[tuple[str, int], float] = {}
    rows = list(csv.reader(io.StringIO(text_of(source))))
    for line, row in enumerate(rows, 1):
        where = f"{source}:{line}"
        if row and len(row) not in (7, 8):
            raise DataError(f"{where}: {len(row)} cells; needs video_id,timestamp,x1,y1,x2,y2,action_id[,person_id]")
        if not row or not row[6]:
            continue  # at this time nobody was labelled
        place = row[0], whole_number(where, "action_id", row[6])
        times_s.setdefault(place, set()).add(number(where, "timestamp", row[1]))
        if len(row) == 8 and "." in row[7]:
            scores[place] = max(number(where, "score", row[7]), scores.get(place, 0.0))
    names, note = _action_names(source, {action for _, action in times_s})
    spans = []
    for (name, action), found_s in times_s.items():
        path = options.find_stem(source, name)
        for start_s, end_s in _runs(sorted(found_s)):
            span = VideoSpan(
                path=path,
                label=names.get(action, str(action)),
                start_s=start_s,
                end_s=end_s,
                score=scores.get((name, action)),
            )
            spans.append(checked_span(f"{source}: {name}", span))
    return LabelledSpans(tuple(spans), (note, f"boxes not used: {count_of(len(rows), 'row')}"))


def _runs(times_s: Sequence[float]) -> list[tuple[float, float]]:
    """Return the start and the end of each run of ascending timestamps that are at most a second apart."""
    runs: list[tuple[float, float]] = []
    for time_s in times_s:
        start_s, end_s = max(0.0, time_s - HALF_S), time_s + HALF_S
        if runs and start_s <= runs[-1][1] + 1e-6:
            runs[-1] = runs[-1][0], end_s
        else:
            runs.append((start_s, end_s))
    return runs


def _action_names(source: Path, used: Set[int]) -> tuple[dict[int, str], str]:
    """Return the names of the actions in a list from the label map (.pbtxt) beside it, and a note about it.

    Raises DataError if no map has all of them, or if several have other names for them.
    """
    maps = sorted(source.parent.glob("*.pbtxt"))
    own = [path for path in maps if path.stem == source.stem] or maps
    if not own:
        return {}, "actions are numbers without names; a label map (.pbtxt) beside the list would name them"
    known = {path: names for path in own if used <= set(names := _label_map(path))}
    if not known:
        missing = min(used - set(_label_map(own[0])))
        raise DataError(f"{source}: action {missing} is not in the label map {own[0].name}")
    chosen, names = next(iter(known.items()))
    if any(other[action] != names[action] for other in known.values() for action in used):
        listed = ", ".join(path.name for path in known)
        raise DataError(f"{source}: which label map names its actions? ({listed}); call it {source.stem}.pbtxt")
    return names, f"actions named by {chosen.name} ({len(names)} actions)"


def _label_map(path: Path) -> dict[int, str]:
    """Return the names of actions by their numbers. Raises DataError if the file is no label map."""
    text = text_of(path)
    names, numbers = NAMES.findall(text), NUMBERS.findall(NAMES.sub("", text))
    if not names or len(names) != len(numbers):
        raise DataError(f'{path}: {len(names)} names and {len(numbers)} numbers; needs item {{ name: "run" id: 1 }}')
    try:
        return dict(zip(map(int, numbers), (json.loads(_as_json(name)) for name in names), strict=True))
    except ValueError as error:
        raise DataError(f"{path}: a name that cannot be read ({error})") from None


def _as_json(quoted: str) -> str:
    """Return a text of a label map, quoted either way, as one of JSON."""
    inner = quoted[1:-1].replace("\\'", "'")
    return '"' + UNESCAPED.sub(r'\\"', inner) + '"'


def write_ava(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return a row for each whole second of each span, with the whole picture as the box, and the label map."""
    ids = ids_of(spans, out)
    numbers = {label: index for index, label in enumerate(sorted({span.label for span in spans}), 1)}
    rows = []
    for span in spans:
        start_s, end_s = videos.range_of(span)
        inner = [second for second in range(int(start_s), int(end_s) + 1) if start_s <= second < end_s]
        for second in inner or [round((start_s + end_s) / 2)]:
            row = (ids[span.path], f"{second:04d}", "0.000", "0.000", "1.000", "1.000", numbers[span.label], 0)
            rows.append(row)
    items = [
        f"item {{\n  name: {json.dumps(label, ensure_ascii=False)}\n  id: {index}\n}}\n"
        for label, index in numbers.items()
    ]
    return {out: _csv(dict.fromkeys(rows)), out.with_suffix(".pbtxt"): "".join(items)}


def write_kinetics(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return a row for each span, as the lists of Kinetics have them."""
    ids = ids_of(spans, out)
    rows = [
        (span.label, ids[span.path], *(f"{round(time_s, 6):.15g}" for time_s in videos.range_of(span)), span.split)
        for span in spans
    ]
    return {out: _csv([("label", "youtube_id", "time_start", "time_end", "split"), *rows])}


def write_activitynet(spans: Sequence[VideoSpan], out: Path, videos: Videos) -> Mapping[Path, str]:
    """Return the database of ActivityNet's JSON, with the spans of each video."""
    ids = ids_of(spans, out)
    database: dict[str, dict[str, object]] = {}
    for path, own in by_video(spans).items():
        segments = [{"label": span.label, "segment": list(videos.range_of(span))} for span in own]
        subset = {"subset": SUBSETS[own[0].split]} if own[0].split else {}
        database[ids[path]] = {**subset, "url": path if is_address(path) else "", "annotations": segments}
    return {out: json_text({"version": "fewframes", "taxonomy": [], "database": database})}


def ids_of(spans: Sequence[VideoSpan], out: Path) -> dict[str, str]:
    """Return the id of each video: its path below the list, or else its name, without its ending.

    Raises DataError if two videos have the same id.
    """
    ids: dict[str, str] = {}
    path_of: dict[str, str] = {}
    for path in dict.fromkeys(span.path for span in spans):
        written = written_path(path, out)
        inner = written if not os.path.isabs(written) and not is_address(path) else os.path.basename(written)
        ids[path] = os.path.splitext(inner)[0]
        if not is_text(ids[path]):
            raise DataError(f"{path!r}: its name is not UTF-8, lists are; rename it")
        if (twin := path_of.setdefault(ids[path], path)) != path:
            raise DataError(
                f"{twin} and {path} both have the id {ids[path]!r}, which is all that the format holds; rename one"
            )
    return ids


def _csv(rows: object) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return file.getvalue()
