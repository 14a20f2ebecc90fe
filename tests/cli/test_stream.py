"""`fewframes stream`: lines of JSON as they come, a summary whatever ends it, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewframes.cli.live_view import lines_of
from fewframes.cli.main import app
from fewframes.inference.predictor import load
from fewframes.inference.promise import AlarmPromise, AlarmThreshold
from fewframes.video.live_settings import StreamConfig
from helpers.flashes import write_flashes
from helpers.numbered import drifting

# What is started in the background ignores interruptions, and so would what these tests start there.
HEARS_INTERRUPTIONS = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from fewframes.cli.main import main; main()"
)
COMMAND = [sys.executable, "-m", "fewframes.cli", "stream"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifting(tmp_path_factory.mktemp("stream") / "drift.mp4", "libx264", 75, gop=25, options={})


@pytest.fixture
def fast(tiny_model: Path) -> list[str]:
    return ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32"]


def test_lines_of_json_and_a_summary(video: Path, fast: list[str]) -> None:
    done = CliRunner().invoke(app, ["stream", str(video), *fast, "--window", "1", "--every", "0.5", "--topk", "2"])
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["end_s"] for answer in answers] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert all(len(answer["top"]) == 2 for answer in answers)
    assert "end: the end of the stream" in done.stderr
    assert "5 predictions" in done.stderr
    assert "latency p50/p95/p99" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.mp4"], 1, "nowhere.mp4: no such file"),
        (["VIDEO", "--window", "0"], 2, "window_s = 0.0: Input should be greater than 0"),
        (["VIDEO", "--enter", "0.2"], 2, "leave 0.3 is above enter 0.2"),
        (["camera:77"], 1, "camera:77: no camera can be opened there"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    video: Path, fast: list[str], arguments: list[str], code: int, words: str
) -> None:
    given = [str(video) if argument == "VIDEO" else argument for argument in arguments]
    done = CliRunner().invoke(app, ["stream", *given, *fast])
    assert done.exit_code == code
    assert words in done.stderr


def test_a_window_longer_than_the_stream_is_said(video: Path, fast: list[str]) -> None:
    done = CliRunner().invoke(app, ["stream", str(video), *fast, "--window", "60"])
    assert done.exit_code == 0
    assert "no answer: the source ended before the first window was complete; try a shorter --window" in done.stderr


def test_an_interruption_while_a_pipe_is_silent_ends_it(fast: list[str]) -> None:
    command = [sys.executable, "-c", HEARS_INTERRUPTIONS, "stream", "-", *fast]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert "3 actions" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)  # while the pipe is still silent
        assert waiting.wait(timeout=60) == 0
        assert "interrupted" in waiting.stderr.read()


def test_the_time_is_over_while_a_pipe_is_silent(fast: list[str]) -> None:
    command = [*COMMAND, "-", *fast, "--for", "0.5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert waiting.wait(timeout=60) == 1  # though nobody ever writes into the pipe, and nothing is aborted
        assert "<standard input>: not open after 0." in waiting.stderr.read()


def test_the_live_view_shows_label_scores_and_lateness(video: Path, tiny_model: Path) -> None:
    stream = load(tiny_model, device="cpu").stream(str(video), StreamConfig(window_s=1, enter=0.1, leave=0.05))
    last = list(stream)[-1]
    lines = lines_of(stream, last, 2)
    assert lines[0] == f"{video}  3.0 s: {last.label}"
    assert lines[1].split()[0] in ("hug", "kick", "push")
    assert "over 1.0 s" in lines[3]
    assert lines[-1].endswith("end: the end of the stream")


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flashes(tmp_path_factory.mktemp("hours") / "night.mp4", 60, {20: 0.9})


def test_alarms_from_footage(video: Path, minute: Path, fast: list[str], tmp_path: Path) -> None:
    footage = ["--background", str(minute), "--background", str(tmp_path / "gone.mp4"), "--alarms-per-day", "3000"]
    options = ["--cache", str(tmp_path / "cache"), "--window", "1", "--enter", "0.1", "--leave", "0.1"]
    done = CliRunner().invoke(app, ["stream", str(video), *fast, *footage, *options])
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer["hours"] for answer in answers} == {0.0167}
    assert all(1440 <= answer["promised"] <= 3000 and 0.1 <= answer["threshold"] < 1 for answer in answers)
    assert all(answer["alarm"] is None or answer["alarm"]["score"] > answer["threshold"] for answer in answers)
    assert f"missing: {tmp_path / 'gone.mp4'}" in done.stderr
    assert "this rests on 0.0167 hours of uneventful footage in 8 blocks" in done.stderr
    assert " alarm" in done.stderr.splitlines()[-1]
    assert list((tmp_path / "cache").rglob("*.safetensors"))


def test_alarms_that_cannot_be_promised_are_refused_in_one_line(
    video: Path, minute: Path, fast: list[str], tmp_path: Path
) -> None:
    for more, code, words in (
        (
            ["--background", str(minute)],
            2,
            "1 alarm a day cannot be promised from 0.0167 hours of footage: that needs 24",
        ),
        ([], 2, "holds no promise of alarms, so 1 a day need a threshold of their own"),
        (["--background", str(tmp_path)], 1, f"{tmp_path}: no videos in this folder"),
        (["--background", str(minute), "--window", "70"], 1, "60.00 s of footage, less than one window of 70 s"),
    ):
        done = CliRunner().invoke(app, ["stream", str(video), *fast, "--alarms-per-day", "1", *more])
        assert done.exit_code == code, done.stderr
        assert words in done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("error")]) == 1


def test_the_live_view_shows_alarms(video: Path, tiny_model: Path) -> None:
    predictor = load(tiny_model, device="cpu", dtype="float32")
    sure = AlarmThreshold(threshold=0.1, alarms=0, clumping=1.0, promised=1.0, most_per_day=3.0)
    promise = AlarmPromise(
        alarms_per_day=1.0, hours=24.0, num_blocks=24, num_videos=1, window_s=1.0, every_s=None, smooth_s=1.0, enter=0.1,
        alarm_gap_s=30.0, at_enter=0, overall=sure, actions=dict.fromkeys(predictor.labels, sure),
    )  # fmt: skip
    stream = predictor.stream(str(video), StreamConfig(window_s=1.0, enter=0.1, leave=0.05), promise=promise)
    last = list(stream)[-1]
    assert any(line.startswith("  alarm 1: ") and " at 1.0 s, score 0." in line for line in lines_of(stream, last, 2))


def test_clips_of_events_are_kept(video: Path, fast: list[str], tmp_path: Path) -> None:
    options = [
        "--window",
        "1",
        "--enter",
        "0.05",
        "--leave",
        "0.01",
        "--clips",
        str(tmp_path / "events"),
        "--before",
        "0.5",
    ]
    done = CliRunner().invoke(app, ["stream", str(video), *fast, *options, "--after", "0.5", "--clips-most", "2GB"])
    assert done.exit_code == 0, done.output
    files = list((tmp_path / "events").glob("*/*.json"))
    values = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert values
    assert all((tmp_path / "events" / one[name]).is_file() for one in values for name in ("clip", "picture"))
    assert all(one["source"] == str(video) and one["end_s"] is not None for one in values)
    assert f"clips: {len(values)} event" in done.stderr
    assert (tmp_path / "events" / "index.html").is_file()
    assert not (tmp_path / "events" / ".lock").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--before", "3"], "add --clips FOLDER"),
        (["--clips-most", "2GB"], "add --clips FOLDER"),
        (["--clips", "FOLDER", "--clips-most", "2"], "--clips-most '2': needs a number above 0 with kB, MB, GB or TB"),
        (["--clips", "FOLDER", "--after", "-1"], "after_s -1: needs seconds from 0"),
        (["--clips", "VIDEO"], "cannot be written"),
    ],
)
def test_clips_that_cannot_be_kept_are_refused(
    video: Path, fast: list[str], tmp_path: Path, options: list[str], words: str
) -> None:
    given = [{"FOLDER": str(tmp_path / "events"), "VIDEO": str(video)}.get(option, option) for option in options]
    done = CliRunner().invoke(app, ["stream", str(video), *fast, *given])
    assert done.exit_code in (1, 2)
    assert words in " ".join((done.stderr or str(done.exception)).split())
