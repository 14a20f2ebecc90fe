"""The command line as `pip install fewframes` makes it, without the packages of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from helpers.without_torch import run_without_torch

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hug.mp4"


def test_predict_with_and_without_a_picture_of_why(tmp_path: Path) -> None:
    done = run_without_torch("predict", EXAMPLE, "--json", "--frames", "4", "--explain", tmp_path / "why.png")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top"][0]["label"] == "hug"
    assert "onnxruntime on cpu in float32" in done.stderr
    assert (tmp_path / "why.png").stat().st_size > 10_000
    early = run_without_torch("predict", EXAMPLE, "--json", "--early-exit", "0.01")
    assert len(json.loads(early.stdout)["times_s"]) == 4


def test_timeline_and_stream() -> None:
    done = run_without_torch("timeline", EXAMPLE, "--json", "--no-cache")
    assert done.returncode == 0, done.stderr
    assert [span["label"] for span in json.loads(done.stdout)["spans"]] == ["hug"]
    done = run_without_torch("stream", EXAMPLE)
    assert done.returncode == 0, done.stderr
    assert "hug" in {json.loads(line)["label"] for line in done.stdout.splitlines()}


def test_embed_index_and_search_by_video(videos: Path, tmp_path: Path) -> None:
    done = run_without_torch("embed", videos / "a.mp4", "-o", tmp_path / "out.parquet", "--frames", "2")
    assert done.returncode == 0, done.stderr
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 1
    done = run_without_torch("index", videos / "a.mp4", videos / "b.mp4", "--index", tmp_path / "index", "--no-cache")
    assert done.returncode == 0, done.stderr
    done = run_without_torch("search", videos / "a.mp4", "--index", tmp_path / "index", "--json")
    assert done.returncode == 0, done.stderr
    assert [Path(json.loads(line)["source"]).name for line in done.stdout.splitlines()] == ["b.mp4"]


def test_data_check_models_and_doctor(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"path,label\n{videos / 'a.mp4'},hug\n{videos / 'b.mp4'},kick\n")
    done = run_without_torch("data", "check", tmp_path / "list.csv", "-o", tmp_path / "out")
    assert done.returncode == 3, done.stderr  # with one video of each action, none can be held out
    assert "2 readable, 0 failed, 0 missing" in done.stderr
    assert (tmp_path / "out" / "report.json").exists()
    assert "lite0-16" in run_without_torch("models").stdout
    done = run_without_torch("doctor")
    assert done.returncode == 0, done.stderr
    assert "runtime: onnxruntime (torch is not installed)" in done.stdout
    assert "device: cpu (" in done.stdout
    done = run_without_torch("doctor", "--device", "cuda")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "device 'cuda' needs torch, which is not installed; pip install 'fewframes[train]'" in done.stderr


@pytest.mark.parametrize("command", ["train DATA", "export lite0-16", "predict VIDEO --dtype float16"])
def test_what_needs_torch_says_so_in_one_line_before_any_work(videos: Path, tmp_path: Path, command: str) -> None:
    words = {"DATA": str(videos), "VIDEO": str(videos / "a.mp4")}
    arguments = [words.get(word, word) for word in command.split()]
    if not command.startswith("predict"):
        arguments += ["--output", str(tmp_path / "out.onnx")]
    done = run_without_torch(*arguments)
    assert done.returncode == 4, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "torch, which is not installed; pip install 'fewframes[train]'" in line
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_evaluated(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"path,label\n{videos / 'a.mp4'},hug\n{videos / 'b.mp4'},kick\n")
    done = run_without_torch("evaluate", tmp_path / "list.csv", "--output", tmp_path / "out", "--no-cache")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "metrics.json").exists()


def test_labels_in_words_name_the_packages_that_they_need(videos: Path, tmp_path: Path) -> None:
    commands: list[list[str | Path]] = [
        ["predict", videos / "a.mp4", "--labels", "a cat"],
        ["words", "a cat", "-o", tmp_path / "cat.safetensors"],
    ]
    for command in commands:
        done = run_without_torch(*command)
        assert done.returncode == 4, done.stderr
        assert "labels in words need torch and open_clip" in done.stderr
        assert done.stderr.endswith("pip install 'fewframes[words]'\n")
