"""`fewframes count`: what it writes, and its exit codes."""

from __future__ import annotations

import csv
import inspect
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.count import count
from fewframes.cli.main import app
from fewframes.inference.counting.config import CountConfig
from helpers.repeated import crossings, write_square


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_square(tmp_path_factory.mktemp("film") / "a film.mp4", crossings([1.6] * 6))


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return ["--cache", str(tmp_path_factory.mktemp("cache")), "--unknown", "off"]


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["count", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_every_output(film: Path, options: list[str], tmp_path: Path) -> None:
    plot = tmp_path / "out" / "film.png"
    code, out, err = run(film, *options, "--json", "--plot", plot)
    assert code == 0, err
    found = json.loads(out)
    assert found["count"] == sum(found["counts"].values()) == 6
    (stretch,) = found["stretches"]
    assert stretch["period_s"] == pytest.approx(1.6, abs=0.15)
    assert len(stretch["repetitions"]) == stretch["count"] == 6
    assert plot.read_bytes().startswith(b"\x89PNG")

    code, out, err = run(film, *options, "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert (code, len(rows)) == (0, 6)
    assert [float(row["start_s"]) for row in rows] == [one["start_s"] for one in stretch["repetitions"]]
    assert "76 frames, 76 of them from the cache" in err

    code, out, err = run(film, *options)
    assert code == 0
    assert out.splitlines()[0].endswith("a film.mp4: 6")
    assert "6 x" in out


def test_a_part_and_a_film_that_is_too_short(film: Path, options: list[str], tmp_path: Path) -> None:
    code, out, _ = run(film, *options, "--start", 3.2, "--end", 8.0, "--json")
    assert (code, json.loads(out)["count"]) == (0, 3)
    short = write_square(tmp_path / "short.mp4", crossings([0.4]))
    code, out, err = run(short, *options)
    assert code == 0
    assert "nothing repeats" in out
    assert "too short: 0.40 s hold no two repetitions of 0.5 s" in err


def test_wrong_use_and_failures(film: Path, options: list[str], tmp_path: Path) -> None:
    assert run(film, *options, "--json", "--csv")[0] == 2
    for wrong, words in (
        (("--fit", "1"), "least_fit"),
        (("--shortest", "9", "--longest", "3"), "swap them"),
        (("--plot", tmp_path / "film.jpg"), "ends in .png"),
    ):
        code, _, err = run(film, *options, *wrong)
        assert (code, words in err) == (2, True), err
    code, _, err = run(film, film, *options, "--plot", tmp_path / "a.png")
    assert (code, "--plot" in err) == (2, True)
    code, _, err = run(tmp_path / "missing.mp4", *options)
    assert (code, "no such file" in err) == (1, True)
    code, out, err = run(film, tmp_path / "missing.mp4", *options)
    assert (code, "no such file" in err, "a film.mp4: 6" in out) == (3, True, True)


def test_defaults_are_those_of_the_settings() -> None:
    given = {name: parameter.default for name, parameter in inspect.signature(count).parameters.items()}
    config = CountConfig()
    values = (config.rate, config.shortest_s, config.longest_s, config.pause_s, config.least_fit, config.still)
    assert tuple(given[name] for name in ("rate", "shortest", "longest", "pause", "fit", "still")) == values


def test_a_stream_counts(film: Path) -> None:
    done = CliRunner().invoke(
        app, ["stream", str(film), "--count", "--window", "2", "--every", "2", "--unknown", "off"]
    )
    assert done.exit_code == 0, done.stderr
    counts = [json.loads(line)["repetitions"]["count"] for line in done.stdout.splitlines()]
    assert counts == sorted(counts)
    assert counts[-1] in (5, 6)  # the last answer is about 8 s, the film has 9.6 s
