"""From a folder to a model: what is learned, what is kept out, what is written, and what goes wrong."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewframes.cache import EmbeddingCache
from fewframes.config import DataConfig, ModelConfig, RunConfig, TrainConfig, ViewConfig, read_run
from fewframes.data import read_data
from fewframes.errors import ConfigError, DataError
from fewframes.metrics import MultiLabelReport, Report
from fewframes.model import STAM
from fewframes.predictor import load
from fewframes.train import fit, logits_of, train
from fewframes.weights import build_model, load_checkpoint
from numbered import write_fading

QUICK = TrainConfig(epochs=1, min_steps=60)
ORDERED = ModelConfig(
    image_size=32, patch_size=8, width=24, depth=1, heads=3, num_frames=8, num_classes=2,
    temporal_width=32, temporal_depth=1, temporal_heads=4, motion_width=16, temporal_positions="waves",
)  # fmt: skip


def rising_or_falling(num_videos: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (B, 1, T, D) of videos that differ in the order of their frames alone, and which order it is."""
    generator = torch.Generator().manual_seed(seed)
    paths_BTD = torch.randn(num_videos, 1, 24, generator=generator) + torch.linspace(-1, 1, 8)[:, None] * torch.ones(24)
    paths_BTD = paths_BTD + 0.5 * torch.randn(num_videos, 8, 24, generator=generator)
    turned_BTD = paths_BTD.flip(1)
    return torch.cat([paths_BTD, turned_BTD])[:, None], torch.eye(2).repeat_interleave(num_videos, dim=0)


def fitted(config: ModelConfig, settings: TrainConfig = QUICK) -> STAM:
    torch.manual_seed(0)
    model = build_model(config, ViewConfig(resize_px=36, crop_px=32))
    for _ in fit(model, *rising_or_falling(40, seed=1), settings):
        pass
    return model


def accuracy(model: STAM) -> float:
    embeddings_BVTD, targets_BK = rising_or_falling(100, seed=2)
    return float((logits_of(model, embeddings_BVTD).argmax(1) == targets_BK.argmax(1)).float().mean())


def test_the_order_of_frames_is_learned_and_a_mean_cannot() -> None:
    assert accuracy(fitted(ORDERED)) > 0.95
    mean = replace(ORDERED, temporal="mean", temporal_width=None, motion_width=0)
    assert accuracy(fitted(mean)) == 0.5  # as often right as wrong, exactly: both orders get the same answer


def test_the_read_out_of_moments_learns_it_too() -> None:
    config = replace(ORDERED, temporal="mean", temporal_width=None, motion_width=0, moment_head=True)
    assert accuracy(fitted(config)) > 0.95


def test_same_seed_same_weights() -> None:
    first, again = fitted(ORDERED), fitted(ORDERED)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    for config, settings in ((ORDERED, replace(QUICK, seed=1)), (replace(ORDERED, token_dropout=0.5), QUICK)):
        assert not torch.equal(first.head.weight, fitted(config, settings).head.weight)


def test_steps_epochs_and_learning_rate() -> None:
    torch.manual_seed(0)
    model = build_model(ORDERED, ViewConfig(resize_px=36, crop_px=32))
    settings = TrainConfig(epochs=5, min_steps=1, batch_size=32, warmup_share=0.2, learning_rate=0.01)
    steps = list(fit(model, *rising_or_falling(40, seed=1), settings))
    assert [step.number for step in steps] == list(range(1, 16))  # 80 videos are 3 batches an epoch
    rates = [step.learning_rate for step in steps]
    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    assert rates[-1] < 0.001
    assert all(0 <= step.accuracy <= 1 for step in steps)
    assert steps[-1].loss < steps[0].loss


def test_the_frame_encoder_is_not_touched() -> None:
    torch.manual_seed(0)
    before = build_model(ORDERED, ViewConfig(resize_px=36, crop_px=32)).frame_encoder.state_dict()
    after = fitted(ORDERED).frame_encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def run_for(start: Path, **data: Any) -> RunConfig:
    model = {"temporal_width": 32, "motion_width": 16, "moment_head": True, "temporal_positions": "waves"}
    return RunConfig(start=str(start), model=model, data=DataConfig(**data), train=QUICK)


