"""Files of other tools, made by hand from the public descriptions of their formats, and what is read from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.data.exchange import FORMATS, LabelledSpans, read_spans
from fewframes.data.exchange.formats import format_of
from fewframes.data.exchange.videos import facts_of
from fewframes.errors import DataError
from helpers.numbered import Numbered

UNEVEN_MS = (0, 40, 80, 200, 240, 280, 480, 520, 560, 600)
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>7</id><name>door</name><size>60</size><mode>interpolation</mode><start_frame>0</start_frame>
    <stop_frame>59</stop_frame><frame_filter></frame_filter><subset>Train</subset>
    <labels><label><name>open</name></label></labels><source>a.mp4</source></task></meta>
  <track id="0" label="open" source="manual">
    <box frame="10" keyframe="1" outside="0" xtl="1" ytl="1" xbr="9" ybr="9"><attribute name="who">Ann</attribute></box>
    <box frame="11" keyframe="0" outside="0" xtl="1" ytl="1" xbr="9" ybr="9"/>
    <box frame="20" keyframe="1" outside="1" xtl="1" ytl="1" xbr="9" ybr="9"/>
    <box frame="30" keyframe="1" outside="0" xtl="1" ytl="1" xbr="9" ybr="9"/>
    <box frame="35" keyframe="1" outside="1" xtl="1" ytl="1" xbr="9" ybr="9"/>
  </track>
  <track id="1" label="close"><polygon frame="50" keyframe="1" outside="0" points="1,1;2,2;3,1"/></track>
  <image id="2" name="frame_000002"><tag label="dark"/></image>
  <image id="3" name="frame_000003"><tag label="dark"/></image>
  <image id="9" name="frame_000009"><tag label="dark"/><box label="cup" xtl="1" ytl="1" xbr="2" ybr="2"/></image>
</annotations>"""
ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="EAFv3.0.xsd">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/films/a.wav" MIME_TYPE="audio/x-wav" RELATIVE_MEDIA_URL="./a.wav"/>
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/films/a.mp4" MIME_TYPE="video/mp4" RELATIVE_MEDIA_URL="../films/a.mp4"
      TIME_ORIGIN="100"/>
  </HEADER>
  <TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1250"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/></TIME_ORDER>
  <TIER TIER_ID="hands" LINGUISTIC_TYPE_REF="t" ANNOTATOR="Ann">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>wave &amp; smile</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
      <ANNOTATION_VALUE>lost</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER TIER_ID="note" LINGUISTIC_TYPE_REF="n" PARENT_REF="hands">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
      <ANNOTATION_VALUE>left</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="t" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>"""
VIA: dict[str, Any] = {
    "project": {"pid": "p", "rev": "1", "pname": "doors", "data_format_version": "3.1.1", "vid_list": ["1", "2"]},
    "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "films/", "4": ""}}},
    "attribute": {
        "1": {"aname": "Activity", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"0": "open", "1": "close"}},
        "2": {"aname": "mood", "anchor_id": "FILE1_Z2_XY0", "type": 2, "options": {"a": "glad", "b": "sad"}},
        "3": {"aname": "place", "anchor_id": "FILE1_Z0_XY0", "type": 1, "options": {}},
    },
    "file": {
        "1": {"fid": "1", "fname": "a.mp4", "type": 4, "loc": 3, "src": "a.mp4"},
        "2": {"fid": "2", "fname": "b.mp4", "type": 4, "loc": 1, "src": ""},
    },
    "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
    "metadata": {
        "1_a": {"vid": "1", "flg": 0, "z": [0.5, 1.25], "xy": [], "av": {"1": "1", "2": "a,b"}},
        "1_b": {"vid": "1", "flg": 0, "z": [], "xy": [], "av": {"3": "kitchen"}},
        "1_c": {"vid": "1", "flg": 0, "z": [1.0], "xy": [2, 1, 1, 5, 5], "av": {"1": "0"}},
        "1_d": {"vid": "1", "flg": 0, "z": [1, 2], "xy": [], "av": {}},
    },
}
VTT = """WEBVTT - doors

NOTE made by hand
on two lines

STYLE
::cue { color: red }

one
00:00.500 --> 00:01.250 align:start position:0%
<v Ann>open &lt;slowly&gt; &amp; <b>wide</b>

