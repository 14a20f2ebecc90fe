"""`fewframes words`, `--labels` and `search --text`: what they write and print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.words import OTHERS, RED_AND_BLUE, write_parts, write_video

pytest.importorskip("open_clip")


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_model_of_words_is_written_and_used(folder: Path, image_text: Path) -> None:
    film = write_video(folder / "film.mp4", "blue square")
    out = folder / "shapes.safetensors"
    code, _, err = run("words", RED_AND_BLUE, "-o", out, "--encoder", image_text, "--background", OTHERS)
    assert code == 0, err
    assert "2 labels in words against 5 other phrases, seen by clip:shapes" in err
    assert "licence of the encoder: not known here" in err
    assert "their order does not matter to it" in err
    code, text, err = run("predict", film, "--model", out, "--json", "--device", "cpu")
    assert code == 0, err
    assert json.loads(text)["label"] == "a blue square"
    code, text, err = run("index", film, "--index", folder / "moments", "--model", out, "--device", "cpu")
    assert code == 0, err
    code, text, err = run("search", "--text", "a blue square", "--index", folder / "moments", "--json")
    assert code == 0, err
    assert json.loads(text.splitlines()[0])["similarity"] > 0.5


def test_words_beside_another_model_and_a_page_of_what_is_found(
    folder: Path, image_text: Path, tiny_model: Path
) -> None:
    films = [write_video(folder / f"{name}.mp4", name) for name in ("red circle", "blue square", "stripes")]
    made = ("--index", folder / "moments", "--model", tiny_model, "--device", "cpu", "--window", 2)
    code, _, err = run("index", *films, *made, "--words", image_text)
    assert code == 0, err
    assert "with words, by clip:shapes" in err
    page, words = folder / "found.html", ("--text", "a red circle", "--index", folder / "moments")
    code, text, err = run("search", films[2], *words, "--page", page, "--json", "--device", "cpu")
    assert code == 0, err
    hits = [json.loads(line) for line in text.splitlines()]
    assert hits[0]["source"] == str(films[0])
    assert hits[0]["parts"]["text"]["rank"] == 1
    assert "text 0." in page.read_text()
    assert f"fewframes search --index {folder / 'moments'} --page {page}" in page.read_text()
    code, text, err = run("search", films[2], *words, "--csv", "--device", "cpu")
    assert text.splitlines()[0].endswith("label,score,example,example_rank,text,text_rank"), err
    code, text, err = run("search", *words, "--not-text", "a red circle|something red", "--videos", "*red*")
    assert (code, text.strip()) == (0, "nothing found"), err
    code, _, err = run("index", films[0], "--index", folder / "plain", "--model", tiny_model, "--device", "cpu")
    code, _, err = run("index", films[0], "--index", folder / "plain", "--model", tiny_model, "--words", image_text)
    assert (code, "was made without words" in err) == (2, True), err
    code, _, err = run("search", "--text", "a", "--index", folder / "plain")
    assert "--words ENCODER" in " ".join(err.split())


def test_labels_of_predict_timeline_and_stream(folder: Path, image_text: Path) -> None:
    film = write_parts(folder / "film.mp4", ["red circle", "stripes"], seconds=4)
    words = ("--labels", RED_AND_BLUE, "--encoder", image_text, "--device", "cpu", "--json")
    code, text, err = run("predict", film, "--end", 3.5, *words)
    assert code == 0, err
    assert json.loads(text)["top"][0]["label"] == "a red circle"
    assert len(list((folder / "cache" / "words").iterdir())) == 1
    code, text, err = run("timeline", film, "--window", 2, *words)
    assert code == 0, err
    assert "a red circle" in {span["label"] for span in json.loads(text)["spans"]}
    code, text, err = run("stream", film, *words)
    assert code == 0, err
    assert json.loads(text.splitlines()[9])["label"] == "a red circle"
    assert len(list((folder / "cache" / "words").iterdir())) == 1  # made once


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--labels", "a; b", "--model", "lite0-16"], 2, "--labels and --model exclude each other"),
        (["--encoder", "clip:ViT-B-32/openai"], 2, "is for --labels; name some"),
        (["--labels", " ; "], 2, "labels: none were named"),
        (["--labels", "a; b", "--encoder", "clip:ViT-B-31/openai"], 2, "no model 'ViT-B-31'"),
    ],
)
def test_wrong_options(folder: Path, options: list[str], code: int, words: str) -> None:
    film = write_video(folder / "film.mp4", "stripes", seconds=0.5)
    found, _, err = run("predict", film, *options)
    assert found == code
    assert words in " ".join(err.split())


def test_wrong_searches(folder: Path) -> None:
    code, _, err = run("search", "film.mp4", "--text", "a", "--like", "b", "--index", folder / "moments")
    assert code == 2
    assert "exclude each other" in err
    code, _, err = run("search", "--label", "b", "--not-text", "x", "--index", folder / "moments")
    assert (code, "--not-text x is for --text" in " ".join(err.split())) == (2, True)
    code, _, err = run("search", "--label", "b", "--encoder", "x", "--index", folder / "moments")
    assert (code, "--encoder x is for --text" in " ".join(err.split())) == (2, True)
