"""The table of formats, and how a file's format is recognised from its content."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewframes.core.text import count_of
from fewframes.data.columns import as_text
from fewframes.data.exchange import cvat, elan, fiftyone, label_studio, subtitles, tables, via
from fewframes.data.exchange.files import json_of, located, number, objects
from fewframes.data.exchange.spans import EXTRAS, LabelledSpans, VideoSpan, checked_span, samples_of
from fewframes.data.exchange.videos import Videos
from fewframes.data.list_text import MARKS, lines_of
from fewframes.data.samples import LabelledList, ReadOptions
from fewframes.errors import DataError

START_BYTES = 4096
"""The number of bytes from which a format that is not JSON is recognised."""

SHOWN_NOTES = 3
"""The most notes of single files that are shown by their words, of a folder of files."""
FILE_ENDINGS = frozenset({".eaf", ".vtt", ".srt", ".xml"})
"""The endings of files that lie beside videos in a folder that is read as a whole."""
PROLOGUE = re.compile(r"\A(?:\s+|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
DOCTYPE = re.compile(r"<!DOCTYPE\s+([\w:.-]+)")

Reader = Callable[[Path, ReadOptions, Videos], LabelledSpans]
Writer = Callable[[Sequence[VideoSpan], Path, Videos], Mapping[Path, str]]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of labelled spans."""

    title: str
    endings: tuple[str, ...]
    """The endings of its files; the first is that of files that are written."""
    read: Reader | None = None
    """None if `layouts.py` reads it as a list."""
    write: Writer | None = None
    """None if it is only read."""
    start: re.Pattern[str] | None = None
    """The start of its files, from which they are recognised."""
    is_json: Callable[[Any], bool] | None = None
    """A function that recognises its values, if it is JSON."""
    one_video: bool = False
    """True if a file holds the spans of one video."""
    by_id: bool = False
    """True if it names videos without their folders and endings."""
    merges: bool = False
    """True if spans of one label that touch are one span."""
    holds: frozenset[str] = frozenset()
    """The fields of `EXTRAS` that it keeps, beside video, times and label."""


def read_timeline(source: Path, options: ReadOptions, videos: Videos) -> LabelledSpans:
    """Return the spans that `fewframes timeline --json` found, with their confidences. Raises DataError for other JSON."""
    del videos  # times are seconds
    rows: list[Any] = []
    lines = list(lines_of(source))
    try:
        rows = [json.loads(text) for _, text in lines]
    except (ValueError, RecursionError):
        rows = [json_of(source)]  # one object on several lines
    spans, num_failed = [], 0
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("error"), str):
            num_failed += 1
            continue
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("source"), str)
            or not isinstance(row.get("spans"), list)
        ):
            raise DataError(f"{source}: not what `fewframes timeline --json` writes; needs `source` and `spans`")
        path, where = located(source, options, row["source"]), f"{source}: {row['source']}"
        for span in objects(row["spans"]):
            start_s, end_s, score = (number(where, key, span.get(key)) for key in ("start_s", "end_s", "confidence"))
            label = as_text(where, "label", span.get("label"))
            spans.append(
                checked_span(where, VideoSpan(path=path, label=label, start_s=start_s, end_s=end_s, score=score))
            )
    notes = (f"{count_of(num_failed, 'video')} failed, and so have no spans",) if num_failed else ()
    return LabelledSpans(tuple(spans), notes)


FORMATS: Mapping[str, Format] = {
    "cvat": Format(
        title="CVAT for video 1.1",
        endings=(".xml",),
        read=cvat.read_cvat,
        write=cvat.write_cvat,
        start=re.compile(r"<annotations[\s>/]"),
        one_video=True,
        holds=frozenset({"split"}),
    ),
    "label-studio": Format(
        title="Label Studio",
        endings=(".json",),
        read=label_studio.read_label_studio,
        write=label_studio.write_label_studio,
        is_json=label_studio.is_label_studio,
        holds=frozenset({"annotator", "score", "split", "group"}),
    ),
    "elan": Format(
        title="ELAN",
        endings=(".eaf",),
        read=elan.read_elan,
        write=elan.write_elan,
        start=re.compile(r"<ANNOTATION_DOCUMENT[\s>/]"),
        one_video=True,
        holds=frozenset({"annotator"}),
    ),
    "via": Format(title="VIA 3", endings=(".json",), read=via.read_via, write=via.write_via, is_json=via.is_via),
    "fiftyone": Format(
        title="FiftyOne",
        endings=(".json",),
        read=fiftyone.read_fiftyone,
        write=fiftyone.write_fiftyone,
        is_json=fiftyone.is_fiftyone,
        holds=frozenset({"annotator", "score"}),
    ),
    "activitynet": Format(
        title="ActivityNet",
        endings=(".json",),
        write=tables.write_activitynet,
        by_id=True,
        holds=frozenset({"split"}),
    ),
    "kinetics": Format(
        title="Kinetics", endings=(".csv",), write=tables.write_kinetics, by_id=True, holds=frozenset({"split"})
    ),
    "ava": Format(
        title="AVA",
        endings=(".csv",),
        read=tables.read_ava,
        write=tables.write_ava,
        start=tables.AVA_ROW,
        by_id=True,
        merges=True,
    ),
    "vtt": Format(
        title="WebVTT",
        endings=(".vtt",),
        read=subtitles.read_subtitles,
        write=subtitles.write_vtt,
        start=re.compile(r"WEBVTT\s"),
        one_video=True,
        holds=frozenset({"annotator"}),
    ),
    "srt": Format(
        title="SRT",
        endings=(".srt",),
        read=subtitles.read_subtitles,
        write=subtitles.write_srt,
        start=re.compile(rf"\d+\s*\n{subtitles.STAMP}\s*-->"),
        one_video=True,
    ),
    "timeline": Format(
        title="fewframes timeline --json",
        endings=(".jsonl", ".json"),
        read=read_timeline,
        # Lines of videos that failed may stand before the first timeline.
        start=re.compile(r'(?:\{"source": ".*", "error": .*\n)*\{\s*"source":\s*".*",\s*"duration_s":'),
        holds=frozenset({"score"}),
    ),
}
"""The formats by the names that `--to` and `--from` take, beside `list`, the list of fewframes."""


