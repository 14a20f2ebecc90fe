"""Results on disk are whole or absent, errors have one line, a folder has one run, and killed runs leave no parts."""

from __future__ import annotations

import logging
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewframes.core.cache import EmbeddingCache
from fewframes.core.files import check_not_read, check_writable, filled, whole
from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.errors import ConfigError, OutputError, WeightsError
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.run.folder import EventFile, RunFolder
from fewframes.training.train import TrainOptions, train

CPU = TrainOptions(device="cpu", dtype="float32")
CLI = [sys.executable, "-m", "fewframes.cli"]


def run_for(start: Path, **settings: Any) -> RunConfig:
    return RunConfig(
        start=str(start), data=DataConfig(holdout=0.34), train=TrainConfig(min_steps=2, epochs=1, **settings)
    )


@pytest.fixture(scope="module")
def finished(clips: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    train(read_data(clips), output, run_for(tiny_model), CPU)
    return output


def test_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    (tmp_path / "b").write_text("old")
    (tmp_path / "c").write_text("old")
    with pytest.raises(FileNotFoundError), filled(tmp_path, names) as part:
        shutil.copyfile(part / "none", part / "a")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "old", "c": "old"}
    with filled(tmp_path, names) as part:
        (part / "a").write_text("new")
        (part / "b").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_a_result_does_not_take_the_place_of_what_is_read(tmp_path: Path) -> None:
    video, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    video.write_bytes(b"a")
    check_not_read(other, [str(video)])  # not there yet
    other.write_bytes(b"b")
    check_not_read(other, [str(video), "https://example.org/a.mp4"])
    (tmp_path / "link.vtt").symlink_to(video)
    for path in (video, tmp_path / "link.vtt", tmp_path / "." / "a.mp4"):
        with pytest.raises(ConfigError, match=r"is itself read, and the result would replace it; take another file"):
            check_not_read(path, [str(other), str(video)])


def test_where_nothing_can_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="file is not a folder that can be written to; take another"):
            check_writable(folder)
    check_writable(tmp_path / "new" / "newer")
    assert not (tmp_path / "new").exists()


