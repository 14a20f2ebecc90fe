"""Files of other tools, made by hand from the public descriptions of their formats, and what is read from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.data.exchange import FORMATS, LabelledSpans, read_spans
from fewframes.data.exchange.formats import format_of
from fewframes.data.exchange.videos import facts_of
from fewframes.data.samples import ReadOptions
from fewframes.errors import DataError, VideoError
from helpers.exports import AVA, AVA_MAP, CVAT, ELAN, LABELS, SAMPLES, SRT, TASKS, VIA, VTT, region
from helpers.numbered import Numbered

UNEVEN_MS = (0, 40, 80, 200, 240, 280, 480, 520, 560, 600)
Rows = list[tuple[str, str, float, float | None]]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two videos: a.mp4 of 60 frames at 25 a second, and uneven.mp4 with frames at uneven times."""
    folder = tmp_path_factory.mktemp("films")
    Numbered().write(folder / "a")
    Numbered(times_ms=UNEVEN_MS).write(folder / "uneven")
    return folder


def rows(found: LabelledSpans) -> Rows:
    """Return file, label and times of each span."""
    end = [None if span.end_s is None else round(span.end_s, 6) for span in found.spans]
    return [
        (Path(span.path).name, span.label, round(span.start_s, 6), end_s)
        for span, end_s in zip(found.spans, end, strict=True)
    ]


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_cvat_tracks_and_tags(films: Path) -> None:
    found = read_spans(write(films / "cvat.xml", CVAT))
    assert rows(found) == [
        ("a.mp4", "open", 0.4, 0.8),
        ("a.mp4", "open", 1.2, 1.4),
        ("a.mp4", "close", 2.0, 2.4),  # nothing ends it, so it stays until the task's last frame
        ("a.mp4", "dark", 0.08, 0.16),
        ("a.mp4", "dark", 0.36, 0.4),
    ]
    assert {span.split for span in found.spans} == {"train"}
    assert found.notes == (
        "shapes used for their frames alone, not for where they are: 6",
        "attributes not used: 1",
        "shapes of single frames not used, only their tags are: 1",
    )


def test_cvat_counts_the_frames_that_the_video_has(films: Path) -> None:
    boxes = '<box frame="3" outside="0"/><box frame="6" outside="1"/>'
    meta = "<meta><task><size>10</size><source>uneven.mp4</source></task></meta>"
    source = write(films / "uneven.xml", f'<annotations>{meta}<track label="x">{boxes}</track></annotations>')
    assert rows(read_spans(source)) == [("uneven.mp4", "x", 0.2, 0.48)]
    assert rows(read_spans(source, fps=10)) == [("uneven.mp4", "x", 0.3, 0.6)]  # who says a rate is believed
    facts = facts_of(str(films / "uneven.mp4"))
    assert facts.num_frames == 10
    assert [facts.clock.nearest(start_ms / 1000 + 0.015) for start_ms in UNEVEN_MS] == list(range(10))


def test_cvat_projects_tell_their_tasks_apart(films: Path) -> None:
    tasks = "".join(
        f"<task><id>{number}</id><size>60</size><frame_filter>step=2</frame_filter><source>{name}</source></task>"
        for number, name in ((4, "a.mp4"), (5, "b.mp4"))
    )
    tracks = '<track task_id="4" label="x"><box frame="2" outside="0"/><box frame="4" outside="1"/></track>'
    found = read_spans(
        write(
            films / "p.xml",
            f"<annotations><meta><project><tasks>{tasks}</tasks></project></meta>{tracks}</annotations>",
        )
    )
    assert (rows(found), found.notes[-1]) == ([("a.mp4", "x", 0.08, 0.16)], "videos without a label: 1")


