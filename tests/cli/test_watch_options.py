"""`fewframes stream` with events: options and rules file go together, and wrong ones are errors before the source is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.numbered import drifting
from helpers.receivers import webhook


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifting(tmp_path_factory.mktemp("watch") / "drift.mp4", "libx264", 75, gop=25, options={})


@pytest.fixture
def arguments(video: Path, tiny_model: Path) -> list[str]:
    fast = ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32", "--unknown", "off"]
    return ["stream", str(video), *fast, "--window", "1", "--every", "0.5", "--enter", "0.1", "--leave", "0.1"]


def test_events_take_the_place_of_answers(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, [*arguments, "--events", "-"])
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["state"] for event in events} == {"started", "ended"}
    started = [event["id"] for event in events if event["state"] == "started"]
    ended = [event["id"] for event in events if event["state"] == "ended"]
    assert sorted(started) == sorted(ended)
    assert f"events: {len(started)} event" in done.stderr
    assert f"stdout: {len(events)} delivered" in done.stderr


@pytest.mark.parametrize("names", [("",), ("door=", "yard=")])
def test_metrics_count_each_source(arguments: list[str], video: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    pytest.importorskip("prometheus_client")
    file, (verb, _, *options) = tmp_path / "fewframes.prom", arguments
    sources = [f"{name}{video}" for name in names]
    done = CliRunner().invoke(app, [verb, *sources, *options, "--events", "-", "--metrics", str(file)])
    assert done.exit_code == 0, done.output
    text = file.read_text()
    for name in names:
        source = name.removesuffix("=") or str(video)
        assert f'fewframes_source_pictures_total{{source="{source}"}} 75.0' in text
        assert f'fewframes_source_events_total{{kind="end",source="{source}"}} 1.0' in text
        assert f'fewframes_source_reconnects_total{{source="{source}"}} 0.0' in text
        assert f'fewframes_source_latency_seconds{{quantile="0.5",source="{source}"}}' in text
        assert f'fewframes_source_silent_seconds{{source="{source}"}}' in text


def test_options_add_to_the_rules_file(arguments: list[str], tmp_path: Path, tiny_model: Path) -> None:
    rules, file = tmp_path / "rules.toml", tmp_path / "events.jsonl"
    with webhook() as first, webhook() as second:
        rules.write_text(f'[[rules]]\nmin_s = 1.0\n[[webhooks]]\nurl = "{first.url}"\n')
        done = CliRunner().invoke(
            app, [*arguments, "--rules", str(rules), "--webhook", second.url, "--events", str(file), "--topk", "1"]
        )
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert events
    assert all(event["end_s"] - event["start_s"] >= 1.0 for event in events if event["state"] == "ended")
    assert len(first.requests) == len(second.requests) == len(events)
    assert json.loads(done.stdout.splitlines()[0])["top"]  # answers are printed as before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--spool", "x"], "events go nowhere: name a receiver"),
        (["--on-event", "notify {lable}"], "did you mean 'label'"),
        (["--on-event", "no-such-program {label}"], "no program 'no-such-program' is found"),
        (["--webhook", "example.org/hook"], "must begin with http://"),
        (["--mqtt", "mqtt://me:hush@host"], "put no password into the address"),
        (["--rules", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--events", "VIDEO/events.jsonl"], "cannot be written"),
        (["--metrics", "70000", "--events", "-"], "metrics.port = 70000"),
    ],
)
def test_wrong_options_are_errors_without_secrets(arguments: list[str], options: list[str], words: str) -> None:
    if "--mqtt" in options:
        pytest.importorskip("paho.mqtt.client")
    given = [option.replace("VIDEO", arguments[1]) for option in options]  # a file, which can hold no other
    done = CliRunner().invoke(app, [*arguments, *given])
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert "hush" not in done.output
    assert done.stdout == ""


def test_a_rule_about_a_label_that_the_model_lacks_is_an_error(arguments: list[str], tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("events = '-'\n[[rules]]\nlabels = ['dance']\n")
    done = CliRunner().invoke(app, [*arguments, "--rules", str(rules)])
    assert done.exit_code == 2
    assert "a rule is about 'dance'" in done.stderr