def format_of(source: Path) -> Format | None:
    """Return the format of a file by its content; None if it is none of the table, or is read as a list."""
    try:
        with source.open("rb") as file:
            head = file.read(START_BYTES)
    except OSError:
        return None  # whoever reads it says why
    encoding = next((name for mark, name in MARKS if head.startswith(mark)), "utf-8")
    start = head.decode(encoding, "ignore").removeprefix("\ufeff").replace("\r\n", "\n").lstrip()
    if start.startswith("<"):
        start = _without_prologue(start)
    if found := next((form for form in FORMATS.values() if form.start and form.start.match(start)), None):
        return found
    if start[:1] not in ("{", "["):
        return None
    try:
        values = json_of(source)
    except DataError:
        return None  # as a list, its place is named
    return next((form for form in FORMATS.values() if form.is_json and form.is_json(values)), None)


def _without_prologue(start: str) -> str:
    """Return the start of an XML document from its first element on, which a document type names too."""
    start = PROLOGUE.sub("", start)
    return f"<{match[1]} " if (match := DOCTYPE.match(start)) else start


def read_files(sources: Sequence[Path], form: Format, options: ReadOptions, videos: Videos) -> LabelledSpans:
    """Return the spans of several files of one format, with their notes. Raises DataError as its reader does."""
    assert form.read is not None
    found = [form.read(source, options, videos) for source in sources]
    spans = tuple(span for one in found for span in one.spans)
    return LabelledSpans(spans, tuple(_joined(sources, found)), form.title)


def _joined(sources: Sequence[Path], found: Sequence[LabelledSpans]) -> list[str]:
    """Return the notes of all files: counts of one thing as their sum, and others with the names of the first files."""
    if len(found) == 1:
        return list(found[0].notes)
    counts: Counter[str] = Counter()
    others = []
    for source, one in zip(sources, found, strict=True):
        for note in one.notes:
            what, _, count = note.rpartition(": ")
            if count.isdecimal():
                counts[what] += int(count)
            else:
                others.append(f"{source.name}: {note}")
    more = [f"{count_of(len(others) - SHOWN_NOTES, 'more note')} of this kind"] if len(others) > SHOWN_NOTES else []
    return [*(f"{what}: {count}" for what, count in counts.items()), *others[:SHOWN_NOTES], *more]


def files_in(folder: Path) -> tuple[Sequence[Path], Format | None]:
    """Return the files of one format that lie in a folder without folders of actions, and their format; none if there are none.

    Raises DataError if there are files of several formats, which would label the videos twice.
    """
    entries = sorted(folder.iterdir())
    named = [
        entry
        for entry in entries
        if entry.suffix.lower() in FILE_ENDINGS or entry.name in ("samples.json", "labels.json")
    ]
    if not named or any(
        entry.is_dir() and entry.name not in ("videos", "data") and entry.name[0] != "." for entry in entries
    ):
        return [], None
    found = {entry: form for entry in named if entry.is_file() and (form := format_of(entry))}
    titles = sorted({form.title for form in found.values()})
    if len(titles) > 1:
        raise DataError(f"{folder}: files of {' and '.join(titles)}, which would label videos twice; pass one of them")
    return list(found), next(iter(found.values()), None)


def as_list(sources: Sequence[Path], form: Format, options: ReadOptions) -> LabelledList:
    """Return what people labelled in files of one format, to learn from. Raises DataError if that is nothing."""
    found = read_files(sources, form, options, Videos())
    where = str(sources[0] if len(sources) == 1 else sources[0].parent)
    try:
        samples, notes = samples_of(where, found.spans, multilabel=bool(options.label_separator))
    except DataError as error:
        raise DataError("; ".join([str(error), *found.notes])) from None
    return LabelledList(samples, form.title, notes=(*found.notes, *notes))


def not_held(spans: Sequence[VideoSpan], form: Format) -> list[str]:
    """Return a note for each kind of fact that the spans have and a format does not keep."""
    notes = []
    if form.merges:
        notes.append(
            f"{form.title} has labels at whole seconds: times are those within half a second, and spans that touch are one"
        )
    for name in EXTRAS:
        count = sum(getattr(span, name) not in ("", None) for span in spans)
        if count and name not in form.holds:
            notes.append(f"{form.title} does not keep the {name} of a span: lost for {count} of {len(spans)}")
    return notes
