"""`fewframes index` and `fewframes search`: what they write, and their exit codes."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.numbered import drifting, write_fading


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    drifting(folder / "a film.mp4", "libx264", 150, gop=50, options={})
    write_fading(folder / "red.mp4", 25, turned=False)
    write_fading(folder / "blue.mp4", 25, turned=True)
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.stdout, done.stderr


def test_index_search_teach_page_remove(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    place = ("--index", tmp_path / "index")
    how = (*place, "--model", tiny_model, "--device", "cpu", "--dtype", "float32", "--cache", tmp_path / "cache")
    code, _, err = run("index", folder, tmp_path / "missing.mp4", *how, "--window", 2, "--hop", 1)
    assert code == 3, err
    assert "3 indexed, 0 failed, 1 missing, 0 there already; 7 windows" in err
    code, _, err = run("index", folder, *how)
    assert (code, "0 indexed, 0 failed, 0 missing, 3 there already" in err) == (0, True)

    page = tmp_path / "results.html"
    code, out, err = run(
        "search", folder / "a film.mp4", *place, "--end", 2, "--device", "cpu", "--json", "--page", page
    )
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert {Path(hit["source"]).name for hit in found} == {"a film.mp4", "red.mp4", "blue.mp4"}
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == len(found)
    assert all(f'value="{hit["id"]}"' in text for hit in found)
    assert "a%20film.mp4" in text

    code, out, err = run("search", "--like", found[0]["id"], *place, "--csv", "--distinct", "--videos", "*.mp4")
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0, err
    assert len({row["source"] for row in rows}) == len(rows)
    assert found[0]["id"] not in {row["id"] for row in rows}

    code, out, err = run("search", "--like", rows[0]["id"], *place, "--teach", "mine", "--yes", 1, "--no", 2, "--json")
    assert (code, "'mine' taught from 1 that show it and 1 that do not" in err) == (0, True), err
    code, again, _ = run("search", "--label", "mine", *place, "--json")
    assert (code, again) == (0, out)

    code, _, err = run("index", *place, "--remove", folder)
    assert (code, "3 videos forgotten, 0 left" in err) == (0, True), err


def test_an_index_of_merged_patches_is_searched_by_video(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    place, how = ("--index", tmp_path / "index"), ("--device", "cpu", "--dtype", "float32")
    code, _, err = run("index", folder, *place, "--model", tiny_model, *how, "--no-cache", "--merge", 2)
    assert code == 0, err
    code, out, err = run("search", folder / "red.mp4", *place, *how, "--json")
    assert (code, len(out.splitlines())) == (0, 2), err


def test_a_name_that_is_not_text_is_named_and_the_rest_indexed(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")
    Path(bad).write_bytes((folder / "red.mp4").read_bytes())
    how = ("--index", tmp_path / "index", "--model", tiny_model, "--device", "cpu", "--dtype", "float32", "--no-cache")
    code, _, err = run("index", bad, folder, *how)
    assert (code, "its name is not UTF-8" in err, "3 indexed, 1 failed" in err) == (3, True, True), err
    assert run("index", bad, *how)[0] == 1


def test_wrong_use(tmp_path: Path) -> None:
    place = ("--index", tmp_path / "index")
    assert run("index", *place)[0] == 2
    assert run("search", *place)[0] == 2
    assert run("search", "a.mp4", "--like", "x", *place)[0] == 2
    assert run("search", "--label", "hug", *place, "--json", "--csv")[0] == 2
    assert run("search", "--label", "hug", *place, "--teach", "a")[0] == 2
    for wrong in (("search", "--label", "hug"), ("index", "--prune")):
        code, _, err = run(*wrong, *place)
        assert (code, "no index there; make one with" in err) == (1, True)
    assert not list(tmp_path.iterdir())
