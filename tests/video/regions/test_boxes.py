"""Tracks: the square that is cut out around a person, and when there is one."""

from __future__ import annotations

import numpy as np
import pytest

from fewframes.errors import VideoError
from fewframes.video.regions.boxes import AROUND_S, MARGIN, Track, track_of

STANDING = track_of("7", [0.0, 1.0, 2.0], [(100, 60, 140, 160)] * 3)


def test_the_square_holds_the_box_with_a_margin() -> None:
    box = STANDING.rectangle(1.0, 240, 320)
    assert (box.width, box.height) == (120, 120)  # 1.2 times the longer side
    assert ((box.left + box.right) / 2, (box.top + box.bottom) / 2) == (120, 110)


def test_fractions_and_pixels_are_one_place() -> None:
    fractions = track_of("7", [0.0, 2.0], [(100 / 320, 60 / 240, 140 / 320, 160 / 240)] * 2, in_pixels=False)
    assert fractions.rectangle(1.0, 240, 320) == STANDING.rectangle(1.0, 240, 320)
    assert fractions.rectangle(1.0, 480, 640).height == 240
    assert fractions.key() != STANDING.key()


def test_the_square_moves_into_the_picture() -> None:
    corner = track_of("1", [0.0, 2.0], [(-20, 180, 20, 260)] * 2).rectangle(1.0, 240, 320)
    assert (corner.left, corner.bottom) == (0, 240)
    assert (corner.width, corner.height) == (96, 96)
    giant = track_of("1", [0.0, 2.0], [(10, 10, 300, 230)] * 2).rectangle(1.0, 240, 320)
    assert (giant.width, giant.height) == (320, 240)


def test_who_walks_stays_inside_and_the_square_does_not_tremble() -> None:
    times_s = np.arange(0, 10, 0.2)
    lots = np.random.default_rng(0)
    steady = np.stack([30 + 20 * times_s, 0 * times_s + 60, 60 + 20 * times_s, 0 * times_s + 150], axis=1)
    shaken = Track("1", times_s, steady + lots.uniform(-6, 6, steady.shape))
    sizes = []
    for time_s in np.arange(1, 9, 0.1):
        square = shaken.rectangle(float(time_s), 240, 320)
        sizes.append(square.height)
        for about_s in (-AROUND_S, 0, AROUND_S):
            x0, x1 = 30 + 20 * (time_s + about_s), 60 + 20 * (time_s + about_s)
            assert square.left <= x0
            assert square.right >= x1
    assert np.ptp(sizes) <= 12 * MARGIN  # a box alone changes by up to 24


def test_stretches() -> None:
    there = [*np.arange(0, 2.01, 0.2), *np.arange(5, 8.01, 0.2), 12.0]
    track = track_of("1", there, [(0, 0, 40, 90)] * len(there))
    assert np.allclose(track.stretches(0, 20), [(0, 2.1), (4.9, 8.1)])  # the last box alone is too short
    assert np.allclose(track.stretches(1, 6), [(1, 2.1), (4.9, 6)])
    assert track.stretches(2.5, 4.5) == []
    assert track_of("1", [3.0], [(0, 0, 40, 90)]).stretches(0, 20) == []


def test_boxes_outside_of_the_picture() -> None:
    with pytest.raises(
        VideoError, match=r"track 7 is outside of the picture at 1.00 s: 100,60 to 140,160 in a picture of 64 x 48"
    ):
        STANDING.rectangle(1.0, 48, 64)


def test_the_key_is_that_of_the_boxes() -> None:
    same = track_of("another", [2.0, 1.0, 0.0], [(100, 60, 140, 160)] * 3)
    moved = track_of("7", [0.0, 1.0, 2.0], [(100, 60, 140, 160), (100, 60, 140, 160), (101, 60, 140, 160)])
    assert same.key() == STANDING.key() != moved.key()
    assert "3 boxes from 0.00 s to 2.00 s" in repr(STANDING)
