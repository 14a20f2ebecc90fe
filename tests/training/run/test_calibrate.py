"""Training divides the logits of its models by what suits left-out groups, and every runtime and verb has the same scores."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import MultiLabelReport
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet, read_data
from fewframes.errors import ConfigError
from fewframes.inference.predictor import Predictor, load
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.motion import MomentHead, MotionTokens
from fewframes.runtime.graphs import open_graph
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.run import calibrate as calibrating
from fewframes.training.run.finish import TrainingResult
from fewframes.training.train import TrainOptions, train

HEADS = ("head.weight", "head.bias", "moment_head.linear.weight", "moment_head.linear.bias")
QUICK = TrainConfig(epochs=1, min_steps=30)


def run_for(start: Path, train: TrainConfig = QUICK, **data: Any) -> RunConfig:
    model = {"temporal_width": 32, "motion_width": 16, "moment_head": True, "temporal_positions": "waves"}
    return RunConfig(start=str(start), model=model, data=DataConfig(**data), train=train)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingCache:
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


def trained(videos: VideoSet, output: Path, run: RunConfig, cache: EmbeddingCache, **options: Any) -> TrainingResult:
    return train(videos, output, run, TrainOptions(cache=cache, device="cpu", dtype="float32", **options))


def weights(folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / name).model.state_dict()


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_the_heads_are_divided_and_nothing_else_changes(
    clips: Path, tiny_model: Path, tmp_path: Path, cache: EmbeddingCache
) -> None:
    """The run itself draws the same numbers, whether it is calibrated or not."""
    videos = read_data(clips)
    stages: set[tuple[str, int]] = set()
    options = TrainOptions(cache=cache, device="cpu", dtype="float32")
    result = train(
        videos,
        tmp_path / "calibrated",
        run_for(tiny_model, holdout=0.0),
        options,
        lambda stage, done, total, words: stages.add((stage, total)),
    )
    plain = trained(
        videos, tmp_path / "plain", run_for(tiny_model, replace(QUICK, calibration_folds=0), holdout=0.0), cache
    )
    assert {stage for stage in stages if "calibrating" in stage[0]} == {
        (f"calibrating, fold {number} of 3", 20) for number in (1, 2, 3)
    }  # 30 steps for twelve videos are 20 for eight
    temperature = result.calibration.temperature
    assert 1 < temperature < 5  # twelve videos that are easy to tell apart, and a prior
    assert (plain.calibration.temperature, plain.calibration.missing) == (1.0, "train.calibration_folds is 0")
    before, after = weights(tmp_path / "plain"), weights(tmp_path / "calibrated")
    for key, weight in before.items():
        torch.testing.assert_close(after[key], weight / temperature if key in HEADS else weight, rtol=1e-6, atol=0)
    record = json.loads((tmp_path / "calibrated" / "metrics.json").read_text())["calibration"]
    assert record["temperature"] == pytest.approx(temperature, abs=1e-4)
    assert (record["videos"], record["groups"]) == (12, 12)
    assert record["fitted_on"] == "left-out groups of the training videos, 3 folds"
    assert load(tmp_path / "calibrated").runtime.provenance["calibration"] == record


def test_motion_tokens_are_fitted_once_and_the_read_out_without_each_fold(
    clips: Path, tiny_model: Path, tmp_path: Path, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[tuple[str, int]] = []
    for part in (MotionTokens, MomentHead):

        def counted(*args: Any, fit: Any = part.fit, name: str = part.__name__) -> None:
            fitted.append((name, len(args[1])))
            fit(*args)

        monkeypatch.setattr(part, "fit", counted)
    trained(read_data(clips), tmp_path / "out", run_for(tiny_model, holdout=0.0), cache)
    views = 12 * 8  # twelve videos, each as it is, mirrored and drawn six times
    assert fitted == [("MotionTokens", views), ("MomentHead", 12), *[("MomentHead", 8)] * 3]


def test_exported_graphs_have_the_divided_logits(
    clips: Path, tiny_model: Path, tmp_path: Path, cache: EmbeddingCache
) -> None:
    pytest.importorskip("onnx")
    videos = read_data(clips)
    result = trained(videos, tmp_path / "model", run_for(tiny_model, holdout=0.0), cache)
    plain = trained(
        videos, tmp_path / "plain", run_for(tiny_model, replace(QUICK, calibration_folds=0), holdout=0.0), cache
    )
    done = CliRunner().invoke(app, ["export", str(tmp_path / "model"), "--output", str(tmp_path / "model.onnx")])
    assert done.exit_code == 0, done.output
    runtime = Predictor(plain.checkpoint, device="cpu", dtype="float32").runtime
    embeddings_BTD = np.random.default_rng(0).standard_normal((3, 4, runtime.frame_width), np.float32)
    raw_BK = runtime.encode_windows(embeddings_BTD).logits
    log_odds_B = (raw_BK[:, 0] - raw_BK[:, 1]) / result.calibration.temperature
    scores_BK = open_graph(tmp_path / "model.time.onnx")(embeddings_BTD)["scores"]
    assert np.log(scores_BK[:, 0] / scores_BK[:, 1]) == pytest.approx(log_odds_B, rel=1e-3, abs=1e-4)


def test_interrupted_while_it_calibrates_it_ends_in_the_same_weights(
    clips: Path, tiny_model: Path, tmp_path: Path, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_for(tiny_model, replace(QUICK, save_every_s=0), holdout=0.0)
    trained(read_data(clips), tmp_path / "whole", run, cache)
    with monkeypatch.context() as patch:
        patch.setattr(calibrating, "fit_calibration", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(read_data(clips), tmp_path / "cut", run, cache)
    assert (tmp_path / "cut" / "state.pt").exists()
    trained(read_data(clips), tmp_path / "cut", run, cache, resume=True)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_best_epoch_has_a_temperature_of_its_own(
    clips: Path, tiny_model: Path, tmp_path: Path, cache: EmbeddingCache
) -> None:
    """The chosen model has learned for a few steps and is doubtful; the last one is surer. Two videos have the wrong label, so that
    being sure has a price."""
    swapped = {"redden": "turn blue", "turn blue": "redden"}
    lines = [
        f"{clips / label / str(number)}.mp4,{label if number else swapped[label]},{'val' if number > 4 else 'train'}"
        for number in range(6)
        for label in swapped
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    run = run_for(tiny_model, replace(QUICK, min_steps=60, keep="best", batch_size=8))
    result = trained(read_data(tmp_path / "list.csv"), tmp_path / "out", run, cache)
    last = load_checkpoint(tmp_path / "out" / "last.safetensors").provenance["calibration"]
    assert isinstance(last, dict)
    assert result.calibration.num_videos == last["videos"] == 10
    assert last["temperature"] != round(result.calibration.temperature, 4)


def test_a_label_that_one_group_alone_has_is_left_out_of_the_fit(
    clips: Path, tiny_model: Path, tmp_path: Path, cache: EmbeddingCache
) -> None:
    """Without its group no model knows the label, so the videos of that group say nothing about how sure a model may be."""
    lines = [f"{clips / 'redden' / str(number)}.mp4,redden,r{number}" for number in range(6)]
    lines += [f"{clips / 'turn blue' / str(number)}.mp4,turn blue,b{number}" for number in range(4)]
    lines += [f"{clips / 'turn blue' / str(number)}.mp4,once,once" for number in range(4, 6)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group", *lines]) + "\n")
    result = trained(read_data(tmp_path / "list.csv"), tmp_path / "out", run_for(tiny_model, holdout=0.0), cache)
    assert (result.calibration.num_videos, result.calibration.num_groups) == (10, 10)


def test_one_group_is_not_calibrated_and_says_so(
    clips: Path, tiny_model: Path, tmp_path: Path, cache: EmbeddingCache
) -> None:
    lines = [f"{clips / label / str(n)}.mp4,{label},all" for n in range(3) for label in ("redden", "turn blue")]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group", *lines]) + "\n")
    words = "all 6 training videos belong to 1 group, so none can be left out"
    result = trained(read_data(tmp_path / "list.csv"), tmp_path / "out", run_for(tiny_model, holdout=0.0), cache)
    assert result.checkpoint.provenance["calibration"] == {"temperature": 1.0, "not_calibrated": words}
    done = CliRunner().invoke(
        app,
        [
            "train",
            str(tmp_path / "list.csv"),
            "--model",
            str(tiny_model),
            "-o",
            str(tmp_path / "again"),
            "--holdout",
            "0",
        ]
        + ["--epochs", "1", "--no-cache", "--dtype", "float32", "--device", "cpu"],
    )
    assert done.exit_code == 0, done.output
    assert f"scores are not calibrated: {words}" in done.output
    with pytest.raises(ConfigError, match="give 0, or 2 and more"):
        trained(read_data(clips), tmp_path / "one", run_for(tiny_model, replace(QUICK, calibration_folds=1)), cache)


def test_a_frame_encoder_that_learns_is_calibrated_on_held_out_videos(
    clips: Path, tiny_model: Path, tmp_path: Path, cache: EmbeddingCache
) -> None:
    quick = replace(QUICK, unfreeze="all", min_steps=2, batch_size=4, workers=0)
    result = trained(read_data(clips), tmp_path / "held", run_for(tiny_model, quick, holdout=0.7), cache)
    assert result.evaluation is not None
    assert result.calibration.num_videos == len(result.evaluation.samples) >= 8
    assert result.calibration.fitted_on == "held-out videos, which the model's figures are of too"
    without = trained(read_data(clips), tmp_path / "none", run_for(tiny_model, quick, holdout=0.0), cache)
    assert "there are no held-out videos to calibrate on" in str(without.calibration)


def test_multi_label_models_have_a_threshold_for_each_label_and_use_it(
    clips: Path, tiny_model: Path, tmp_path: Path, cache: EmbeddingCache
) -> None:
    lines = [
        f"{clips / label / str(number)}.mp4,{label};coloured"
        for number in range(6)
        for label in ("redden", "turn blue")
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    task = DataConfig(task="multilabel")
    run = run_for(tiny_model, replace(QUICK, min_steps=60), task="multilabel", holdout=0.0)
    result = trained(read_data(tmp_path / "list.csv", task), tmp_path / "out", run, cache)
    thresholds = result.checkpoint.thresholds
    assert thresholds == result.calibration.thresholds
    assert thresholds[0] == 0.5  # every video is coloured, so there is nothing to choose on
    record = load(tmp_path / "out").runtime.provenance["calibration"]
    assert record["thresholds"] == dict(zip(("coloured", "redden", "turn blue"), thresholds, strict=True))

    predictor = load(tmp_path / "out", device="cpu", dtype="float32")
    prediction = predictor.predict(clips / "redden" / "0.mp4")
    scored = zip(prediction.labels, prediction.scores, thresholds, strict=True)
    expected = {label for label, score, least in scored if score > least}
    assert {label for label, _ in prediction.present} == expected >= {"coloured", "redden"}
    assert prediction.to_dict()["present"] == [label for label, _ in prediction.present]
    coloured, redden, turn_blue = prediction.scores.tolist()
    # Thresholds in the file count, not 0.5: the first one is too high here, the others are low enough.
    odd = replace(result.checkpoint, thresholds=((1 + coloured) / 2, redden / 2, turn_blue / 2))
    found = Predictor(odd, device="cpu", dtype="float32").predict(clips / "redden" / "0.mp4")
    assert {label for label, _ in found.present} == {"redden", "turn blue"}

    command = ["predict", str(clips / "redden" / "0.mp4"), "--model", str(tmp_path / "out"), "--device", "cpu"]
    lines = CliRunner().invoke(app, [*command, "--csv"]).stdout.splitlines()
    (row,) = csv.DictReader(lines)
    assert set(row["present"].split(";")) == expected
    assert "present: " in CliRunner().invoke(app, command).stdout
    evaluated = CliRunner().invoke(
        app,
        ["evaluate", str(tmp_path / "list.csv"), "--task", "multilabel", "--model", str(tmp_path / "out")]
        + ["-o", str(tmp_path / "report"), "--no-cache", "--device", "cpu"],
    )
    assert evaluated.exit_code == 0, evaluated.output
    with (tmp_path / "report" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    least = dict(zip(predictor.labels, thresholds, strict=True))
    for row in rows:
        assert set(row["predicted"].split(";")) == {label for label in least if float(row[label]) > least[label]}
    assert f"present from {thresholds[1]:.2f}" in (tmp_path / "report" / "report.html").read_text()


def test_reports_count_with_the_thresholds() -> None:
    from fewframes.core.metrics import report_of

    logits_NK, targets_NK = np.array([[2.0, -1.0], [-2.0, -2.0]]), np.array([[1.0, 1.0], [0.0, 0.0]])
    plain = report_of("multilabel", logits_NK, targets_NK, ("a", "b"))
    lower = report_of("multilabel", logits_NK, targets_NK, ("a", "b"), (0.5, 0.2))
    assert isinstance(plain, MultiLabelReport)
    assert isinstance(lower, MultiLabelReport)
    assert plain.f1 == pytest.approx(2 / 3)
    assert lower.f1 == 1
