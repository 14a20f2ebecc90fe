"""Spans that were written in any format read back the same, within half a frame or a millisecond; or are refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.data.exchange import FORMATS, VideoSpan, read_spans, write_spans
from fewframes.data.exchange.videos import FrameClock
from fewframes.errors import DataError, FewframesError
from helpers.numbered import Numbered

LENGTH_S, FRAME_S = 2.4, 0.04
WITHIN_S = {
    "cvat": FRAME_S / 2,
    "label-studio": FRAME_S / 2,
    "fiftyone": FRAME_S / 2,
    "elan": 5e-4,
    "vtt": 5e-4,
    "srt": 5e-4,
}
"""How far a time may move; elsewhere by nothing that a float would not."""
EXACT = [name for name, form in FORMATS.items() if form.write and name != "ava"]
ODD = (
    "arm, wrestling",
    'say "hi"',
    "走る & <b>",
    "été 😀",
    "12",
    "a;b",
    "50 % off",
    "it's",
    "[x] {y}",
    "--> here",
    "NOTE",
    "id: 3",
)
UNEVEN_MS = (0, 40, 80, 200, 240, 280, 480, 520, 560, 600)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.mp4 and b.mp4 of 60 frames at 25 a second, and uneven.mp4."""
    folder = tmp_path_factory.mktemp("films")
    for name in ("a", "b"):
        Numbered().write(folder / name)
    Numbered(times_ms=UNEVEN_MS).write(folder / "uneven")
    return folder


def target(films: Path, form: str) -> Path:
    """Return where spans are written, with nothing there of an earlier test."""
    shutil.rmtree(films / f"out_{form}", ignore_errors=True)
    return films / (f"out_{form}" if FORMATS[form].one_video else f"out{FORMATS[form].endings[0]}")


def again(spans: Sequence[VideoSpan], films: Path, form: str) -> list[VideoSpan]:
    """Write spans, and return what is read, in the same order."""
    out = target(films, form)
    write_spans(spans, out, form, overwrite=True)
    found = read_spans(out, form, videos=films).spans
    return sorted(found, key=lambda span: (span.path, span.start_s, span.label))


def spans_at(films: Path, parts: Sequence[tuple[float, float, str]]) -> list[VideoSpan]:
    spans = [
        VideoSpan(path=str(films / f"{'ab'[number % 2]}.mp4"), label=label, start_s=start_s, end_s=end_s)
        for number, (start_s, end_s, label) in enumerate(parts)
    ]
    return sorted(spans, key=lambda span: (span.path, span.start_s, span.label))


@pytest.mark.parametrize("form", EXACT)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_times_and_labels_come_back(films: Path, form: str, data: st.DataObject) -> None:
    """Spans are longer than a frame, and further apart, so that their order stays."""
    starts = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
    parts = [
        (0.2 * place + data.draw(st.floats(0, 0.05)), 0.2 * place + data.draw(st.floats(0.12, 0.5)), label)
        for place in starts
        if (label := data.draw(st.sampled_from(["open", "close", "arm, wrestling", "走る"])))
    ]
    spans = spans_at(films, [(start_s, min(end_s, LENGTH_S), label) for start_s, end_s, label in parts])
    found = again(spans, films, form)
    assert [(one.path, one.label) for one in found] == [(one.path, one.label) for one in spans]
    for one, other in zip(found, spans, strict=True):
        assert one.end_s is not None
        assert other.end_s is not None
        within_s = WITHIN_S.get(form, 0.0) + 1e-6
        assert abs(one.start_s - other.start_s) <= within_s
        assert abs(one.end_s - other.end_s) <= within_s


@pytest.mark.parametrize("form", EXACT)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=st.text(min_size=1, max_size=12) | st.sampled_from(ODD))
def test_a_label_comes_back_or_is_refused(films: Path, form: str, label: str) -> None:
    span = VideoSpan(path=str(films / "a.mp4"), label=label, start_s=0.4, end_s=0.8)
    plain = label in ("arm, wrestling", "été 😀", "12", "it's")
    with nullcontext() if plain else suppress(DataError):
        (found,) = again([span], films, form)
        assert found.label == label


@pytest.mark.parametrize("form", EXACT)
@pytest.mark.parametrize("label", ["two\nlines", "bell\x07", "lone \udce9", " spaced "])
def test_hard_labels_are_never_changed(films: Path, form: str, label: str) -> None:
    span = VideoSpan(path=str(films / "a.mp4"), label=label, start_s=0.4, end_s=0.8)
    try:
        (found,) = again([span], films, form)
    except DataError as error:
        assert "rename it" in str(error)  # noqa: PT017
    else:
        assert found.label == label


