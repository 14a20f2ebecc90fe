"""Footage of a run in which nothing happens: read by both kinds of training, promised from, never an action."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.core.cache import EmbeddingCache
from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.data.layouts import Sample
from fewframes.errors import ConfigError, DataError
from fewframes.inference.alarms import stored_promise
from fewframes.inference.footage import find_footage, read_footage
from fewframes.inference.predictor import load
from fewframes.results import UNKNOWN
from fewframes.training.background import RunFootage, find_run_footage, median_length_s, read_background
from fewframes.training.config import RunConfig, TrainConfig, read_run
from fewframes.training.solved.run import SolveOptions, train_solved
from fewframes.training.train import TrainOptions, train
from fewframes.video.live_settings import StreamConfig
from helpers.flashes import write_flashes

QUICK = TrainConfig(epochs=1, min_steps=4)
RATE = 3000
"""Alarms a day that a minute of footage can promise: two in that minute."""


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("background")
    write_flashes(folder / "night.mp4", 60, {20: 0.9, 40: 0.6})
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def run_of(tiny_model: Path, **data: Any) -> RunConfig:
    return RunConfig(start=str(tiny_model), data=DataConfig(**data), train=QUICK)


@pytest.mark.parametrize("head", ["trained", "solved"])
def test_a_model_keeps_its_promise_and_streams_by_it(
    head: str, clips: Path, minute: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data, cache = read_data(clips), EmbeddingCache(tmp_path / "cache")
    run = run_of(tiny_model, background=(str(minute),), alarms_per_day=RATE)
    if head == "trained":
        options = TrainOptions(cache=cache, device="cpu", dtype="float32")
        found = train(data, tmp_path / "out", run, options).background
    else:
        found = train_solved(
            data,
            tmp_path / "out",
            replace(run, train=TrainConfig()),
            SolveOptions(cache=cache, device="cpu", dtype="float32"),
        ).background
    assert found is not None
    assert found.promise is not None
    assert found.embeddings is not None
    window_s = found.promise.window_s
    # The median of the training clips that can be opened, of 16 to 31 frames; some are held out of training in steps.
    assert window_s == median_length_s(data.samples) == 0.94 if head == "solved" else 0.8 < window_s < 1.1
    assert len(found.embeddings) == pytest.approx(60 / window_s, abs=1)
    assert found.embeddings.shape[1] == 4
    assert [Path(failure.source).name for failure in found.failures] == ["broken.mp4"]

    model = load(tmp_path / "out", device="cpu", dtype="float32", runtime="torch")
    assert model.labels == ("redden", "turn blue")  # the footage is no action
    promise = stored_promise(model.runtime, RATE)
    assert promise == found.promise
    assert promise.hours == pytest.approx(1 / 60, rel=0.02)
    # What the model file says of the footage is what was said in training, by way of which the promise was made.
    again = read_footage(model, find_footage([minute], window_s), StreamConfig(window_s=window_s), cache=cache)
    assert found.background is not None
    for one, other in zip(found.background.stretches, again.stretches, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=1e-4)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["alarms"] == promise.to_dict()
    assert metrics["background"] == {"hours": round(promise.hours, 4), "num_videos": 1}
    assert "broken.mp4" in metrics["footage_failed"][0]["error"]
    assert metrics["clips_above_threshold"] == found.reached
    assert metrics["num_videos"]["unread"] == 1  # the broken clip; footage is counted apart
    assert read_run(tmp_path / "out" / "run.toml").data.background == (str(minute),)
    # Its judge has learned from the footage: new footage like it is unknown, and clips of the actions are known.
    dark = model.predict(write_flashes(tmp_path / "new.mp4", 3, {}))
    assert (dark.label, dark.reason) == (UNKNOWN, "like the background that it has learned")
    known = [model.predict(clips / label / f"{number}.mp4").label for label in model.labels for number in range(6)]
    assert known.count(UNKNOWN) <= 1


def test_the_commands(clips: Path, minute: Path, tiny_model: Path, tmp_path: Path) -> None:
    common = ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32", "--cache", str(tmp_path / "cache")]
    output = str(tmp_path / "out")
    # More alarms than a minute can have, so that it does not matter what random weights take the footage for.
    options = ["--background", str(minute / "night.mp4"), "--alarms-per-day", "30000", "--head", "solved"]
    done = CliRunner().invoke(app, ["train", str(clips), "-o", output, *common, *options])
    assert done.exit_code == 3, done.output  # the broken clip
    assert "uneventful footage: 0.02 hours of 1 video" in done.stderr
    assert "alarms: at most" in done.stderr
    watch = ["stream", str(minute / "night.mp4"), "--model", output, "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, [*watch, "--alarms-per-day", "40000"])
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    promise = stored_promise(load(output).runtime, 30_000)
    assert answers[0]["end_s"] == pytest.approx(promise.window_s, abs=1e-3)  # the window of the promise
    assert {answer["threshold"] for answer in answers} == {promise.overall.threshold}
    assert {answer["hours"] for answer in answers} == {round(promise.hours, 4)}
    assert sum(answer["alarm"] is not None for answer in answers) <= promise.overall.alarms
    for more, words in (
        (["--alarms-per-day", "1000"], "promises 30000 alarms a day, and 1000 are asked for"),
        (["--alarms-per-day", "40000", "--smooth", "0"], "does not hold for smooth_s 0.0 instead of 1.0"),
        (["--alarms-per-day", "-1"], "alarms_per_day = -1: needs a number above 0"),
        (["--background", str(minute)], "say how many a day: --alarms-per-day 1"),
    ):
        done = CliRunner().invoke(app, [*watch, *more])
        assert (done.exit_code, words in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("head", ["trained", "solved"])
def test_what_cannot_be_promised_is_refused_before_training(
    head: str, clips: Path, minute: Path, tiny_model: Path, tmp_path: Path
) -> None:
    def tried(**data: Any) -> None:
        run = run_of(tiny_model, **data)
        if head == "trained":
            train(read_data(clips), tmp_path / "out", run, TrainOptions(device="cpu"))
        else:
            train_solved(
                read_data(clips), tmp_path / "out", replace(run, train=TrainConfig()), SolveOptions(device="cpu")
            )

    with pytest.raises(ConfigError, match=r"alarms_per_day = 1 without background: .* name it with --background"):
        tried(alarms_per_day=1)
    with pytest.raises(ConfigError, match=r"1 alarm a day cannot be promised from 0.0167 hours .* needs 24 hours"):
        tried(alarms_per_day=1, background=(str(minute),))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no videos in this folder"):
        tried(background=(str(tmp_path / "empty"),))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [0, -2])
def test_no_alarms_a_day_cannot_be_asked_for(value: float, clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    arguments = ["--background", "hours", "--alarms-per-day", str(value), "--model", str(tiny_model)]
    done = CliRunner().invoke(app, ["train", str(clips), "-o", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 2
    assert "alarms_per_day" in done.stderr
    assert "greater than 0" in done.stderr


def test_clips_of_actions_are_no_footage(clips: Path, minute: Path, tmp_path: Path) -> None:
    data = read_data(clips)
    longest = max(
        (sample for sample in data.samples if "broken" not in sample.path),
        key=lambda sample: median_length_s([sample]) or 0,
    )
    copied = tmp_path / "copied.mp4"
    copied.write_bytes(Path(longest.path).read_bytes())
    asked = DataConfig(background=(str(minute), str(copied)))
    found = find_run_footage(asked, data.samples[5:], data.samples)
    assert found is not None
    assert [Path(video).name for video in found.footage.videos] == ["night.mp4"]
    assert found.footage.failures[-1].source == str(copied)
    words = (
        f"{copied}: the same video as {longest.path}, a clip of {longest.labels[0]}; footage shows none of the actions"
    )
    assert found.footage.failures[-1].error == words
    with pytest.raises(DataError, match=r"no footage can be used; the first: .*copied.mp4: the same video as"):
        find_run_footage(DataConfig(background=(str(copied),)), data.samples[5:], data.samples)


def test_layouts_that_cannot_stream_are_refused(clips: Path, minute: Path, tmp_path: Path, tiny_model: Path) -> None:
    run = replace(
        run_of(tiny_model, background=(str(minute),)), model={"layout": "joint"}, train=replace(QUICK, unfreeze="all")
    )
    with pytest.raises(ConfigError, match=r"layout 'joint' cannot label a stream, which data.background stands for"):
        train(read_data(clips), tmp_path / "out", run, TrainOptions(device="cpu"))


def test_a_model_is_not_lost_with_its_promise(minute: Path, tiny_model: Path, tmp_path: Path) -> None:
    model = load(tiny_model, device="cpu", dtype="float32")
    config = StreamConfig(window_s=0.8)
    footage = find_footage([minute], 0.8)
    asked = RunFootage(
        replace(footage, lengths_s=(3600.0,)), config, 100.0
    )  # it says an hour, and a minute can be read
    read = read_background(model, asked, model.labels, "single")
    assert read.promise is None
    assert read.lines()[-1].startswith("no promise of alarms: 100 alarms a day cannot be promised from 0.0167 hours")
    assert "alarms" not in read.provenance()
    gone = RunFootage(replace(footage, videos=(str(tmp_path / "gone.mp4"),)), config, 100.0)
    read = read_background(model, gone, model.labels, "single")
    assert (read.background, read.embeddings, read.provenance()) == (None, None, {})
    assert "no promise of alarms: no footage could be read" in read.lines()[-1]


def test_what_a_threshold_leaves_to_report(minute: Path, tiny_model: Path) -> None:
    model = load(tiny_model, device="cpu", dtype="float32")
    asked = RunFootage(find_footage([minute], 0.8), StreamConfig(window_s=0.8), RATE)
    read = read_background(model, asked, model.labels, "single")
    assert read.promise is not None
    threshold = read.promise.overall.threshold
    rows = [[threshold + 0.01, 0, 0], [threshold, 0, 0], [0, threshold - 0.01, 0], [0, 0, threshold + 0.02]]
    scored = read.with_reached(np.array(rows), ("a", "b", "nothing"), "single")
    assert scored.reached == 0.25  # one of four: the last is none of the actions
    assert "25% of the clips that were kept out of training score above it" in scored.lines()[-1]


def test_the_median_of_clips(clips: Path) -> None:
    parts = [Sample(path="nowhere.mp4", labels=("a",), start_s=start_s, end_s=9.0) for start_s in (1.0, 6.0, 8.0)]
    assert median_length_s(parts) == 3.0
    assert median_length_s([Sample(path="nowhere.mp4", labels=("a",))]) is None
    whole = Sample(path=str(clips / "redden" / "0.mp4"), labels=("a",), start_s=0.14)
    assert median_length_s([whole]) == 0.5  # of 0.64 s
