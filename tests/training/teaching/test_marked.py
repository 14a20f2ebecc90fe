"""Marked events as examples: their spans, their labels, and nothing twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.errors import DataError
from fewframes.training.teaching.marked import read_marked
from fewframes.training.teaching.state import TeachingState, read_state
from fewframes.video.recording.recorder import Recorder
from fewframes.watch.clips.folder import ClipSettings, ClipsFolder
from fewframes.watch.event import Event, new_id
from helpers.clips import read_through
from helpers.numbered import Numbered

SETTINGS = ClipSettings(before_s=2.0, after_s=0.5)


def event(start_s: float, end_s: float, label: str = "fall", source: str = "door", zone: str = "") -> Event:
    return Event(
        id=new_id(), source=source, label=label, confidence=0.9, start_s=start_s, end_s=end_s, zone=zone,
        started_at="2026-11-29T12:00:00.000Z", ended_at="2026-11-29T12:00:05.000Z",
    )  # fmt: skip


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    path = Numbered(suffix=".ts", format="mpegts", gop=5, times_ms=range(0, 9000, 40)).write(tmp_path / "source")
    return read_through(path)


def folder_of(path: Path, recorder: Recorder, *events: Event) -> ClipsFolder:
    folder = ClipsFolder(path, SETTINGS)
    for each in events:
        folder.add(each, recorder, 1.0)
    recorder.close()
    return folder


def test_an_example_reaches_from_the_middle_of_the_first_window_to_that_of_the_last(
    tmp_path: Path, recorder: Recorder
) -> None:
    short, long, gate = event(4.0, 4.0), event(4.0, 7.0, source="yard"), event(5.0, 5.5, zone="gate")
    with folder_of(tmp_path / "events", recorder, short, long, gate) as folder:
        for each in (short, long, gate):
            folder.mark(each.id, "right")
        begins_s = [stored.clip_start_s for stored in folder.events]
    found = read_marked(tmp_path / "events")
    times = {
        sample.path: (sample.start_s, sample.end_s) for sample in found.samples
    }  # the clips begin with a key frame before
    spans = [times[str(tmp_path / "events" / stored.event.clip)] for stored in folder.events]
    expected = [(3.0, 4.0), (3.5, 6.5), (4.25, 5.25)]  # of windows of one second
    for (start_s, end_s), (want_start_s, want_end_s), begin_s in zip(spans, expected, begins_s, strict=True):
        assert begin_s is not None
        assert end_s is not None
        assert (start_s + begin_s, end_s + begin_s) == pytest.approx((want_start_s, want_end_s), abs=2e-3)
    assert {sample.group for sample in found.samples} == {"door 2026-11-29", "yard 2026-11-29"}
    assert found.notes == (
        f"{tmp_path / 'events'}: 1 marked event of a zone or a person, and the whole picture is learned from",
    )


def test_an_example_is_where_a_detector_has_placed_the_event(tmp_path: Path, recorder: Recorder) -> None:
    placed = replace(event(4.0, 6.0), detected=True)
    with folder_of(tmp_path / "events", recorder, placed) as folder:
        folder.mark(placed.id, "right")
        (begin_s,) = [stored.clip_start_s for stored in folder.events]
    (sample,) = read_marked(tmp_path / "events").samples
    assert begin_s is not None
    assert sample.end_s is not None
    assert (sample.start_s + begin_s, sample.end_s + begin_s) == pytest.approx((4.0, 6.0), abs=2e-3)


def test_marks_that_cannot_be_used_are_told(tmp_path: Path, recorder: Recorder) -> None:
    one, two = event(4.0, 5.0), event(4.0, 5.0)
    with folder_of(tmp_path / "events", recorder, one, two) as folder:
        folder.mark(one.id, "right")
        folder.mark(two.id, "right")
        first = folder.events[0]
    first.file.unlink()
    found = read_marked(tmp_path / "events")
    assert len(found.samples) == 1
    assert "1 marked event whose files are gone" in found.notes[0]
    with pytest.raises(DataError, match="has no marks of events"):
        read_marked(tmp_path)


def taught(model: Path, *words: str | Path) -> TeachingState:
    result = CliRunner().invoke(app, ["teach", str(model), *map(str, words), "--device", "cpu", "--dtype", "float32"])
    assert result.exit_code == 0, result.output
    return read_state(model / "teaching.safetensors")


def labels_in(state: TeachingState, folder: ClipsFolder) -> dict[str, tuple[str, ...]]:
    found = {sample.path: sample.labels for sample in state.samples}
    return {
        stored.event.id: found[path]
        for stored in folder.events
        if (path := str((folder.folder / stored.event.clip).resolve())) in found
    }


def test_marks_teach_a_model_once_and_correct_it(
    tiny_model: Path, clips: Path, tmp_path: Path, recorder: Recorder
) -> None:
    events, model, cache = tmp_path / "events", tmp_path / "model", ("--cache", tmp_path / "cache")
    one, two, three = event(3.0, 4.0), event(4.0, 5.0), event(5.0, 6.0)
    with folder_of(events, recorder, one, two, three) as folder:
        folder.mark(one.id, "right")
        folder.mark(two.id, "wrong")
        folder.mark(three.id, "other", "sit down")
        red = [clips / "redden" / f"{number}.mp4" for number in range(3)]
        state = taught(model, "--label", "redden", "--yes", *red, "--events", events, "--model", tiny_model, *cache)
        assert labels_in(state, folder) == {one.id: ("fall",), two.id: ("background",), three.id: ("sit down",)}
        assert len(state.samples) == 6
        again = taught(model, "--events", events, *cache)
        assert again.samples == state.samples

        folder.mark(one.id, "wrong")
        folder.mark(two.id, "none")
        folder.mark(three.id, "wrong")  # was another action: it is none of them now
        state = taught(model, "--events", events, *cache)
        assert labels_in(state, folder) == {one.id: ("background",), three.id: ("background",)}
        assert len(state.samples) == 5


def test_in_a_model_with_several_labels_wrong_is_none_of_them(
    tiny_model: Path, clips: Path, tmp_path: Path, recorder: Recorder
) -> None:
    one, two = event(3.0, 4.0), replace(event(4.0, 5.0), label="hug")
    with folder_of(tmp_path / "events", recorder, one, two) as folder:
        folder.mark(one.id, "other", "hug")
        folder.mark(two.id, "right")
        red = [clips / "redden" / f"{number}.mp4" for number in range(3)]
        first = ("--task", "multilabel", "--model", tiny_model, "--cache", tmp_path / "cache")
        state = taught(tmp_path / "m", "--label", "redden", "--yes", *red, "--events", tmp_path / "events", *first)
        assert labels_in(state, folder) == {one.id: ("hug",), two.id: ("hug",)}
        folder.mark(one.id, "wrong")
        state = taught(tmp_path / "m", "--events", tmp_path / "events", "--cache", tmp_path / "cache")
        assert labels_in(state, folder) == {one.id: (), two.id: ("hug",)}