def test_from_a_folder_to_a_model_that_predicts(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    stages: dict[str, list[tuple[int, int]]] = {}
    run = run_for(tiny_model, holdout=0.34)
    trained = train(
        read_data(clips), tmp_path / "out", run, cache=EmbeddingCache(tmp_path / "cache"), device="cpu", dtype="float32",
        progress=lambda stage, done, total: stages.setdefault(stage, []).append((done, total)),
    )  # fmt: skip
    assert stages["embedding"] == [(done, 13) for done in range(1, 14)]
    assert stages["training"] == [(done, 60) for done in range(1, 61)]
    assert isinstance(trained.report, Report)
    assert trained.report.top1 == 1
    assert [failure.source for failure in trained.failures] == [str(clips / "redden" / "broken.mp4")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "confusion.png", "history.csv", "metrics.json", "model.safetensors", "run.toml",
    ]  # fmt: skip

    assert read_run(tmp_path / "out" / "run.toml") == run
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["held_out"]["top1"] == 1
    assert metrics["num_videos"]["failed"] == len(metrics["failed"]) == 1
    assert metrics["num_videos"]["training"] + metrics["num_videos"]["held_out"] == 12
    with (tmp_path / "out" / "history.csv").open() as file:
        assert [int(row["number"]) for row in csv.DictReader(file)] == list(range(1, 61))

    predictor = load(tmp_path / "out" / "model.safetensors", device="cpu", dtype="float32")
    assert predictor.labels == ("redden", "turn blue")
    for label in predictor.labels:
        assert predictor.predict(clips / label / "0.mp4").top(1)[0].label == label
    assert predictor.checkpoint.provenance["data_fingerprint"] == read_data(clips).fingerprint()
    original = load_checkpoint(tiny_model).model.frame_encoder.state_dict()
    kept = load_checkpoint(tmp_path / "out" / "model.safetensors").model.frame_encoder.state_dict()
    assert all(torch.equal(original[key], kept[key]) for key in original)


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
    trained = train(videos, tmp_path / "out", run, cache=None, device="cpu", dtype="float32")
    assert isinstance(trained.report, MultiLabelReport)
    assert trained.report.average_precisions == (1.0, None, 1.0, 1.0)
    assert trained.report.mean_ap == 1
    prediction = load(tmp_path / "out" / "model.safetensors", device="cpu", dtype="float32").predict(
        clips / "redden" / "1.mp4"
    )
    named = {label: score > 0.5 for label, score in prediction.top(4)}
    assert named["coloured"]
    assert named["redden"]
    assert not named["turn blue"]
    assert sum(prediction.scores.tolist()) > 1.2  # each for itself
    assert not (tmp_path / "out" / "confusion.png").exists()


def test_the_second_time_comes_from_the_cache_and_is_the_same(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    results = [
        train(read_data(clips), tmp_path / name, run_for(tiny_model), cache=cache, device="cpu", dtype="float32")
        for name in ("first", "second")
    ]
    assert [result.num_cached for result in results] == [0, 12]
    first, second = (result.checkpoint.model.state_dict() for result in results)
    assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(ConfigError, match="first: holds run.toml, history.csv, .* already; take another folder"):
        train(read_data(clips), tmp_path / "first", run_for(tiny_model), cache=cache)
    train(
        read_data(clips),
        tmp_path / "first",
        run_for(tiny_model),
        cache=cache,
        device="cpu",
        dtype="float32",
        overwrite=True,
    )


def test_nothing_held_out_and_no_mirror(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    run = run_for(tiny_model, holdout=0.0, mirror=False)
    trained = train(read_data(clips), tmp_path / "out", run, cache=cache, device="cpu", dtype="float32")
    assert trained.report is None
    assert trained.checkpoint.metrics == {}
    assert not (tmp_path / "out" / "confusion.png").exists()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["held_out"] is None
    again = train(
        read_data(clips), tmp_path / "mirrored", run_for(tiny_model), cache=cache, device="cpu", dtype="float32"
    )
    assert again.num_cached == 0  # other views


def test_an_overwritten_run_leaves_nothing_of_the_old(
    clips: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EmbeddingCache(tmp_path / "cache")

    def again(**data: Any) -> None:
        run = run_for(tiny_model, **data)
        train(read_data(clips), tmp_path / "out", run, cache=cache, device="cpu", dtype="float32", overwrite=True)

    again()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert "confusion.png" in before
    with monkeypatch.context() as patch:
        patch.setattr("fewframes.train.save_checkpoint", full_disk)
        with pytest.raises(ConfigError, match=r"the model cannot be written \(.*No space left"):
            again(holdout=0.0)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    again(holdout=0.0)
    assert not (tmp_path / "out" / "confusion.png").exists()


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_names_that_are_no_text(tiny_model: Path, tmp_path: Path) -> None:
    for label in ("hug", "caf\udce9"):  # a folder from a system with another encoding
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(3):
            write_fading(tmp_path / "data" / label / f"{number}.mp4", 8 + number, turned=label == "hug")
    train(
        read_data(tmp_path / "data"), tmp_path / "out", run_for(tiny_model), cache=None, device="cpu", dtype="float32"
    )
    assert load(tmp_path / "out").labels == ("caf\udce9", "hug")  # a folder stands for its model


def test_what_cannot_be_trained(clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "hug").mkdir(parents=True)
    (tmp_path / "data" / "kick").mkdir()
    for number in range(3):
        write_fading(tmp_path / "data" / "hug" / f"{number}.mp4", 8, turned=False)
        (tmp_path / "data" / "kick" / f"{number}.mp4").write_bytes(b"no video")
    run = run_for(tiny_model, holdout=0.0)
    with pytest.raises(DataError, match="no training video of kick could be read"):
        train(read_data(tmp_path / "data"), tmp_path / "out", run, cache=None, device="cpu", dtype="float32")
    joint = replace(run, model={"layout": "joint"})
    with pytest.raises(ConfigError, match="layout 'joint' has no embeddings of single frames"):
        train(read_data(clips), tmp_path / "out", joint, cache=None)
    misspelt = replace(run, model={"temporal_widht": 32})
    with pytest.raises(ConfigError, match="unknown setting 'temporal_widht'; did you mean 'temporal_width'"):
        train(read_data(clips), tmp_path / "out", misspelt, cache=None)
    diverging = replace(run, train=replace(QUICK, learning_rate=1e30))
    with pytest.raises(ConfigError, match=r"training diverged: the loss is nan at step \d+ of 60 .* lower it"):
        train(read_data(clips), tmp_path / "out", diverging, cache=None, device="cpu", dtype="float32")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="file is not a folder that can be written to"):
        train(read_data(clips), tmp_path / "file" / "out", run, cache=None)
    assert not (tmp_path / "out").exists()
