"""From labelled films to timelines whose spans are learned."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fewframes
from fewframes.cli.main import app
from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import has_spans, read_data
from fewframes.errors import ConfigError, DataError
from fewframes.inference.predictor import load
from fewframes.inference.timeline import TimelineConfig, sweep, uses_detector, windows_for
from fewframes.models.files.model_file import read_model_file, stored_kinds
from fewframes.training.boundaries import fit
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.video.live_settings import StreamConfig
from helpers.drawn_films import ACTION_S, ACTIONS, ORDER, STILL_S, write_film

SHORT = {"NUM_STEPS": 30, "FOLD_STEPS": 12, "NUM_FRAMES": 64, "NUM_TRIALS": 2, "TRIAL_FRAMES": 96}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of the actions in four films, each a group."""
    folder = tmp_path_factory.mktemp("films")
    with (folder / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "start_s", "end_s", "group"])
        for number in range(4):
            order = ORDER[number : number + 6]
            write_film(folder / f"{number}.mp4", order)
            for place, action in enumerate(order):
                start_s = place * (ACTION_S + STILL_S) + STILL_S
                rows.writerow([f"{number}.mp4", action, start_s, start_s + ACTION_S, f"film {number}"])
    return folder / "list.csv"


@pytest.fixture(scope="module")
def trained(labelled: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model solved from the list, with its detector, and what the command said."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("run")
    for name, value in SHORT.items():
        patch.setattr(fit, name, value)
    words = [
        "train", str(labelled), "--head", "solved", "--model", str(tiny_model), "-o", str(folder / "model"), "--cache",
        str(folder / "cache"), "--set", "augment.views=0", "--device", "cpu", "--dtype", "float32",
    ]  # fmt: skip
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    patch.undo()
    assert result.exit_code == 0, (result.output, result.exception)
    return folder / "model", result.output


def test_a_list_of_spans_trains_a_detector_without_being_asked(trained: tuple[Path, str]) -> None:
    folder, output = trained
    assert "24 spans in 4 long videos" in output
    file = read_model_file(folder / "model.safetensors")
    assert file.boundaries is not None
    assert file.boundaries.interval_s == pytest.approx(ACTION_S / 12)
    record = file.provenance["boundaries"]
    assert (record["clips"], record["long_videos"], record["spans"]) == (24, 4, 24)
    assert 0 <= record["frames_right"] <= 1
    kinds = stored_kinds(folder / "model.safetensors")
    assert {kinds[name] for name in kinds if name.startswith("boundaries.weight.")} == {"float16"}


def test_timelines_find_spans_by_the_detector_unless_windows_are_asked_for(
    trained: tuple[Path, str], labelled: Path, tmp_path: Path
) -> None:
    predictor, film = load(trained[0], device="cpu", dtype="float32"), labelled.parent / "0.mp4"
    found = sweep(predictor, film, TimelineConfig(threshold=0.0), cache=EmbeddingCache(tmp_path))
    assert found.method == "learned"
    assert found.windows == ()
    assert found.weights == predictor.runtime.model_key()
    assert {span.label for span in found.spans} <= set(ACTIONS)
    assert all(0 <= span.start_s < span.end_s <= found.duration_s for span in found.spans)
    assert found.scores.shape == (len(found.times_s), len(ACTIONS))
    again = sweep(predictor, film, TimelineConfig(threshold=0.0), cache=EmbeddingCache(tmp_path))
    assert again.num_encoded == 0
    assert again.spans == found.spans
    for config in (TimelineConfig(spans="windows"), TimelineConfig(window_s=2.0), TimelineConfig(lengths=(1, 2))):
        windows = sweep(predictor, film, config)
        assert windows.method == "windows"
        assert len(windows.windows) == len(config.lengths or (1,))
    assert (
        sweep(predictor, film, TimelineConfig(), start_s=1.0, end_s=1.7).method == "windows"
    )  # one window, as for `predict`


def test_a_store_of_another_rate_has_learned_spans_too(
    trained: tuple[Path, str], labelled: Path, tmp_path: Path
) -> None:
    predictor = load(trained[0], device="cpu", dtype="float32")
    boundaries = predictor.runtime.boundaries
    assert boundaries is not None
    store = tmp_path / "film.frames"
    fewframes.write_frame_store(predictor, labelled.parent / "0.mp4", store, rate=10.0)
    found = sweep(predictor, store, TimelineConfig(threshold=0.0))
    assert found.method == "learned"
    assert np.diff(found.times_s) == pytest.approx(0.2)  # nearer to each other than the detector's own
    assert found.spans
    assert all(span.end_s <= found.duration_s for span in found.spans)


def test_windows_are_as_long_as_the_clips_of_the_training(trained: tuple[Path, str], tiny_model: Path) -> None:
    taught, plain = load(trained[0], device="cpu").runtime, load(tiny_model, device="cpu").runtime
    assert windows_for(taught, TimelineConfig()) == (ACTION_S, (1,))
    assert windows_for(taught, TimelineConfig(window_s=7.0)) == (7.0, (1,))
    assert windows_for(plain, TimelineConfig()) == (4.0, (1, 2))
    assert not uses_detector(plain, TimelineConfig())
    with pytest.raises(ConfigError, match=r"has no detector; train one .* --boundaries"):
        uses_detector(plain, TimelineConfig(spans="learned"))
    with pytest.raises(ValueError, match="takes no windows"):
        TimelineConfig(spans="learned", window_s=2.0)


def test_the_command_says_how_spans_were_found(trained: tuple[Path, str], labelled: Path) -> None:
    words = ["timeline", str(labelled.parent / "1.mp4"), "--model", str(trained[0]), "--no-cache", "--json"]
    found = json.loads(CliRunner().invoke(app, words).stdout)
    assert found["method"] == "learned"
    assert found["threshold"] == fit.THRESHOLD
    assert "cuts_s" in found


def test_incomplete_labels_teach_no_background(
    labelled: Path, trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SHORT, "NUM_STEPS": 2, "FOLD_STEPS": 2}.items():
        monkeypatch.setattr(fit, name, value)
    copy = tmp_path / "model.safetensors"
    copy.write_bytes((trained[0] / "model.safetensors").read_bytes())
    run = RunConfig(train=TrainConfig(head="solved", spans_complete=False))
    data = read_data(labelled)
    assert has_spans(data)
    result = fewframes.train_boundaries(data, copy, run, device="cpu", dtype="float32")
    assert (result.fit.num_clips, result.fit.num_films) == (24, 0)


def test_other_actions_and_unreadable_films_are_told(
    labelled: Path, trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SHORT, "NUM_STEPS": 2, "FOLD_STEPS": 2}.items():
        monkeypatch.setattr(fit, name, value)
    data, run = read_data(labelled), RunConfig(train=TrainConfig(head="solved"))
    copy = tmp_path / "model.safetensors"
    copy.write_bytes((trained[0] / "model.safetensors").read_bytes())
    renamed = replace(data, samples=tuple(replace(sample, labels=("jump",)) for sample in data.samples))
    with pytest.raises(DataError, match="differing: blink"):
        fewframes.train_boundaries(renamed, copy, run, device="cpu")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    more = replace(data, samples=(*data.samples, replace(data.samples[0], path=str(broken))))
    result = fewframes.train_boundaries(more, copy, run, device="cpu", dtype="float32")
    assert {failure.source for failure in result.failures} == {str(broken)}
    assert result.fit.num_films == 4


def test_streams_tell_actions_by_the_detector(trained: tuple[Path, str], labelled: Path) -> None:
    predictor, film = load(trained[0], device="cpu", dtype="float32"), str(labelled.parent / "0.mp4")
    boundaries = predictor.runtime.boundaries
    assert boundaries is not None
    # So short a training makes no detector that is sure of anything.
    predictor.runtime.boundaries = replace(boundaries, threshold=0.1)  # type: ignore[misc]
    config = StreamConfig(window_s=predictor.num_frames * boundaries.interval_s)
    told = [span for answer in predictor.stream(film, config) for span in answer.spans or ()]
    assert {span.state for span in told} >= {"started", "ended"}
    begun, over = (
        {span.number for span in told if (span.state == "started") is is_start} for is_start in (True, False)
    )
    assert begun == over
    assert all(0 <= span.start_s < span.end_s <= 24.1 for span in told if span.end_s is not None)
    answers = list(predictor.stream(film, replace(config, spans="off")))
    assert all(answer.spans is None and "spans" not in answer.to_dict() for answer in answers)
    predictor.runtime.boundaries = None  # type: ignore[misc]
    assert next(iter(predictor.stream(film, config))).spans is None
    with pytest.raises(ConfigError, match=r"has no detector; train one .* --boundaries"):
        predictor.stream(film, replace(config, spans="learned"))
