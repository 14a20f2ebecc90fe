"""From a folder to a model: what is kept out, what is written, what goes on after an interruption, and what goes wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import MultiLabelReport, Report
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet, read_data
from fewframes.data.layouts import Sample
from fewframes.errors import ConfigError, DataError, OutputError
from fewframes.inference.predictor import load
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.networks import build_model
from fewframes.results import UNKNOWN
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig, TrainConfig, read_run
from fewframes.training.evaluation.evaluate import EvaluateConfig, evaluate
from fewframes.training.run.finish import TrainingResult
from fewframes.training.run.folder import read_history
from fewframes.training.train import TrainOptions, train
from fewframes.video.view import ViewConfig
from helpers.numbered import write_fading
from helpers.training import command

QUICK = TrainConfig(epochs=1, min_steps=60)
CPU = TrainOptions(device="cpu", dtype="float32")
FILES = [
    "confusion.png",
    "curves.png",
    "history.csv",
    "logs",
    "metrics.json",
    "model.safetensors",
    "predictions.csv",
    "run.toml",
]


def run_for(start: Path, **data: Any) -> RunConfig:
    model = {"temporal_width": 32, "motion_width": 16, "moment_head": True, "temporal_positions": "waves"}
    return RunConfig(start=str(start), model=model, data=DataConfig(**data), train=QUICK)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder).model.state_dict()


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_from_a_folder_to_a_model_that_predicts(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    stages: dict[str, list[tuple[int, int]]] = {}
    said: list[str] = []
    before = torch.get_num_threads()
    run = run_for(tiny_model, holdout=0.34)

    def progress(stage: str, done: int, total: int, words: str) -> None:
        stages.setdefault(stage, []).append((done, total))
        said.append(words)
        assert torch.get_num_threads() == before

    options = replace(CPU, cache=EmbeddingCache(tmp_path / "cache"), command="fewframes train clips")
    trained = train(read_data(clips), tmp_path / "out", run, options, progress)
    assert len(stages["embedding"]) == 13  # 4 held out and the others
    assert stages["training"] == [(done, 60) for done in range(1, 61)]
    assert any("videos/s" in words and "waiting for data" in words for words in said)
    assert trained.evaluation is not None
    assert isinstance(trained.evaluation.report, Report)
    assert trained.evaluation.report.top1 == 1
    assert [failure.source for failure in trained.failures] == [str(clips / "redden" / "broken.mp4")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES

    assert read_run(tmp_path / "out" / "run.toml") == run
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["held_out"]["report"]["top1"] == 1
    assert trained.forecast is not None
    assert metrics["forecast"] == trained.forecast.to_dict()
    assert metrics["command"] == "fewframes train clips"
    assert metrics["environment"]["versions"]["torch"] == torch.__version__
    assert metrics["num_videos"]["unread"] == len(metrics["failed"]) == 1
    assert metrics["num_videos"]["training"] + metrics["num_videos"]["held_out"] == 13
    with (tmp_path / "out" / "history.csv").open() as file:
        assert [int(row["number"]) for row in csv.DictReader(file)] == list(range(1, 61))
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert {row["labels"] == row["predicted"] for row in csv.DictReader(file) if not row["error"]} == {True}
    assert list((tmp_path / "out" / "logs").rglob("events.out.tfevents.*"))

    predictor = load(tmp_path / "out" / "model.safetensors", device="cpu", dtype="float32")
    assert predictor.labels == ("redden", "turn blue")
    for label in predictor.labels:
        assert predictor.predict(clips / label / "0.mp4").top(1)[0].label == label
    assert predictor.torch.checkpoint.provenance["data_fingerprint"] == read_data(clips).fingerprint()
    original = load_checkpoint(tiny_model).model.frame_encoder.state_dict()
    kept = load_checkpoint(tmp_path / "out" / "model.safetensors").model.frame_encoder.state_dict()
    assert all(torch.equal(original[key], kept[key]) for key in original)


def test_a_model_that_may_stop_early(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    """It learns from few frames too, says when it may stop, and that is found again in its file and by evaluate."""
    run = run_for(tiny_model, holdout=0.34)
    run = replace(run, model={"num_frames": 8}, train=replace(run.train, early_exit=True))
    trained = train(read_data(clips), tmp_path / "out", run, CPU)
    assert trained.checkpoint.exits is not None
    predictor = load(tmp_path / "out" / "model.safetensors", device="cpu", dtype="float32")
    assert predictor.torch.checkpoint.exits == trained.checkpoint.exits
    path = clips / "redden" / "0.mp4"
    assert predictor.predict(path, early_exit=True).top(1)[0].label == "redden"
    judged = evaluate(read_data(clips), predictor, None, EvaluateConfig(early_exit=True))
    assert judged.early_exit is not None
    figures = judged.early_exit.figures
    videos = [sample.path for sample in judged.samples]
    seen = [predictor.predict(path, early_exit=True) for path in videos]
    assert figures.mean_frames == pytest.approx(sum(len(one.times_s) for one in seen) / len(seen))
    right = [one.top(1)[0].label == Path(one.source).parent.name for one in seen]
    assert figures.top1 == pytest.approx(sum(right) / len(right))
    assert figures.top1_all_frames == pytest.approx(judged.report.to_dict()["top1"], abs=1e-4)
    means = [mean_frames for _, mean_frames, _ in judged.early_exit.curve]
    assert means == sorted(means)
    assert means[-1] <= 8
    for other, words in (
        (replace(run, data=replace(run.data, holdout=0.0)), "needs held-out videos, but none are"),
        (replace(run, train=replace(run.train, unfreeze="all")), "needs a frozen frame encoder"),
    ):
        with pytest.raises(ConfigError, match=words):
            train(read_data(clips), tmp_path / "other", other, CPU)
        assert not (tmp_path / "other").exists()


def test_the_whole_network_learns_from_a_folder(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    settings = replace(
        QUICK, unfreeze="all", epochs=12, min_steps=1, batch_size=4, workers=0, encoder_learning_rate=1e-3
    )
    run = replace(run_for(tiny_model, holdout=0.34), train=settings)
    trained = train(read_data(clips), tmp_path / "out", run, CPU)
    assert trained.evaluation is not None
    assert isinstance(trained.evaluation.report, Report)
    assert trained.evaluation.report.top1 == 1
    before, after = load_checkpoint(tiny_model).model.frame_encoder.state_dict(), weights_of(tmp_path / "out")
    assert not torch.equal(before["blocks.0.mlp.fc1.weight"], after["frame_encoder.blocks.0.mlp.fc1.weight"])
    assert [failure.source for failure in trained.failures] == [str(clips / "redden" / "broken.mp4")]


def test_every_part_of_a_video_that_fails_is_counted(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    good = [f"{clips / label / str(number)}.mp4,{label},," for number in range(3) for label in ("redden", "turn blue")]
    bad = [f"{clips / 'redden' / 'broken.mp4'},redden,{start},{start + 1}" for start in range(2)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,start_s,end_s", *good, *bad]) + "\n")
    run = replace(run_for(tiny_model), train=replace(QUICK, min_steps=2, epochs=1))
    trained = train(read_data(tmp_path / "list.csv"), tmp_path / "out", run, CPU)
    assert {(failure.start_s, failure.end_s) for failure in trained.failures} == {(0, 1), (1, 2)}
    failed = json.loads((tmp_path / "out" / "metrics.json").read_text())["failed"]
    assert [failure["end_s"] for failure in sorted(failed, key=lambda failure: failure["start_s"])] == [1, 2]


def test_the_best_epoch_is_kept_and_patience_ends(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    lines = [
        f"{clips / label / str(number)}.mp4,{label},{('train', 'train', 'train', 'train', 'val', 'test')[number]}"
        for number in range(6)
        for label in ("redden", "turn blue")
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    settings = replace(QUICK, min_steps=200, keep="best", patience=10, batch_size=8)
    run = replace(run_for(tiny_model), train=settings)
    trained = train(read_data(tmp_path / "list.csv"), tmp_path / "out", run, CPU)
    with (tmp_path / "out" / "history.csv").open() as file:
        num_steps = len(list(csv.DictReader(file)))
    assert num_steps < 200  # ten epochs of one step after the best
    assert trained.evaluation is not None
    assert {Path(sample.path).name for sample in trained.evaluation.samples} == {
        "5.mp4"
    }  # judged by test, chosen by val
    assert trained.checkpoint.provenance["num_videos"]["chosen_by"] == 2
    assert not equal(
        weights_of(tmp_path / "out"), load_checkpoint(tmp_path / "out" / "last.safetensors").model.state_dict()
    )
    assert not (tmp_path / "out" / "best.safetensors").exists()


def test_a_teacher_by_file(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    train(read_data(clips), tmp_path / "teacher", run_for(tiny_model), CPU)
    settings = replace(QUICK, teacher=str(tmp_path / "teacher"), teacher_share=1.0, balance="weights")
    trained = train(read_data(clips), tmp_path / "pupil", replace(run_for(tiny_model), train=settings), CPU)
    assert trained.evaluation is not None
    assert isinstance(trained.evaluation.report, Report)
    assert trained.evaluation.report.top1 == 1
    other = replace(run_for(tiny_model), train=replace(settings, teacher=str(tiny_model)))
    with pytest.raises(DataError, match=r"teacher .* has no 'redden' \(2 of 2 labels are unknown to it"):
        train(read_data(clips), tmp_path / "other", other, CPU)


def test_any_number_of_actions(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    lines = [
        f"{clips / label / str(number)}.mp4,{label};coloured{';late' if number > 2 else ''},{'train' if number else 'val'}"
        for number in range(6)
        for label in ("redden", "turn blue")
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    data = DataConfig(task="multilabel")
    run = replace(run_for(tiny_model), data=data, train=replace(QUICK, min_steps=150))
    videos = read_data(tmp_path / "list.csv", data)
    assert videos.labels == ("coloured", "late", "redden", "turn blue")
    trained = train(videos, tmp_path / "out", run, CPU)
    assert trained.evaluation is not None
    assert isinstance(trained.evaluation.report, MultiLabelReport)
    assert trained.evaluation.report.average_precisions == (1.0, None, 1.0, 1.0)
    assert trained.evaluation.report.mean_ap == 1
    prediction = load(tmp_path / "out" / "model.safetensors", device="cpu", dtype="float32").predict(
        clips / "redden" / "1.mp4"
    )
    named = {label: score > 0.5 for label, score in prediction.top(4)}
    assert named["coloured"]
    assert named["redden"]
    assert not named["turn blue"]
    assert sum(prediction.scores.tolist()) > 1.2  # each for itself
    assert not (tmp_path / "out" / "confusion.png").exists()


def trained_from(clips: Path, folder: Path, run: RunConfig, cache: EmbeddingCache, **options: Any) -> TrainingResult:
    return train(read_data(clips), folder, run, replace(CPU, cache=cache, **options))


def test_the_second_time_comes_from_the_cache_and_is_the_same(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    cache, run = EmbeddingCache(tmp_path / "cache"), run_for(tiny_model)
    results = [trained_from(clips, tmp_path / name, run, cache) for name in ("first", "second")]
    assert [result.num_cached for result in results] == [0, 12]
    assert equal(weights_of(tmp_path / "first"), weights_of(tmp_path / "second"))
    with pytest.raises(ConfigError, match="first: holds run.toml, history.csv, .* already; take another folder"):
        trained_from(clips, tmp_path / "first", run, cache)
    trained_from(clips, tmp_path / "first", run, cache, overwrite=True)
    with pytest.raises(ConfigError, match="holds a finished run"):
        trained_from(clips, tmp_path / "first", run, cache, resume=True)


def test_a_finished_run_of_before_a_setting_existed_is_the_same_run(
    clips: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The setting that did not exist counts as its default."""
    run = replace(run_for(tiny_model), train=replace(QUICK, min_steps=2, calibration_folds=0))
    out, videos = tmp_path / "out", read_data(clips)
    train(videos, out, run, CPU)
    checkpoint = load_checkpoint(out)
    settings = json.loads(json.dumps(checkpoint.provenance["run"]))
    del settings["train"]["patience"], settings["keep_temporal"]
    save_checkpoint(
        out / "model.safetensors", replace(checkpoint, provenance={**checkpoint.provenance, "run": settings})
    )
    with pytest.raises(ConfigError, match="holds a finished run"):
        train(videos, out, run, replace(CPU, resume=True))
    other = replace(run, train=replace(run.train, patience=2))
    with pytest.raises(ConfigError, match=r"another run's model \(train.patience was 0, is 2\)"):
        train(videos, out, other, replace(CPU, resume=True))


