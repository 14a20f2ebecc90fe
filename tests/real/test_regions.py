"""Zones and persons of real videos."""

from __future__ import annotations

from pathlib import Path

import pytest

import fewframes
from fewframes.inference.regions.detect import detector_of
from fewframes.video.regions.zone import zones_of


def test_most_pairs_have_somebody_who_is_followed(shared: Path) -> None:
    pytest.importorskip("cv2")
    clips = sorted((shared / "data" / "ut_interaction").glob("*/*.avi"))[::10]
    detector = detector_of("people")
    followed = 0
    for clip in clips:
        tracks = fewframes.detect_tracks(detector, clip)
        followed += any(sum(end - start for start, end in track.stretches(0, 100)) > 1 for track in tracks)
    assert followed >= 0.7 * len(clips)


def test_halves_of_a_street_have_answers_of_their_own(shared: Path) -> None:
    predictor = fewframes.load(device="cpu")
    halves = zones_of(["left=0,0,.5,1", "right=.5,0,1,1"])
    for clip in sorted((shared / "data" / "fights").glob("fight/*.mp4"))[:3]:
        left, right = fewframes.predict_regions(predictor, clip, halves)
        assert (left.zone, right.zone) == ("left", "right")
        assert abs(left.scores - right.scores).max() > 0.01
        assert left.reading == predictor.predict(clip).reading  # decoded once for both
