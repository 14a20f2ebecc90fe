"""`fewframes data convert`: from any list or export to any other, with what is lost said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewframes.cli.data import WRITTEN
from fewframes.data.exchange import FORMATS
from helpers.commands import run
from helpers.numbered import Numbered


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two actions with a video each."""
    root = tmp_path_factory.mktemp("labelled")
    for label, length_ms in (("open", 800), ("close", 1200)):
        (root / "films" / label).mkdir(parents=True)
        Numbered(times_ms=range(0, length_ms, 40)).write(root / "films" / label / f"{label}1")
    return root


def test_the_option_names_the_formats() -> None:
    assert set(WRITTEN) == {"list", *(name for name, form in FORMATS.items() if form.write)}


def test_a_folder_goes_to_cvat_and_comes_back(folder: Path) -> None:
    done = run("data", "convert", folder / "films", folder / "tasks", "--to", "cvat")
    assert done.returncode == 0, done.stderr
    assert f"{folder / 'tasks'}: 2 files written" in done.stderr
    done = run("data", "convert", folder / "tasks", folder / "list.csv", "--to", "list")
    assert done.returncode == 0, done.stderr
    assert "CVAT for video 1.1; 2 spans of 2 videos" in done.stderr
    rows = (folder / "list.csv").read_text().splitlines()
    assert rows[1:] == [
        f"{folder}/films/{label}/{label}1.mp4,{label},,{end_s},," for label, end_s in (("close", 1.2), ("open", 0.8))
    ]
    done = run("data", "check", folder / "tasks", "--output", folder / "checked")
    assert "2 usable videos" in done.stderr, done.stderr


def test_spans_of_a_model_are_suggestions(folder: Path) -> None:
    spans = [{"start_s": 0.2, "end_s": 0.6, "label": "open", "confidence": 0.91}]
    answer = {"source": str(folder / "films/open/open1.mp4"), "duration_s": 0.8, "start_s": 0.0, "spans": spans}
    (folder / "found.jsonl").write_text(json.dumps(answer) + "\n")
    done = run("data", "convert", folder / "found.jsonl", folder / "tasks.json", "--to", "label-studio")
    assert done.returncode == 0, done.stderr
    (task,) = json.loads((folder / "tasks.json").read_text())
    assert task["annotations"] == []
    assert task["predictions"][0]["result"][0]["score"] == 0.91
    assert task["predictions"][0]["result"][0]["value"] == {
        "ranges": [{"start": 6, "end": 15}],
        "timelinelabels": ["open"],
    }
    done = run("data", "convert", folder / "found.jsonl", folder / "s.srt", "--to", "srt")
    assert "SRT does not keep the score of a span: lost for 1 of 1" in done.stderr


def test_wrong_use(folder: Path) -> None:
    (folder / "kept.srt").write_text("mine")
    done = run("data", "convert", folder / "films", folder / "kept.srt", "--to", "srt")
    assert (done.returncode, "is there already; take another name, or --overwrite" in done.stderr) == (2, True)
    done = run("data", "convert", folder / "films", folder / "new.srt", "--to", "srt")
    assert (done.returncode, "there are 2 videos; name a folder" in done.stderr) == (1, True)
    done = run("data", "convert", folder / "films", folder / "new.txt", "--to", "subtitles")
    assert (done.returncode, "format 'subtitles': choose from" in done.stderr) == (2, True)
    done = run("data", "convert", folder / "nothing", folder / "new.srt", "--to", "srt")
    assert (done.returncode, "no such folder or file" in done.stderr) == (1, True)
    assert (folder / "kept.srt").read_text() == "mine"