01:00:02.000 --> 01:00:03.5
close
"""
SRT = "1\n00:00:00,500 --> 00:00:01,250\n<i>open</i>\nwide\n\n2\n00:01:02,000 --> 00:01:03,000\n{\\an8}close\n"
AVA = """a,0001,0.1,0.1,0.5,0.9,80,1
a,0002,0.1,0.1,0.5,0.9,80,1
a,0002,0.2,0.1,0.5,0.9,80,2
a,0004,0,0,1,1,80,1
b,0001,0,0,1,1,9,3
"""
AVA_MAP = 'item {\n  name: "watch (a person)"\n  id: 80\n}\nlabel { name: \'say "hi"\' label_id: 9 label_type: PERSON_MOVEMENT }\n'
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


def region(kind: str, labels: list[str], **value: object) -> dict[str, Any]:
    """Return a result of Label Studio."""
    return {"type": kind, "from_name": "l", "to_name": "video", "value": {kind: labels, **value}}


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
    assert (rows(found), found.notes[-1]) == ([("a.mp4", "x", 0.08, 0.16)], "1 video without a label")


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
    tasks = [
        {
            "id": 1,
            "data": {"video": "/data/local-files/?d=films/a.mp4", "fps": 10, "split": "val"},
            "annotations": [
                {
                    "completed_by": 3,
                    "result": [
                        region("timelinelabels", ["open", "wide"], ranges=[{"start": 1, "end": 5}]),
                        region("labels", ["slam"], start=0.5, end=1.5),
                        region("choices", ["kitchen"]),
                        region("videorectangle", ["cup"], sequence=[]),
                        {"type": "textarea", "value": {"text": ["hm"]}},
                    ],
                },
                {
                    "completed_by": {"id": 4, "email": "b@c.d"},
                    "result": [region("timelinelabels", ["open"], ranges=[{"start": 2, "end": 2}])],
                },
                {"was_cancelled": True, "result": [region("choices", ["no"])]},
            ],
            "predictions": [{"model_version": "m", "score": 0.7, "result": [region("choices", ["maybe"])]}],
        },
        {"id": 2, "data": {"video": "/data/upload/1/0a1b2c3d-a.mp4"}, "completions": []},
    ]
    found = read_spans(write(films / "ls.json", tasks))
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
        ("tasks without a label: 1", "paths not found: 1"),
    )
    results = [
        region("videorectangle", ["cup"], framesCount=24, duration=2.4),
        region("timelinelabels", ["x"], ranges=[{"start": 11, "end": 20}]),
    ]
    task = {"data": {"video": "gone.mp4"}, "annotations": [{"result": results}]}
    assert rows(read_spans(write(films / "boxes.json", [task]))) == [("gone.mp4", "x", 1.0, 2.0)]


def test_fiftyone_samples_and_temporal_detections(films: Path) -> None:
    samples = [
        {
            "filepath": "a.mp4",
            "tags": ["validation", "nice"],
            "metadata": {"_cls": "VideoMetadata", "frame_rate": 50},
            "events": {
                "_cls": "TemporalDetections",
                "detections": [{"_cls": "TemporalDetection", "label": "x", "support": [11, 20]}],
            },
            "guess": {"_cls": "TemporalDetection", "label": "y", "support": [1, 1], "confidence": 0.5},
            "scene": {"_cls": "Classification", "label": "kitchen"},
            "boxes": {"_cls": "Detections", "detections": []},
        },
        {
            "filepath": "gone.mp4",
            "metadata": {"frame_rate": 50},
            "events": {"_cls": "TemporalDetections", "detections": []},
        },
    ]
    found = read_spans(write(films / "samples.json", {"samples": samples}))
    assert rows(found) == [("a.mp4", "x", 0.4, 0.8), ("a.mp4", "y", 0, 0.04), ("a.mp4", "kitchen", 0, None)]
    assert [(span.split, span.score) for span in found.spans] == [("val", None), ("val", 0.5), ("val", None)]
    assert found.notes[:3] == (
        "fields: events (1), guess (1), scene (1)",
        "labels of kind Detections not used: 1",
        "1 video without a label",
    )
    labels = {"a": [{"label": 1, "support": [1, 25]}, {"label": 0, "timestamps": [0.5, 1.5]}], "b": None}
    found = read_spans(write(films / "labels.json", {"classes": ["x", "y"], "labels": labels}))
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


def test_ava_asks_which_label_map(tmp_path: Path) -> None:
    for name in ("one.pbtxt", "two.pbtxt"):
        write(tmp_path / name, AVA_MAP)
    with pytest.raises(DataError, match=r"which label map .*one.pbtxt, two.pbtxt.*call it list.pbtxt"):
        read_spans(write(tmp_path / "list.csv", AVA))


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
