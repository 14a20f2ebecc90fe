"""`fewframes embed --frames-store`: the files it writes, what it leaves as it is, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.numbered import Numbered, drifting


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of the same name, of two cameras."""
    folder = tmp_path_factory.mktemp("films")
    for name in ("door", "yard"):
        (folder / name).mkdir()
        drifting(folder / name / "0001.mp4", "libx264", 200, gop=50, options={})
    return folder


@pytest.fixture
def options(tiny_model: Path, tmp_path: Path) -> list[str]:
    return ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32", "--cache", str(tmp_path / "cache")]


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.stdout, done.stderr


def test_stores_lie_as_the_videos_do_and_take_their_place(folder: Path, options: list[str], tmp_path: Path) -> None:
    stores = tmp_path / "stores"
    code, _, err = run("embed", folder, "--frames-store", stores, "--rate", 2, *options)
    assert code == 0, err
    assert "2 stored" in err
    files = [stores / "door" / "0001.frames", stores / "yard" / "0001.frames"]
    assert sorted(path for path in stores.rglob("*") if path.is_file()) == files
    code, out, err = run("timeline", files[0], *options, "--window", 2, "--threshold", 0.2, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["source"], found["frames"]["embedded"]) == (str(files[0]), 0)
    assert found["spans"]
    code, out, err = run("timeline", stores, *options, "--window", 2)
    assert (code, err.count("of them from the store")) == (0, 2)
    code, _, err = run("predict", files[0], *options[:6])
    assert (code, "no pictures" in err) == (1, True)


def test_stores_that_still_hold_are_left(folder: Path, options: list[str], tmp_path: Path) -> None:
    where = ("--frames-store", tmp_path / "stores")
    assert run("embed", folder, *where, *options)[0] == 0
    (tmp_path / "stores" / "yard" / "0001.frames").write_bytes(b"damaged")
    code, _, err = run("embed", folder, *where, *options)
    assert code == 0
    assert "1 stored, 0 failed, 0 missing, 1 there already" in err


def test_videos_that_fail_are_named_and_the_others_stored(folder: Path, options: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    code, _, err = run("embed", bad, folder / "door", "--frames-store", tmp_path / "stores", *options)
    assert code == 3
    assert "bad.mp4" in err
    assert "1 stored, 1 failed" in err
    assert run("embed", bad, "--frames-store", tmp_path / "stores", *options)[0] == 1


def test_options_that_do_not_go_together(folder: Path, options: list[str], tmp_path: Path) -> None:
    code, _, err = run("embed", folder, "--frames-store", tmp_path / "s", "--per-frame", "--start", 2, *options)
    assert code == 2
    assert "--per-frame" in err
    assert run("embed", folder, *options[:6])[0] == 2
    code, _, err = run("embed", folder, "--output", tmp_path / "a.safetensors", "--rate", 4, *options[:6])
    assert (code, "--frames-store" in err) == (2, True)
    code, _, err = run("embed", folder, "--frames-store", tmp_path / "s", "--rate", 0, *options)
    assert (code, "rate" in err) == (2, True)


def test_two_videos_of_one_store_are_refused(options: list[str], tmp_path: Path) -> None:
    films = [Numbered(suffix=suffix).write(tmp_path / "a") for suffix in (".mp4", ".mkv")]
    code, _, err = run("embed", *films, "--frames-store", tmp_path / "s", *options)
    assert code == 2
    assert "have one store" in err
    assert not (tmp_path / "s").exists()


def test_pictures_of_a_store_are_refused_before_the_work(folder: Path, options: list[str], tmp_path: Path) -> None:
    stores = tmp_path / "stores"
    assert run("embed", folder / "door", "--frames-store", stores, *options)[0] == 0
    for option in ("--plot", "--thumbnails"):
        code, _, err = run("timeline", stores / "0001.frames", option, tmp_path / "a.png", *options)
        assert (code, "embeddings only" in err) == (2, True)