def test_elan_tiers(films: Path) -> None:
    found = read_spans(write(films / "a.eaf", ELAN))
    assert rows(found) == [("a.mp4", "wave & smile", 0.6, 1.35), ("a.mp4", "hands", 0.6, 1.35)]
    assert found.spans[0].annotator == "Ann"
    assert found.spans[0].path == str(films / "a.mp4")
    assert found.notes == (
        "tiers: hands (2)",
        "annotations without times of their own not used: 1",
        "annotations of other annotations not used: 1",
    )


def test_via_segments(films: Path) -> None:
    found = read_spans(write(films / "via.json", VIA))
    assert rows(found) == [
        ("a.mp4", "close", 0.5, 1.25),
        ("a.mp4", "glad", 0.5, 1.25),
        ("a.mp4", "sad", 0.5, 1.25),
        ("a.mp4", "kitchen", 0, None),
    ]
    assert found.notes == (
        "attributes: Activity (1), mood (2), place (1)",
        "regions and single frames not used: 1",
        "segments without a label not used: 1",
        "videos without a label: 1",
    )


def test_label_studio_ranges_and_seconds_of_several_annotators(films: Path) -> None:
    found = read_spans(write(films / "ls.json", TASKS))
    assert rows(found) == [
        ("a.mp4", "open", 0, 0.5),
        ("a.mp4", "wide", 0, 0.5),
        ("a.mp4", "slam", 0.5, 1.5),
        ("a.mp4", "kitchen", 0, None),
        ("a.mp4", "open", 0.1, 0.2),
        ("a.mp4", "maybe", 0, None),
    ]
    assert [(span.annotator, span.score) for span in found.spans[3:]] == [("3", None), ("b@c.d", None), ("m", 0.7)]
    assert {span.split for span in found.spans} == {"val"}
    assert found.notes == (
        "boxes of VideoRectangle not used: 1",
        "cancelled annotations not used: 1",
        "results of type 'textarea' not used: 1",
        "tasks without a label: 1",
    )


def test_label_studio_in_its_short_form_and_at_the_rate_of_its_boxes(films: Path) -> None:
    short = [
        {"id": 1, "video": "a.mp4", "l": [{"ranges": [{"start": 26, "end": 50}], "timelinelabels": ["x"]}]},
        {"id": 2, "video": "b.mp4"},
    ]
    found = read_spans(write(films / "min.json", short))
    assert (rows(found), found.notes) == (
        [("a.mp4", "x", 1.0, 2.0)],
        (
            "tasks without a label: 1",
            "tasks that tell no frame rate, counted at that of their video (--fps if the project has another): 1",
            "paths not found: 1",
        ),
    )
    results = [
        region("videorectangle", ["cup"], framesCount=24, duration=2.4),
        region("timelinelabels", ["x"], ranges=[{"start": 11, "end": 20}]),
    ]
    task = {"data": {"video": "gone.mp4"}, "annotations": [{"result": results}]}
    assert rows(read_spans(write(films / "boxes.json", [task]))) == [("gone.mp4", "x", 1.0, 2.0)]


def test_fiftyone_samples_and_temporal_detections(films: Path) -> None:
    found = read_spans(write(films / "samples.json", SAMPLES))
    assert rows(found) == [("a.mp4", "x", 0.4, 0.8), ("a.mp4", "y", 0, 0.04), ("a.mp4", "kitchen", 0, None)]
    assert [(span.split, span.score) for span in found.spans] == [("val", None), ("val", 0.5), ("val", None)]
    assert found.notes[:3] == (
        "fields: events (1), guess (1), scene (1)",
        "labels of kind Detections not used: 1",
        "videos without a label: 1",
    )
    found = read_spans(write(films / "labels.json", LABELS))
    assert rows(found) == [("a.mp4", "y", 0, 1.0), ("a.mp4", "x", 0.5, 1.5)]


