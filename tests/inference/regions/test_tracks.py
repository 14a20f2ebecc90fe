"""Persons who are followed: one answer each, from the time in which they are there, each frame decoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError, VideoError
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.regions import detect
from fewframes.inference.regions.detect import detect_tracks, detector_of, video_range
from fewframes.inference.regions.predict import predict_regions
from fewframes.inference.regions.timeline import region_predictor, sweep_regions
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.regions.boxes import Track, track_of
from fewframes.video.regions.zone import Zone, fit_region
from fewframes.video.source import read_frames
from helpers.walkers import ByColour, Walker, write_walkers

RED = Walker((30, 150), (120, 150), 0.0, 5.9, colour=(220, 40, 40))
BLUE = Walker((200, 140), (180, 140), 3.0, 5.9, colour=(40, 40, 220))
CONFIG = TimelineConfig(window_s=1.0, lengths=(1,), threshold=0.0)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_walkers(tmp_path_factory.mktemp("film") / "film.mp4", [RED, BLUE], 6)


@pytest.fixture(scope="module")
def tracks(film: Path) -> list[Track]:
    return detect_tracks(ByColour(), film)


def test_a_detector_becomes_tracks(film: Path, tracks: list[Track]) -> None:
    assert [track.name for track in tracks] == ["1", "2"]
    assert np.allclose(tracks[0].times_s, np.arange(0.1, 6, 0.2))
    for track, walker in zip(tracks, (RED, BLUE), strict=True):
        (first_s, last_s), *more = track.stretches(0, 6)
        assert not more
        assert abs(first_s - walker.from_s) <= 0.21
        assert last_s == 6
        for time_s in np.arange(first_s + 0.1, last_s - 0.1, 0.3):
            square, box = track.rectangle(float(time_s), 160, 240), walker.box(float(time_s))
            assert box is not None
            assert square.left <= box.x0 + 2
            assert square.right >= box.x1 - 2
            assert square.top <= box.y0 + 2
            assert square.bottom >= box.y1 - 2


def test_predict_looks_at_each_while_it_is_there(predictor: Predictor, film: Path, tracks: list[Track]) -> None:
    red, blue = predict_regions(predictor, film, tracks)
    assert (red.track, blue.track, red.zone) == ("1", "2", "")
    assert red.to_dict()["track"] == "1"
    assert red.times_s[0] < 1
    assert blue.times_s[0] >= 2.9
    (first_s, last_s) = tracks[1].stretches(0, 6)[0]
    asked_s = first_s + (np.arange(4) + 0.5) * (last_s - first_s) / 4
    frames = read_frames(film, asked_s).frames
    squares = [
        fit_region(frame_CHW, tracks[1].rectangle(float(time_s), 160, 240), predictor.runtime.view)
        for frame_CHW, time_s in zip(frames, asked_s, strict=True)
    ]
    embeddings_TD = predictor.runtime.embed_frames(np.stack(squares))
    assert_allclose(blue.frame_embeddings, embeddings_TD, atol=1e-5)
    assert predict_regions(predictor, film, tracks, end_s=2.0)[0].track == "1"
    assert len(predict_regions(predictor, film, tracks, end_s=2.0)) == 1  # the other one is not there yet
    assert predict_regions(predictor, film, tracks[1:], end_s=2.0) == []


def test_timelines_are_of_the_time_in_which_somebody_is_there(
    predictor: Predictor, film: Path, tracks: list[Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    frames_at = FileVideo.frames_at

    def noted(self: FileVideo, times_s: Any, *rest: Any, **named: Any) -> Any:
        asked.extend(np.asarray(times_s).tolist())
        return frames_at(self, times_s, *rest, **named)

    monkeypatch.setattr(FileVideo, "frames_at", noted)
    cache = EmbeddingCache(tmp_path / "cache")
    red, blue = sweep_regions(predictor, film, tracks, CONFIG, cache=cache)
    assert (red.track, blue.track) == ("1", "2")
    assert (red.start_s, red.end_s) == (0, 6)
    assert (round(blue.start_s, 1), blue.end_s) == (3.0, 6)
    assert len(asked) == len(set(asked)), "frames that both are in are decoded once"
    assert red.num_encoded == len(red.times_s) == 24
    asked.clear()
    again = sweep_regions(predictor, film, tracks, CONFIG, cache=cache)
    assert not asked
    assert_allclose(again[1].scores, blue.scores)


def test_who_comes_back_has_a_timeline_for_each_time(predictor: Predictor, film: Path) -> None:
    there = [*np.arange(0, 2, 0.2), *np.arange(4, 6, 0.2)]
    track = track_of("ann", there, [(20, 50, 60, 150)] * len(there))
    found = sweep_regions(predictor, film, [track], CONFIG)
    assert [line.track for line in found] == ["ann", "ann"]
    assert [(round(line.start_s, 1), round(line.end_s, 1)) for line in found] == [(0, 1.9), (3.9, 5.9)]
    assert len(predict_regions(predictor, film, [track])) == 1


def test_boxes_of_another_video(predictor: Predictor, film: Path) -> None:
    track = track_of("1", [0.0, 1.0, 2.0], [(1000, 600, 1100, 700)] * 3)
    for way in (
        lambda: predict_regions(predictor, film, [track]),
        lambda: sweep_regions(predictor, film, [track], CONFIG),
    ):
        with pytest.raises(VideoError, match="track 1 is outside of the picture"):
            way()


def test_the_rate_of_a_video(film: Path) -> None:
    assert video_range(film, 1.0, None) == (10.0, (1.0, 6.0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("persons", "needs people, or package.module:factory"),
        ("no_such_module:make", "no_such_module cannot be imported"),
        ("helpers.walkers:make", "helpers.walkers has no make"),
        ("helpers.walkers:Walker.__name__", "has no Walker.__name__"),
        ("builtins:dict", "dict returns a dict, which has no method boxes"),
    ],
)
def test_what_is_no_detector(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        detector_of(text)


def test_a_detector_of_the_users(film: Path) -> None:
    assert isinstance(detector_of("helpers.walkers:by_colour"), ByColour)
    assert isinstance(detector_of("helpers.walkers:ByColour"), ByColour)


@pytest.mark.parametrize("found", [None, [(1, 2, 3)], [(1, 2, "a", 4)], [(10, 0, 5, 5)], [(0, 0, float("nan"), 5)]])
def test_what_a_detector_must_return(found: Any) -> None:
    with pytest.raises(ConfigError, match=r"the detector returned .* at 1\.00 s"):
        detect.checked(lambda picture_HWC, time_s: found, np.zeros((4, 4, 3), np.uint8), 1.0)


@pytest.mark.parametrize(("end_s", "method"), [(6.0, "learned"), (2.0, "windows")])
def test_spans_of_the_models_detector(film: Path, end_s: float, method: str) -> None:
    packaged = load(device="cpu")
    zones = [Zone("left", 0, 0, 0.6, 1), Zone("right", 0.4, 0, 1, 1)]
    for found, zone in zip(sweep_regions(packaged, film, zones, end_s=end_s), zones, strict=True):
        alone = sweep(region_predictor(packaged, zone), film, end_s=end_s)
        assert found.method == alone.method == method
        assert (found.num_encoded, found.num_reused) == (alone.num_encoded, alone.num_reused)
        assert found.num_encoded + found.num_reused == len(found.times_s)  # what shows nothing new is not encoded
        assert_allclose(found.scores, alone.scores, atol=1e-5)
        assert [span.label for span in found.spans] == [span.label for span in alone.spans]
