"""Several models in one command: what each verb prints, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.heads import write_heads
from helpers.numbered import drifting

HUG = Path(__file__).resolve().parents[2] / "examples" / "hug.mp4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    write_heads(folder)
    (folder / "notes.txt").write_text("no model")
    (folder / ".hidden.safetensors").write_text("no model")
    return folder


@pytest.fixture(scope="module")
def names(folder: Path) -> list[str]:
    return [str(folder / name) for name in ("a.safetensors", "b", "c.safetensors", "d.safetensors")]


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_predict_names_the_model_of_each_answer(folder: Path, names: list[str]) -> None:
    code, out, err = run("predict", HUG, "--model", folder, "--json")
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["model"] for answer in answers] == names
    assert "4 models in one pass: 27 actions, " in err
    assert "1 labelled, 0 failed, 0 missing" in err
    alone = json.loads(run("predict", HUG, "--model", names[1], "--json")[1])
    assert "model" not in alone
    assert alone["top"][0]["label"] == answers[1]["top"][0]["label"]

    code, out, err = run("predict", HUG, "missing.mp4", "--model", names[0], "--model", names[2], "--csv")
    assert code == 3
    rows = list(csv.DictReader(out.splitlines()))
    assert [(row["model"], bool(row["error"])) for row in rows] == [(names[0], False), (names[2], False), ("", True)]
    assert "present" in rows[0]
    assert "1 labelled, 0 failed, 1 missing" in err

    code, out, _ = run("predict", HUG, "--model", "lite0-16", "--model", folder)
    assert [line.split()[1] for line in out.splitlines() if line.startswith("  model ")] == ["lite0-16", *names]


def test_one_model_prints_what_it_did_before(names: list[str]) -> None:
    header = run("predict", HUG, "--model", names[0], "--csv")[1].splitlines()[0]
    assert header.startswith("source,error,label_1")
    assert run("timeline", HUG, "--no-cache", "--csv")[1].splitlines()[0] == "source,start_s,end_s,label,confidence"


def test_timeline_and_stream_name_the_model(
    folder: Path, names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    film = drifting(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", 150, gop=50, options={})
    options = ("--model", folder, "--window", "2", "--no-cache", "--threshold", "0")
    code, out, err = run("timeline", film, *options, "--json")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert [line["model"] for line in found] == names
    assert "of 4 models; 48 frames" in err
    code, out, _ = run("timeline", film, *options, "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert len(rows) == sum(len(line["spans"]) for line in found)
    assert {row["model"] for row in rows} == set(names)
    assert [line for line in run("timeline", film, *options)[1].splitlines() if line.startswith("  model ")] == [
        f"  model {name}" for name in names
    ]

    code, out, err = run("stream", film, "--model", names[0], "--model", names[2], "--window", "1.6", "--json")
    assert code == 0, err
    answers = [json.loads(line)["model"] for line in out.splitlines()]
    assert answers[:4] == [names[0], names[2]] * 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--early-exit", "0.9"), "--early-exit with 4 models: how many frames are looked at follows from"),
        (("--budget-ms", "100"), "--budget-ms with 4 models"),
        (("--budget-kb", "100"), "--budget-kb with 4 models"),
        (("--explain", "x.png"), "--explain with 4 models: a picture explains the answer of one model"),
        (("--engine", "local", "-o", "out"), "--engine with 4 models: each input has exactly one row"),
    ],
)
def test_what_takes_one_model(folder: Path, more: tuple[str, ...], words: str) -> None:
    code, _, err = run("predict", HUG, "--model", folder, *more)
    assert code == 2
    assert words in " ".join(err.replace("│", " ").split())


def test_other_refusals(folder: Path, names: list[str], tiny_model: Path, tmp_path: Path) -> None:
    code, _, err = run("timeline", HUG, "--model", folder, "--vtt", tmp_path / "x.vtt")
    assert (code, "--vtt with 4 models" in err) == (2, True)
    code, _, err = run("predict", HUG, "--model", names[0], "--model", tiny_model)
    assert (code, "cannot share one pass" in err) == (2, True)
    code, _, err = run("stream", HUG, "--model", folder, "--alarms-per-day", "1")
    assert (code, "alarms" in err) == (2, True)
    (tmp_path / "empty").mkdir()
    code, _, err = run("predict", HUG, "--model", tmp_path / "empty")
    assert (code, "a folder without model.safetensors" in err) == (1, True)


def test_alarms_are_promised_for_each_model(names: list[str], tmp_path: Path) -> None:
    footage = drifting(tmp_path / "background.mp4", "libx264", 500, gop=50, options={})
    where = ("--cache", tmp_path / "cache", "--window", "1.6")
    models = ("--model", names[0], "--model", names[2])
    alarms = ("--alarms-per-day", "20000", "--background", footage)
    code, out, err = run("stream", footage, *models, *where, *alarms, "--json")
    assert code == 0, err
    assert all(any(line.startswith(f"{name}: ") for line in err.splitlines()) for name in (names[0], names[2]))
    answers = [json.loads(line) for line in out.splitlines()]
    thresholds = {answer["model"]: answer["threshold"] for answer in answers}
    alone = json.loads(run("stream", footage, "--model", names[2], *where, *alarms, "--json")[1].splitlines()[0])
    assert thresholds[names[2]] == pytest.approx(alone["threshold"], abs=1e-5)
