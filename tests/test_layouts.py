"""Every published layout, from small files made by its public description; mistakes named with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewframes.errors import DataError
from fewframes.layouts import Layout, Places, Sample, read_layout


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(source: Path, **places: object) -> Layout:
    return read_layout(source, Places(**places))  # type: ignore[arg-type]


def pairs(layout: Layout, root: Path) -> list[tuple[str, str]]:
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
    assert [sample.labels for sample in read(list_file, label_mark=";").samples] == [("hug", "wave"), ("kick",)]


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
