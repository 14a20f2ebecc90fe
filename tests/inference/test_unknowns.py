"""Unknown and unfamiliar videos, by every verb: the answer, the warning, the reason, and the option that decides."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.promise import AlarmPromise, AlarmThreshold
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.model_file import HEADER_KEY, read_metadata, read_model_file
from fewframes.results import BACKGROUND, UNKNOWN, Prediction, is_background
from fewframes.video.live_settings import StreamConfig
from helpers.numbered import drifting
from helpers.unknowns import rejection_around


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that drifts, which the model has not learned from."""
    return drifting(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", 100, gop=50, options={})


@pytest.fixture(scope="module")
def known(videos: Path, clips: Path) -> list[Path]:
    """Three videos, one for each action of the model."""
    return [videos / "a.mp4", clips / "redden" / "3.mp4", clips / "turn blue" / "2.mp4"]


@pytest.fixture(scope="module")
def judging(tiny_model: Path, known: list[Path]) -> Checkpoint:
    """The tiny model with a rejection that knows these three videos alone."""
    checkpoint = load_checkpoint(tiny_model)
    predictor = Predictor(checkpoint, device="cpu", dtype="float32")
    embeddings = np.stack([predictor.predict(path).frame_embeddings for path in known])
    return replace(checkpoint, rejection=rejection_around(embeddings))


@pytest.fixture(scope="module")
def model_file(judging: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judging") / "model.safetensors"
    save_checkpoint(path, judging)
    return path


@pytest.fixture(scope="module")
def auto(model_file: Path) -> Predictor:
    return load(model_file, device="cpu", dtype="float32")


def test_known_videos_are_answered_and_others_are_unknown(auto: Predictor, known: list[Path], film: Path) -> None:
    for path in known:
        answer = auto.predict(path)
        assert answer.label == answer.top(1)[0].label != UNKNOWN
        assert answer.known is not None
        assert (answer.unfamiliar, answer.reason) == (False, "")
    other = auto.predict(film)
    assert (other.label, other.unfamiliar) == (UNKNOWN, True)
    assert other.reason == "far from everything that it has learned"
    assert other.top(1)[0].label in auto.labels
    assert repr(other).startswith(f"Prediction('{film}': unknown; ")
    assert "unknown: far from everything" in other._repr_html_()


def test_the_option_decides(model_file: Path, film: Path, tiny_model: Path) -> None:
    off = load(model_file, device="cpu", dtype="float32", unknown="off").predict(film)
    assert (off.label, off.known, off.unfamiliar, off.familiarity) == (off.top(1)[0].label, None, None, None)
    strict, loose = (load(model_file, device="cpu", unknown=kept).unknown_rule for kept in (0.5, 0.99))
    assert strict is not None
    assert loose is not None
    assert strict.threshold > loose.threshold
    with pytest.raises(ConfigError, match="unknown 'maybe': needs auto, off, or a fraction"):
        load(model_file, device="cpu", unknown="maybe")  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError,
        match=r"unknown = 0\.9: no rejection was fitted for .*; leave unknown out",
    ):
        load(tiny_model, device="cpu", unknown=0.9)


def test_a_model_without_a_rejection_says_nothing(tiny_model: Path, film: Path) -> None:
    metadata = read_metadata(tiny_model)
    assert metadata is not None
    assert json.loads(metadata[HEADER_KEY])["format"] == 1  # as files always were
    answer = load(tiny_model, device="cpu", dtype="float32").predict(film)
    assert (answer.label, answer.known, answer.unfamiliar) == (answer.top(1)[0].label, None, None)
    assert answer.to_dict()["known"] is None


def test_an_unfamiliar_video_that_is_known_keeps_its_answer_with_a_warning(auto: Predictor, film: Path) -> None:
    answer = auto.predict(film)
    assert answer.familiarity is not None
    familiarity = replace(answer.familiarity, threshold=0.0, reason="unlike the videos that it has learned from")
    warned = replace(answer, familiarity=familiarity)
    assert warned.label == warned.top(1)[0].label
    assert "unfamiliar: unlike the videos that it has learned from" in warned.notices[-1]
    assert not any("unfamiliar" in notice for notice in answer.notices)  # unknown says it already


def test_many_videos_are_judged_as_one_is(auto: Predictor, known: list[Path], film: Path) -> None:
    for path, answer in zip([*known, film], auto.predict_many([*known, film]), strict=True):
        assert isinstance(answer, Prediction)
        alone = auto.predict(path)
        assert answer.known == pytest.approx(alone.known, abs=1e-4)
        assert (answer.label, answer.reason) == (alone.label, alone.reason)


def test_the_rejection_survives_the_file(judging: Checkpoint, model_file: Path) -> None:
    assert judging.rejection is not None
    for found in (read_model_file(model_file).rejection, load_checkpoint(model_file).rejection):
        assert found is not None
        for name, array in judging.rejection.to_arrays().items():
            np.testing.assert_array_equal(found.to_arrays()[name], array)
    assert not any(key.startswith("rejection") for key in read_model_file(model_file).tensors)


def test_a_timeline_has_no_spans_where_windows_are_unknown(auto: Predictor, model_file: Path, film: Path) -> None:
    config = TimelineConfig(window_s=1.0, threshold=0.0)
    off = load(model_file, device="cpu", dtype="float32", unknown="off")
    assert sweep(off, film, config).spans
    found = sweep(auto, film, config)
    assert found.spans == ()
    assert found.to_vtt().strip() == "WEBVTT"
    assert found.known is not None
    assert found.known.max() < auto.unknown_rule.threshold  # type: ignore[union-attr]
    assert found.to_dict()["unknown_below"] == round(auto.unknown_rule.threshold, 4)  # type: ignore[union-attr]
    assert sweep(off, film, config).known is None


def test_a_stream_says_unknown(auto: Predictor, model_file: Path, film: Path) -> None:
    config = StreamConfig(window_s=1.0, enter=1e-6, leave=1e-6)
    assert {answer.label for answer in auto.stream(str(film), config)} == {UNKNOWN}
    last = list(auto.stream(str(film), config))[-1]
    assert last.to_dict()["unfamiliar"] is True
    off = load(model_file, device="cpu", dtype="float32", unknown="off")
    assert UNKNOWN not in {answer.label for answer in off.stream(str(film), config)}
    threshold = AlarmThreshold(threshold=0.0, alarms=0, clumping=1.0, promised=1.0, most_per_day=3.0)
    promise = AlarmPromise(
        alarms_per_day=1.0, hours=24.0, num_blocks=24, num_videos=1, window_s=1.0, every_s=None, smooth_s=config.smooth_s,
        enter=config.enter, alarm_gap_s=config.alarm_gap_s, at_enter=0, overall=threshold,
        actions=dict.fromkeys(auto.labels, threshold),
    )  # fmt: skip
    raised = {
        model: [answer.alarm for answer in model.stream(str(film), config, promise=promise) if answer.alarm is not None]
        for model in (auto, off)
    }
    assert raised[auto] == []  # what is unknown raises no alarm
    assert len(raised[off]) == 1


def test_early_exit_is_judged_too(auto: Predictor, known: list[Path], film: Path) -> None:
    assert auto.predict(film, early_exit=1e-6).label == UNKNOWN
    assert auto.predict(known[0], early_exit=1.0).label != UNKNOWN


def test_the_command_says_it_in_each_format(model_file: Path, known: list[Path], film: Path) -> None:
    options = ["--model", str(model_file), "--device", "cpu", "--dtype", "float32"]
    runner = CliRunner()
    table = runner.invoke(app, ["predict", str(film), *options]).stdout
    assert "unknown: far from everything that it has learned (one of the actions at all: 0%)" in table
    line = json.loads(runner.invoke(app, ["predict", str(film), "--json", *options]).stdout)
    assert (line["label"], line["unfamiliar"], line["reason"]) == (
        UNKNOWN,
        True,
        "far from everything that it has learned",
    )
    assert line["known"] < line["unknown_below"]
    rows = list(
        csv.DictReader(
            io.StringIO(runner.invoke(app, ["predict", *map(str, known), str(film), "--csv", *options]).stdout)
        )
    )
    assert [row["label"] == UNKNOWN for row in rows] == [False, False, False, True]
    assert rows[-1]["unfamiliar"] == "true"
    off = runner.invoke(app, ["predict", str(film), *options, "--unknown", "off"])
    assert "unknown" not in off.stdout
    wrong = runner.invoke(app, ["predict", str(film), *options, "--unknown", "2"])
    assert wrong.exit_code == 2
    assert "needs auto, off, or the fraction" in " ".join(wrong.stderr.split())


@pytest.mark.parametrize("label", [*sorted(BACKGROUND), "Background", "no_action", "NOTHING", "no-action"])
def test_words_for_none_of_the_actions(label: str) -> None:
    assert is_background(label)


@pytest.mark.parametrize("label", ["hug", "another", "background music", ""])
def test_other_words_are_actions(label: str) -> None:
    assert not is_background(label)


def test_a_label_for_background_is_never_the_answer(judging: Checkpoint, film: Path) -> None:
    labels = ("none", "Other", "background")
    old = Predictor(replace(judging, labels=labels, rejection=None), device="cpu", dtype="float32").predict(film)
    assert (old.label, old.known) == (UNKNOWN, None)
    assert old.reason == f"its likeliest label is {old.top(1)[0].label!r}"
    several = replace(old, thresholds=(0.0, 0.0, 0.0))
    assert several.present == []
    assert len(replace(several, labels=("hug", "kick", "other")).present) == 2


def test_cached_frames_are_judged_alike(auto: Predictor, film: Path, tmp_path: Path) -> None:
    config, cache = TimelineConfig(window_s=1.0), EmbeddingCache(tmp_path)
    first, second = (sweep(auto, film, config, cache=cache) for _ in range(2))
    np.testing.assert_allclose(second.known, first.known, atol=1e-5)  # type: ignore[arg-type]
