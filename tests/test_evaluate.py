"""A model judged on labelled videos: figures that can be foreseen, labels matched by name, a page that stands alone."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewframes.cache import EmbeddingCache
from fewframes.config import DataConfig, RunConfig, TrainConfig
from fewframes.data import VideoSet, read_data
from fewframes.errors import DataError
from fewframes.evaluate import Evaluation, evaluate, write_metrics, write_predictions
from fewframes.metrics import Report
from fewframes.pages import report_page
from fewframes.predictor import Predictor, load
from fewframes.train import train


@pytest.fixture(scope="module")
def fading(clips: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A model that tells reddening from bluing."""
    output = tmp_path_factory.mktemp("fading")
    run = RunConfig(
        start=str(tiny_model),
        model={"temporal_width": 32, "motion_width": 16, "moment_head": True, "temporal_positions": "waves"},
        data=DataConfig(holdout=0.0),
        train=TrainConfig(epochs=1, min_steps=60),
    )
    train(read_data(clips), output, run, cache=None, device="cpu", dtype="float32")
    return load(output / "model.safetensors", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def judged(fading: Predictor, clips: Path) -> Evaluation:
    return evaluate(read_data(clips), fading, None, sweep=(1, 8))


def test_figures_that_can_be_foreseen(judged: Evaluation, clips: Path) -> None:
    assert isinstance(judged.report, Report)
    assert judged.report.top1 == judged.interval.value == judged.interval.low == 1
    assert len(judged.samples) == 12
    assert [failure.source for failure in judged.failures] == [str(clips / "redden" / "broken.mp4")]
    assert (judged.order.forwards, judged.order.backwards) == (1, 0)  # backwards, each is the other
    assert 0.1 < judged.order.shuffled < 0.9
    assert judged.sweep[1] == 0.5  # one frame has no order
    assert judged.sweep[8] == 1
    assert judged.rejection[-1] == (1.0, 1.0)
    assert judged.calibration is not None
    assert judged.worst(8) == []
    assert judged.provenance["trained_on_these"] is True


def test_labels_are_matched_by_name(fading: Predictor, clips: Path, judged: Evaluation) -> None:
    data = read_data(clips)

    def renamed(old: str, new: str) -> VideoSet:
        labels = {old: (new,)}
        return replace(
            data, samples=tuple(replace(each, labels=labels.get(each.labels[0], each.labels)) for each in data.samples)
        )

    matched = evaluate(renamed("turn blue", "Turn_Blue"), fading, None)
    assert torch.equal(matched.targets, judged.targets)
    with pytest.raises(DataError, match=r"the model has no 'turn bleu' \(1 of 2 labels .*did you mean 'turn blue'\?"):
        evaluate(renamed("turn blue", "turn bleu"), fading, None)
    with pytest.raises(DataError, match="its videos have any number of actions a video, the model names one action"):
        evaluate(replace(data, multilabel=True), fading, None)


def test_what_is_wrong_is_shown_surest_first(fading: Predictor, clips: Path) -> None:
    data = read_data(clips)
    other = {"redden": ("turn blue",), "turn blue": ("redden",)}
    swapped = replace(data, samples=tuple(replace(each, labels=other[each.labels[0]]) for each in data.samples))
    judged = evaluate(swapped, fading, None)
    worst = judged.worst(5)
    assert len(worst) == 5
    sureness = [float(judged.scores[row].max()) for row in worst]
    assert sureness == sorted(sureness, reverse=True)
    page = report_page(judged, fading)
    assert "Wrong, and sure of it" in page


def test_the_page_stands_alone_and_the_files_are_whole(judged: Evaluation, fading: Predictor, tmp_path: Path) -> None:
    page = report_page(judged, fading)
    assert page.count("data:image/png;base64,") == 3  # confusion, doubt, frames
    assert not re.search(r"(src|href)='(?!data:)", page)
    assert "The model was trained on these data" in page
    assert "broken.mp4" in page
    assert "12 evaluated, 1 failed, 0 missing" in page
    write_metrics(judged, tmp_path / "metrics.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["evaluated"], len(metrics["failed"]), metrics["missing"], metrics["report"]["top1"]) == (
        12,
        1,
        [],
        1,
    )
    assert metrics["frames_sweep"] == {"1": 0.5, "8": 1.0}
    write_predictions(judged, fading.labels, tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    assert [row["predicted"] for row in rows[:12]] == [row["labels"] for row in rows[:12]]
    assert float(rows[0]["redden"]) == pytest.approx(float(rows[0]["score"]))
    assert "not a video" in rows[12]["error"]


def test_embeddings_are_kept_for_the_next_time(fading: Predictor, clips: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    first, second = (evaluate(read_data(clips), fading, cache) for _ in range(2))
    assert (first.provenance["num_cached"], second.provenance["num_cached"]) == (0, 12)
    assert torch.equal(first.logits, second.logits)
