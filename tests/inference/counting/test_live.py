"""Counting in a stream: frame by frame, through lost and dropped frames."""

from __future__ import annotations

from pathlib import Path

import pytest

import fewframes
from fewframes.errors import ConfigError
from fewframes.inference.counting.live import LiveCounter
from fewframes.video.live_settings import StreamConfig
from helpers.repeated import Movement, crossings, repeated, write_square


def test_a_stream_counts_as_it_goes_and_ends_with_the_count_of_the_film(tmp_path: Path) -> None:
    film = write_square(tmp_path / "square.mp4", crossings([1.6] * 8))
    with fewframes.load(unknown="off").stream(str(film), StreamConfig(window_s=2.0, count=True)) as stream:
        answers = list(stream)
    counts = [answer.repetitions.count for answer in answers if answer.repetitions is not None]
    assert len(counts) == len(answers)
    assert counts[-1] == 8
    assert all(after - before in (0, 1, 2) for before, after in zip(counts, counts[1:], strict=False))
    last = answers[-1].repetitions
    assert last is not None
    assert last.last_s is not None
    assert last.last_s[1] == pytest.approx(12.8, abs=0.4)
    written = answers[-1].to_dict()["repetitions"]
    assert written == {"count": 8, "stretch": 8, "last_s": [round(time_s, 3) for time_s in last.last_s]}


def test_a_stream_that_does_not_count_says_nothing_of_it(tmp_path: Path) -> None:
    film = write_square(tmp_path / "square.mp4", crossings([1.6] * 2))
    with fewframes.load(unknown="off").stream(str(film), StreamConfig(window_s=2.0)) as stream:
        answers = list(stream)
    assert all(answer.repetitions is None and "repetitions" not in answer.to_dict() for answer in answers)


def test_what_was_counted_stays_when_the_source_was_lost() -> None:
    counter = LiveCounter(0.125)
    frames_ND = repeated(Movement(2), [16.0] * 5)
    for index, embedding_D in enumerate(frames_ND):
        counter.push(index, embedding_D, index / 8)
    assert (counter.now().count, counter.now().stretch) == (5, 5)
    counter.restart()
    assert (counter.now().count, counter.now().last_s) == (5, None)
    for index, embedding_D in enumerate(frames_ND[:48]):
        counter.push(index, embedding_D, 100 + index / 8)
    assert (counter.now().count, counter.now().stretch) == (8, 3)


def test_dropped_frames_keep_their_time() -> None:
    counter = LiveCounter(0.125)
    for index, embedding_D in enumerate(repeated(Movement(2), [24.0] * 6)):
        if index % 7:
            counter.push(index, embedding_D, index / 8)
    assert counter.now().count == 6


def test_windows_too_short_to_count_in_are_refused() -> None:
    with pytest.raises(ConfigError, match="use a longer window"):
        LiveCounter(0.01)
