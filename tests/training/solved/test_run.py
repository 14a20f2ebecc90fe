"""From a folder to a solved model: what it is solved from, what is measured and written, and what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fewframes
from fewframes.cli.main import app
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import MultiLabelReport, Report
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet, read_data
from fewframes.data.layouts import Sample
from fewframes.errors import ConfigError, DataError
from fewframes.inference.predictor import load
from fewframes.models.files.hub import load_checkpoint
from fewframes.results import UNKNOWN
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig, TrainConfig, read_run
from fewframes.training.solved.run import SolveOptions, train_solved
from fewframes.training.train import train
from helpers import commands

NO_TRAINING = """
import sys
for name in ("torch", "torchvision", "scipy", "sklearn", "timm", "onnx", "accelerate", "tensorboard"):
    sys.modules[name] = None
from fewframes.cli.main import app
"""
"""The command line where only what `pip install fewframes` brings can be imported."""


@pytest.fixture
def run(tiny_model: Path) -> RunConfig:
    return RunConfig(start=str(tiny_model), augment=AugmentConfig(views=2))


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> SolveOptions:
    """All tests share a cache: their videos and views are the same."""
    cache = EmbeddingCache(tmp_path_factory.mktemp("cache"))
    return SolveOptions(cache=cache, device="cpu", dtype="float32", command="fewframes train")


def without_broken(clips: Path) -> VideoSet:
    data = read_data(clips)
    return replace(data, samples=tuple(sample for sample in data.samples if "broken" not in sample.path))


def grouped(data: VideoSet, groups: list[str]) -> VideoSet:
    pairs = zip(data.samples, groups, strict=True)
    return replace(data, samples=tuple(replace(sample, group=group) for sample, group in pairs))


def test_from_a_folder_to_a_model_that_predicts(
    clips: Path, run: RunConfig, options: SolveOptions, tmp_path: Path
) -> None:
    stages: list[tuple[str, int, int]] = []
    out, options = tmp_path / "out", replace(options, cache=EmbeddingCache(tmp_path / "cache"))
    solved = train_solved(read_data(clips), out, run, options, lambda *told: stages.append(told[:3]))
    assert stages == [(stage, done, 13) for stage in ("scenes", "embedding") for done in range(1, 14)]
    assert [Path(failure.source).name for failure in solved.failures] == ["broken.mp4"]
    assert isinstance(solved.left_out.report, Report)
    assert solved.left_out.report.top1 == 1.0  # the colours' order, in other videos
    assert solved.left_out.interval.num_groups == 12
    assert solved.held_out is None
    assert sorted(path.name for path in out.iterdir()) == [
        "confusion.png",
        "metrics.json",
        "model.safetensors",
        "predictions.csv",
        "run.toml",
        "teaching.safetensors",
    ]
    predictor = load(out, device="cpu", dtype="float32")
    for label, name in (("redden", "3"), ("turn blue", "2")):
        prediction = predictor.predict(clips / label / f"{name}.mp4")
        assert prediction.top(1)[0].label == label
        assert np.isclose(float(prediction.scores.sum()), 1, atol=1e-5)
    facts = json.loads((out / "metrics.json").read_text())
    assert facts["num_videos"] == {"training": 12, "held_out": 0, "chosen_by": 0, "unread": 1}
    assert facts["left_out"]["report"]["top1"] == 1.0
    assert facts["left_out"]["interval"]["num_groups"] == 12
    assert "warning" not in facts["left_out"]["interval"]
    assert facts["forecast"] == solved.forecast.to_dict()
    assert (solved.forecast.num_videos, solved.forecast.num_groups) == (12, 12)
    assert facts["failed"][0]["source"].endswith("broken.mp4")
    assert facts["head"].startswith("solved")
    assert read_run(out / "run.toml").train.head == "solved"
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    assert all(row["labels"] == row["predicted"] for row in rows if not row["error"])
    again = train_solved(read_data(clips), tmp_path / "again", run, options)
    assert (solved.num_cached, again.num_cached) == (0, 12)
    first, second = (load_checkpoint(folder).model.state_dict() for folder in (out, tmp_path / "again"))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    provenance = load_checkpoint(out).provenance
    assert provenance["num_views"] == 4
    assert len(provenance["training_videos"]) == 12


def test_a_label_that_one_group_alone_has_does_not_count_for_the_calibration(
    clips: Path, run: RunConfig, options: SolveOptions, tmp_path: Path
) -> None:
    data = without_broken(clips)
    samples = [replace(sample, group=str(number)) for number, sample in enumerate(data.samples)]
    samples[-2:] = [replace(sample, labels=("once",), group="once") for sample in samples[-2:]]
    found = train_solved(replace(data, samples=tuple(samples)), tmp_path / "out", run, options).calibration
    assert (found.num_videos, found.num_groups) == (10, 10)


def test_a_group_is_left_out_as_a_whole(clips: Path, run: RunConfig, options: SolveOptions, tmp_path: Path) -> None:
    """If the groups are the actions, nothing that is left knows the action that was left out."""
    data = without_broken(clips)
    by_action = grouped(data, [sample.labels[0] for sample in data.samples])
    solved = train_solved(by_action, tmp_path / "out", run, options)
    assert isinstance(solved.left_out.report, Report)
    assert solved.left_out.report.top1 == 0
    assert solved.left_out.interval.num_groups == 2
    assert solved.calibration.missing.startswith("0 videos of 0 groups could be left out")
    assert "all videos of redden, turn blue are in one group" in solved.notes[0]
    numbers = [Path(sample.path).stem for sample in data.samples]
    assert train_solved(grouped(data, numbers), tmp_path / "numbers", run, options).notes == ()


def test_named_parts_are_reported_and_not_solved_from(
    clips: Path, run: RunConfig, options: SolveOptions, tmp_path: Path
) -> None:
    data = without_broken(clips)
    turned = {"redden": ("turn blue",), "turn blue": ("redden",)}
    samples = [
        replace(sample, split="val", labels=turned[sample.labels[0]]) if Path(sample.path).stem in "45" else sample
        for sample in data.samples
    ]
    solved = train_solved(replace(data, samples=tuple(samples)), tmp_path / "out", run, options)
    assert solved.held_out is not None
    assert isinstance(solved.held_out.report, Report)
    assert solved.held_out.report.top1 == 0  # their labels are the wrong ones, so all answers are wrong
    assert (solved.held_out.report.num_videos, solved.left_out.report.num_videos) == (4, 8)
    metrics = load_checkpoint(tmp_path / "out").metrics
    assert (metrics["top1"], metrics["protocol"].split()[0]) == (0, "held-out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["held_out"]["report"]["top1"] == 0


def test_several_labels_a_video(clips: Path, run: RunConfig, options: SolveOptions, tmp_path: Path) -> None:
    data = without_broken(clips)
    samples = [replace(sample, labels=(*sample.labels, "any colour")) for sample in data.samples[:-1]]
    samples.append(replace(data.samples[-1], labels=()))
    solved = train_solved(replace(data, samples=tuple(samples), multilabel=True), tmp_path / "out", run, options)
    assert isinstance(solved.left_out.report, MultiLabelReport)
    assert solved.left_out.report.f1 > 0.9
    prediction = load(tmp_path / "out", device="cpu", dtype="float32").predict(data.samples[0].path)
    assert {label for label, score in prediction.top(3) if score > 0.5} == {"redden", "any colour"}


def test_two_videos_and_a_rare_action(clips: Path, run: RunConfig, options: SolveOptions, tmp_path: Path) -> None:
    data = without_broken(clips)
    two = train_solved(data.subset([0, 11]), tmp_path / "two", run, options)
    assert isinstance(two.left_out.report, Report)
    assert two.left_out.report.top1 == 0
    predictor = load(tmp_path / "two", device="cpu", dtype="float32")
    assert [predictor.predict(data.samples[index].path).top(1)[0].label for index in (0, 11)] == ["redden", "turn blue"]
    rare = train_solved(data.subset([0, 1, 2, 3, 4, 11]), tmp_path / "rare", run, options)
    assert isinstance(rare.left_out.report, Report)
    assert rare.left_out.report.recalls == (1.0, 0.0)
    assert "turn blue" in rare.notes[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"train": TrainConfig(epochs=3, early_exit=True, balance="weights")},
            "train.balance, train.early_exit, train.epochs",
        ),
        ({"augment": AugmentConfig(mixup=0.2, cutout=0.5)}, "augment.cutout, augment.mixup"),
        ({"model": {"motion_width": 8, "temporal": "paper"}}, "model.motion_width, model.temporal"),
        ({"data": DataConfig(holdout=0.4)}, "data.holdout"),
        ({"train": TrainConfig(unfreeze="all", teacher="lite0-16")}, "train.teacher, train.unfreeze"),
    ],
)
def test_settings_of_steps_are_refused_by_name(
    changes: dict[str, Any], named: str, clips: Path, run: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"head 'solved' does not use {named}: .*head 'trained'"):
        train_solved(read_data(clips), tmp_path / "out", replace(run, **changes))
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_solved_from(clips: Path, run: RunConfig, options: SolveOptions, tmp_path: Path) -> None:
    data, out = without_broken(clips), tmp_path / "out"
    with pytest.raises(DataError, match=r"all 12 training videos .* belong to 1 group \('flat'\); solving needs 2"):
        train_solved(grouped(data, ["flat"] * 12), out, run, options)
    lost = Sample(path=str(tmp_path / "no.mp4"), labels=("hug",))
    with pytest.raises(DataError, match=r"no training video of hug could be read \(1 failed; the first: .*no.mp4"):
        train_solved(replace(data, samples=(*data.samples, lost)), out, run, options)
    (out).mkdir()
    (out / "model.safetensors").write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"holds model.safetensors already; take another folder, or --overwrite"):
        train_solved(data, out, run, options)
    with pytest.raises(ConfigError, match="call fewframes.train_solved"):
        train(data, tmp_path / "other", RunConfig(train=TrainConfig(head="solved")))


def test_the_command(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = [
        "train",
        str(clips),
        "-o",
        str(tmp_path / "out"),
        "--model",
        str(tiny_model),
        "--device",
        "cpu",
        "--no-cache",
    ]
    words += ["--head", "solved", "--set", "augment.views=1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3, done.output  # one video is broken
    assert "12 of 12 right, top-1 100.0%" in done.output
    assert "over 12 groups" in done.output
    assert "forecast: about " in done.output
    assert fewframes.load(tmp_path / "out").labels == ("redden", "turn blue")
    for more, error in (
        (["--epochs", "3"], "train.epochs"),
        (["--resume"], "--resume with --head solved"),
        (["--holdout", "0.3"], "--holdout 0.3 with --head solved"),
    ):
        refused = CliRunner().invoke(app, [*words, "--overwrite", *more])
        assert refused.exit_code != 0
        assert error in refused.output or error in str(refused.exception)
    refused = CliRunner().invoke(app, [*words, "--overwrite"], env={"WORLD_SIZE": "2"})
    assert "torchrun with 2 processes" in refused.output + str(refused.exception)


@pytest.mark.parametrize("task", ["single", "multilabel"])
def test_the_whole_path_needs_no_torch(task: str, clips: Path, tmp_path: Path) -> None:
    """The commands that solve, predict with the result and evaluate it run where nothing of training is installed."""
    others = {"any colour"} if task == "multilabel" else set()
    videos = [str(clips / label / f"{number}.mp4") for label in ("redden", "turn blue") for number in (0, 1)]
    rows = [f"{video},{'; '.join([Path(video).parent.name, *others])}" for video in videos]
    listed, out, figures = str(tmp_path / "list.csv"), str(tmp_path / "model"), str(tmp_path / "figures")
    Path(listed).write_text("\n".join(["path,label", *rows]))
    lines = [
        ["train", listed, "-o", out, "--head", "solved", "--task", task, "--no-mirror", "--set", "augment.views=0"],
        ["predict", videos[0], videos[2], "--model", out, "--json"],
        ["evaluate", listed, "-o", figures, "--model", out, "--task", task, "--sweep", "4"],
    ]
    code = f"{NO_TRAINING}for words in {lines}: app(words, standalone_mode=False)"
    done = commands.run(code=code, FEWFRAMES_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "over 4 groups" in done.stdout
    reason = "these have several" if task == "multilabel" else "it needs 5 groups of videos, and there are 4"
    assert "no forecast of what more clips would bring" in done.stderr
    assert reason in done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    labels = [{entry["label"] for entry in answer["top"] if entry["score"] > 0.5} for answer in answers]
    assert labels == [{"redden"} | others, {"turn blue"} | others]
    facts = json.loads((tmp_path / "figures" / "metrics.json").read_text())
    # Of the videos that it was solved from.
    assert facts["report"]["f1" if task == "multilabel" else "top1"] == 1
    assert facts["num_cached"] == 4


@pytest.fixture
def with_background(clips: Path, videos: Path) -> VideoSet:
    """The two actions, and three videos in which neither happens."""
    none = (Sample(path=str(videos / name), labels=("background",)) for name in ("a.mp4", "b.mp4", "sub/c.mp4"))
    data = without_broken(clips)
    return replace(data, samples=(*data.samples, *none))


def test_background_trains_the_rejection_and_is_no_action(
    with_background: VideoSet, clips: Path, videos: Path, run: RunConfig, options: SolveOptions, tmp_path: Path
) -> None:
    solved = train_solved(with_background, tmp_path / "out", run, options)
    assert solved.num_background == 3
    predictor = load(tmp_path / "out", device="cpu", dtype="float32")
    assert predictor.labels == ("redden", "turn blue")
    assert predictor.runtime.provenance["num_videos"]["background"] == 3
    assert predictor.predict(videos / "b.mp4").label == UNKNOWN
    assert predictor.predict(clips / "redden" / "3.mp4").label == "redden"


def test_a_rejection_needs_a_second_group_of_some_action(
    clips: Path, run: RunConfig, options: SolveOptions, tmp_path: Path
) -> None:
    data = without_broken(clips)
    train_solved(data, tmp_path / "one each", run, options)
    assert load(tmp_path / "one each", device="cpu").runtime.rejection is not None
    train_solved(grouped(data, [sample.labels[0] for sample in data.samples]), tmp_path / "by action", run, options)
    assert load(tmp_path / "by action", device="cpu").runtime.rejection is None