def test_frames_at_uneven_times_come_back(films: Path) -> None:
    parts = [(0.2, 0.48), (0.0, 0.04), (0.56, 0.64), (0.08, 0.2)]
    path = str(films / "uneven.mp4")
    spans = [
        VideoSpan(path=path, label=str(number), start_s=start_s, end_s=end_s)
        for number, (start_s, end_s) in enumerate(parts)
    ]
    for form in ("cvat", "fiftyone"):
        found = sorted(again(spans, films, form), key=lambda span: span.label)
        assert [(round(span.start_s, 3), round(span.end_s or 0, 3)) for span in found] == parts


@given(st.floats(1, 240), st.floats(0, 1e5), st.floats(0.001, 1e4))
def test_frames_are_within_half_a_frame(fps: float, start_s: float, length_s: float) -> None:
    clock = FrameClock(fps)
    first, after = clock.frames_of(start_s, start_s + length_s)
    assert abs(clock.start_s(first) - start_s) <= 0.5 / fps + 1e-6
    assert after > first
    assert abs(clock.start_s(after) - (start_s + length_s)) <= max(0.5 / fps, 1.5 / fps - length_s) + 1e-6


def test_ava_is_within_half_a_second(films: Path) -> None:
    spans = [VideoSpan(path=str(films / "a.mp4"), label=label, start_s=1.1, end_s=2.3) for label in ODD]
    spans.append(VideoSpan(path=str(films / "b.mp4"), label=ODD[0], start_s=0.2, end_s=0.4))
    found = again(spans, films, "ava")
    assert sorted((Path(span.path).name, span.label) for span in found) == sorted(
        (Path(span.path).name, span.label) for span in spans
    )
    assert {(span.start_s, span.end_s) for span in found} == {(1.5, 2.5), (0.0, 0.5)}


def test_overlapping_spans_of_several_annotators_come_back(films: Path) -> None:
    path = str(films / "a.mp4")
    spans = [
        VideoSpan(path=path, label=label, start_s=start_s, end_s=start_s + 1, annotator=annotator)
        for label, start_s, annotator in (
            ("x", 0.0, "Ann"),
            ("y", 0.4, "Ann"),
            ("x", 0.0, "Ben"),
            ("x", 1.0, "Ann <2>"),
        )
    ]
    for form in ("label-studio", "elan", "vtt", "fiftyone"):
        found = again(spans, films, form)
        keys = [(span.label, round(span.start_s, 3), span.annotator) for span in spans]
        assert sorted((span.label, round(span.start_s, 3), span.annotator) for span in found) == sorted(keys), form


def test_whole_videos_get_their_length(films: Path) -> None:
    span = VideoSpan(path=str(films / "a.mp4"), label="x")
    for form in EXACT:
        (found,) = again([span], films, form)
        assert (found.start_s, round(found.end_s or 0, 3)) == (0.0, LENGTH_S), form
    with pytest.raises(DataError, match=r"gone.mp4: 'x' lasts to the end of the video, which is not known .*--videos"):
        write_spans([VideoSpan(path=str(films / "gone.mp4"), label="x")], films / "x.eaf", "elan")


def test_what_a_format_does_not_keep_is_said(films: Path) -> None:
    span = VideoSpan(
        path=str(films / "a.mp4"), label="x", start_s=0.4, end_s=0.8, split="val", group="g", annotator="Ann", score=0.5
    )
    for form in (*EXACT, "ava"):
        out = target(films, form)
        _, notes = write_spans([span], out, form, overwrite=True)
        (found,) = read_spans(out, form, videos=films).spans
        for name in ("split", "group", "annotator", "score"):
            lost = any(f"does not keep the {name} of a span: lost for 1 of 1" in note for note in notes)
            assert lost or getattr(found, name) == getattr(span, name), (form, name)
            assert lost == (name not in FORMATS[form].holds), (form, name)


def test_a_list_takes_suggestions_as_labels(films: Path) -> None:
    spans = [
        VideoSpan(path=str(films / "a.mp4"), label=label, start_s=0.4, end_s=0.8, score=0.5) for label in ("x", "y")
    ]
    written, notes = write_spans(spans, films / "list.csv", "list")
    assert written == [films / "list.csv"]
    assert notes == [
        "the list does not keep the score of a span: lost for 2",
        "spans of the same times with several labels are one row; train on it with --task multilabel",
    ]
    data = read_data(films / "list.csv", DataConfig(task="multilabel"))
    assert [sample.labels for sample in data.samples] == [("x", "y")]
    found = read_spans(films / "list.csv", multilabel=True).spans
    assert [span.label for span in found] == ["x", "y"]