def test_ava_joins_the_seconds_of_an_action(films: Path) -> None:
    write(films / "ava.pbtxt", AVA_MAP)
    found = read_spans(write(films / "ava.csv", AVA))
    assert rows(found) == [
        ("a.mp4", "watch (a person)", 0.5, 2.5),
        ("a.mp4", "watch (a person)", 3.5, 4.5),
        ("b.mp4", 'say "hi"', 0.5, 1.5),
    ]
    write(films / "results.csv", "a,0001,0.1,0.1,0.5,0.9,80,0.25\n")
    assert [span.score for span in read_spans(films / "results.csv").spans] == [0.25]


def test_ava_takes_the_label_map_that_names_its_actions(tmp_path: Path) -> None:
    source = write(tmp_path / "list.csv", "c,0001,,,,,,\n" + AVA)
    with pytest.raises(DataError, match=r"action 9 is not in the label map few.pbtxt"):
        read_spans(write(tmp_path / "few.pbtxt", 'item { name: "x" id: 80 }') and source)
    write(tmp_path / "all.pbtxt", AVA_MAP)
    found = read_spans(source)
    assert (len(found.spans), found.notes[0]) == (3, "actions named by all.pbtxt (2 actions)")
    write(tmp_path / "same.pbtxt", AVA_MAP)
    assert read_spans(source).spans == found.spans
    write(tmp_path / "twin.pbtxt", AVA_MAP.replace("watch", "see"))
    with pytest.raises(DataError, match=r"which label map .*all.pbtxt, same.pbtxt, twin.pbtxt.*call it list.pbtxt"):
        read_spans(source)


@pytest.mark.parametrize("name", ["a.vtt", "a.en.vtt"])
def test_webvtt(films: Path, name: str) -> None:
    found = read_spans(write(films / name, VTT))
    assert rows(found) == [("a.mp4", "open <slowly> & wide", 0.5, 1.25), ("a.mp4", "close", 3602.0, 3603.5)]
    assert found.spans[0].annotator == "Ann"
    (films / name).unlink()


def test_srt(films: Path) -> None:
    found = read_spans(write(films / "a.srt", SRT))
    assert rows(found) == [("a.mp4", "open\nwide", 0.5, 1.25), ("a.mp4", "close", 62.0, 63.0)]


def test_subtitles_of_a_timeline_have_confidences(films: Path) -> None:
    cues = "WEBVTT\n\n00:00:00.500 --> 00:00:01.000\nopen 93%\n\n00:00:01.000 --> 00:00:02.000\nclose 80%\n"
    found = read_spans(write(films / "a.vtt", cues))
    assert [(span.label, span.score) for span in found.spans] == [("open", 0.93), ("close", 0.8)]
    found = read_spans(write(films / "a.vtt", cues + "\n00:00:03.000 --> 00:00:04.000\nwave\n"))
    assert (found.spans[0].label, found.spans[0].score) == ("open 93%", None)
    (films / "a.vtt").unlink()


def test_videos_of_a_timeline_that_failed_are_told(films: Path) -> None:
    span = {"start_s": 0.4, "end_s": 0.8, "label": "x", "confidence": 0.9}
    lines = [{"source": "gone.mp4", "error": "no such file"}, {"source": "a.mp4", "duration_s": 1, "spans": [span]}]
    path = write(films / "found.jsonl", "\n".join(map(json.dumps, lines)))
    for form in ("timeline", ""):
        found = read_spans(path, form)
        assert (rows(found), found.notes[:1]) == ([("a.mp4", "x", 0.4, 0.8)], ("1 video failed, and so have no spans",))
    path.unlink()


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("x.txt", CVAT, "CVAT for video 1.1"),
        ("x.xml", ELAN.replace("<ANN", "<!-- a\n b --><ANN"), "ELAN"),
        ("x.csv", AVA, "AVA"),
        ("x", VTT, "WebVTT"),
        ("x.txt", "\ufeff" + SRT.replace("\n", "\r\n"), "SRT"),
        ("x.json", json.dumps(VIA), "VIA 3"),
    ],
)
def test_formats_are_recognised_by_their_content(tmp_path: Path, name: str, content: str, title: str) -> None:
    (tmp_path / name).write_text(content, newline="")
    found = format_of(tmp_path / name)
    assert found is not None
    assert found.title == title


