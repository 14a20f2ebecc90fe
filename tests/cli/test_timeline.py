"""`fewframes timeline`: what it writes, and its exit codes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.numbered import drifting


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifting(tmp_path_factory.mktemp("film") / "a film.mp4", "libx264", 300, gop=50, options={})


@pytest.fixture
def options(tiny_model: Path, tmp_path: Path) -> list[str]:
    where = ["--model", str(tiny_model), "--device", "cpu", "--cache", str(tmp_path / "cache")]
    return [*where, "--dtype", "float32", "--window", "2", "--threshold", "0.2"]


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["timeline", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_every_output(film: Path, options: list[str], tmp_path: Path) -> None:
    files = {name: tmp_path / "out" / name for name in ("film.vtt", "film.png", "thumbs")}
    written = ("--vtt", files["film.vtt"], "--plot", files["film.png"], "--thumbnails", files["thumbs"])
    code, out, err = run(film, *options, "--json", *written)
    assert code == 0, err
    found = json.loads(out)
    assert found["spans"]
    assert len(found["times_s"]) == 24
    assert files["film.vtt"].read_text().count(" --> ") == len(found["spans"])
    assert files["film.png"].read_bytes().startswith(b"\x89PNG")
    index = json.loads((files["thumbs"] / "index.json").read_text())
    assert [{key: entry[key] for key in found["spans"][0]} for entry in index] == found["spans"]
    page = (files["thumbs"] / "index.html").read_text()
    assert all((files["thumbs"] / entry["file"]).is_file() and entry["file"] in page for entry in index)
    assert "a%20film.mp4" in page

    code, out, err = run(film, *options, "--csv")
    assert code == 0
    assert "24 frames, 24 of them from the cache" in err
    assert [row["label"] for row in csv.DictReader(out.splitlines())] == [span["label"] for span in found["spans"]]


def test_what_is_in_the_way_of_files(film: Path, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "thumbs" / "0001.jpg").mkdir(parents=True)
    code, _, err = run(film, *options, "--thumbnails", tmp_path / "thumbs")
    assert code == 1
    assert f"error: {tmp_path / 'thumbs'}: cannot be written" in err
    before = film.read_bytes()
    code, _, err = run(film, *options, "--vtt", film)
    assert (code, film.read_bytes() == before) == (2, True)
    assert "is itself read" in err


def test_wrong_use_and_failures(film: Path, options: list[str], tmp_path: Path) -> None:
    assert run(film, *options, "--json", "--csv")[0] == 2
    assert run(film, *options, "--threshold", "2")[0] == 2
    code, _, err = run(film, film, *options, "--plot", tmp_path / "a.png")
    assert (code, "--plot" in err) == (2, True)
    code, out, err = run(film, tmp_path / "missing.mp4", *options)
    assert code == 3
    assert "no such file" in err
    assert "a film.mp4" in out
