"""A model judged on labelled videos: figures that can be foreseen, labels matched by name, a page that stands alone."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewframes.cli.console import evaluation_lines
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import Interval, Report, calibration_error, score
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet, read_data
from fewframes.data.layouts import Sample
from fewframes.errors import DataError
from fewframes.inference.predictor import Predictor, load
from fewframes.models.config import AttentionLayout
from fewframes.models.cost import count_cost
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.models.presets import PRESETS
from fewframes.runtime.protocol import scores_of
from fewframes.sampling import Views
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.evaluation.evaluate import EvaluateConfig, evaluate
from fewframes.training.evaluation.measures import calibrated, work_of
from fewframes.training.evaluation.report import write_metrics, write_predictions
from fewframes.training.evaluation.report_page import read_mistakes, report_page
from fewframes.training.evaluation.results import Evaluation
from fewframes.training.evaluation.scoring import ScoringSpeed
from fewframes.training.train import TrainOptions, train
from fewframes.video.view import ViewConfig
from helpers.models import TINY
from helpers.numbered import write_fading


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
    train(read_data(clips), output, run, TrainOptions(device="cpu", dtype="float32"))
    return load(output / "model.safetensors", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def judged(fading: Predictor, clips: Path) -> Evaluation:
    return evaluate(read_data(clips), fading, None, EvaluateConfig(sweep=(1, 8)))


def test_figures_that_can_be_foreseen(judged: Evaluation, clips: Path) -> None:
    assert isinstance(judged.report, Report)
    assert judged.report.top1 == judged.interval.value == judged.interval.high == 1
    assert judged.interval.low == pytest.approx(0.025 ** (1 / 12))  # Clopper and Pearson's of 12 of 12
    assert judged.to_dict()["interval"] == vars(judged.interval)  # twelve groups need no warning
    assert judged.interval.num_groups == 12
    assert len(judged.samples) == 12
    assert [failure.source for failure in judged.failures] == [str(clips / "redden" / "broken.mp4")]
    assert judged.order is not None
    assert (judged.order.forwards, judged.order.backwards) == (1, 0)  # backwards, each is the other
    assert 0.1 < judged.order.shuffled < 0.9
    assert judged.sweep[1] == pytest.approx(0.5, abs=0.2)  # one frame has no order, so rounding decides
    assert judged.sweep[8] == 1
    assert judged.rejection[-1] == (1.0, 1.0)
    assert sum(part.num_videos for part in judged.reliability) == 12
    assert {part.right for part in judged.reliability} == {1.0}
    assert judged.calibration is not None
    assert judged.worst(8) == []
    assert judged.provenance["trained_on_these"] is True
    assert judged.provenance["num_trained_on"] == 12


def test_labels_are_matched_by_name(fading: Predictor, clips: Path, judged: Evaluation) -> None:
    data = read_data(clips)

    def renamed(old: str, new: str) -> VideoSet:
        labels = {old: (new,)}
        return replace(
            data, samples=tuple(replace(each, labels=labels.get(each.labels[0], each.labels)) for each in data.samples)
        )

    matched = evaluate(renamed("turn blue", "Turn_Blue"), fading, None)
    assert np.array_equal(matched.targets, judged.targets)
    with pytest.raises(DataError, match=r"the model has no 'turn bleu' \(1 of 2 labels .*did you mean 'turn blue'\?"):
        evaluate(renamed("turn blue", "turn bleu"), fading, None)
    with pytest.raises(
        DataError, match="the data have any number of actions per video, but the model names one action"
    ):
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
    page = report_page(judged, read_mistakes(judged, fading))
    assert 'alt="fraction right over confidence"' in page
    assert "Wrong, and sure of it" in page
    assert page.count("<figure>") == 8
    assert "<b>turn blue</b>, taken for <b>redden</b>" in page
    assert "redden</th><td>taken for turn blue: 6 of 6" in page


def test_the_page_stands_alone_and_the_files_are_whole(judged: Evaluation, fading: Predictor, tmp_path: Path) -> None:
    page = report_page(judged, read_mistakes(judged, fading))
    assert page.count("data:image/png;base64,") == 4  # confusion, sureness, doubt, frames
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "The model was trained on 12 of 12 videos" in page
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
    assert metrics["frames_sweep"] == {str(count): figure for count, figure in judged.sweep.items()}
    write_predictions(judged, fading.labels, tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    assert [row["predicted"] for row in rows[:12]] == [row["labels"] for row in rows[:12]]
    assert float(rows[0]["redden"]) == pytest.approx(float(rows[0]["score"]))
    assert "not a video" in rows[12]["error"]


def test_a_page_shows_the_actions_that_there_are(judged: Evaluation) -> None:
    labels = tuple(f"action {number}" for number in range(101))
    report = score(np.eye(101, dtype=np.float32)[[3, 7, 9]], np.array([3, 7, 8]), labels)
    page = report_page(replace(judged, report=report))
    assert " of 0" not in page
    assert 'class="wide"' not in page  # four of the 101 labels have videos or were predicted
    assert page.count("action 8") > 0
    assert "action 5" not in page


def test_a_page_of_many_labels_can_be_scrolled(judged: Evaluation, fading: Predictor) -> None:
    labels = tuple(f"action {number} <b>" for number in range(101))
    named_N = np.arange(101)
    named_N[:60] = np.roll(named_N[:60], 1)  # sixty pairs of one each, of which the first twenty are listed
    report = score(np.eye(101, dtype=np.float32)[named_N], np.arange(101), labels)
    page = report_page(replace(judged, report=report), read_mistakes(replace(judged, report=report), fading))
    assert page.count('<div class="wide"><img class="chart" alt="confusion matrix"') == 1
    assert page.count("taken for action ") == 20
    assert page.count("<b>") == 2 * page.count("<figure>")  # those of the captions
    assert 'class="wide"' not in report_page(judged, read_mistakes(judged, fading))


def test_what_it_costs(judged: Evaluation, fading: Predictor, clips: Path, tmp_path: Path) -> None:
    work = judged.work
    assert (work.frames_read, work.num_views, work.pace.num_videos) == (4, 1, 12)
    assert fading.runtime.config is not None
    assert work.view_cost is not None
    counted = count_cost(build_model(fading.runtime.config, fading.runtime.view).eval(), 4, 32)
    assert (work.view_cost.num_parameters, work.view_cost.gmacs) == (counted.num_parameters, counted.gmacs)
    # By hand, for kernels of processors are not all counted: q k^T and the weighted sum of 17 tokens of width 48 in each of 4
    # frames, of 5 tokens of width 32 over time, and the four cosines of the read-out.
    products = 4 * 2 * 17 * 17 * 48 + 2 * 5 * 5 * 32 + 4 * 4 * 48
    assert work.view_cost.attention_gmacs == pytest.approx(products / 1e9)
    values = work.to_dict()
    assert values["gmacs"] == values["gmacs_a_view"] == round(work.view_cost.gmacs, 4)
    assert isinstance(values["computed"], dict)
    assert 0 < values["computed"]["videos_per_s"] <= values["computed"]["network_videos_per_s"]
    assert re.fullmatch(
        r"[\d.e+]+ videos/s with decoding, network alone [\d.e+]+ videos/s \(12 computed; cpu .+ threads, float32\)",
        work.lines()[1],
    )
    cache, views = EmbeddingCache(tmp_path), Views(num_clips=2, num_crops=3, clip_s=0.3)
    many, again = (evaluate(read_data(clips), fading, cache, EvaluateConfig(views=views)) for _ in range(2))
    assert (many.work.frames_read, many.work.num_views) == (8, 6)
    assert many.work.to_dict()["gmacs"] == pytest.approx(6 * work.view_cost.gmacs, abs=1e-4)
    assert many.provenance["protocol"] == "2 clips of 0.30 s and 4 frames x 3 crops, scores averaged"
    assert again.work.to_dict()["computed"] is None  # nothing was
    assert len(again.work.lines()) == 1
    assert "videos/s" not in report_page(again, read_mistakes(again, fading))


def test_cost_of_a_preset_is_the_pinned_one() -> None:
    preset = PRESETS["lite0-16"]
    predictor = Predictor(
        Checkpoint(build_model(preset.model, preset.view), preset.view, tuple("abcdefghijk")),
        device="cpu",
        dtype="float32",
    )
    cost = work_of(predictor, Views.parse("10x3"), ScoringSpeed(0, None, 0.0))
    assert cost.lines() == [
        "each video: 160 frames read, 185.6 billion multiply-adds (30 views of 6.187 billion); model: 6.2 million parameters"
    ]


def test_official_subset_is_what_the_release_does_not_drop(fading: Predictor, clips: Path) -> None:
    data = read_data(clips)
    shortest_s = 4 / 1.6  # 2.5 s for its four frames; the clips last 0.64 to 1.24 s
    assert evaluate(data, fading, None).official is None
    asked = EvaluateConfig(official_subset=True)
    none = evaluate(data, fading, None, asked)
    assert none.official is not None
    assert (none.official.shortest_s, none.official.num_videos, none.official.report) == (shortest_s, 0, None)
    assert str(none.official) == "0 of 12 videos (none lasts 2.5 s)"
    assert "silently drops every video shorter than 2.5 s" in report_page(none, read_mistakes(none, fading)).replace(
        "&#x27;", "'"
    )
    assert none.to_dict()["official_subset"] == {"shortest_s": 2.5, "num_videos": 0}


def test_official_subset_counts_a_video_that_just_fits(fading: Predictor, tmp_path: Path) -> None:
    lengths = {"just": 63, "short": 62}  # 2.52 and 2.48 s at 25 frames a second
    samples = []
    for name, num_frames in lengths.items():
        for label, turned in (("redden", False), ("turn blue", True)):
            path = tmp_path / f"{name} {label}.mp4"
            write_fading(path, num_frames, turned=turned)
            samples.append(Sample(path=str(path), labels=("redden",)))
    exact = replace(samples[0], end_s=2.5)
    data = VideoSet((*samples, exact, replace(exact, end_s=2.49)), "lengths")
    cache = EmbeddingCache(tmp_path / "cache")
    for _ in range(2):  # lengths are known whether embeddings are cached or not
        official = evaluate(data, fading, cache, EvaluateConfig(official_subset=True)).official
        assert official is not None
        assert (official.num_videos, official.num_all) == (3, 6)
        assert isinstance(official.report, Report)
        assert official.report.top1 == pytest.approx(2 / 3)  # one of them turns blue and is called reddening
        assert str(official) == "3 of 6 videos, top-1 66.7%"
        assert official.to_dict()["top1"] == 0.6667


@pytest.mark.parametrize("layout", ["joint", "per_block"])
def test_models_that_mix_frames_are_judged_too(
    layout: AttentionLayout, tiny_model: Path, clips: Path, tmp_path: Path
) -> None:
    view = ViewConfig(resize_px=36, crop_px=32)
    torch.manual_seed(1)
    config = replace(TINY, layout=layout, temporal="mean", num_classes=2)
    model = build_model(config, view)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    predictor = Predictor(Checkpoint(model, view, ("redden", "turn blue")), device="cpu", dtype="float32")
    judged = evaluate(read_data(clips), predictor, EmbeddingCache(tmp_path), EvaluateConfig(sweep=(2,)))
    assert judged.order is not None
    assert len(judged.samples) == 12
    assert judged.order.forwards == judged.interval.value
    assert set(judged.sweep) == {2}
    assert not list(tmp_path.iterdir())
    assert judged.work.lines()[1].startswith("network alone ")  # decoding went on while frames were shuffled
    plain = evaluate(read_data(clips), predictor, None, EvaluateConfig(order=False))
    assert plain.order is None
    assert plain.to_dict()["order"] is None
    assert "videos/s with decoding" in plain.work.lines()[1]
    assert "frames backwards" not in report_page(plain)
    assert np.array_equal(plain.logits, judged.logits)


def test_embeddings_are_kept_for_the_next_time(fading: Predictor, clips: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    first, second = (evaluate(read_data(clips), fading, cache) for _ in range(2))
    assert (first.provenance["num_cached"], second.provenance["num_cached"]) == (0, 12)
    assert np.array_equal(first.logits, second.logits)


def test_a_temperature_is_fitted_on_the_other_half() -> None:
    """One half is too sure, the other too doubtful: each is scaled by what suits the other, and gets worse."""
    generator = np.random.default_rng(0)
    logits_NK = generator.standard_normal((4000, 3), np.float32)
    scores_NK = scores_of(logits_NK, "single")
    targets_N = (generator.random((4000, 1)) > scores_NK.cumsum(axis=1)[:, :2]).sum(axis=1)
    factors_N = np.tile(np.array([3, 1 / 3], np.float32), 2000)
    found = calibrated(logits_NK * factors_N[:, None], targets_N, ["a", "b"] * 2000)
    swapped = np.concatenate([9 * logits_NK[::2], logits_NK[1::2] / 9])
    expected = calibration_error(swapped, np.concatenate([targets_N[::2], targets_N[1::2]]))
    assert found.scaled_error == pytest.approx(expected, abs=0.02)
    assert found.scaled_error > found.error + 0.05


def test_a_model_that_is_surer_than_it_is_right_is_warned_of(fading: Predictor, clips: Path) -> None:
    judged = evaluate(read_data(clips), fading, None, EvaluateConfig(order=False))
    assert judged.calibration is not None
    assert judged.calibration.accuracy == judged.interval.value
    assert judged.calibration.confidence == pytest.approx(float(judged.scores.max(axis=1).mean()), abs=1e-6)
    assert str(judged.calibration) in evaluation_lines(judged)
    interval = Interval(0.6, 0.45, 0.75, 12)
    sure, chance, honest = (
        replace(judged, interval=interval, calibration=replace(judged.calibration, confidence=confidence, accuracy=0.6))
        for confidence in (0.9, 0.74, 0.65)
    )
    assert sure.warning.startswith("the model is surer than it is right on these videos (90.0% against 60.0%)")
    assert sure.warning in report_page(sure)
    assert chance.warning == honest.warning == ""  # the interval reaches as far, or the difference is small


def test_what_is_lost_by_answering_unknown_is_counted(fading: Predictor, clips: Path, videos: Path) -> None:
    data = read_data(clips)
    none = tuple(Sample(path=str(videos / name), labels=("Background",)) for name in ("a.mp4", "b.mp4"))
    judged = evaluate(replace(data, samples=(*data.samples, *none)), fading, None, EvaluateConfig(order=False))
    found = judged.unknown
    assert found is not None
    assert len(judged.samples) == 12
    assert (found.num_background, found.wrong_avoided) == (2, None)
    assert found.kept == pytest.approx(1 - found.right_lost)  # type: ignore[operator]  # all answers are right
    assert 0.7 < found.kept <= 1
    assert judged.to_dict()["unknown"]["num_background"] == 2  # type: ignore[index]
    assert any("the others are unknown" in line for line in found.lines())
    off = replace_rule(fading)
    assert evaluate(data, off, None, EvaluateConfig(order=False)).unknown is None


def replace_rule(predictor: Predictor) -> Predictor:
    return Predictor(predictor.runtime, unknown="off")