def test_figures_can_be_read_by_tensorboard(tmp_path: Path) -> None:
    events = EventFile(tmp_path)
    for step in (1, 2):
        events.add({"train/loss": 0.5 / step, "train/accuracy": 0.25 * step}, step)
    events.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    assert sorted(found.Tags()["scalars"]) == ["train/accuracy", "train/loss"]


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """Make every write beyond this file size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("most_bytes", [0, 200, 20_000, 60_000])
def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(
    most_bytes: int, clips: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data, run = read_data(clips), run_for(tiny_model, save_every_s=0.0)
    options = replace(CPU, cache=EmbeddingCache(tmp_path / "cache"))
    with (
        full_disk(most_bytes),
        pytest.raises(OutputError, match=r"cannot be written \(.*File too large.*; make room") as caught,
    ):
        train(data, tmp_path / "out", run, options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_state_stays_where_the_model_cannot_be_written(
    clips: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = read_data(clips), run_for(tiny_model, save_every_s=0.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fewframes.training.run.folder.save_checkpoint", full)
        with pytest.raises(
            OutputError, match="No space left on device.; make room and continue with --resume, or take another"
        ):
            train(data, tmp_path / "out", run, CPU)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["history.part.csv", "logs", "state.pt"]
    train(data, tmp_path / "out", run, replace(CPU, resume=True))
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_an_output_that_is_removed_midway_is_one_line(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    def progress(stage: str, done: int, _total: int, _words: str) -> None:
        if stage == "training" and done == 2:
            shutil.rmtree(output)

    with pytest.raises(OutputError, match=r"out: cannot be written \(No such file or directory\); make room, or take"):
        train(read_data(clips), output, replace(run_for(tiny_model), train=TrainConfig(min_steps=4)), CPU, progress)


def test_two_runs_do_not_write_to_one_folder(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".running"), pytest.raises(ConfigError, match="out: another run is writing to it"):
        train(read_data(clips), tmp_path / "out", run_for(tiny_model), CPU)
    train(read_data(clips), tmp_path / "out", run_for(tiny_model), CPU)
    assert not (tmp_path / "out" / ".running").exists()


def test_what_a_killed_run_left_goes_with_the_next(
    clips: Path, tiny_model: Path, finished: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(finished, tmp_path / "out")
    (output / ".part-killed").mkdir()
    (output / ".part-killed" / "model.safetensors").write_bytes(b"half")
    train(read_data(clips), output, run_for(tiny_model), replace(CPU, overwrite=True))
    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in finished.iterdir())
    assert not [path for path in output.iterdir() if path.name.startswith(".")]


def test_a_finished_run_is_not_gone_on_with(clips: Path, tiny_model: Path, finished: Path) -> None:
    data, run = read_data(clips), run_for(tiny_model)
    assert RunFolder(finished, run, data, "").finished()
    assert RunFolder(finished, replace(run, train=replace(run.train, workers=3)), data, "").finished()
    other = replace(run, train=replace(run.train, learning_rate=0.5))
    with pytest.raises(ConfigError, match=r"holds another run's model \(train.learning_rate was 0.001, is 0.5\)"):
        RunFolder(finished, other, data, "").finished()
    with pytest.raises(ConfigError, match="holds another run's model .data was "):
        RunFolder(finished, run, data.subset(range(8)), "").finished()
    command = ["train", str(clips), "-o", str(finished), "--model", str(tiny_model), "--holdout", "0.34", "--resume"]
    command += ["--set", "train.min_steps=2", "--set", "train.epochs=1", "--device", "cpu", "--dtype", "float32"]
    before = (finished / "model.safetensors").stat().st_mtime_ns
    done = subprocess.run([*CLI, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{finished}: this run is already finished; use it: fewframes predict VIDEO --model" in done.stderr
    assert (finished / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_that_replaced_a_model_can_be_gone_on_with(
    clips: Path, tiny_model: Path, finished: Path, tmp_path: Path
) -> None:
    """A folder with an old model and the state of a new run resumes the new run."""
    output = shutil.copytree(finished, tmp_path / "out")
    run = run_for(tiny_model, save_every_s=0.0)

    def progress(stage: str, done: int, _total: int, _words: str) -> None:
        if stage == "training" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(read_data(clips), output, run, replace(CPU, overwrite=True), progress)
    assert (output / "state.pt").exists()
    train(read_data(clips), output, run, replace(CPU, resume=True))
    assert not (output / "state.pt").exists()


def test_paths_are_looked_at_before_anything_is_embedded(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    run = run_for(tiny_model)
    stages: list[str] = []
    for wrong in (
        replace(run, train=replace(run.train, teacher=str(tmp_path / "none"))),
        replace(run, start=str(tmp_path / "none")),
        replace(run, init=str(tmp_path / "none")),
    ):
        with pytest.raises(WeightsError, match="none: no such file"):
            train(read_data(clips), tmp_path / "out", wrong, CPU, lambda stage, *_: stages.append(stage))
    assert not stages
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("in the way")
    command = ["evaluate", str(clips), "-o", str(tmp_path / "file"), "--model", "no such model"]
    done = subprocess.run([*CLI, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "file is not a folder that can be written to" in done.stderr


def test_training_starts_from_the_folder_of_a_model(clips: Path, finished: Path, tmp_path: Path) -> None:
    trained = train(read_data(clips), tmp_path / "out", run_for(finished), CPU)
    assert trained.checkpoint.labels == ("redden", "turn blue")


def test_more_steps_than_asked_for_are_said(
    clips: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train(read_data(clips), tmp_path / "out", run_for(tiny_model), CPU)
    assert "training takes 2 steps (train.min_steps), not the 1 of train.epochs = 1" in caplog.text
    caplog.clear()
    enough = RunConfig(start=str(tiny_model), data=DataConfig(holdout=0.34), train=TrainConfig(min_steps=1, epochs=2))
    train(read_data(clips), tmp_path / "enough", enough, CPU)
    assert not caplog.records


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")

    def stop_half_way() -> None:
        with whole(tmp_path / "link.txt") as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert (tmp_path / "real.txt").read_text() == "old"
    with whole(tmp_path / "link.txt") as part:
        part.with_name("beside").write_text("gone afterwards")
        part.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.txt", "real.txt"]
