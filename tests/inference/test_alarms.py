"""Alarms of streams: thresholds from footage, one alarm for each happening, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fewframes
from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError, DataError
from fewframes.inference import footage as reading
from fewframes.inference.alarms import AlarmRaiser, answers_of, is_action, stored_promise
from fewframes.inference.detection.windows import VideoScores
from fewframes.inference.footage import alarm_promise, find_footage, read_footage, stretches_of
from fewframes.inference.predictor import Predictor
from fewframes.inference.promise import AlarmPromise, AlarmThreshold
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.results import UNKNOWN
from fewframes.video.live_settings import StreamConfig
from fewframes.video.view import ViewConfig
from helpers.flashes import CONFIG, LABELS, watcher, write_flashes
from helpers.models import LABELS as TINY_LABELS
from helpers.models import TINY
from helpers.numbered import Numbered


@pytest.fixture
def predictor(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    return watcher(tiny_model, monkeypatch)


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of footage in two videos, with three happenings that are ever less like the action."""
    folder = tmp_path_factory.mktemp("hours")
    write_flashes(folder / "a.mp4", 300, {60: 0.95, 200: 0.85})
    write_flashes(folder / "b.mp4", 300, {100: 0.75, 104: 0.7})
    return folder


@pytest.fixture
def promise(predictor: Predictor, hours: Path) -> AlarmPromise:
    return alarm_promise(predictor, [hours], 288, CONFIG)[0]


def score_of(level: float) -> float:
    return 1 / (1 + np.exp(-16 * (level - 0.5)) + np.exp(-9 - 16 * (level - 0.5)))


def test_the_threshold_of_footage_by_hand(promise: AlarmPromise) -> None:
    # 288 a day are 2 in ten minutes: one that was seen, and one for what was not.
    assert promise.hours == pytest.approx(1 / 6)
    assert promise.overall.threshold == pytest.approx(score_of(0.85), abs=2e-3)
    assert (promise.overall.alarms, promise.overall.promised, promise.at_enter) == (1, 288, 3)
    assert promise.actions.keys() == {"wave", "kick"}
    assert promise.actions["wave"] == promise.overall
    assert (promise.actions["kick"].threshold, promise.actions["kick"].alarms) == (0.5, 0)
    assert (promise.num_videos, promise.num_blocks, promise.window_s) == (2, 8, 0.8)


def test_a_stream_raises_one_alarm_for_each_happening(
    predictor: Predictor, promise: AlarmPromise, tmp_path: Path
) -> None:
    video = write_flashes(tmp_path / "new.mp4", 300, {30: 0.95, 100: 0.8, 150: 0.95, 155: 0.95, 220: 0.95, 260: 0.95})
    stream = predictor.stream(str(video), CONFIG, promise=promise)
    answers = list(stream)
    raised = [answer.alarm for answer in answers if answer.alarm is not None]
    assert [round(alarm.time_s) for alarm in raised] == [31, 151, 221, 261]
    assert [(alarm.number, alarm.label) for alarm in raised] == [(1, "wave"), (2, "wave"), (3, "wave"), (4, "wave")]
    assert all(alarm.score > promise.overall.threshold for alarm in raised)
    assert list(stream.alarms) == raised
    assert stream.summary().num_alarms == 4
    assert "4 alarms" in str(stream.summary())
    line = next(answer for answer in answers if answer.alarm is not None).to_dict()
    assert (line["threshold"], line["promised"], line["hours"]) == (promise.overall.threshold, 288, 0.1667)
    assert line["alarm"] == raised[0].to_dict()
    assert answers[0].to_dict()["alarm"] is None


def test_the_footage_itself_raises_the_alarms_that_were_counted(
    predictor: Predictor, promise: AlarmPromise, hours: Path
) -> None:
    counts: list[int] = []
    for name in ("a.mp4", "b.mp4"):
        stream = predictor.stream(str(hours / name), CONFIG, promise=promise)
        list(stream)
        counts.append(stream.summary().num_alarms or 0)
    assert counts == [1, 0]
    assert sum(counts) == promise.overall.alarms


def test_a_stream_says_unknown_where_background_is_likeliest(predictor: Predictor, hours: Path) -> None:
    labels = {round(answer.end_s, 1): answer.label for answer in predictor.stream(str(hours / "a.mp4"), CONFIG)}
    assert (labels[30.0], labels[61.6]) == (UNKNOWN, "wave")


def test_without_a_promise_a_stream_is_as_before(predictor: Predictor, hours: Path) -> None:
    stream = predictor.stream(str(hours / "a.mp4"), CONFIG)
    assert next(iter(stream)).to_dict().keys().isdisjoint({"alarm", "threshold", "promised", "hours"})
    assert stream.summary().num_alarms is None


