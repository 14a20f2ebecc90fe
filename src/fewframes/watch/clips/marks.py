"""Keep what people say of events in a file that only grows: right, wrong, or another label. The last word on an event counts."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from fewframes.core.files import writing
from fewframes.data.samples import as_label
from fewframes.errors import DataError
from fewframes.watch.event import iso

MARKS_FILE = "marks.jsonl"
"""The name of the file in a folder of events."""
Verdict = Literal["right", "wrong", "other", "none"]
"""The event is what it says; is none of the actions; is another action; or is not marked any more."""
MOST_LABEL = 200
"""The most characters of a label."""


@dataclass(frozen=True)
class Mark:
    """A mark of an event."""

    event: str
    """The id of the event."""
    verdict: Verdict
    label: str
    """The action that the event shows by this mark; empty if it shows none, or if the mark was taken back."""
    time: str
    """The time of the mark: ISO 8601 in UTC."""

    @classmethod
    def of(cls, event: str, told: str, verdict: Verdict, label: str = "") -> Mark:
        """Return a mark that is made now. Raises DataError for a label that cannot be one.

        Args:
            event: The id of the event.
            told: The label that the event was told with.
            verdict: The verdict.
            label: The label of an event that is another action.
        """
        if verdict == "other":
            label = as_label(label)
            if not label or len(label) > MOST_LABEL or not label.isprintable():
                raise DataError(
                    f"label {label[:40]!r}: needs 1 to {MOST_LABEL} characters, and no line breaks; write the name of the action"
                )
            verdict = "right" if label == as_label(told) else verdict
        return cls(event, verdict, {"right": told, "other": label}.get(verdict, ""), iso(datetime.now(UTC)))


class MarksFile:
    """The marks of a folder of events. The caller holds the lock of the folder; any thread may mark."""

    def __init__(self, folder: Path) -> None:
        """Read the file, if there is one. Raises DataError if a line of it is damaged, and OutputError if it cannot be read."""
        self.path = folder / MARKS_FILE
        self._marks = read_marks(folder)
        self._lock = threading.Lock()

    def __contains__(self, event: str) -> bool:
        return self.of(event) is not None

    def of(self, event: str) -> Mark | None:
        """Return the mark of an event; None if it is not marked."""
        mark = self._marks.get(event)
        return None if mark is None or mark.verdict == "none" else mark

    def add(self, mark: Mark) -> None:
        """Write a mark. It is on the disk when this returns. Raises OutputError, and changes nothing, if that is not possible."""
        line = (json.dumps(asdict(mark), ensure_ascii=False) + "\n").encode("utf-8", "replace")
        with self._lock, writing(self.path.parent), self.path.open("a+b", buffering=0) as file:
            file.seek(0)
            end = file.readall().rfind(b"\n") + 1  # half a line is left of a process that was killed while it wrote
            file.truncate(end)
            try:
                left = line
                while left:  # a disk that becomes full takes the first part
                    left = left[file.write(left) or 0 :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)  # half a line would make the next one unreadable
                raise
            self._marks[mark.event] = mark


def read_marks(folder: Path) -> dict[str, Mark]:
    """Return the last mark of each event in a folder, those that were taken back too.

    The last line does not count if it is not whole: it may be written just now.

    Raises:
        DataError: A whole line cannot be read.
        OutputError: The file cannot be read.
    """
    path = folder / MARKS_FILE
    with writing(folder, "make it readable"):
        content = path.read_bytes() if path.exists() else b""
    *lines, _ = content.decode("utf-8", "replace").split("\n")
    marks = [_mark_of(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]
    return {mark.event: mark for mark in marks}


def _mark_of(line: str, path: Path, number: int) -> Mark:
    try:
        mark = Mark(**json.loads(line))
        if mark.verdict in get_args(Verdict) and all(isinstance(value, str) for value in asdict(mark).values()):
            return mark
    except (ValueError, TypeError, RecursionError):
        pass
    raise DataError(f"{path}:{number}: not a mark of an event ({line[:60]!r}); remove the line")