def test_the_same_encoder_with_and_without_cells_shares_no_embeddings(clips: Path, tmp_path: Path) -> None:
    """Both have the same weights, and embeddings of another width."""
    view = ViewConfig(resize_px=36, crop_px=32)
    config = ModelConfig(encoder="lite0", image_size=32, cells=2, temporal_depth=1, num_frames=4, num_classes=2)
    start = tmp_path / "lite.safetensors"
    save_checkpoint(start, Checkpoint(build_model(config, view), view, ("a", "b")))
    cache, run = EmbeddingCache(tmp_path / "cache"), run_for(start)
    run = replace(run, train=replace(QUICK, min_steps=2), augment=AugmentConfig(views=0))
    for cells in (2, 0):
        trained = trained_from(clips, tmp_path / str(cells), replace(run, model={**run.model, "cells": cells}), cache)
        assert trained.num_cached == 0


def test_nothing_held_out_and_no_mirror(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    trained = trained_from(clips, tmp_path / "out", run_for(tiny_model, holdout=0.0, mirror=False), cache)
    assert trained.evaluation is None
    assert trained.checkpoint.metrics == {}
    assert not (tmp_path / "out" / "confusion.png").exists()
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["held_out"] is None
    again = trained_from(clips, tmp_path / "mirrored", run_for(tiny_model, holdout=0.0), cache)
    assert again.num_cached == 0  # other views


def test_an_overwritten_run_leaves_nothing_of_the_old(
    clips: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EmbeddingCache(tmp_path / "cache")

    def again(**data: Any) -> None:
        trained_from(clips, tmp_path / "out", run_for(tiny_model, **data), cache, overwrite=True)

    again()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert "confusion.png" in before
    with monkeypatch.context() as patch:
        patch.setattr("fewframes.training.run.folder.save_checkpoint", full_disk)
        with pytest.raises(OutputError, match=r"out: cannot be written \(No space left"):
            again(holdout=0.0)
    left = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert left == before
    again(holdout=0.0)
    assert not (tmp_path / "out" / "confusion.png").exists()


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_names_that_are_no_text(tiny_model: Path, tmp_path: Path) -> None:
    for label in ("hug", "caf\udce9"):  # a folder from a system with another encoding
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(3):
            write_fading(tmp_path / "data" / label / f"{number}.mp4", 8 + number, turned=label == "hug")
    train(read_data(tmp_path / "data"), tmp_path / "out", run_for(tiny_model), CPU)
    assert load(tmp_path / "out").labels == ("caf\udce9", "hug")  # a folder stands for its model


def test_what_cannot_be_trained(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "hug").mkdir(parents=True)
    (tmp_path / "data" / "kick").mkdir()
    for number in range(3):
        write_fading(tmp_path / "data" / "hug" / f"{number}.mp4", 8, turned=False)
        (tmp_path / "data" / "kick" / f"{number}.mp4").write_bytes(b"no video")
    run = run_for(tiny_model, holdout=0.0)

    def fails(data: VideoSet, run: RunConfig, error: type[Exception], words: str, output: str = "out") -> None:
        with pytest.raises(error, match=words):
            train(data, tmp_path / output, run, CPU)

    fails(read_data(tmp_path / "data"), run, DataError, "no training video of kick could be read")
    joint = replace(run, model={"layout": "joint"})
    fails(read_data(clips), joint, ConfigError, "layout 'joint' has no embeddings of single frames")
    misspelt = replace(run, model={"temporal_widht": 32})
    fails(read_data(clips), misspelt, ConfigError, "unknown setting 'temporal_widht'; did you mean 'temporal_width'")
    (tmp_path / "file").write_text("in the way")
    fails(read_data(clips), run, ConfigError, "file is not a folder that can be written to", "file/out")
    assert not (tmp_path / "out").exists()
    diverging = replace(run, train=replace(QUICK, learning_rate=1e30))
    fails(read_data(clips), diverging, ConfigError, r"training diverged: the loss is nan at step \d+ of 60 .* lower it")


def test_killed_at_any_moment_it_ends_in_the_same_weights(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    python = [sys.executable, "-m"]
    done = subprocess.run(
        [*python, *command(clips, tiny_model, tmp_path / "whole")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr  # one file is no video
    output = tmp_path / "cut"
    resumed = [*python, *command(clips, tiny_model, output, "--resume", save_every_s=0)]
    kills = 0
    for _ in range(20):
        state = output / "state.pt"
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(resumed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and kills < 2:
            if state.exists() and state.stat().st_mtime_ns != before:
                time.sleep(0.2 * kills)  # somewhere in the middle of a later step
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        _, said = process.communicate()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 3, said
            break
    assert kills == 2
    assert equal(weights_of(tmp_path / "whole"), weights_of(output))
    with (output / "history.csv").open() as file:
        assert [int(row["number"]) for row in csv.DictReader(file)] == list(range(1, 51))  # 9 videos, two at a time
    assert not (output / "state.pt").exists()


def test_only_the_same_run_goes_on(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    lines = command(clips, tiny_model, tmp_path / "out", save_every_s=0)
    process = subprocess.Popen([sys.executable, "-m", *lines], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "out" / "state.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    with (tmp_path / "out" / "history.part.csv").open() as file:  # can be read while the run goes on
        assert [float(row["number"]) for row in csv.DictReader(file)][:1] == [1]
    data, run = read_data(clips), run_for(tiny_model)
    with pytest.raises(
        ConfigError, match="holds a run that was interrupted; continue it with --resume, or start anew with --overwrite"
    ):
        train(data, tmp_path / "out", run, CPU)
    with pytest.raises(
        ConfigError, match=r"not the state of this run|holds the state of another run \(.*train.unfreeze was"
    ):
        train(data, tmp_path / "out", run, replace(CPU, resume=True))
    with pytest.raises(ConfigError, match="give one of them"):
        train(data, tmp_path / "out", run, replace(CPU, resume=True, overwrite=True))
    (tmp_path / "out" / "state.pt.part").write_bytes(b"killed while it was written")
    train(data, tmp_path / "out", run, replace(CPU, overwrite=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_learn_what_one_does_with_twice_the_batches_a_step(
    clips: Path, tiny_model: Path, tmp_path: Path, shard: bool
) -> None:
    whole = tmp_path / "clips"  # without the broken one, whose share would be another in each process
    shutil.copytree(clips, whole, ignore=shutil.ignore_patterns("broken.mp4"))
    exact = {"epochs": 2, "max_grad_norm": 1e9}
    plain = ["--set", "augment.cutmix=0", "--set", "model.temporal_dropout=0"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    one = command(whole, tiny_model, tmp_path / "one", *plain, **exact, batch_size=2, accumulate=2)
    two = command(whole, tiny_model, tmp_path / "two", *plain, **exact, batch_size=2, shard=shard)
    for lines in ([sys.executable, "-m", *one], [*torchrun, *two]):
        done = subprocess.run(lines, capture_output=True, text=True, check=False, timeout=300)
        assert "held-out videos: " in done.stdout, done.stderr
    losses, same = ([row["loss"] for row in read_history(tmp_path / name / "history.csv")] for name in ("one", "two"))
    assert len(losses) > 3
    assert same == pytest.approx(losses, abs=1e-4)
    pixels_BTCHW = torch.rand(5, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, second = (load_checkpoint(tmp_path / name).model(pixels_BTCHW) for name in ("one", "two"))
    # Not weight by weight: some (key biases) have no gradient but rounding, and Adam makes steps of it.
    torch.testing.assert_close(second, first, rtol=0, atol=1e-4)
    assert (first[:, 0] - first[:, 1]).abs().max() > 0.01


def test_training_in_steps_fits_the_rejection_with_background(
    clips: Path, videos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data = read_data(clips)
    none = [Sample(path=str(videos / name), labels=("nothing",)) for name in ("a.mp4", "b.mp4", "sub/c.mp4")]
    none[2] = replace(none[2], split="test")
    marked = [replace(sample, split="test") if Path(sample.path).stem in "01" else sample for sample in data.samples]
    trained = train(replace(data, samples=(*marked, *none)), tmp_path / "out", run_for(tiny_model), CPU)
    predictor = load(tmp_path / "out", device="cpu", dtype="float32")
    assert predictor.labels == ("redden", "turn blue")
    assert predictor.predict(videos / "b.mp4").label == UNKNOWN
    assert predictor.predict(clips / "redden" / "3.mp4").label == "redden"
    assert trained.evaluation is not None
    assert trained.evaluation.unknown is not None
    assert (trained.evaluation.unknown.num_background, len(trained.evaluation.samples)) == (1, 4)


def test_a_frame_encoder_that_learns_has_no_rejection(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    run = replace(run_for(tiny_model), train=replace(QUICK, min_steps=1, unfreeze="all", workers=0))
    assert train(read_data(clips), tmp_path / "out", run, CPU).checkpoint.rejection is None
