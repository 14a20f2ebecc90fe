"""`fewframes teach`: options of several words, groups of labels, what is told, and without torch."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.cli.teach import _single_words
from fewframes.training.teaching.state import read_state
from helpers.without_torch import run_without_torch


def taught(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["teach", *map(str, words)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_words_after_an_option_belong_to_it() -> None:
    words, order = _single_words(
        ["m", "--label", "a", "--yes", "1", "2", "--no=3", "4", "--label", "b", "--yes", "5", "-o", "out"]
    )
    assert words == [
        "m", "--label", "a", "--yes", "1", "--yes", "2", "--no", "3", "--no", "4", "--label", "b", "--yes", "5", "-o", "out",
    ]  # fmt: skip
    assert order == [
        ("--label", "a"), ("--yes", "1"), ("--yes", "2"), ("--no", "3"), ("--no", "4"), ("--label", "b"), ("--yes", "5"),
    ]  # fmt: skip


def test_from_nothing_to_answers(tiny_model: Path, clips: Path, cache: Path, tmp_path: Path) -> None:
    folder, red, blue = tmp_path / "doors", clips / "redden", clips / "turn blue"
    clips_of = [red / f"{number}.mp4" for number in range(6)]
    common = ("--cache", cache, "--device", "cpu", "--dtype", "float32")
    code, words = taught(
        folder, "--yes", *clips_of, "--label", "redden", "--no", blue, "--model", tiny_model, *common
    )  # a single label may stand anywhere, and a folder stands for its videos
    assert code == 0, words
    assert "examples: background 6, redden 6 (12 new, embedded in" in words
    assert "examples that were left out:" in words
    assert f"use it: fewframes predict VIDEO --model {folder}" in words
    result = CliRunner().invoke(app, ["predict", str(clips_of[0]), "--model", str(folder), "--device", "cpu", "--json"])
    assert '"label": "redden"' in result.output
    code, words = taught(
        folder, "--label", "first", "--yes", clips_of[0], clips_of[1], "--label", "second", "--yes", clips_of[2],
        "--rename", "redden=red", *common,
    )  # fmt: skip
    assert code == 0, words
    assert "examples: background 6, first 2, red 3, second 1" in words
    assert "second: a single example cannot be left out" in words


def test_wrong_use_is_one_line(tiny_model: Path, clips: Path, cache: Path, tmp_path: Path) -> None:
    clip, folder = clips / "redden" / "0.mp4", tmp_path / "m"
    for words, code, error in (
        (("--yes", clip), 2, "which label does it show? put --label NAME before it"),
        (("--label", "a"), 2, "--label 'a': no clips belong to it"),
        (("--rename", "a"), 2, "needs OLD=NEW"),
        ((), 2, "nothing to teach"),
        (("--label", "a", "--yes", clip), 1, "only 'a' is left"),
        (
            ("--label", "a", "--yes", clips / "redden" / "broken.mp4", "--no", clip),
            1,
            "not a video that FFmpeg can read",
        ),
    ):
        found, told = taught(folder, *words, "--model", tiny_model, "--cache", cache, "--device", "cpu")
        assert (found, error in told) == (code, True), told
        assert not folder.exists()
    tmp_path.joinpath("full").mkdir()
    tmp_path.joinpath("full", "file").touch()
    found, told = taught(tmp_path / "full", "--label", "a", "--yes", clip, "--no-mirror")
    assert (found, "--mirror: is for a new model" in told) == (2, True)


def test_without_torch(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    red, blue = ([str(clips / name / f"{number}.mp4") for number in range(2)] for name in ("redden", "turn blue"))
    found = run_without_torch(
        "teach", folder, "--label", "redden", "--yes", *red, "--label", "turn blue", "--yes", *blue,
        "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert read_state(folder / "teaching.safetensors").labels == ("redden", "turn blue")
    answer = run_without_torch("predict", red[0], "--model", folder, "--json")
    assert '"label": "redden"' in answer.stdout
