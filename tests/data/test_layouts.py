"""Every published layout, from small files made by its public description; mistakes named with file and line."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from fewframes.data.layouts import LabelledList, ReadOptions, Sample, read_layout
from fewframes.errors import DataError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(source: Path, **places: object) -> LabelledList:
    return read_layout(source, ReadOptions(**places))  # type: ignore[arg-type]


def pairs(layout: LabelledList, root: Path) -> list[tuple[str, str]]:
    return [(Path(sample.path).relative_to(root).as_posix(), sample.labels[0]) for sample in layout.samples]


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 hug\nb/c d.mp4 shake hands\n",
        'a.mp4 "hug"\n"b/c d.mp4" "shake hands"\n',
        "a.mp4,hug\nb/c d.mp4,shake hands\n",
        'a.mp4, hug\n"b/c d.mp4", "shake hands"\n',
        "a.mp4\thug\nb/c d.mp4\tshake hands\n",
        "path,label\na.mp4,hug\nb/c d.mp4,shake hands\n",
        "Label;File\nhug;a.mp4\nshake hands;b/c d.mp4\n",
        "file_name\tlabel\textra\na.mp4\thug\tx\nb/c d.mp4\tshake hands\ty\n",
        "\ufeffa.mp4 hug\r\n\r\nb/c d.mp4 shake hands\r\n",
    ],
)
def test_lines_of_path_and_label(tmp_path: Path, text: str) -> None:
    assert pairs(read(write(tmp_path / "list.txt", text)), tmp_path) == [("a.mp4", "hug"), ("b/c d.mp4", "shake hands")]


def test_folders_of_images_and_videos_elsewhere(tmp_path: Path) -> None:
    list_file = write(tmp_path / "lists" / "all.txt", "frames/one hug\nframes/two kick\n")
    assert pairs(read(list_file, videos=tmp_path / "data"), tmp_path) == [
        ("data/frames/one", "hug"),
        ("data/frames/two", "kick"),
    ]
    write(tmp_path / "lists" / "videos" / "frames" / "two", "")
    assert pairs(read(list_file), tmp_path)[1][0] == "lists/videos/frames/two"


def test_numbers_get_their_names_from_beside(tmp_path: Path) -> None:
    list_file = write(tmp_path / "list.txt", "a.mp4 0\nb.mp4 2\n")
    assert [sample.labels for sample in read(list_file).samples] == [("0",), ("2",)]
    write(tmp_path / "label_map_mine.txt", "hug\nshake hands\nkick\n")
    assert [sample.labels for sample in read(list_file).samples] == [("hug",), ("kick",)]


def test_ucf101(tmp_path: Path) -> None:
    write(tmp_path / "classInd.txt", "1 Archery\r\n2 BabyCrawling\r\n")
    write(
        tmp_path / "trainlist01.txt", "Archery/v_Archery_g08_c01.avi 1\r\nBabyCrawling/v_BabyCrawling_g09_c02.avi 2\r\n"
    )
    write(tmp_path / "testlist01.txt", "Archery/v_Archery_g01_c01.avi\r\n")
    layout = read(tmp_path)
    assert layout.name == "UCF101, official split 1"
    assert [(sample.labels[0], sample.split, sample.group) for sample in layout.samples] == [
        ("Archery", "train", "Archery 08"),
        ("BabyCrawling", "train", "BabyCrawling 09"),
        ("Archery", "test", "Archery 01"),
    ]
    assert pairs(read(tmp_path / "testlist01.txt"), tmp_path) == [("Archery/v_Archery_g01_c01.avi", "Archery")]
    with pytest.raises(DataError, match=r"no trainlist02\.txt, so no official split 2"):
        read(tmp_path, split_number=2)


def test_hmdb51(tmp_path: Path) -> None:
    write(tmp_path / "shake_hands_test_split1.txt", "a (1)_b.avi 1 \nc.avi 2 \nd.avi 0 \n")
    write(tmp_path / "hug_test_split1.txt", "#e.avi 2 \n")
    write(tmp_path / "hug_test_split2.txt", "#e.avi 1 \n")
    layout = read(tmp_path)
    assert pairs(layout, tmp_path) == [
        ("hug/#e.avi", "hug"),
        ("shake_hands/a (1)_b.avi", "shake_hands"),
        ("shake_hands/c.avi", "shake_hands"),
    ]
    assert [sample.split for sample in layout.samples] == ["test", "train", "test"]
    assert [sample.split for sample in read(tmp_path, split_number=2).samples] == ["train"]
    write(tmp_path / "hug_test_split1.txt", "e.avi 3\n")
    with pytest.raises(DataError, match=r"hug_test_split1\.txt:1: 'e\.avi 3': needs a file and 1 \(train\)"):
        read(tmp_path)


def test_kinetics(tmp_path: Path) -> None:
    list_file = write(
        tmp_path / "train.csv",
        "label,youtube_id,time_start,time_end,split\nshaking hands,-aB_1,28,38,train\nhugging,xyz,3.5,13.5,validaton\n",
    )
    with pytest.raises(DataError, match=r"train\.csv:3: split 'validaton'; did you mean 'validation'"):
        read(list_file)
    write(list_file, list_file.read_text().replace("validaton", "val"))
    assert pairs(read(list_file), tmp_path) == [
        ("-aB_1_000028_000038.mp4", "shaking hands"),
        ("xyz_000004_000014.mp4", "hugging"),
    ]
    write(tmp_path / "train" / "shaking hands" / "-aB_1_000028_000038.mp4", "")
    write(tmp_path / "xyz.mp4", "")  # whole, not cut
    first, second = read(list_file).samples
    assert first.path == str(tmp_path / "train" / "shaking hands" / "-aB_1_000028_000038.mp4")
    assert (first.start_s, first.end_s, first.split, first.group) == (0.0, None, "train", "-aB_1")
    assert (second.path, second.start_s, second.end_s, second.split) == (str(tmp_path / "xyz.mp4"), 3.5, 13.5, "val")


def test_charades_has_any_number_of_labels(tmp_path: Path) -> None:
    list_file = write(
        tmp_path / "Charades_v1_train.csv",
        "id,subject,scene,actions,length\n"
        "46GP8,HR43,Kitchen,c092 11.90 21.20;c147 0.00 12.60;c092 1.0 2.0,24.8\nN11GT,0KZ7,Stairs,,18.3\n",
    )
    layout = read(list_file)
    assert (layout.name, layout.multilabel) == ("Charades", True)
    assert [(sample.labels, sample.split, sample.group) for sample in layout.samples] == [
        (("c092", "c147"), "train", "HR43"),
        ((), "train", "0KZ7"),
    ]
    write(tmp_path / "Charades_v1_classes.txt", "c092 Watching a window\nc147 Taking a broom\n")
    assert read(list_file).samples[0].labels == ("Taking a broom", "Watching a window")
    write(list_file, "id,actions\n46GP8,c092 11.90\n")
    with pytest.raises(DataError, match=r"train\.csv:2: actions 'c092 11\.90': needs `c092 11\.90 21\.20;"):
        read(list_file)


def test_several_labels_in_a_cell_where_they_are_asked_for(tmp_path: Path) -> None:
    list_file = write(tmp_path / "s.csv", "path,label\na.mp4,wave; hug\nb.mp4,kick\n")
    assert [sample.labels for sample in read(list_file).samples] == [("wave; hug",), ("kick",)]
    assert [sample.labels for sample in read(list_file, label_separator=";").samples] == [("hug", "wave"), ("kick",)]


def test_something_something(tmp_path: Path) -> None:
    rows = [{"id": "78687", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]}]
    write(tmp_path / "something-something-v2-train.json", json.dumps(rows))
    write(tmp_path / "something-something-v2-validation.json", json.dumps([{**rows[0], "id": "7"}]))
    write(tmp_path / "something-something-v2-labels.json", json.dumps({"Holding something": "0"}))
    layout = read(tmp_path, videos=tmp_path / "20bn")
    assert pairs(layout, tmp_path) == [("20bn/78687.webm", "Holding something"), ("20bn/7.webm", "Holding something")]
    assert [sample.split for sample in layout.samples] == ["train", "val"]


def test_any_json_list(tmp_path: Path) -> None:
    list_file = write(tmp_path / "list.json", json.dumps([{"file": "a.mp4", "label": "hug", "youtube_id": "x"}]))
    assert pairs(read(list_file), tmp_path) == [("a.mp4", "hug")]


def test_segments_of_long_files(tmp_path: Path) -> None:
    list_file = write(tmp_path / "s.csv", "path,label,start_s,end_s\nfilm.mkv,hug,60,65.5\nfilm.mkv,kick,70,\n")
    path = str(tmp_path / "film.mkv")
    assert read(list_file).samples == (
        Sample(path=path, labels=("hug",), start_s=60, end_s=65.5),
        Sample(path=path, labels=("kick",), start_s=70),
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.txt", "a.mp4 hug\nb.mp4\n", r"x\.txt:2: 'b\.mp4': needs a path and a label"),
        ("x.txt", "a.mp4,hug\nb.mp4,hug,kick\n", r"x\.txt:2: 'b\.mp4,hug,kick': needs a path and a label"),
        ("x.txt", "one two three\n", r"x\.txt:1: 'one two three': needs a path and a label; quote"),
        ("x.csv", "name,label\nx,hug\n", r"x\.csv:1: no column 'path' in name, label"),
        ("x.json", "{", "not JSON"),
        ("x.json", "[]", "needs a list of objects"),
        ("x.json", '[{"file": "a.mp4"}]', r"x\.json:1: no column 'label' in file"),
        ("x.json", '[{"file": "a", "label": "b"}, {"file": ""}]', "object 2: file '', label None: needs both"),
    ],
)
def test_mistakes(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, text))


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"caf\xe9.mp4 hug")
    with pytest.raises(DataError, match="not UTF-8 text"):
        read(tmp_path / "x.txt")


# -- lists as others write them ----------------------------------------------------------------------------------------


def touch(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, "")
    return root


def times(layout: LabelledList) -> set[tuple[float, float | None]]:
    return {(sample.start_s, sample.end_s) for sample in layout.samples}


@pytest.mark.parametrize(
    "text",
    [
        "Video Name;Gesture\na.mp4;hug\nb.mp4;kick\n",
        "clip,action\na.mp4,hug\nb.mp4,kick\n",
        "file class\na.mp4 hug\nb.mp4 kick\n",
        "entry,meaning\na.mp4,hug\nb.mp4,kick\n",  # told by what is in the columns
        "#path,label\na.mp4,hug\nb.mp4,kick\n",
        "# made by hand\npath|label\na.mp4|hug\n# a comment\nb.mp4|kick\n",
        "path,label,\na.mp4,hug,\nb.mp4,kick,\n",
        "path,label\ra.mp4,hug\rb.mp4,kick\r",
        "label,path,width,num_frames\nhug,a.mp4,64,20\nkick,b.mp4,64,20\n",
    ],
)
def test_headers_of_other_names(tmp_path: Path, text: str) -> None:
    layout = read(write(tmp_path / "list.txt", text))
    assert pairs(layout, tmp_path) == [("a.mp4", "hug"), ("b.mp4", "kick")]
    assert layout.notes[0].startswith("columns: path from ")


def test_columns_used_and_not_used_are_told(tmp_path: Path) -> None:
    list_file = write(tmp_path / "l.csv", "file,label,fps,person\na.mp4,hug,25,p\nb.mp4,kick,25,q\n")
    assert read(list_file).notes[0] == "columns: path from 'file', label from 'label'; not used: fps, person"
    assert read(list_file, group_column="person").notes[0].endswith("group from 'person'; not used: fps")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Hello, world.mp4 0", "b.mp4 1"),
        ("a.mp4 0", "b, c, d.mp4 1"),
        ("x/Hello, world.mp4 0", "x/b, c.mp4 1"),
        ("a;b.mp4\t0", "c, d.mp4\t1"),
    ],
)
def test_separators_are_decided_by_all_lines(tmp_path: Path, first: str, second: str) -> None:
    layout = read(write(tmp_path / "l.txt", f"{first}\n{second}\n"))
    assert [sample.labels for sample in layout.samples] == [("0",), ("1",)]
    assert all(sample.path.endswith(".mp4") for sample in layout.samples)


@pytest.mark.parametrize(
    ("header", "cells", "expected"),
    [
        ("begin,end", "0.5,1.5", (0.5, 1.5)),
        ("clip_start_time,clip_end_time", "0.5,1.5", (0.5, 1.5)),
        ("t0,t1", "0.5,1.5", (0.5, 1.5)),
        ("Start (s),Stop (s)", "0.5,1.5", (0.5, 1.5)),
        ("startTime,endTime", "00:01:02.5,01:00:00", (62.5, 3600.0)),
        ("start,end", "1:02,1:03", (62.0, 63.0)),
        ("start_ms,end_ms", "500,1500", (0.5, 1.5)),
        ("from,to", "0.5,1.5", (0.5, 1.5)),
        ("start_timestamp,stop_timestamp,start_frame,stop_frame", "0.5,1.5,12,37", (0.5, 1.5)),
        ("start,end,timestamp", ",,", (0.0, None)),
    ],
)
def test_times_by_other_names(tmp_path: Path, header: str, cells: str, expected: tuple[float, float | None]) -> None:
    layout = read(write(tmp_path / "l.csv", f"path,label,{header}\na.mp4,hug,{cells}\nb.mp4,kick,{cells}\n"))
    assert times(layout) == {expected}


@pytest.mark.parametrize(
    ("header", "cells", "message"),
    [
        ("start_frame,end_frame,fps", "5,12,25", "'end_frame' counts frames"),
        ("begin,duration", "1,2", "'duration' beside 'begin' may be the length of"),
        ("segment", "1-2", "column 'segment' looks like a time"),
        ("timestamp", "3", "column 'timestamp' looks like a time"),
        ("in,out", "1,2", "column 'in' looks like a time"),
        ("fold", "1", "column 'fold' looks like parts of a split .* --group keeps"),
        ("is_train", "1", "column 'is_train' looks like parts"),
        ("subset", "labelled", "column 'subset' looks like parts of a split, but 'labelled' is none"),
        ("start,end", "2,1", r"l\.csv:2: end 1 is not after start 2"),
        ("start,end", "nan,1", r"l\.csv:2: start 'nan': needs seconds"),
        ("start,end", "0,inf", r"l\.csv:2: end 'inf': needs seconds"),
        ("start_ms", "soon", r"l\.csv:2: start_ms 'soon': needs milliseconds"),
        ("LABEL", "hug", "two columns are called 'LABEL'"),
    ],
)
def test_columns_that_are_not_understood_are_refused(tmp_path: Path, header: str, cells: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "l.csv", f"path,label,{header}\na.mp4,hug,{cells}\nb.mp4,kick,{cells}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frames/a 120 0\nframes/b 99 1\n", "2 numbers after the path"),
        ("a.mp4 120 0\nb.mp4 99 1\n", "2 numbers after the path"),
        ("a.mp4,120,0\nb.mp4,99,1\n", "2 numbers after the path"),
        ("a.mp4 120 hug\nb.mp4 99 kick\n", "a number beside each label"),
        ("hug,a.mp4\nkick,b.mp4\n", "the second column has files"),
        ("train/a.mp4\ntest/b.mp4\n", "all labels are names of parts"),
        ('path,label\n"a.mp4,hug\nb.mp4,kick\n', "unexpected end of data"),
        ("# nothing\n# at all\n", "empty; needs a line for each video"),
        ("path,label\na.mp4,hug\0\n", "contains null bytes"),
    ],
)
def test_lists_that_mean_something_else_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "l.txt", text))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "l.csv").write_bytes("path,label\na.mp4,h\u00fcg\nb.mp4,kick\n".encode(encoding))
    assert pairs(read(tmp_path / "l.csv"), tmp_path) == [("a.mp4", "h\u00fcg"), ("b.mp4", "kick")]


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("Set\\one\\caf\u00e9.mp4", "with / for \\"),
        ("Set/one/caf%C3%A9.mp4", "with percent signs decoded"),
        ("set/ONE/Caf\u00e9.MP4", "by a name that differs in case, accents or ending"),
        ("Set/one/caf\u00e9", "by a name that differs in case, accents or ending"),
        (unicodedata.normalize("NFD", "Set/one/caf\u00e9.mp4"), "by a name that differs in case, accents or ending"),
    ],
)
def test_paths_written_otherwise(tmp_path: Path, name: str, note: str) -> None:
    touch(tmp_path, "Set/one/caf\u00e9.mp4", "Set/one/other.mp4")
    layout = read(write(tmp_path / "l.csv", f"path,label\n{name},hug\nSet/one/other.mp4,kick\n"))
    assert pairs(layout, tmp_path)[0] == ("Set/one/caf\u00e9.mp4", "hug")
    assert f"paths found {note}: 1" in layout.notes


def test_paths_of_the_working_folder_and_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "work/a.mp4")
    monkeypatch.chdir(tmp_path / "work")
    layout = read(write(tmp_path / "lists" / "l.csv", "path,label\na.mp4,hug\nC:\\v\\b.mp4,kick\nc.mp4,kick\n"))
    assert layout.samples[0].path == "a.mp4"
    assert layout.notes[1:] == (
        "paths relative to the working folder, not to the list: 1",
        "paths of a Windows drive, which this machine does not have; write them relative, and name their folder with --videos: 1",
        "paths not found: 1",
    )


def test_numbers_and_their_class_list(tmp_path: Path) -> None:
    list_file = write(tmp_path / "l.csv", "path,label\na.mp4,0\nb.mp4,1\n")
    assert any("labels are numbers without names" in note for note in read(list_file).notes)
    write(tmp_path / "classes.txt", "hug\nkick\n")
    assert [sample.labels for sample in read(list_file).samples] == [("hug",), ("kick",)]
    write(list_file, "path,label\na.mp4,0\nb.mp4,7\n")
    with pytest.raises(DataError, match=r"l\.csv:3: label '7' is not in the class list beside the list \(2 classes\)"):
        read(list_file)


def test_rows_again_and_other_labels_are_told(tmp_path: Path) -> None:
    layout = read(write(tmp_path / "l.csv", "path,label\na.mp4,hug\na.mp4,hug\na.mp4,kick\nb.mp4,Hug\n"))
    told = " | ".join(layout.notes)
    assert "repeated rows: 1" in told
    assert f"videos with different labels: 1, such as {tmp_path / 'a.mp4'} (hug and kick)" in told
    assert "the actions 'Hug' and 'hug' differ only in case" in told


ROWS = [{"path": "a.mp4", "label": "hug", "start": 0.5, "end": 1.5, "subset": "training", "group": "p"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.json", json.dumps(ROWS)),
        ("l.json", json.dumps({"version": 1, "clips": ROWS})),
        ("l.json", json.dumps({"a.mp4": {key: value for key, value in ROWS[0].items() if key != "path"}})),
        ("l.json", json.dumps([{"id": 3, **ROWS[0]}])),
        ("l.jsonl", json.dumps(ROWS[0]) + "\n\n"),
        ("l.txt", json.dumps(ROWS[0]) + "\n"),
    ],
)
def test_json_knows_what_csv_knows(tmp_path: Path, name: str, text: str) -> None:
    (sample,) = read(write(tmp_path / name, text)).samples
    expected = {"start_s": 0.5, "end_s": 1.5, "split": "train", "group": "p"}
    assert sample == Sample(path=str(tmp_path / "a.mp4"), labels=("hug",), **expected)  # type: ignore[arg-type]


def test_json_of_paths_and_of_activitynet(tmp_path: Path) -> None:
    assert pairs(read(write(tmp_path / "l.json", '{"a.mp4": "hug", "b.mp4": "kick"}')), tmp_path)[1] == (
        "b.mp4",
        "kick",
    )
    video = {
        "subset": "validation",
        "annotations": [{"segment": [1, 2.5], "label": "hug"}, {"segment": [3, 4], "label": "kick"}],
    }
    touch(tmp_path, "v_xyz.mkv")
    layout = read(write(tmp_path / "l.json", json.dumps({"database": {"xyz": video}})))
    assert times(layout) == {(1, 2.5), (3, 4)}
    assert {(sample.path, sample.split, sample.group) for sample in layout.samples} == {
        (str(tmp_path / "v_xyz.mkv"), "val", "xyz")
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"path": "a.mp4", "label": {"name": "hug"}}], "object 1: label has a dict"),
        ([{"path": "a.mp4", "labels": ["hug", "kick"]}], "object 1: labels has 2 labels; use the task 'multilabel'"),
        ([{"path": "a.mp4", "label": "hug", "segment": [1, 2]}], "'segment' looks like a time"),
        ([{"path": "a.mp4", "label": "hug", "start": float("nan")}], "object 1: start 'NaN'"),
        (
            [{"id": 1, "data": {"video": "a.mp4"}, "annotations": []}],
            "no labelled span .none.; .*tasks without a label: 1",
        ),
        ({"images": [{"id": 1}], "annotations": [{"id": 1}]}, r"2 lists \(images, annotations\)"),
        ({"database": {"a": {"annotations": [{"segment": [2, 1], "label": "x"}]}}}, "its end is not after its start"),
    ],
)
def test_json_that_is_not_understood(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "l.json", json.dumps(content)))


OF_ACTIONS = {"hug": ["a.mp4"], "kick": ["b.mp4"]}
OF_PATHS = [{"path": "a.mp4", "label": "hug"}, {"path": "b.mp4", "label": "kick"}]


@pytest.mark.parametrize(
    ("name", "text", "split"),
    [
        ("l.json", json.dumps(OF_ACTIONS), ""),
        ("l.json", json.dumps({"file": ["a.mp4", "b.mp4"], "action": ["hug", "kick"]}), ""),
        ("l.json", json.dumps({"testing": OF_PATHS}), "test"),
        ("l.json", json.dumps({"train": OF_ACTIONS}), "train"),
        ("l.json", json.dumps({"train": [], "val": {"a.mp4": "hug", "b.mp4": "kick"}}), "val"),
        ("l.json", "\n".join(map(json.dumps, OF_PATHS)), ""),
        ("l.txt", json.dumps(OF_PATHS, indent=1), ""),
        ("l.csv", json.dumps({"a.mp4": "hug", "b.mp4": "kick"}, indent=1), ""),
    ],
)
def test_json_of_other_shapes(tmp_path: Path, name: str, text: str, split: str) -> None:
    layout = read(write(tmp_path / name, text))
    assert pairs(layout, tmp_path) == [("a.mp4", "hug"), ("b.mp4", "kick")]
    assert {sample.split for sample in layout.samples} == {split}


def test_json_whose_shape_contradicts_itself(tmp_path: Path) -> None:
    for content, message in (
        ({"path": ["a.mp4", "b.mp4"], "label": ["hug"]}, "not equally long"),
        ({"train": [{**OF_PATHS[0], "split": "test"}]}, "a row in 'train' says that it is of 'test'"),
        ({"train": "hug", "test": "kick"}, "'train' needs a list of objects"),
    ):
        with pytest.raises(DataError, match=message):
            read(write(tmp_path / "l.json", json.dumps(content)))


def test_keys_that_are_there_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the key 'a\.mp4' is there twice"):
        read(write(tmp_path / "l.json", '{"a.mp4": "hug", "a.mp4": "kick"}'))


@pytest.mark.parametrize(
    ("header", "cells", "message"),
    [
        ("path,label,inicio,fin", "0.5,1.5", "'fin' looks like a time"),
        ("path,label,von,bis", "0:05,0:15", "'bis' looks like a time"),
        ("path,label,start,end,fps", "10,50,25", "'start' and 'end' are whole numbers beside 'fps'"),
    ],
)
def test_times_that_may_mean_something_else(tmp_path: Path, header: str, cells: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "l.csv", f"{header}\na.mp4,hug,{cells}\n"))


def test_words_of_times_are_names_too(tmp_path: Path) -> None:
    layout = read(write(tmp_path / "l.csv", "path,label,first,last\na.mp4,hug,Ada,Lovelace\n"))
    assert "not used: first, last" in layout.notes[0]
    layout = read(write(tmp_path / "l.csv", "path,label,s,first_id\na.mp4,hug,3,17\n"))
    assert "not used: s, first_id" in layout.notes[0]


def test_of_two_starts_the_one_that_is_a_time_is_taken(tmp_path: Path) -> None:
    text = "file,label,start,end,fps,start_time,end_time\na.mp4,hug,0,83,30.0,0.5,2.75\n"
    assert times(read(write(tmp_path / "l.csv", text))) == {(0.5, 2.75)}


def test_numbers_with_a_decimal_comma(tmp_path: Path) -> None:
    list_file = write(tmp_path / "l.csv", "sep=;\npath;label;start;end\na.mp4;hug;0,5;1,25\n")
    assert times(read(list_file)) == {(0.5, 1.25)}
    with pytest.raises(DataError, match="'1,500': needs seconds"):
        read(write(list_file, "path;label;end\na.mp4;hug;1,500\n"))


@pytest.mark.parametrize("name", ["type", "dataset", "group"])
def test_a_column_whose_cells_are_parts(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"column '{name}' holds parts of a split \(test, training\)"):
        read(write(tmp_path / "l.csv", f"path,label,{name}\na.mp4,hug,training\nb.mp4,hug,test\n"))


@pytest.mark.parametrize("label", ["nan", "N/A"])
def test_missing_labels_are_no_actions(tmp_path: Path, label: str) -> None:
    for text in (f"path,label\na.mp4,hug\nb.mp4,{label}\n", f"\na.mp4 hug\nb.mp4 {label}\n"):
        with pytest.raises(DataError, match=f"l.csv:3: label '{label}' is what tables write for a missing one"):
            read(write(tmp_path / "l.csv", text))


def test_y_beside_x_is_no_label(tmp_path: Path) -> None:
    assert read(write(tmp_path / "l.csv", "path,y\na.mp4,hug\n")).samples[0].labels == ("hug",)
    with pytest.raises(DataError, match="no column 'label' in path, x, y, motion"):
        read(write(tmp_path / "l.csv", "path,x,y,motion\na.mp4,1,2,hug\n"))


def test_tables_drawn_with_characters_and_single_quotes(tmp_path: Path) -> None:
    expected = [("a.mp4", "hug"), ("b.mp4", "kick")]
    drawn = "| path | label |\n|:---|---|\n| a.mp4 | hug |\n| b.mp4 | kick |\n"
    assert pairs(read(write(tmp_path / "l.md", drawn)), tmp_path) == expected
    assert pairs(read(write(tmp_path / "l.csv", "'a.mp4','hug'\n'b.mp4','kick'\n")), tmp_path) == expected


def test_labels_that_look_like_several_are_told(tmp_path: Path) -> None:
    layout = read(write(tmp_path / "l.csv", "path,label\na.mp4,hug;run\nb.mp4,hug\n"))
    assert "labels that look like several: 1, such as 'hug;run'; --task multilabel parts them at ;" in layout.notes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.xlsx", b"PK\x03\x04\x14\x00\x06\x00", "an Excel workbook or a ZIP"),
        ("l.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", "an Excel workbook"),
        ("l.csv", b"\n<!DOCTYPE html><html>a.mp4</html>", "HTML or XML, not a list"),
        ("l.csv", b"version https://git-lfs.github.com/spec/v1\nsize 12\n", "git lfs pull"),
        ("l.yaml", b"a.mp4: hug\n", "YAML is not read"),
        ("hug_test_split1.txt", b"a.avi 1\nb.avi 2\n", "a list of HMDB51 for one action"),
    ],
)
def test_files_that_are_no_lists(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_labels_before_paths(tmp_path: Path) -> None:
    touch(tmp_path, "clips/a.mp4")
    with pytest.raises(DataError, match="'hug' stands before the file"):
        read(write(tmp_path / "l.txt", "hug clips/a.mp4\n"))


# -- folders -----------------------------------------------------------------------------------------------------------


def actions(part: str, num_videos: int = 2) -> list[str]:
    return [f"{part}{action}/{number}.mp4" for action in ("hug", "kick") for number in range(num_videos)]


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("Testing", "test"),
        ("test1", "test"),
        ("val_set", "val"),
        ("Validation", "val"),
        ("dev", "val"),
        ("eval", "val"),
        ("hold-out", "test"),
        ("testset", "test"),
        ("te", "test"),
        ("valid_split", "val"),
    ],
)
def test_parts_by_other_names(tmp_path: Path, folder: str, split: str) -> None:
    layout = read(touch(tmp_path, *actions("train_split/"), *actions(f"{folder}/")))
    assert {sample.labels for sample in layout.samples} == {("hug",), ("kick",)}
    assert {sample.split for sample in layout.samples} == {"train", split}


@pytest.mark.parametrize("name", ["hmdb_{}", "UCF-101-{}", "{} of Ours"])
def test_parts_beside_a_name_that_they_share(tmp_path: Path, name: str) -> None:
    parts = [name.format(part) for part in ("train", "test")]
    layout = read(touch(tmp_path, *(video for part in parts for video in actions(f"{part}/"))))
    assert {sample.labels for sample in layout.samples} == {("hug",), ("kick",)}
    assert {sample.split for sample in layout.samples} == {"train", "test"}


def test_shared_words_alone_make_no_parts(tmp_path: Path) -> None:
    layout = read(touch(tmp_path, "test jump/p/1.mp4", "test run/p/1.mp4"))
    assert {sample.labels for sample in layout.samples} == {("test jump",), ("test run",)}


@pytest.mark.parametrize("folder", ["__MACOSX", "$RECYCLE.BIN", "@eaDir", "System Volume Information"])
def test_folders_of_systems_are_no_actions(tmp_path: Path, folder: str) -> None:
    layout = read(touch(tmp_path, *actions(""), f"{folder}/1.mp4", f"hug/{folder}/2.mp4"))
    assert {sample.labels for sample in layout.samples} == {("hug",), ("kick",)}
    assert {left.path for left in layout.left_out} == {str(tmp_path / folder), str(tmp_path / "hug" / folder)}
    assert all(left.is_harmless for left in layout.left_out)


def test_parts_below_actions(tmp_path: Path) -> None:
    layout = read(
        touch(tmp_path, *(f"{action}/{part}/1.mp4" for action in ("hug", "kick") for part in ("training", "test")))
    )
    assert [(sample.labels, sample.split) for sample in layout.samples] == [
        (("hug",), "test"), (("hug",), "train"), (("kick",), "test"), (("kick",), "train"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*actions("train/"), "wave/a.mp4"], "train look like parts of a split, wave like actions"),
        ([*actions("fold_1/"), *actions("fold_2/")], "fold_1, fold_2 look like folds"),
        (["train/a.mp4", "testing/b.mp4"], "is named like a part of a split, but has 1 video in it"),
        (["hug/train/a.mp4", "hug/test/a.mp4", "kick/a.mp4"], "hug has parts of a split below it, kick has none"),
        (["hug/train/a.mp4", "hug/more/a.mp4", "kick/a.mp4"], "train looks like a part of a split, but 1 other"),
        ([*actions("train/"), *actions("test/test/")], "'test' in it looks like a part too"),
        (
            actions("dataset/"),
            r"only one action found, 'dataset' .* If the folders in it \(hug, kick\) .* pass .*/dataset",
        ),
        (actions("d/train/"), r"only one action found, 'd' .* If the folders in it \(train\)"),
        (["hug/1.jpg", "hug/2.jpg", "kick/1.jpg"], "images need a folder for each video"),
        (["hug/a.zip", "kick/b.zip"], "no videos in folders of actions .*archive, unpack it"),
    ],
)
def test_folders_that_mean_something_else_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(touch(tmp_path, *names))


def test_links_between_folders(tmp_path: Path) -> None:
    touch(tmp_path, *actions(""))
    (tmp_path / "hug" / "again").symlink_to(".")
    (tmp_path / "hug" / "all").symlink_to("..")
    (tmp_path / "all").symlink_to(".")
    assert len(read(tmp_path).samples) == 4
    (tmp_path / "kick" / "other.mp4").symlink_to("../hug/0.mp4")
    assert any(note.startswith("files with several actions, by links: 1") for note in read(tmp_path).notes)
    (tmp_path / "cuddle").symlink_to("hug")
    with pytest.raises(DataError, match="hug and cuddle are one folder by a link"):
        read(tmp_path)


def test_names_of_actions(tmp_path: Path) -> None:
    touch(tmp_path, "caf\u00e9/a.mp4", unicodedata.normalize("NFD", "caf\u00e9") + "/b.mp4", "Hug/c.mp4", "hug /d.mp4")
    layout = read(tmp_path)
    assert [sample.labels[0] for sample in layout.samples].count("caf\u00e9") == 2
    assert {sample.labels[0] for sample in layout.samples} == {"caf\u00e9", "Hug", "hug"}
    assert (
        "the actions 'Hug' and 'hug' differ only in case, spaces or hyphens; they count as two actions" in layout.notes
    )


def test_what_is_left_out_of_folders(tmp_path: Path) -> None:
    touch(tmp_path, *actions(""), "lonely.mp4", "wave/a.xyz", "docs/read me.txt", ".old/a.mp4")
    (tmp_path / "jump").mkdir()
    left = {Path(left.path).name: left for left in read(tmp_path).left_out}
    assert left["lonely.mp4"].reason == "a video beside the folders of actions"
    assert left["jump"].reason == left["wave"].reason == "a folder without a video"
    assert {name for name, what in left.items() if what.is_harmless} == {"read me.txt", ".old"}


def test_the_header_of_a_second_list_is_no_video(tmp_path: Path) -> None:
    written = tmp_path / "both.csv"
    written.write_text("path,label\na.mp4,hug\nb.mp4,kick\npath,label\nc.mp4,hug\n")
    with pytest.raises(DataError, match=r"both\.csv:4: the header of line 1 is here again; remove this line"):
        read_layout(written, ReadOptions())
