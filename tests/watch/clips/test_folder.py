"""The folder of events: what is listed is whole, the oldest are deleted first, and a killed process leaves no halves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from fewframes.errors import ConfigError
from fewframes.video.live import LiveReader
from fewframes.video.live_queue import WAITING, LiveFrame
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import Recorded
from fewframes.video.recording.recorder import ClipRecording, Recorder
from fewframes.watch.clips.folder import ClipSettings, ClipsFolder
from fewframes.watch.event import Event, iso, new_id
from helpers.numbered import Numbered

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
SHORT = ClipSettings(before_s=0.5, after_s=0.5)
TS = Numbered(suffix=".ts", format="mpegts", gop=10, times_ms=range(0, 6000, 40), width=320, height=240)


def event(
    start_s: float, end_s: float | None = None, label: str = "punch", source: str = "door", zone: str = ""
) -> Event:
    return Event(
        id=new_id(),
        source=source,
        label=label,
        confidence=0.87,
        start_s=start_s,
        started_at=iso(NOON + timedelta(seconds=start_s)),
        end_s=end_s,
        ended_at=None if end_s is None else iso(NOON + timedelta(seconds=end_s)),
        zone=zone,
    )


def watched(source: Path, recorder: Recorder, at_s: dict[float, Callable[[], object]] | None = None) -> None:
    """Read a source to its end, and call each function once a frame of its time has come."""
    due = dict(at_s or {})
    with closing(
        LiveReader(Recorded(str(source), recorder), StreamConfig(), 0.1, lambda frame_CHW: frame_CHW)
    ) as reader:
        while (items := reader.take(WAITING, 0.05)) is not None:
            for item in items:
                for time_s in [time_s for time_s in due if isinstance(item, LiveFrame) and item.time_s >= time_s]:
                    due.pop(time_s)()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return TS.write(tmp_path / "source")


def kept(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_event_has_its_clip_its_picture_and_its_file(tmp_path: Path, source: Path) -> None:
    recorder = Recorder(keep_s=60)
    done: list[Event] = []
    begun = event(2.0)
    ended = replace(begun, end_s=3.0, ended_at=iso(NOON + timedelta(seconds=3)), confidence=0.95)
    with ClipsFolder(tmp_path / "events", SHORT, on_done=done.append) as folder:
        watched(source, recorder, {2.3: lambda: folder.add(begun, recorder), 3.3: lambda: folder.add(ended, recorder)})
        recorder.close()
    stem = f"2026-11-29/120002-{begun.id[:8]}"
    assert kept(tmp_path / "events") == sorted([f"{stem}.json", f"{stem}.jpg", f"{stem}.mp4", "index.html"])
    values = json.loads((tmp_path / "events" / f"{stem}.json").read_text())
    assert values == ended.to_dict() | {
        "clip": f"{stem}.mp4", "picture": f"{stem}.jpg", "clip_start_s": 1.2, "clip_end_s": 3.0 + 0.5, "note": "",
        "window_s": None,
    }  # fmt: skip
    with av.open(str(tmp_path / "events" / f"{stem}.mp4")) as container:
        assert (
            58 <= len(list(container.decode(video=0))) <= 62
        )  # from 1.2 s to 3.5 s, and pictures that others build on
    with Image.open(tmp_path / "events" / f"{stem}.jpg") as picture:
        assert picture.size == (320, 240)
    (told,) = done
    assert Path(told.clip).is_file()
    assert Path(told.picture).is_file()


def test_events_that_overlap_have_clips_of_their_own(tmp_path: Path, source: Path) -> None:
    recorder = Recorder(keep_s=60)
    watched(source, recorder)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        for start_s in (1.0, 1.5, 2.0):
            folder.add(event(start_s, start_s + 1, label=f"at {start_s:g}"), recorder)
        recorder.close()
        assert [stored.event.label for stored in folder.events] == ["at 1", "at 1.5", "at 2"]
        assert folder.counts.written == 3


class QuickWriter(Recorder):
    """A recorder whose thread has written all that it may before `cut` returns."""

    def cut(self, *args: Any, **options: Any) -> ClipRecording:
        clip = super().cut(*args, **options)
        until = time.monotonic() + 60
        while not clip.is_done and time.monotonic() < until:
            time.sleep(0.01)
        return clip


def test_a_clip_of_an_event_that_has_ended_already_ends_after_it(tmp_path: Path, source: Path) -> None:
    recorder = QuickWriter(keep_s=60)
    watched(source, recorder)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.add(event(1.0, 2.0), recorder)
        recorder.close()
        (stored,) = folder.events
        assert stored.clip_end_s == pytest.approx(2.5, abs=0.05)
        assert stored.note == ""


def test_an_event_that_was_none_leaves_nothing(tmp_path: Path, source: Path) -> None:
    recorder = Recorder(keep_s=60)
    done: list[Event] = []
    begun = event(2.0)
    with ClipsFolder(tmp_path / "events", SHORT, on_done=done.append) as folder:
        none = replace(begun, end_s=3.0, ended_at=iso(NOON + timedelta(seconds=3)), withdrawn=True)
        watched(source, recorder, {2.3: lambda: folder.add(begun, recorder), 3.3: lambda: folder.add(none, recorder)})
        recorder.close()
        assert folder.events == []
    assert kept(tmp_path / "events") == ["index.html"]
    assert not list((tmp_path / "events").glob("2026-*"))
    assert done == [none]


def test_the_page_names_events_and_escapes_what_is_foreign(tmp_path: Path, source: Path) -> None:
    recorder = Recorder(keep_s=60)
    watched(source, recorder)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.add(event(1.0, 2.0, label="<script>alert(1)</script>", source="cam & door"), recorder)
        folder.add(event(2.0, 3.0, label="拳で殴る", zone="till"), recorder)
        recorder.close()
    page = (tmp_path / "events" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "cam &amp; door" in page
    assert "拳で殴る" in page
    assert page.index("拳で殴る</b>") < page.index("alert(1)&lt;/script&gt;</b>")  # the newest first
    assert "2026-11-29" in page
    assert "http" not in page  # nothing is loaded from elsewhere


def test_the_oldest_are_deleted_and_told(tmp_path: Path, source: Path) -> None:
    recorder = Recorder(keep_s=60)
    notes: list[str] = []
    watched(source, recorder)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.add(event(1.0, 2.0), recorder)
        recorder.close()
        size = folder.num_bytes
    recorder = Recorder(keep_s=60)
    watched(source, recorder)
    limited = replace(SHORT, most_bytes=int(2.5 * size))
    with ClipsFolder(tmp_path / "events", limited, on_note=notes.append) as folder:
        for start_s in (2.0, 3.0, 4.0):
            folder.add(event(start_s, start_s + 0.9), recorder)
        recorder.close()
        assert [stored.event.start_s for stored in folder.events] == [3.0, 4.0]
        assert folder.counts.deleted == 2
        assert folder.num_bytes <= 2.5 * size
    assert len(kept(tmp_path / "events")) == 2 * 3 + 1
    assert notes == [f"1 event deleted, the oldest, to stay below {int(2.5 * size) / 1e6:.4g} MB"] * 2


def test_an_event_without_a_clip_is_written_with_the_reason(tmp_path: Path) -> None:
    notes: list[str] = []
    recorder = Recorder(keep_s=60)
    with ClipsFolder(tmp_path / "events", SHORT, on_note=notes.append) as folder:
        folder.add(event(1.0, 2.0), recorder)
        recorder.close()
        (stored,) = folder.events
    assert stored.event.clip == stored.event.picture == ""
    assert stored.note == "no clip of 1.00 s can be cut: the source is not open yet"
    assert notes == [stored.note]
    assert folder.counts.without_clip == 1


def test_an_event_whose_files_cannot_be_written_is_told_all_the_same(tmp_path: Path, source: Path) -> None:
    recorder = Recorder(keep_s=60)
    notes: list[str] = []
    done: list[Event] = []
    watched(source, recorder)
    with ClipsFolder(tmp_path / "events", SHORT, on_note=notes.append, on_done=done.append) as folder:
        (tmp_path / "events" / "2026-11-29").write_text("a file where the folder of the day would be")
        folder.add(event(1.0, 2.0), recorder)
        recorder.close()
        assert folder.events == []
    assert [(told.clip, told.picture, told.end_s) for told in done] == [("", "", 2.0)]
    assert all("cannot be written" in note for note in notes)


def test_an_event_that_has_not_ended_is_written_at_the_end(tmp_path: Path, source: Path) -> None:
    recorder = Recorder(keep_s=60)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        watched(source, recorder, {2.0: lambda: folder.add(event(2.0), recorder)})
        recorder.close()
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        (stored,) = folder.events
    assert stored.event.end_s is None
    assert stored.note == "the source ended there"
    assert stored.clip_end_s == pytest.approx(5.96)


def test_what_is_there_is_listed_again_and_other_files_are_left_alone(tmp_path: Path, source: Path) -> None:
    recorder = Recorder(keep_s=60)
    notes: list[str] = []
    watched(source, recorder)
    with ClipsFolder(tmp_path / "events", SHORT) as folder:
        folder.add(event(1.0, 2.0), recorder)
        recorder.close()
        first = folder.events
    day = tmp_path / "events" / "2026-11-29"
    for name in ("mine.mp4", "120009-0123abcd.mp4", "notes.txt"):
        (day / name).write_text("x")
    (day / "broken.json").write_text("{}")
    with ClipsFolder(tmp_path / "events", SHORT, on_note=notes.append) as folder:
        assert folder.events == first
    assert (day / "mine.mp4").exists()
    assert (day / "notes.txt").exists()
    assert not (day / "120009-0123abcd.mp4").exists()  # the clip of an event that a killed process did not finish
    assert len(notes) == 1
    assert "broken.json: not the file of an event" in notes[0]


def test_two_processes_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with ClipsFolder(tmp_path / "events"), pytest.raises(ConfigError, match="is writing to it"):
        ClipsFolder(tmp_path / "events")


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="before_s -1: needs"):
        ClipSettings(before_s=-1.0)
    with pytest.raises(ConfigError, match="after_s 300: needs"):
        ClipSettings(after_s=300.0)
    with pytest.raises(ConfigError, match="most_bytes 0: needs"):
        ClipSettings(most_bytes=0)


def test_a_killed_process_leaves_no_half_clip(tmp_path: Path, source: Path) -> None:
    code = f"""
import time
from pathlib import Path
from fewframes.video.live import LiveReader
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import Recorded
from fewframes.video.recording.recorder import ClipRecording, Recorder
from fewframes.watch.clips.folder import ClipsFolder, ClipSettings
from fewframes.watch.event import Event, new_id
recorder = Recorder(keep_s=60)
folder = ClipsFolder(Path({str(tmp_path / "events")!r}), ClipSettings(before_s=0.5, after_s=100.0))
reader = LiveReader(Recorded({str(source)!r}, recorder), StreamConfig(live=True), 0.1, lambda frame_CHW: frame_CHW)
while True:
    for item in reader.take(1, 0.05) or []:
        if getattr(item, "index", 0) == 5:
            folder.add(Event(id=new_id(), source="door", label="punch", confidence=1.0, start_s=0.5,
                             started_at="2026-11-29T12:00:00.000Z"), recorder)
            print("begun", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            deadline = time.monotonic() + 20
            while not list((tmp_path / "events").glob("*/.part-*/*.mp4")) and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            process.kill()
    assert list((tmp_path / "events").glob("*/.part-*"))
    with ClipsFolder(tmp_path / "events") as folder:
        assert folder.events == []
    assert kept(tmp_path / "events") == ["index.html"]
