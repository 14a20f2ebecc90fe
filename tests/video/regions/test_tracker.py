"""The tracker: one person has one number, whoever else is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewframes.video.regions.boxes import Box
from fewframes.video.regions.tracker import Tracker, overlaps, shared_part, tracks_of


def at(x: float, y: float = 50.0) -> Box:
    return Box(x, y, x + 30, y + 80)


def test_overlaps() -> None:
    boxes = np.array([(0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (0, 0, 0, 0)], np.float64)
    found = overlaps(boxes, boxes)
    assert found[0].tolist() == [1, 50 / 150, 0, 0]
    assert (found == found.T).all()
    assert found[3, 3] == 0
    assert overlaps(boxes[:0], boxes).shape == (0, 4)
    legs = np.array([(2, 5, 8, 15)], np.float64)  # 30 of its 60 pixels lie in the first box, 15 in the second
    assert shared_part(boxes, legs)[:, 0].tolist() == [0.5, 0.25, 0, 0]


def test_two_who_cross_keep_their_numbers() -> None:
    tracker = Tracker()
    for step in range(41):
        right, left = at(20 + 5 * step), at(220 - 5 * step)
        numbers = tracker.update(0.2 * step, [right, left] if step % 2 else [left, right])
        assert numbers == ([2, 1] if step % 2 else [1, 2]), step


def test_who_is_lost_for_a_moment_keeps_the_number() -> None:
    tracker = Tracker(patience_s=1.0)
    seen = [tracker.update(0.2 * step, [at(20 + 5 * step)] if not 5 <= step < 9 else []) for step in range(14)]
    assert [numbers for numbers in seen if numbers] == [[1]] * 10


def test_who_is_lost_for_long_has_a_new_number() -> None:
    tracker = Tracker(patience_s=1.0)
    seen = [tracker.update(0.2 * step, [at(20)] if not 5 <= step < 12 else []) for step in range(16)]
    assert [numbers for numbers in seen if numbers] == [[1]] * 5 + [[2]] * 4
    assert [len(track.times_s) for track in tracker.tracks()] == [5, 4]


def test_the_sum_of_overlaps_decides() -> None:
    tracker = Tracker()
    tracker.update(0.0, [Box(0, 0, 100, 100), Box(60, 0, 160, 100)])
    # The first box overlaps most with track 1, but then nothing is left for the second one.
    assert tracker.update(0.2, [Box(20, 0, 120, 100), Box(-40, 0, 60, 100)]) == [2, 1]


def test_single_mistakes_are_no_tracks() -> None:
    found = tracks_of([(0.2 * step, [at(20), *([at(200)] if step == 3 else [])]) for step in range(8)])
    assert [track.name for track in found] == ["1"]


def test_times_only_go_on() -> None:
    tracker = Tracker()
    tracker.update(1.0, [at(20)])
    with pytest.raises(ValueError, match="needs to be later than the picture before, at 1 s"):
        tracker.update(1.0, [at(20)])


BOXES = st.lists(
    st.tuples(*(st.floats(0, 200) for _ in range(2)), *(st.floats(1, 100) for _ in range(2))).map(
        lambda box: Box(box[0], box[1], box[0] + box[2], box[1] + box[3])
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(BOXES, max_size=6))
def test_each_box_of_a_picture_has_a_number_of_its_own(pictures: list[list[Box]]) -> None:
    tracker = Tracker()
    total = 0
    for step, boxes in enumerate(pictures):
        numbers = tracker.update(0.3 * step, boxes)
        assert len(set(numbers)) == len(boxes)
        total += len(boxes)
    assert sum(len(track.times_s) for track in tracker.tracks()) <= total