def test_a_gap_parts_alarms() -> None:
    found = AlarmThreshold(threshold=0.6, alarms=0, clumping=1.0, promised=1.0, most_per_day=3.0)
    promise = AlarmPromise(
        alarms_per_day=1.0, hours=24.0, num_blocks=24, num_videos=1, window_s=1.0, every_s=None, smooth_s=0.0, enter=0.5,
        alarm_gap_s=10.0, at_enter=0, overall=found, actions={},
    )  # fmt: skip
    raiser = AlarmRaiser(promise, LABELS, "single")
    raised = []
    for time_s, score in ((0, 0.7), (10, 0.61), (19, 0.6), (20, 0.7), (30.5, 0.7), (31, 0.3), (50, 0.9)):
        alarm = raiser.step(np.array([score, (1 - score) / 2, (1 - score) / 2], np.float32), time_s)
        raised += [] if alarm is None else [alarm.time_s]
    assert raised == [0, 30.5, 50]


def test_unknown_answers_raise_nothing_and_part_no_happening(promise: AlarmPromise) -> None:
    raiser = AlarmRaiser(replace(promise, alarm_gap_s=10.0), LABELS, "single")
    raised = []
    for time_s, is_known in (
        (0, False),
        (5, False),
        (12, True),
        (14, True),
        (20, False),
        (28, True),
        (40, True),
        (60, False),
    ):
        alarm = raiser.step(np.array([0.9999, 1e-4, 0], np.float32), time_s, is_known=is_known)
        raised += [] if alarm is None else [alarm.time_s]
    assert raised == [12, 40]


def test_background_answers_raise_nothing() -> None:
    wanted_K = is_action(("hug", "Background", "none", "nothing", "other"))
    assert wanted_K.tolist() == [True, False, False, False, False]
    scores_NK = np.array([[0.3, 0.7, 0, 0, 0], [0.6, 0.4, 0, 0, 0]], np.float32)
    assert answers_of(scores_NK, wanted_K, "single")[0].tolist() == pytest.approx([0, 0.6])
    assert answers_of(scores_NK, wanted_K, "multilabel")[0].tolist() == pytest.approx([0.3, 0.6])


