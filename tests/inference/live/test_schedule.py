"""Outside of its hours a source is neither embedded nor told; afterwards it begins anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fewframes.inference.live.feed import Feed, answers_together
from fewframes.inference.live.opening import open_feed
from fewframes.inference.live.results import StreamPrediction
from fewframes.inference.predictor import Predictor
from fewframes.video.live_settings import StreamConfig
from helpers.numbered import drifting
from helpers.walkers import Walker, write_walkers

CONFIG = StreamConfig(window_s=0.8, hours=("22:00-06:00",), time_zone="Europe/Berlin")
RED = (220, 30, 30)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifting(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", 150, gop=25, options={})


def by_minutes(start: datetime, minutes: float) -> Iterator[datetime]:
    """A clock that goes on by some minutes whenever it is asked, which is once a frame."""
    while True:
        yield start
        start += timedelta(minutes=minutes)


def answered(feed: Feed, predictor: Predictor) -> list[StreamPrediction]:
    found: list[StreamPrediction] = []
    with closing(feed.reader):
        while (items := feed.take(1, 0.2)) is not None:
            found += answers_together([(feed, items)], predictor.runtime.embed_frames)
        found += feed.finish()
    return found


def test_frames_outside_of_the_hours_are_neither_embedded_nor_told(predictor: Predictor, film: Path) -> None:
    everything = list(predictor.stream(str(film), StreamConfig(window_s=0.4)))
    frame_s = 0.4 / predictor.num_frames
    num_frames = round(6.0 / frame_s)
    clock = by_minutes(datetime(2026, 7, 1, 0, tzinfo=UTC), 24 * 60 / num_frames)  # the film is a day
    times: list[datetime] = []

    def now() -> datetime:
        times.append(next(clock))
        return times[-1]

    feed = open_feed(predictor, str(film), replace(CONFIG, window_s=0.4), {}, now=now)
    answers = answered(feed, predictor)
    inside = [not 4 <= at.hour < 20 for at in times]  # 06:00 to 22:00 of summer in Berlin
    assert len(times) == num_frames
    assert feed.summary().num_moments == sum(inside) < num_frames
    assert feed.summary().num_encoded <= sum(inside)
    ends = [round(answer.end_s / frame_s) - 1 for answer in answers if not answer.is_last]
    assert all(inside[end] for end in ends)
    assert all(
        all(inside[end - predictor.num_frames + 1 : end + 1]) for end in ends
    )  # no window holds frames of before
    by_end = {round(answer.end_s, 3): answer for answer in everything}
    for answer in answers:
        np.testing.assert_allclose(answer.scores, by_end[round(answer.end_s, 3)].scores, atol=1e-5)
    kinds = [event.words for event in feed.events if event.kind == "hours"]
    assert kinds == ["its hours are over; nothing is looked at until they begin", "its hours have begun"]
    assert sum(answer.is_last for answer in answers) == 1


def test_persons_have_gone_when_the_hours_are_over(predictor: Predictor, tmp_path: Path) -> None:
    film = write_walkers(tmp_path / "film.mp4", [Walker((60, 120), (60, 120), 0, 9, colour=RED)], 6.0)
    clock = by_minutes(datetime(2026, 7, 1, 3, 58, tzinfo=UTC), 0.1)
    config = StreamConfig(
        window_s=0.8, hours=CONFIG.hours, time_zone=CONFIG.time_zone, detector="helpers.walkers:by_colour"
    )
    feed = open_feed(predictor, str(film), config, {}, now=lambda: next(clock))
    answers = answered(feed, predictor)
    assert [answer.is_last for answer in answers[-2:]] == [False, True]
    assert answers[-1].track == "1"
    assert answers[-1].end_s < 5.0
    assert feed.summary().num_detections < 60


def test_hours_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="needs two times of the day"):
        StreamConfig(hours=("night",))
    with pytest.raises(ValueError, match="time_zone 'Berlin'"):
        StreamConfig(hours=("22:00-06:00",), time_zone="Berlin")
