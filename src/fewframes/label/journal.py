"""Keep every change of labels in a file that only grows, and rebuild the labels from it.

Each change is a line of JSON, which is on the disk before the change is answered. So a kill loses nothing, every change can be
undone, and the files of several annotators can be joined.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from fewframes.core.files import writing
from fewframes.errors import DataError
from fewframes.inference.detection.spans import Span, overlap
from fewframes.label.values import BACKGROUND, Segment
from fewframes.results import is_background

JOURNAL_FILE = "labels.jsonl"
"""The name of the file in the folder of a project."""
Kind = Literal["add", "change", "delete", "rename", "undo", "redo", "measure"]
CHANGES = ("add", "change", "delete", "rename")
"""The kinds of entries that change labels, and can be undone."""
ADDED = {"id", "video", "start_s", "end_s", "label"}
"""The values of each segment of an `add`."""
SAME = 0.5
"""The overlap (tIoU) from which two segments are about the same time."""
MOST_LABEL = 200
"""The most characters of a label."""


@dataclass(frozen=True)
class Entry:
    """A line of the journal."""

    kind: Kind
    annotator: str
    values: Mapping[str, Any]
    """The values of the change, by the names that `_apply` reads."""
    time: str
    """The time of the change in UTC, as ISO 8601."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def to_line(self) -> str:
        """Return the entry as a line of JSON."""
        values = {"id": self.id, "time": self.time, "annotator": self.annotator, "kind": self.kind, **self.values}
        return json.dumps(values, ensure_ascii=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Entry:
        """Return the entry of a line. Raises ValueError if it is none."""
        values = json.loads(line)
        if not isinstance(values, dict) or values.get("kind") not in get_args(Kind):
            raise ValueError("not an entry")
        own = {name: str(values.pop(name)) for name in ("id", "time", "annotator", "kind") if name in values}
        if len(own) < 4 or not _is_whole(own["kind"], values):
            raise ValueError("not an entry")
        return cls(own["kind"], own["annotator"], values, own["time"], own["id"])  # type: ignore[arg-type]


class Journal:
    """The changes of labels in a project's file. The caller holds the lock of the project.

    Args:
        folder: The folder of the project, which exists.

    Raises:
        DataError: A whole line cannot be read.
        OutputError: The file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_FILE
        self.notes: list[str] = []
        """Notes for users on what was found in the file."""
        with writing(folder):
            self._file = self.path.open("a+b", buffering=0)  # a buffer would keep a line that could not be written
            try:
                self._entries = self._read()
            except DataError:
                self._file.close()
                raise

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, in the order of time."""
        return tuple(self._entries)

    def append(self, kind: Kind, annotator: str, **values: object) -> Entry:
        """Write an entry to the disk, and return it. Raises OutputError, and changes nothing, if that is not possible."""
        entry = Entry(kind, annotator, values, self._now())
        self._write([entry])
        return entry

    def merge(self, path: Path) -> int:
        """Take over the entries of another annotator's file that are not here yet, and return their number.

        Raises:
            DataError: The file cannot be read.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            words = f"{path}: cannot be read ({error.strerror}); name the {JOURNAL_FILE} of another project"
            raise DataError(words) from None
        known = {entry.id for entry in self._entries}
        found = {entry.id: entry for entry in self._entries_in(content, path)}
        # The accuracies that another project measured are no points of this one's curve.
        new = [entry for entry in found.values() if entry.id not in known and entry.kind != "measure"]
        self._write(new)
        return len(new)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _now(self) -> str:
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        last = self._entries[-1].time if self._entries else ""
        return max(now, last)  # a clock that was set back must not put a change before those that it rests on

    def _write(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        if self._file.closed:
            raise DataError("the session has ended; start it again")
        end = self._file.seek(0, os.SEEK_END)
        with writing(self.path.parent):
            try:
                left = "".join(entry.to_line() for entry in entries).encode("utf-8", "replace")
                while left:  # a disk that becomes full takes the first part
                    left = left[self._file.write(left) or 0 :]
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(end)  # half a line would make the next one unreadable
                raise
        self._entries = sorted([*self._entries, *entries], key=lambda entry: entry.time)

    def _read(self) -> list[Entry]:
        self._file.seek(0)
        content = self._file.readall()
        entries = self._entries_in(content, self.path)
        self._file.truncate(content.rfind(b"\n") + 1)
        return sorted(entries, key=lambda entry: entry.time)

    def _entries_in(self, content: bytes, path: Path) -> list[Entry]:
        """Return the entries of a file, with a note if the last line is half written. Raises DataError for other lines."""
        *lines, rest = content.decode("utf-8", "replace").split("\n")
        if rest:
            words = "the last line was half written, when the program or the machine stopped; that change is left out"
            self.notes.append(f"{path}: {words}")
        return [_entry_of(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def _entry_of(line: str, path: Path, number: int) -> Entry:
    """Return the entry of a line. Raises DataError if it is none."""
    try:
        return Entry.from_line(line)
    except (ValueError, RecursionError):
        raise DataError(f"{path}:{number}: not a line of labels ({line[:60]!r}); remove it, or take a copy") from None


@dataclass(frozen=True)
class Labels:
    """The labels that the entries of a journal come to."""

    segments: tuple[Segment, ...] = ()
    names: tuple[str, ...] = ()
    """The labels in the order of their first use, with those that no segment has any more left out."""

    def of(self, video: str) -> tuple[Segment, ...]:
        """Return the segments of a video, in the order of time."""
        found = (segment for segment in self.segments if segment.video == video)
        return tuple(sorted(found, key=lambda segment: (segment.start_s, segment.end_s)))

    def disagreements(self) -> tuple[tuple[Segment, Segment], ...]:
        """Return the pairs of segments that label about the same time differently, of one annotator or of two."""
        return tuple((one, other) for one, other in self._repeats if one.label != other.label)

    def agreed(self) -> tuple[Segment, ...]:
        """Return the segments to learn from: without those that disagree, and one of those that say the same."""
        left_out = self._disagreeing()
        left_out |= {other.id for one, other in self._repeats if one.label == other.label and one.id not in left_out}
        return tuple(segment for segment in self.segments if segment.id not in left_out)

    @property
    def num_disagreeing(self) -> int:
        """Return the number of segments that disagree with another one."""
        return len(self._disagreeing())

    def _disagreeing(self) -> set[str]:
        return {segment.id for pair in self.disagreements() for segment in pair}

    @cached_property
    def _repeats(self) -> list[tuple[Segment, Segment]]:
        """Return the pairs of segments that are about the same time of a video, the one that begins first first."""
        ordered = sorted(self.segments, key=lambda segment: (segment.video, segment.start_s))
        pairs = []
        for index, one in enumerate(ordered):
            for other in ordered[index + 1 :]:
                if other.video != one.video or other.start_s >= one.end_s:
                    break
                if overlap(span_of(one), span_of(other)) >= SAME:
                    pairs.append((one, other))
        return pairs


def span_of(segment: Segment) -> Span:
    """Return the span of a segment."""
    return Span(segment.start_s, segment.end_s, segment.label)


def labels_of(entries: Sequence[Entry]) -> Labels:
    """Return the labels that entries come to, in the order in which they are given."""
    undone = _undone(entries)
    segments: dict[str, Segment] = {}
    names: dict[str, None] = {}
    for entry in entries:
        if entry.kind in CHANGES and entry.id not in undone:
            _apply(entry, segments)
            if entry.kind == "rename":  # the new name takes the place of the old one
                names = dict.fromkeys(entry.values["new"] if name == entry.values["old"] else name for name in names)
            names |= dict.fromkeys(_labels_in(entry))
    used = {segment.label for segment in segments.values()}
    ordered = sorted((name for name in names if name in used), key=lambda name: name == BACKGROUND)
    return Labels(tuple(segments.values()), tuple(ordered))


def undoable(entries: Sequence[Entry], annotator: str) -> Entry | None:
    """Return the entry that an annotator's next undo takes back; None if there is none."""
    undone = _undone(entries)
    own = [entry for entry in entries if entry.kind in CHANGES and entry.annotator == annotator]
    return next((entry for entry in reversed(own) if entry.id not in undone), None)


def redoable(entries: Sequence[Entry], annotator: str) -> Entry | None:
    """Return the entry that an annotator's next redo brings back; None if there is none, or if there was a change since."""
    stack: list[str] = []
    for entry in entries:
        if entry.annotator != annotator:
            continue
        if entry.kind in CHANGES:
            stack.clear()
        elif entry.kind == "undo":
            stack.append(str(entry.values.get("of")))
        elif entry.kind == "redo" and stack:
            stack.pop()
    return next((entry for entry in entries if stack and entry.id == stack[-1]), None)


def words_of(entry: Entry) -> str:
    """Return a change in words, such as `3 segments of 'wave'`."""
    values = entry.values
    if entry.kind == "rename":
        return f"the rename of {values.get('old')!r} to {values.get('new')!r}"
    if entry.kind == "add":
        added = values.get("segments", [])
        return f"{len(added)} new segment{'s' * (len(added) != 1)} of {added[0]['label']!r}" if added else "nothing"
    return "a deleted segment" if entry.kind == "delete" else "the change of a segment"


def as_label(text: str) -> str:
    """Return a label as it is kept: without spaces around it, and one name for parts that show none of the actions.

    Raises DataError if it has line breaks or is too long.
    """
    label = " ".join(text.split(" ")).strip()
    if not label or is_background(label):
        return BACKGROUND
    if len(label) > MOST_LABEL or not label.isprintable():
        raise DataError(f"label {label[:40]!r}: needs at most {MOST_LABEL} characters, and no line breaks; shorten it")
    return label


def _undone(entries: Sequence[Entry]) -> set[str]:
    undone: set[str] = set()
    for entry in entries:
        if entry.kind == "undo":
            undone.add(str(entry.values.get("of")))
        elif entry.kind == "redo":
            undone.discard(str(entry.values.get("of")))
    return undone


def _is_whole(kind: str, values: Mapping[str, Any]) -> bool:
    """Return True if the values of an entry are those that its kind needs."""
    needs = {"undo": ("of",), "redo": ("of",), "rename": ("old", "new"), "change": ("segment",), "delete": ("segment",)}
    if not all(isinstance(values.get(name), str) for name in needs.get(kind, ())):
        return False
    times: list[Any] = [values[name] for name in ("start_s", "end_s") if name in values]
    texts = [values["label"]] if kind == "change" and "label" in values else []
    if kind == "add":
        added = values.get("segments")
        if not isinstance(added, list) or not all(isinstance(one, dict) and set(one) == ADDED for one in added):
            return False
        times += [one[name] for one in added for name in ("start_s", "end_s")]
        texts += [one[name] for one in added for name in ("id", "video", "label")]
    if kind == "measure":
        times += [values.get("num_segments"), values.get("accuracy")]
    is_finite = all(isinstance(time_s, int | float) and math.isfinite(time_s) for time_s in times)
    return is_finite and all(isinstance(text, str) for text in texts)


def _labels_in(entry: Entry) -> list[str]:
    """Return the labels that a change may bring into use."""
    added = [one["label"] for one in entry.values["segments"]] if entry.kind == "add" else []
    return [*added, *(entry.values[name] for name in ("label", "new") if name in entry.values)]


def _apply(entry: Entry, segments: dict[str, Segment]) -> None:
    """Apply a change to the segments by id. A segment that is gone, because its adding was undone, stays gone."""
    values = entry.values
    if entry.kind == "add":
        for added in values["segments"]:
            segments[added["id"]] = Segment(annotator=entry.annotator, **added)
    elif entry.kind == "delete":
        segments.pop(values["segment"], None)
    elif entry.kind == "rename":
        for segment in list(segments.values()):
            if segment.label == values["old"]:
                segments[segment.id] = replace(segment, label=values["new"])
    elif values["segment"] in segments:
        changed = {name: values[name] for name in ("start_s", "end_s", "label") if name in values}
        segments[values["segment"]] = replace(segments[values["segment"]], **changed)
