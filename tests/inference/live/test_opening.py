"""Zones of a stream: each is answered as `predict` answers it, from pictures that are decoded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fewframes.errors import ConfigError, VideoError
from fewframes.inference.live.streams import Streams, WatchedSource
from fewframes.inference.predictor import Predictor
from fewframes.inference.promise import AlarmPromise, AlarmThreshold
from fewframes.inference.regions.predict import predict_regions
from fewframes.video.live_settings import StreamConfig
from fewframes.video.regions.zone import zones_of
from helpers.numbered import drifting

ZONES = ("left=0,0,0.5,1", "right=0.5,0,1,1", "wide=0,0.25,1,0.75")
CONFIG = StreamConfig(window_s=1.0, every_s=0.5, zones=ZONES)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifting(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", 75, gop=25, options={})


def test_each_zone_is_answered_as_predict_answers_it(predictor: Predictor, film: Path) -> None:
    with predictor.stream(str(film), CONFIG) as stream:
        answers = list(stream)
    assert [answer.zone for answer in answers[:3]] == ["left", "right", "wide"]
    assert len(answers) == 15
    assert stream.summary().num_pictures == 75  # decoded once for all
    for number, zone in enumerate(zones_of(ZONES)):
        for answer in answers[number::3]:
            (alone,) = predict_regions(predictor, film, [zone], start_s=answer.start_s, end_s=answer.end_s)
            assert_allclose(answer.scores, alone.scores, atol=1e-4)
    assert answers[0].to_dict()["zone"] == "left"
    assert not np.allclose(answers[0].scores, answers[1].scores, atol=1e-4)


def test_sources_have_zones_of_their_own(predictor: Predictor, film: Path) -> None:
    sources = [
        WatchedSource(name="door", source=str(film), config=CONFIG),
        WatchedSource(name="yard", source=str(film), config=replace(CONFIG, zones=())),
    ]
    found = {(answer.source, answer.zone) for answer in Streams(predictor, sources)}
    assert found == {("door", "left"), ("door", "right"), ("door", "wide"), ("yard", "")}


def test_wrong_zones_are_refused(predictor: Predictor, film: Path) -> None:
    with pytest.raises(ConfigError, match="lies outside of the picture"):
        predictor.stream(str(film), replace(CONFIG, zones=("a=0,0,2,1",)))
    with pytest.raises(ConfigError, match="zone 'a' is given 2 times"):
        predictor.stream(str(film), replace(CONFIG, zones=("a=0,0,1,1", "a=0,0,1,0.5")))
    with pytest.raises(VideoError, match="zone tiny is .* pixels of a picture of"):
        list(predictor.stream(str(film), replace(CONFIG, zones=("tiny=0,0,0.01,0.01",))))


def test_alarms_are_not_promised_for_zones(predictor: Predictor, film: Path) -> None:
    limits = AlarmThreshold(threshold=0.5, alarms=1, clumping=1.0, promised=1.0, most_per_day=2.0)
    promise = AlarmPromise(
        alarms_per_day=1.0, hours=24.0, num_blocks=2, num_videos=1, window_s=1.0, every_s=0.5, smooth_s=1.0, enter=0.5,
        alarm_gap_s=30.0, at_enter=3, overall=limits, actions=dict.fromkeys(predictor.labels, limits),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="alarms were promised for the whole picture, not for the 3 zones"):
        predictor.stream(str(film), CONFIG, promise=promise)
