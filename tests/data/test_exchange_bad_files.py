"""Exports that are damaged, hostile or of something else get a clear error, and nothing is lost in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewframes.data.dataset import read_data
from fewframes.data.exchange import read_spans
from fewframes.data.exchange.files import xml_of
from fewframes.errors import DataError, FewframesError
from helpers.exports import AVA, CVAT, ELAN, LABELS, SAMPLES, SRT, TASKS, VIA, VTT

BOMB = """<?xml version="1.0"?>
<!DOCTYPE annotations [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<annotations><version>&c;</version></annotations>"""
OUTSIDE = '<!DOCTYPE annotations [<!ENTITY x SYSTEM "SECRET">]><annotations><version>&x;</version></annotations>'
TASK = "<meta><task><id>1</id><size>9</size><source>a.mp4</source></task></meta>"
LABEL_STUDIO = {"type": "timelinelabels", "value": {"timelinelabels": ["x"], "ranges": [{"start": 1, "end": 2}]}}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "content", [BOMB, OUTSIDE, "<!DOCTYPE annotations SYSTEM 'http://127.0.0.1:9/x.dtd'><annotations/>"]
)
@pytest.mark.parametrize("name", ["x.xml", "x.eaf", "x.json"])
def test_entities_and_document_types_are_refused(tmp_path: Path, name: str, content: str) -> None:
    secret = write(tmp_path / "secret", "hidden words")
    source = write(tmp_path / name, content.replace("SECRET", secret.as_uri()))
    with pytest.raises(DataError, match="declares a document type or entities, which no export does") as raised:
        read_data(source)
    assert "hidden words" not in str(raised.value)


def test_xml_is_read_in_its_own_encoding_and_to_any_depth(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_bytes('<?xml version="1.0" encoding="ISO-8859-1"?><a b="é">ü</a>'.encode("latin-1"))
    root = xml_of(tmp_path / "x.xml")
    assert (root.get("b"), root.text) == ("é", "ü")
    depth = 20_000
    write(tmp_path / "deep.xml", f"<annotations>{'<a>' * depth}{'</a>' * depth}</annotations>")
    with pytest.raises(DataError, match="names no video"):
        read_spans(tmp_path / "deep.xml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.xml", "<annotations><meta>", "not whole XML .*export it again"),
        ("x.xml", "<annotations/>", "names no video .*CVAT for video 1.1"),
        ("x.xml", f"<annotations>{TASK}</annotations>", "no labelled span .none.; label the videos .*; videos without a label: 1"),
        ("x.xml", f"<annotations>{TASK}<track id='3' label='x'><box frame='q'/></track></annotations>", "track 3: frame 'q'"),
        ("x.xml", f"<annotations>{TASK}<track label='x'><box frame='1'/></track></annotations>", "nothing says how many .*--fps"),
        ("x.xml", "<annotations><meta><task><source></source></task></meta></annotations>", "not of images"),
        ("x.eaf", "<ANNOTATION_DOCUMENT><HEADER/></ANNOTATION_DOCUMENT>", "names no video"),
        (
            "x.eaf",
            "<ANNOTATION_DOCUMENT><HEADER TIME_UNITS='weeks'><MEDIA_DESCRIPTOR MEDIA_URL='a.mp4'/></HEADER></ANNOTATION_DOCUMENT>",
            "TIME_UNITS 'weeks'; choose from",
        ),
        ("x.json", [{"data": {"text": "hi"}, "annotations": []}], r"task 1: its data name no video \(text\)"),
        ("x.json", [{"id": 8, "data": {"video": "a.mp4"}, "annotations": [{"result": [LABEL_STUDIO]}]}], "counts? frames"),
        (
            "x.json",
            [{"data": {"video": "a.mp4", "fps": 0}, "annotations": [{"result": [LABEL_STUDIO]}]}],
            "task 1: fps 0: needs a number above 0",
        ),
        (
            "x.json",
            [{"data": {"video": "a.mp4", "fps": 9}, "annotations": [{"result": [{"type": "labels", "value": {"labels": ["x"]}}]}]}],
            "task 1: start None: needs a number",
        ),
        ("x.json", {"labels": {"a": [{"label": "x", "support": [0, 4]}]}}, r"a: support \[0, 4\]: needs frames from 1 on"),
        ("x.json", {"labels": {"a": [{"label": "x", "timestamps": [3, 2]}]}}, "'x' from 3 s to 2 s: needs .* a later end"),
        ("x.json", {"labels": {"a": [{"label": "", "timestamps": [1, 2]}]}}, "a span without a label"),
        (
            "x.json",
            {"project": {}, "attribute": {}, "file": {}, "view": {}, "metadata": {"1_a": {"vid": "1", "z": [1, 2], "av": {}}}},
            "metadata 1_a: view '1' has no file with a name",
        ),
        ("x.json", {"project": {}, "attribute": {}, "file": [], "view": {}, "metadata": {}}, "not a project of VIA 3"),
        ("x.vtt", "WEBVTT\n\n00:01.000 -> 00:02.000\nx\n", "x.vtt:3: .*needs a cue"),
        ("x.vtt", "WEBVTT\n\n00:03.000 --> 00:02.000\nx\n", "x.vtt:3: 'x' from 3 s to 2 s"),
        ("x.srt", "1\n00:00:01,000 --> 00:00:02,000\nx\n\n\n2\n00:00:03,000 --> 0\ny\n", "x.srt:6: '2': needs a cue"),
        ("x.vtt", "WEBVTT\n", "no labelled span .*videos without a label: 1"),
        ("x.csv", "a,0001,0.1,0.1,0.5,0.9,80,1\na,0002,0.1\n", "x.csv:2: 3 cells"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: object, message: str) -> None:
    with pytest.raises(FewframesError, match=message):
        read_data(write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        ("elan", "<annotations/>", "<annotations> is not ELAN's <ANNOTATION_DOCUMENT>"),
        ("cvat", "<a/>", "<a> is not CVAT's <annotations>"),
        ("fiftyone", "{}", "no `samples` with a `filepath`"),
        ("timeline", '{"a": 1}', "not what `fewframes timeline --json` writes"),
        ("timeline", "[", "not JSON"),
        ("kinetics", '[{"path": "a.mp4", "label": "x"}]', "looks like 'a JSON list', not like Kinetics"),
        ("coco", "", "format 'coco': choose from"),
    ],
)
def test_a_format_that_is_said_has_to_be_right(tmp_path: Path, form: str, content: str, message: str) -> None:
    with pytest.raises(FewframesError, match=message):
        read_spans(write(tmp_path / "x.json", content), form)


def test_an_empty_folder_has_no_files_of_a_format(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no files of ELAN \(.eaf\)"):
        read_spans(tmp_path, "elan")


JUNK: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers(-2, 99) | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
)


def changed(value: Any, choose: Callable[[int], int], junk: Callable[[], object]) -> Any:
    """Return JSON values of which one is another, or is missing."""
    if choose(5) == 0 or not isinstance(value, dict | list) or not value:
        return junk()
    if isinstance(value, list):
        place = choose(len(value))
        return [changed(item, choose, junk) if index == place else item for index, item in enumerate(value)]
    key = list(value)[choose(len(value))]
    if choose(4) == 0:
        return {name: item for name, item in value.items() if name != key}
    return {**value, key: changed(value[key], choose, junk)}


@pytest.mark.parametrize(
    ("form", "content"), [("via", VIA), ("label-studio", TASKS), ("fiftyone", SAMPLES), ("fiftyone", LABELS)]
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_json_is_read_or_refused(tmp_path: Path, form: str, content: Any, data: st.DataObject) -> None:
    values = changed(content, lambda count: data.draw(st.integers(0, count - 1)), lambda: data.draw(JUNK))
    source = write(tmp_path / "x.json", json.dumps(values))
    for chosen in (form, ""):
        with suppress(FewframesError):
            assert all(span.label and span.start_s >= 0 for span in read_spans(source, chosen).spans)


@pytest.mark.parametrize(
    ("form", "content"), [("cvat", CVAT), ("elan", ELAN), ("vtt", VTT), ("srt", SRT), ("ava", AVA)]
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_text_is_read_or_refused(tmp_path: Path, form: str, content: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(content)))
    end = begin + data.draw(st.integers(0, 12))
    text = content[:begin] + data.draw(st.sampled_from(["", "x", "9", "-1", '"', "<", "\n\n", " --> "])) + content[end:]
    source = write(tmp_path / "x.txt", text)
    for chosen in (form, ""):
        with suppress(FewframesError):
            assert all(span.label and span.start_s >= 0 for span in read_spans(source, chosen).spans)
