"""Persons in a stream: each is answered as `predict` answers him, has gone when he is not seen, and costs no memory after that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from fewframes.errors import ConfigError
from fewframes.inference.live.persons import LivePersons
from fewframes.inference.live.results import StreamPrediction
from fewframes.inference.live.streams import Streams, WatchedSource
from fewframes.inference.predictor import Predictor
from fewframes.inference.promise import AlarmPromise, AlarmThreshold
from fewframes.inference.regions.detect import detect_tracks
from fewframes.inference.regions.predict import predict_regions
from fewframes.video.live_queue import LiveFrame
from fewframes.video.live_settings import StreamConfig
from fewframes.video.regions.boxes import Box
from helpers.walkers import ByColour, Walker, by_colour, write_walkers

RED, GREEN, BLUE = (220, 30, 30), (30, 220, 30), (30, 30, 220)
CONFIG = StreamConfig(window_s=0.8, detector="helpers.walkers:by_colour", detections_per_s=10.0)
STAYS = Walker((60, 120), (60, 120), 0.0, 9.0, colour=RED)
GOES = Walker((160, 120), (200, 120), 0.0, 2.0, colour=GREEN)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_walkers(tmp_path_factory.mktemp("film") / "film.mp4", [STAYS, GOES], 5.0)


@pytest.fixture(scope="module")
def answers(predictor: Predictor, film: Path) -> list[StreamPrediction]:
    with predictor.stream(str(film), CONFIG) as stream:
        return list(stream)


def of(answers: list[StreamPrediction], track: str) -> list[StreamPrediction]:
    return [answer for answer in answers if answer.track == track and not answer.is_last]


def test_each_person_is_answered_as_predict_answers_him(
    predictor: Predictor, film: Path, answers: list[StreamPrediction]
) -> None:
    still = next(track for track in detect_tracks(by_colour(), film, per_s=10.0) if len(track.times_s) > 40)
    own = of(answers, "1")
    assert len(own) > 15
    for answer in own[::5]:
        (alone,) = predict_regions(predictor, film, [still], start_s=answer.start_s, end_s=answer.end_s)
        assert_allclose(answer.scores, alone.scores, atol=1e-4)
    assert not np.allclose(own[0].scores, of(answers, "2")[0].scores, atol=1e-4)
    assert own[0].to_dict()["track"] == "1"
    assert "is_last" not in own[0].to_dict()


def test_a_person_has_an_answer_once_his_window_is_full_and_a_last_one_when_he_has_gone(
    predictor: Predictor, answers: list[StreamPrediction]
) -> None:
    first = of(answers, "2")[0]
    assert first.num_frames == predictor.num_frames
    assert first.end_s == pytest.approx(0.2 + 0.8, abs=0.21)  # three boxes, and a window
    last = [answer for answer in answers if answer.is_last]
    assert [answer.track for answer in last] == ["2", "1"]
    assert last[0].end_s == of(answers, "2")[-1].end_s == pytest.approx(3.0, abs=0.25)  # a second after the last box
    assert last[0].to_dict()["is_last"] is True
    assert of(answers, "2")[-1].end_s < of(answers, "1")[-1].end_s


def test_the_summary_tells_the_cost_of_the_detector(predictor: Predictor, film: Path) -> None:
    with predictor.stream(str(film), replace(CONFIG, detections_per_s=2.0)) as stream:
        answers = list(stream)
    summary = stream.summary()
    assert summary.num_persons == 2
    assert 8 <= summary.num_detections <= 10  # five seconds
    assert summary.detect_s > 0
    assert "2 persons judged, looked for in" in str(summary)
    assert len(of(answers, "1")) > 10  # answers between looks, too
    assert summary.num_encoded > 0


def test_more_persons_than_allowed_are_told_and_wait_for_their_turn(predictor: Predictor, film: Path) -> None:
    with predictor.stream(str(film), replace(CONFIG, most_persons=1)) as stream:
        answers = list(stream)
    assert {answer.track for answer in answers} == {"1"}
    (event,) = [event for event in stream.events if event.kind == "crowd"]
    assert event.words == "2 persons, of whom 1 are judged; allow more with most_persons"


def test_sources_have_detectors_of_their_own(predictor: Predictor, film: Path) -> None:
    sources = [
        WatchedSource(name="door", source=str(film), config=CONFIG),
        WatchedSource(name="yard", source=str(film), config=replace(CONFIG, detector="")),
        WatchedSource(name="broken", source=str(film), config=replace(CONFIG, detector=f"{__name__}:Broken")),
    ]
    with Streams(predictor, sources) as streams:
        found = {(answer.source, answer.track) for answer in streams}
    assert found == {("door", "1"), ("door", "2"), ("yard", "")}
    assert str(streams.failures["broken"]).startswith("the detector returned")


class Broken:
    def boxes(self, picture_HWC: NDArray[np.uint8], time_s: float) -> Sequence[Box]:
        return [Box(5, 5, 1, 1)]


def test_memory_does_not_grow_with_persons_who_come_and_go(predictor: Predictor) -> None:
    persons = LivePersons(lambda: predictor.live_region(CONFIG), ByColour(), predictor.reader.view, CONFIG)
    gone = 0
    for number in range(600):
        picture_CHW = np.full((3, 120, 160), 200, np.uint8)
        if number % 30 < 10:  # somebody for a second, and nobody for two
            picture_CHW[1:, 20:90, 40:80] = 20
        scene = persons.look(LiveFrame(0.1 * number, 0, number, picture_CHW, 0.0))
        gone += len(scene.gone)
    assert persons.num_persons == gone == 20
    assert not persons._persons
    assert not persons._tracker._trails
    assert [view.name for view in persons.look(LiveFrame(60.0, 0, 600, picture_CHW, 0.0)).persons] == []


def test_what_does_not_go_together_is_refused(predictor: Predictor, film: Path) -> None:
    with pytest.raises(ValueError, match="and 1 zones exclude each other"):
        replace(CONFIG, zones=("a=0,0,1,1",))
    with pytest.raises(ConfigError, match="no_such cannot be imported"):
        predictor.stream(str(film), replace(CONFIG, detector="no_such:thing"))
    limits = AlarmThreshold(threshold=0.5, alarms=1, clumping=1.0, promised=1.0, most_per_day=2.0)
    promise = AlarmPromise(
        alarms_per_day=1.0, hours=24.0, num_blocks=2, num_videos=1, window_s=0.8, every_s=0.1, smooth_s=1.0, enter=0.5,
        alarm_gap_s=30.0, at_enter=3, overall=limits, actions=dict.fromkeys(predictor.labels, limits),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="for the whole picture, not for persons"):
        predictor.stream(str(film), CONFIG, promise=promise)


def test_opencvs_persons_are_followed(predictor: Predictor, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    walkers = [Walker((140, 330), (200, 330), 0, 9, 200), Walker((360, 320), (300, 320), 0, 9, 200)]
    film = write_walkers(tmp_path / "film.mp4", walkers, 3.0, (480, 360))
    with predictor.stream(str(film), replace(CONFIG, detector="people", detections_per_s=5.0)) as stream:
        answers = list(stream)
    assert {answer.track for answer in answers} == {"1", "2"}