@pytest.mark.parametrize(
    "content",
    [
        "path,label\na.mp4,x\n",
        "a.mp4 1\n",
        '[{"path": "a.mp4", "labels": ["x"]}]',
        '{"database": {}}',
    ],
)
def test_lists_stay_lists(tmp_path: Path, content: str) -> None:
    found = format_of(write(tmp_path / "x", content))
    assert found is None


def test_training_takes_what_people_labelled(films: Path) -> None:
    lines = [{"label": label, "start_s": 0.5, "end_s": 1, "confidence": 0.9} for label in ("x", "y")]
    answer = {"source": str(films / "a.mp4"), "duration_s": 2.4, "start_s": 0, "end_s": 2.4, "spans": lines}
    write(films / "found.jsonl", json.dumps(answer) + "\n" + json.dumps(answer))
    assert len(read_spans(films / "found.jsonl").spans) == 4
    with pytest.raises(
        DataError, match=r"no labelled span \(spans that a model suggests, with a score, not used: 4; .*convert"
    ):
        read_data(films / "found.jsonl")
    data = read_data(write(films / "cvat.xml", CVAT))
    assert (data.layout, data.labels, len(data.samples)) == ("CVAT for video 1.1", ("close", "dark", "open"), 5)
    several = read_data(write(films / "via.json", VIA), DataConfig(task="multilabel"))
    assert [sample.labels for sample in several.samples] == [("close", "glad", "sad"), ("kitchen",)]


def test_a_folder_of_exports_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name, label in (("a", "open"), ("b", "close")):
        Numbered(times_ms=range(0, 400, 40)).write(tmp_path / "videos" / name)
        write(tmp_path / f"{name}.vtt", f"WEBVTT\n\n00:00.100 --> 00:00.300\n{label}\n")
    data = read_data(tmp_path)
    assert [(Path(sample.path).name, sample.labels) for sample in data.samples] == [
        ("a.mp4", ("open",)),
        ("b.mp4", ("close",)),
    ]
    assert all(Path(sample.path).exists() for sample in data.samples)
    write(tmp_path / "a.srt", SRT)
    with pytest.raises(DataError, match="files of SRT and WebVTT, which would label videos twice"):
        read_data(tmp_path)
    assert len(read_spans(tmp_path, "vtt").spans) == 2


def test_every_format_has_a_file_here() -> None:
    assert set(FORMATS) == {
        *("cvat", "label-studio", "elan", "via", "fiftyone", "activitynet", "kinetics", "ava", "vtt", "srt", "timeline")
    }


def test_a_video_without_an_ending_is_found_by_the_commonest(tmp_path: Path) -> None:
    for name in ("a.webm", "a.mkv", "b.mov", "c.txt"):
        (tmp_path / name).touch()
    options = ReadOptions(videos=tmp_path)
    found = [options.find_stem(tmp_path / "list.csv", *stems) for stems in (("a",), ("v_b", "b"), ("c",))]
    assert found == [str(tmp_path / name) for name in ("a.mkv", "b.mov", "c.mp4")]


def test_facts_of_videos_without_a_table_of_frames(tmp_path: Path) -> None:
    uneven = facts_of(str(Numbered(times_ms=UNEVEN_MS, suffix=".mkv").write(tmp_path / "a")))
    assert (uneven.num_frames, round(uneven.clock.start_s(3), 3), uneven.width_px) == (10, 0.2, 160)
    even = facts_of(str(Numbered(suffix=".avi", codec="mpeg4").write(tmp_path / "b")))
    assert (even.num_frames, even.clock.fps, round(even.duration_s, 3)) == (60, 25.0, 2.4)
    with pytest.raises(VideoError, match="behind an address, and is not fetched"):
        facts_of("https://example.org/a.mp4")
