"""Marks of events: on the disk before they are answered, the last one counts, and what is marked is not deleted for room."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fewframes.errors import DataError, MissingVideo
from fewframes.video.recording.recorder import Recorder
from fewframes.watch.clips.folder import ClipSettings, ClipsFolder
from fewframes.watch.clips.marks import MARKS_FILE, read_marks
from fewframes.watch.event import Event, new_id
from helpers.clips import read_through
from helpers.numbered import Numbered

SHORT = ClipSettings(before_s=0.2, after_s=0.2)
TS = Numbered(suffix=".ts", format="mpegts", gop=10, times_ms=range(0, 8000, 40))
ENDLESS = """
import sys
from dataclasses import replace
from pathlib import Path
from fewframes.watch.clips.folder import ClipsFolder
with ClipsFolder(Path(sys.argv[1])) as folder:
    for number in range(10**9):
        folder.mark(sys.argv[2], "other", f"label {number}")
        print(number, flush=True)
"""


def event(start_s: float, label: str = "punch") -> Event:
    at = f"2026-11-29T12:00:0{start_s:.0f}.000Z"
    return Event(
        id=new_id(), source="door", label=label, confidence=0.9, start_s=start_s, started_at=at, end_s=start_s + 0.5, ended_at=at
    )  # fmt: skip


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return read_through(TS.write(tmp_path / "source"))


def test_the_last_mark_counts_also_after_a_restart(tmp_path: Path, recorder: Recorder) -> None:
    one, two, three = event(1), event(2), event(3)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        for each in (one, two, three):
            folder.add(each, recorder)
        recorder.close()
        assert folder.mark(one.id, "right").label == "punch"
        folder.mark(one.id, "wrong")
        assert folder.mark(two.id, "other", " kick ").label == "kick"
        assert folder.mark(two.id, "other", "punch").verdict == "right"  # what it was told as
        folder.mark(three.id, "wrong")
        folder.mark(three.id, "none")
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        found = [folder.marks.of(each.id) for each in (one, two, three)]
        assert [(mark.verdict, mark.label) if mark else None for mark in found] == [
            ("wrong", ""),
            ("right", "punch"),
            None,
        ]
    assert read_marks(tmp_path / "events")[three.id].verdict == "none"


@pytest.mark.parametrize("label", ["", "  ", "two\nlines", "x" * 201])
def test_a_label_that_cannot_be_one_changes_nothing(tmp_path: Path, recorder: Recorder, label: str) -> None:
    one = event(1)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.add(one, recorder)
        recorder.close()
        with pytest.raises(DataError, match="write the name of the action"):
            folder.mark(one.id, "other", label)
        with pytest.raises(MissingVideo, match="is not in events"):
            folder.mark("0" * 32, "right")
        assert folder.marks.of(one.id) is None
    assert not (tmp_path / "events" / MARKS_FILE).exists()


def test_marked_events_stay_when_room_is_made(tmp_path: Path, recorder: Recorder) -> None:
    notes: list[str] = []
    events = [event(start_s) for start_s in range(1, 7)]
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.add(events[0], recorder)
        recorder.close()
        folder.mark(events[0].id, "right")
        size = folder.num_bytes
    settings = ClipSettings(before_s=0.2, after_s=0.2, most_bytes=3 * size)
    recorder = read_through(tmp_path / "source.ts")
    with ClipsFolder(tmp_path / "events", settings, on_note=notes.append) as folder:
        for each in events[1:]:
            folder.add(each, recorder)
        recorder.close()
        kept = [stored.event.id for stored in folder.events]
        assert kept[0] == events[0].id  # the oldest
        assert kept[-1] == events[-1].id
        assert len(kept) < len(events)
        assert folder.num_bytes <= 3 * size
        for event_id in kept:
            folder.mark(event_id, "right")
    with ClipsFolder(
        tmp_path / "events", ClipSettings(before_s=0.2, after_s=0.2, most_bytes=size // 2), on_note=notes.append
    ) as folder:
        assert [stored.event.id for stored in folder.events] == kept
        assert (tmp_path / "events" / folder.events[0].event.clip).is_file()
        assert "marked events alone take more than" in notes[-1]
        folder.mark(kept[0], "none")
    with ClipsFolder(tmp_path / "events", ClipSettings(before_s=0.2, after_s=0.2, most_bytes=size // 2)) as folder:
        assert [stored.event.id for stored in folder.events] == kept[1:]


def test_a_marked_event_stays_even_if_it_was_none_after_all(tmp_path: Path, recorder: Recorder) -> None:
    begun = replace(event(1.0), end_s=None, ended_at=None)
    with ClipsFolder(tmp_path / "events") as folder:
        folder.add(begun, recorder)
        folder.mark(begun.id, "wrong")
        folder.add(replace(event(1.0), id=begun.id, withdrawn=True), recorder)
        recorder.close()
        assert [(stored.event.id, stored.event.state) for stored in folder.events] == [(begun.id, "withdrawn")]
        assert Path(tmp_path / "events" / folder.events[0].event.clip).is_file()


def test_a_kill_loses_no_mark_that_was_answered(tmp_path: Path, recorder: Recorder) -> None:
    one = event(1)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.add(one, recorder)
        recorder.close()
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "events"), one.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answered = [next(process.stdout) for _ in range(40)]
        process.kill()
        answered += process.stdout.read().splitlines()
    last = int(answered[-1])
    mark = read_marks(tmp_path / "events")[one.id]
    assert int(mark.label.removeprefix("label ")) in (last, last + 1)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.mark(one.id, "right")
    assert read_marks(tmp_path / "events")[one.id].verdict == "right"


def test_half_a_line_is_left_out_and_a_damaged_one_is_named(tmp_path: Path, recorder: Recorder) -> None:
    one = event(1)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.add(one, recorder)
        recorder.close()
        folder.mark(one.id, "right")
    path = tmp_path / "events" / MARKS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.mark(one.id, "wrong")
    lines = path.read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["right", "wrong"]
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(DataError, match="marks.jsonl:1: not a mark of an event"):
        read_marks(tmp_path / "events")
    with pytest.raises(DataError, match="remove the line"), ClipsFolder(tmp_path / "events", SHORT):
        pass


def test_many_threads_mark_at_once(tmp_path: Path, recorder: Recorder) -> None:
    events = [event(1 + number / 10) for number in range(20)]
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        for each in events:
            folder.add(each, recorder)
        recorder.close()
        threads = [threading.Thread(target=folder.mark, args=(each.id, "wrong")) for each in events]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(read_marks(tmp_path / "events")) == {each.id for each in events}