def test_exports_can_be_moved_with_their_videos(tmp_path: Path) -> None:
    (tmp_path / "here" / "clips").mkdir(parents=True)
    Numbered(times_ms=range(0, 400, 40)).write(tmp_path / "here" / "clips" / "a")
    span = VideoSpan(path=str(tmp_path / "here" / "clips" / "a.mp4"), label="x", start_s=0.0, end_s=0.2)
    for form in ("cvat", "label-studio", "elan", "via", "activitynet", "kinetics"):
        write_spans([span], tmp_path / "here" / f"{form}{FORMATS[form].endings[0]}", form)
    os.rename(tmp_path / "here", tmp_path / "there")
    for form in ("cvat", "label-studio", "elan", "via", "activitynet", "kinetics"):
        (found,) = read_spans(tmp_path / "there" / f"{form}{FORMATS[form].endings[0]}").spans
        assert found.path == str(tmp_path / "there" / "clips" / "a.mp4"), form


def test_fiftyone_finds_videos_by_the_file_beside(films: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    twin = shutil.copy(films / "a.mp4", tmp_path / "films" / "a.mp4")
    spans = [VideoSpan(path=str(path), label="x", start_s=0.4, end_s=0.8) for path in (films / "a.mp4", twin)]
    written, _ = write_spans(spans, tmp_path / "labels.json", "fiftyone")
    assert [path.name for path in written] == ["labels.json", "data.json"]
    assert json.loads((tmp_path / "data.json").read_text()) == {"a": str(films / "a.mp4"), "a-2": str(twin)}
    assert json.loads((tmp_path / "labels.json").read_text())["labels"]["a"] == [{"label": "x", "support": [11, 20]}]
    assert [span.path for span in read_spans(tmp_path / "labels.json").spans] == [str(films / "a.mp4"), str(twin)]


@pytest.mark.parametrize(
    ("names", "out", "form", "message"),
    [
        ("ab", "x.vtt", "vtt", "x.vtt: WebVTT has a file for each video, and there are 2 videos; name a folder"),
        ("ab", "x.json", "cvat", r"x.json: needs a name that ends in .xml, as files of cvat do"),
        ("ab", "x.txt", "list", r"x.txt: needs a name that ends in .csv"),
        ("a", "x.json", "coco", "format 'coco': choose from: activitynet, ava, cvat"),
        ("a", "x.json", "timeline", "format 'timeline': "),
        ("a", "kept.json", "via", "kept.json: is there already"),
        ("", "x.json", "via", "x.json: no spans to write"),
        ("g", "x.json", "label-studio", r"g.mp4: its labels count frames, and nothing says how many .* --fps"),
        ("g", "x.xml", "cvat", "g.mp4: no such file.*CVAT counts frames and needs the size of the picture"),
    ],
)
def test_what_cannot_be_written(films: Path, names: str, out: str, form: str, message: str) -> None:
    (films / "kept.json").write_text("{}")
    spans = [VideoSpan(path=str(films / f"{name}.mp4"), label="x", start_s=0.0, end_s=1.0) for name in names]
    with pytest.raises(FewframesError, match=message):
        write_spans(spans, films / out, form)
    assert (films / "kept.json").read_text() == "{}"
    assert not (films / "x.json").exists()


def test_two_videos_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    spans = [VideoSpan(path=str(tmp_path / folder / "a.mp4"), label="x", end_s=1.0) for folder in ("one", "two")]
    with pytest.raises(DataError, match=r"one.a.mp4 and .*two.a.mp4 would both be written there"):
        write_spans(spans, tmp_path / "out", "srt")
    write_spans(spans, tmp_path / "net.json", "activitynet")
    assert set(json.loads((tmp_path / "net.json").read_text())["database"]) == {"one/a", "two/a"}
    with pytest.raises(DataError, match=r"both have the id 'a', which is all that the format holds"):
        write_spans(spans, tmp_path / "below" / "net.json", "activitynet")


def test_a_rate_that_is_given_is_used(films: Path) -> None:
    span = VideoSpan(path=str(films / "gone.mp4"), label="x", start_s=1.0, end_s=2.0)
    write_spans([span], films / "gone.json", "label-studio", fps=10)
    task = json.loads((films / "gone.json").read_text())[0]
    assert task["data"] == {"video": "gone.mp4", "fps": 10}
    assert task["annotations"][0]["result"][0]["value"]["ranges"] == [{"start": 11, "end": 20}]
    (found,) = read_spans(films / "gone.json").spans
    assert (found.start_s, found.end_s) == (1.0, 2.0)
