"""`fewframes changes`, `timeline --against` and `index --relabel`: what they print, write and refuse."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.models import write_reheaded
from helpers.numbered import drifting


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [drifting(folder / f"film {n}.mp4", "libx264", 200, gop=50, options={}) for n in range(2)]


@pytest.fixture(scope="module")
def other(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reheaded(tiny_model, tmp_path_factory.mktemp("other") / "other.safetensors")


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    cache = tmp_path_factory.mktemp("cache")
    return ["--device", "cpu", "--dtype", "float32", "--cache", str(cache)]


@pytest.fixture
def options(cached: list[str]) -> list[str]:
    return [*cached, "--window", "2", "--threshold", "0.2"]


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.stdout, done.stderr


def result(path: Path, *arguments: object) -> Path:
    code, out, err = run("timeline", *arguments, "--json")
    assert code in (0, 3), err
    path.write_text(out)
    return path


def test_two_results_are_compared_in_every_form(
    films: list[Path], options: list[str], tiny_model: Path, other: Path, tmp_path: Path
) -> None:
    lost = tmp_path / "lost.mp4"
    before = result(tmp_path / "before.jsonl", *films, "--model", tiny_model, *options)
    after = result(tmp_path / "after.jsonl", films[0], lost, "--model", other, *options)
    line = json.loads(before.read_text().splitlines()[0])
    assert (line["model"], len(line["weights"]) > 10, line["start_s"]) == (str(tiny_model), True, 0)

    code, out, err = run("changes", before, after, "--json")
    assert code == 0, err
    found = {Path(line["source"]).name: line for line in map(json.loads, out.splitlines())}
    assert {name: line["status"] for name, line in found.items()} == {
        "film 0.mp4": "compared",
        "film 1.mp4": "only before",
        "lost.mp4": "only after",
    }
    video = found["film 0.mp4"]
    assert (video["before"]["model"], video["after"]["model"]) == (str(tiny_model), str(other))
    assert video["before"]["weights"] != video["after"]["weights"]
    num_changed = sum(video["counts"][kind] for kind in ("new", "gone", "relabelled", "moved"))
    assert num_changed > 0
    assert (
        f"1 video compared, 1 only before, 1 only after: {num_changed} of {sum(video['counts'].values())} spans" in err
    )

    code, out, _ = run("changes", before, after, "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0
    assert [row["kind"] for row in rows if row["source"] == str(films[0])] == [one["kind"] for one in video["changes"]]
    assert [row["kind"] for row in rows if row["source"] == str(films[1])] == ["only before"]

    page = tmp_path / "out" / "page.html"
    code, out, err = run("changes", before, after, "--page", page)
    assert code == 0
    assert re.search(rf"film 0.mp4  {num_changed} of \d+ spans changed", out)
    assert all(label in out for label in ("hug", "kick", "push"))
    assert f"open {page}" in err
    assert page.read_text().count("data:image/jpeg;base64,") == num_changed

    code, _, err = run("changes", before, before)
    assert (code, "0 of" in err) == (0, True)


def test_a_run_is_compared_with_an_earlier_result_or_model(
    films: list[Path], options: list[str], tiny_model: Path, other: Path, tmp_path: Path
) -> None:
    before = result(tmp_path / "before.jsonl", *films, "--model", tiny_model, *options)
    code, by_file, err = run("timeline", *films, "--model", other, *options, "--against", before, "--csv")
    assert code == 0, err
    assert "2 videos compared: " in err
    code, by_model, _ = run("timeline", *films, "--model", other, *options, "--against-model", tiny_model, "--csv")
    assert code == 0
    assert kinds(by_model) == kinds(by_file)
    folder, older = tmp_path / "rows", tmp_path / "older"
    fast = (*films, *options, "--engine", "local", "--shard-rows", 1)
    assert run("timeline", *fast, "--model", tiny_model, "--output", older)[0] == 0
    code, by_rows, err = run("timeline", *fast, "--model", other, "--output", folder, "--against", older, "--csv")
    assert (code, kinds(by_rows)) == (0, kinds(by_file)), err
    code, by_folders, _ = run("changes", older, folder, "--csv")
    assert (code, by_folders) == (0, by_rows)


def kinds(text: str) -> list[tuple[str, ...]]:
    return [
        (row["source"], row["kind"], row["before_label"], row["after_label"])
        for row in csv.DictReader(text.splitlines())
    ]


def test_failures_are_named_and_counted(
    films: list[Path], options: list[str], tiny_model: Path, other: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    before = result(tmp_path / "before.jsonl", *films, broken, "--model", tiny_model, *options)
    assert json.loads(before.read_text().splitlines()[2])["error"]
    code, _, err = run(
        "timeline",
        *films,
        broken,
        "--model",
        other,
        *options,
        "--against",
        before,
        "--changes-page",
        tmp_path / "a.html",
    )
    assert code == 3
    assert f"failed twice: {broken}" in err
    assert "2 videos compared, 1 failed twice" in err
    assert "Not compared" in (tmp_path / "a.html").read_text()
    code, _, err = run("changes", before, before)
    assert (code, "failed twice" in err) == (3, True)
    code, _, err = run("timeline", broken, "--model", other, *options, "--against", before)
    assert (code, "broken.mp4" in err) == (1, True)


def test_an_archive_survives_an_interruption(
    films: list[Path], options: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    out, fast = tmp_path / "out", ("--model", tiny_model, *options, "--engine", "local", "--shard-rows", 1)
    given = ("timeline", *films, tmp_path / "none.mp4", *fast, "--output", out)
    code, _, err = run(*given)
    assert (code, "3 rows in 3 files, 1 of videos that failed; 3 new" in err) == (3, True), err
    rows = parquet.read_table(out).to_pylist()
    assert [Path(row["source"]).name for row in rows] == ["film 0.mp4", "film 1.mp4", "none.mp4"]
    assert {row["model"] for row in rows} == {str(tiny_model)}
    assert (rows[0]["start_s"], rows[0]["end_s"], rows[0]["threshold"]) == (0, 8, 0.2)
    assert rows[0]["spans"]
    assert "no such file" in rows[2]["error"]
    (out / "part-000001.parquet").unlink()
    code, _, err = run("changes", out, out)
    assert (code, "2 of 3 files are there; repeat the command" in err) == (1, True), err
    code, _, err = run(*given)
    assert (code, "1 new" in err) == (3, True)
    assert parquet.read_table(out).to_pylist() == rows


def test_files_that_are_no_results(films: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for content, words in (
        (b"", "holds no timelines"),
        (b"source,label\n", "cannot be read as lines of JSON"),
        (b"\xff\xfe", "cannot be read as lines of JSON"),
        (b"[1]\n", "line 1: not a timeline"),
        (b'{"source": "a.mp4", "start_s": 0, "end_s": 1, "spans": [{}], "gaps": []}\n', "line 1: not a timeline"),
        (b'{"source": "", "spans": []}\n', "line 1: not a timeline"),
        (
            b'{"source": "a", "weights": "1", "start_s": 0, "end_s": 1, "spans": [], "gaps": []}\n'
            b'{"source": "a", "weights": "2", "start_s": 0, "end_s": 1, "spans": [], "gaps": []}\n',
            "line 2: a second model's timeline",
        ),
    ):
        path.write_bytes(content)
        code, _, err = run("changes", path, path)
        assert (code, words in err) == (1, True), err
    assert "cannot be read" in run("changes", tmp_path / "none", path)[2]
    assert "no folder of `fewframes timeline --engine`" in run("changes", tmp_path, path)[2]
    line = '{{"source": "{}", "start_s": 0, "end_s": 1, "spans": [], "gaps": []}}\n'
    path.write_text(line.format("a.mp4"))
    (tmp_path / "b.jsonl").write_text(line.format("b.mp4"))
    code, _, err = run("changes", path, tmp_path / "b.jsonl")
    assert (code, "none of 2 videos is in both" in err) == (1, True)
    code, _, err = run("changes", path, path, "--page", path)
    assert (code, "is itself read" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "local"], "--engine and --output go together"),
        (["--output", "out"], "--engine and --output go together"),
        (["--engine", "local", "--output", "o", "--json"], "--engine writes Parquet"),
        (["--engine", "local", "--output", "o", "--runtime", "torch"], "leave out --runtime"),
        (["--engine", "local", "--output", "o", "--against-model", "a"], "--engine writes the spans of one model"),
        (["--engine", "local", "--output", "o", "--model", "a", "--model", "b"], "each input has exactly one row"),
        (["--engine", "local", "--output", "o", "--vtt", "a.vtt"], "show one timeline"),
        (["--against", "a", "--against-model", "b"], "exclude each other"),
        (["--against", "a", "--plot", "a.png"], "show one timeline"),
        (["--against", "a", "--model", "a", "--model", "b"], "one model is compared with one earlier"),
        (["--changes-page", "a.html"], "add --against RESULT or --against-model MODEL"),
        (["--workers", "2"], "--workers is an option of --engine ray"),
        (["--least-change", "2", "--against", "a"], "least-change"),
    ],
)
def test_what_does_not_go_together(arguments: list[str], words: str) -> None:
    code, _, err = run("timeline", "a.mp4", *arguments)
    assert (code, words in " ".join(err.replace("│", " ").split())) == (2, True), err


def test_an_index_is_relabelled_without_its_videos(
    films: list[Path], cached: list[str], tiny_model: Path, other: Path, tmp_path: Path
) -> None:
    there, older, newer = [tmp_path / film.name for film in films], tmp_path / "older", tmp_path / "newer"
    for film, path in zip(films, there, strict=True):
        path.write_bytes(film.read_bytes())
    assert run("index", *there, "--index", older, "--model", tiny_model, "--window", 1, *cached)[0] == 0
    for path in there:
        path.unlink()
    again = ("index", "--index", newer, "--relabel", older, "--model", other, *cached)
    code, out, err = run(*again, "--csv", "--changes-page", tmp_path / "page.html")
    assert code == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    num_relabelled = sum(row["kind"] == "relabelled" for row in rows)
    assert num_relabelled > 0
    assert all((row["before_label"] != row["after_label"]) == (row["kind"] == "relabelled") for row in rows)
    assert f"{num_relabelled} relabelled" in err
    assert "2 relabelled, 0 failed, 0 missing, 0 there already" in err
    assert "no video read" in err
    assert "no picture: " in err
    assert "film 0.mp4" in (tmp_path / "page.html").read_text()
    code, _, err = run(*again)
    assert (code, "0 relabelled, 0 failed, 0 missing, 2 there already" in err) == (0, True)

    code, _, err = run(
        "index", "--index", tmp_path / "third", "--relabel", older, "--model", other, "--cache", tmp_path / "no"
    )
    assert (code, err.count("are not in the cache")) == (3, 2)
    for arguments, words in (
        (("--index", older, "--relabel", older), "is --index itself"),
        (("--index", newer, "--relabel", older, "--window", 2), "leave out --window"),
        (("--index", newer, "--relabel", older, films[0]), "leave out VIDEO"),
        (("--index", newer, films[0], "--json"), "add --relabel INDEX"),
    ):
        code, _, err = run("index", *arguments, "--model", other, *cached)
        assert (code, words in " ".join(err.replace("│", " ").split())) == (2, True), err