def test_windows_to_learn_from_do_not_overlap_and_are_spread(
    predictor: Predictor, hours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_footage([hours], CONFIG.window_s)
    whole = read_footage(predictor, found, CONFIG)
    width = predictor.runtime.frame_width
    # Two videos of 300 s in windows of 0.8 s, in the second one from another frame on.
    assert whole.embeddings.shape == (749, 4, width)
    assert whole.groups == (f"{hours / 'a.mp4'}, hour 0",) * 375 + (f"{hours / 'b.mp4'}, hour 0",) * 374
    for number in (75, 76, 250, 374):
        clip = predictor.read_clip(hours / "a.mp4", start_s=0.8 * number, end_s=0.8 * number + 0.8)
        assert_allclose(whole.embeddings[number], predictor.runtime.embed_frames(clip.frames), rtol=0, atol=1e-6)
    before, flash = whole.embeddings[74:76].mean(axis=(1, 2)).tolist()  # the first begins at 60 s
    assert (before < 0.2, flash > 0.9) == (True, True)
    monkeypatch.setattr(reading, "MOST_WINDOWS", 100)
    few = read_footage(predictor, found, CONFIG).embeddings
    assert len(few) == 94  # every eighth
    assert (few == whole.embeddings[::8]).all()


def test_footage_is_embedded_once(
    predictor: Predictor, hours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    first = alarm_promise(predictor, [hours], 288, CONFIG, cache=cache)

    def refuse(frames_TCHW: object) -> None:
        raise AssertionError

    monkeypatch.setattr(predictor.runtime, "embed_frames", refuse)
    assert alarm_promise(predictor, [hours], 288, CONFIG, cache=cache) == first


def test_answers_at_a_pace_of_their_own(predictor: Predictor, hours: Path) -> None:
    config = replace(CONFIG, every_s=0.8)
    background = read_footage(predictor, find_footage([hours], 0.8), config)
    assert [len(stretch.logits) for stretch in background.stretches] == [375, 375]
    assert background.hours == pytest.approx(1 / 6)


def test_a_gap_parts_footage_and_its_seconds_do_not_count() -> None:
    logits_WK = np.zeros((10, 2), np.float32)
    logits_WK[4:6] = np.nan  # windows over frames that could not be decoded
    starts_s = np.append(0.5 * np.arange(9), 4.2)  # the last window ends with the video
    scored = VideoScores("a.mp4", 6.2, (0.0, 6.2), starts_s, ((2.0, starts_s, logits_WK),), (), 0, 0)
    first, second = stretches_of(scored, 0.5)
    assert first.ends_s.tolist() == [2.0, 2.5, 3.0, 3.5]
    assert second.ends_s.tolist() == [5.0, 5.5, 6.0]
    assert (first.length_s, second.length_s) == (3.5, 3.0)


def test_what_cannot_be_read_is_a_failure_and_the_same_content_counts_once(
    predictor: Predictor, hours: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "copy.mp4").write_bytes((hours / "a.mp4").read_bytes())
    Numbered(times_ms=range(0, 400, 40)).write(tmp_path / "short")
    named = [
        hours / "a.mp4",
        tmp_path / "broken.mp4",
        tmp_path / "copy.mp4",
        tmp_path / "short.mp4",
        tmp_path / "no.mp4",
    ]
    promise, failures = alarm_promise(predictor, named, 300, CONFIG)
    assert promise.hours == pytest.approx(1 / 12)
    assert [Path(failure.source).name for failure in failures] == ["broken.mp4", "copy.mp4", "short.mp4", "no.mp4"]
    assert f"the same footage as {hours / 'a.mp4'}; it is counted once" in failures[1].error
    assert "0.40 s of footage, less than one window of 0.8 s" in failures[2].error
    assert failures[3].missing


def test_what_cannot_be_promised_is_said_before_anything_is_embedded(
    predictor: Predictor, hours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor.runtime, "embed_frames", None)
    with pytest.raises(
        ConfigError, match=r"1 alarm a day cannot be promised from 0.167 hours of footage: that needs 24 hours"
    ):
        alarm_promise(predictor, [hours], 1, CONFIG)
    with pytest.raises(ConfigError, match="alarms_per_day = 0: needs a number above 0"):
        alarm_promise(predictor, [hours], 0, CONFIG)
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(DataError, match=f"{tmp_path}: no videos in this folder .*name one with footage"):
        alarm_promise(predictor, [tmp_path], 288, CONFIG)
    with pytest.raises(DataError, match="no footage was named"):
        alarm_promise(predictor, [], 288, CONFIG)
    with pytest.raises(
        DataError, match=r"no footage can be used of 2 videos; the first: .*less than one window of 900 s"
    ):
        alarm_promise(predictor, [hours], 288, replace(CONFIG, window_s=900))


def test_a_model_that_mixes_frames_cannot_stream(hours: Path) -> None:
    view = ViewConfig(resize_px=36, crop_px=32)
    config = replace(TINY, layout="joint")
    mixing = Predictor(Checkpoint(build_model(config, view), view, TINY_LABELS), device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match="cannot label a stream, so there is no rate of alarms to promise"):
        alarm_promise(mixing, [hours], 288, CONFIG)


def test_footage_full_of_actions_leaves_nothing_to_report(predictor: Predictor, hours: Path) -> None:
    promise = alarm_promise(predictor, [hours], 288, CONFIG)[0]
    full = replace(promise, overall=replace(promise.overall, threshold=1.0))
    with pytest.raises(
        ConfigError, match="nothing would ever be reported: the footage has 3 happenings that the model takes"
    ):
        predictor.stream(str(hours / "a.mp4"), CONFIG, promise=full)


def test_a_promise_holds_for_its_settings_and_actions_alone(
    predictor: Predictor, promise: AlarmPromise, hours: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"does not hold for window_s 3.2 instead of 0.8, smooth_s 1.0 instead of 0.0;"
    ):
        predictor.stream(str(hours / "a.mp4"), StreamConfig(), promise=promise)
    with pytest.raises(
        ConfigError, match="the promise of alarms is about wave, and the model has kick, wave; make one"
    ):
        predictor.stream(str(hours / "a.mp4"), CONFIG, promise=replace(promise, actions={"wave": promise.overall}))


def test_the_promise_of_a_model(predictor: Predictor, promise: AlarmPromise, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match="holds no promise of alarms, so 300 a day need a threshold of their own; name"
    ):
        stored_promise(predictor.runtime, 300)
    monkeypatch.setattr(predictor.runtime, "provenance", {"alarms": promise.to_dict()})
    assert stored_promise(predictor.runtime, 300) == stored_promise(predictor.runtime, 288) == promise
    with pytest.raises(ConfigError, match="promises 288 alarms a day, and 100 are asked for; name uneventful footage"):
        stored_promise(predictor.runtime, 100)
    monkeypatch.setattr(predictor.runtime, "provenance", {"alarms": [1]})
    with pytest.raises(ConfigError, match=r"its promise of alarms is damaged \(list\)"):
        stored_promise(predictor.runtime, 300)


def test_public_names() -> None:
    assert fewframes.alarm_promise is alarm_promise
    assert fewframes.AlarmPromise is AlarmPromise
