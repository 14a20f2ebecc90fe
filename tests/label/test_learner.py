"""The learner: what one label, one film and one wrong label teach, and what accuracy is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fewframes.inference.predictor import Predictor
from fewframes.label.archive import Archive
from fewframes.label.learner import Learned, Learner, groups_of
from fewframes.label.values import BACKGROUND, Segment
from helpers.films import CYCLE, PART_S, WINDOW_S, write_film, write_films


def embedded(source: Path, predictor: Predictor) -> Archive:
    archive = Archive([str(source)], predictor, None, WINDOW_S, lambda note: None)
    archive.embed_all(lambda video: None)
    return archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, predictor: Predictor) -> Archive:
    """Six films of four parts."""
    return embedded(write_films(tmp_path_factory.mktemp("films"), 6), predictor)


def parts_of(archive: Archive, parts: Sequence[str] = CYCLE, **other: str) -> list[Segment]:
    """Return a segment of each part of each film, with other labels for some, by number."""
    segments: list[Segment] = []
    for video in archive.videos.values():
        for number, part in enumerate(parts):
            key = str(len(segments))
            label = BACKGROUND if part == "none" else part
            start_s = float(PART_S * number)
            segments.append(Segment(key, video.id, start_s, start_s + PART_S, other.get(f"s{key}", label), "ada"))
    return segments


def answers(learned: Learned, archive: Archive, segment: Segment) -> str:
    moments_WP = archive.moments_of(archive.whole_windows_of(segment))
    return learned.labels[int(learned.scores(moments_WP).mean(axis=0).argmax())]


def test_all_parts_are_told_apart_by_films_that_are_left_out(archive: Archive) -> None:
    segments = parts_of(archive)
    learned = Learner(archive).learn(segments)
    assert learned.labels == ("redden", "turn blue", BACKGROUND)
    assert learned.accuracy is not None
    assert learned.accuracy.value == pytest.approx(
        np.mean([learned.likeliest(one)[0] == one.label for one in segments])
    )
    assert learned.accuracy.value > 0.9
    assert learned.accuracy.low <= learned.accuracy.value <= learned.accuracy.high
    assert learned.accuracy.num_groups == 6
    assert learned.accuracy.protocol == "24 segments, each video left out in turn"
    assert all(answers(learned, archive, one) == one.label for one in segments)


def test_a_group_says_nothing_about_itself(archive: Archive) -> None:
    own = parts_of(archive)[:4]
    swapped = {f"s{number}": "turn blue" if one.label == "redden" else "redden" for number, one in enumerate(own)}
    right, wrong = (Learner(archive).learn(parts_of(archive, **labels)) for labels in ({}, swapped))
    for segment in own:  # all labels of the first film are false, and it is still predicted as before
        assert right.likeliest(segment)[0] == wrong.likeliest(segment)[0] == segment.label


def test_one_label_teaches_before_there_is_any_background(archive: Archive) -> None:
    first = parts_of(archive)[0]
    learned = Learner(archive).learn([first])
    assert learned.labels == ("redden", BACKGROUND)
    assert learned.accuracy is None
    assert learned.why_no_accuracy == "'redden' needs labels in two minutes, because each is left out in turn"
    scores = {
        one.id: float(learned.scores(archive.moments_of(archive.whole_windows_of(one))).mean(axis=0)[0])
        for one in parts_of(archive)
    }
    likest = sorted(scores, key=lambda key: -scores[key])[:6]
    assert sum(parts_of(archive)[int(key)].label == "redden" for key in likest) >= 5  # fmt: skip


def test_nothing_and_background_alone_say_what_is_missing(archive: Archive) -> None:
    learner = Learner(archive)
    assert learner.learn([]).why_no_accuracy.startswith("nothing is labelled yet")
    background = [one for one in parts_of(archive) if one.label == BACKGROUND]
    learned = learner.learn(background)
    assert learned.labels == ()
    assert learned.why_no_accuracy == "only parts without actions are labelled; label an action"
    assert str(learner.forecast([])).endswith("nothing is labelled yet")


def test_one_film_is_judged_minute_by_minute(tmp_path: Path, predictor: Predictor) -> None:
    archive = embedded(write_film(tmp_path / "long.mp4", CYCLE * 16), predictor)  # 128 s
    segments = parts_of(archive, CYCLE * 16)
    assert len(set(groups_of(segments))) == 3
    learned = Learner(archive).learn(segments)
    assert learned.accuracy is not None
    assert learned.accuracy.num_groups == 3
    assert learned.accuracy.protocol == "64 segments, each block of 60 s left out in turn"
    assert learned.accuracy.value > 0.9
    early = Learner(archive).learn([one for one in segments if one.end_s <= 60])
    assert early.accuracy is None
    assert "needs labels in two minutes" in early.why_no_accuracy
    assert all(early.likeliest(one)[0] == one.label for one in segments[:16])


def test_videos_that_are_not_embedded_yet_wait(tmp_path: Path, predictor: Predictor) -> None:
    archive = Archive([str(write_film(tmp_path / "film.mp4"))], predictor, None, WINDOW_S, lambda note: None)
    assert Learner(archive).learn(parts_of(archive)).labels == ()
    archive.embed_all(lambda video: None)
    assert Learner(archive).learn(parts_of(archive)).labels == ("redden", "turn blue", BACKGROUND)
