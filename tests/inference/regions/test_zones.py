"""Zones of files: each is answered as a film of it alone, and every frame is decoded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError, VideoError
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.regions.predict import predict_regions, predict_regions_many, times_within
from fewframes.inference.regions.timeline import region_predictor, sweep_regions
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.results import Failure
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.regions.zone import Zone, whole_view
from fewframes.video.source import read_frames
from helpers.numbered import drifting

LEFT, RIGHT, WIDE = Zone("left", 0, 0, 0.5, 1), Zone("right", 0.5, 0, 1, 1), Zone("wide", 0, 0.25, 1, 0.75)
CONFIG = TimelineConfig(window_s=1.0, lengths=(1,), threshold=0.0)
SECONDS = 6


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifting(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", SECONDS * 25, gop=50, options={})


@pytest.fixture
def num_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The timestamps that were asked of files, call by call."""
    asked: list[int] = []
    frames_at = FileVideo.frames_at

    def counted(self: FileVideo, times_s: Any, *rest: Any, **named: Any) -> Any:
        asked.append(len(np.asarray(times_s)))
        return frames_at(self, times_s, *rest, **named)

    monkeypatch.setattr(FileVideo, "frames_at", counted)
    return asked


def alone(predictor: Predictor, film: Path, zone: Zone) -> tuple[Predictor, list[NDArray[np.uint8]]]:
    """The pictures of a zone as a film of its own, and a predictor that shows the whole of them."""
    times_s = (np.arange(SECONDS * 25) + 0.5) / 25
    pictures_THWC = read_frames(film, times_s).frames.transpose(0, 2, 3, 1)
    box = zone.rectangle(0.0, *pictures_THWC.shape[1:3])
    shows_all = load(predictor.name, device="cpu", dtype="float32")
    shows_all.reader = replace(shows_all.reader, view=whole_view(shows_all.reader.view))
    return shows_all, [picture[box.top : box.bottom, box.left : box.right] for picture in pictures_THWC]


def test_predict_answers_each_zone_by_itself(predictor: Predictor, film: Path, num_decoded: list[int]) -> None:
    found = predict_regions(predictor, film, [LEFT, RIGHT, WIDE])
    assert num_decoded == [predictor.num_frames]
    assert [prediction.zone for prediction in found] == ["left", "right", "wide"]
    for prediction, zone in zip(found, (LEFT, RIGHT, WIDE), strict=True):
        shows_all, pictures = alone(predictor, film, zone)
        assert_allclose(prediction.scores, shows_all.predict(pictures).scores, atol=1e-5)
        assert prediction.to_dict()["zone"] == zone.name
    assert np.abs(found[0].scores - found[1].scores).max() > 1e-4
    assert found[0].times_s.tolist() == predictor.predict(film).times_s.tolist()
    assert "zone" not in predictor.predict(film).to_dict()


def test_timeline_answers_each_zone_by_itself(
    predictor: Predictor, film: Path, tmp_path: Path, num_decoded: list[int]
) -> None:
    zones = [LEFT, RIGHT, WIDE]
    cache = EmbeddingCache(tmp_path / "cache")
    found = sweep_regions(predictor, film, zones, CONFIG, cache=cache)
    num_frames = len(found[0].times_s)
    assert num_frames == SECONDS * predictor.num_frames
    assert sum(num_decoded) == num_frames  # not three times as many
    for timeline, zone in zip(found, zones, strict=True):
        shows_all, pictures = alone(predictor, film, zone)
        assert_allclose(timeline.scores, sweep(shows_all, pictures, CONFIG).scores, atol=1e-5)
        assert (timeline.zone, timeline.num_encoded, timeline.num_missing) == (zone.name, num_frames, 0)
        assert timeline.to_dict()["zone"] == zone.name
        assert all(row["zone"] == zone.name for row in timeline.to_rows())
        assert timeline.to_csv().startswith("source,zone,start_s,")

    num_decoded.clear()
    renamed = sweep_regions(predictor, film, [replace(RIGHT, name="other")], CONFIG, cache=cache)
    assert not num_decoded, "the name of a zone is no part of what is cached"
    assert (renamed[0].zone, renamed[0].num_encoded) == ("other", 0)
    assert_allclose(renamed[0].scores, found[1].scores)


def test_whole_picture_and_zones_share_no_embeddings(predictor: Predictor, film: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    whole = sweep(predictor, film, CONFIG, cache=cache)
    zone = sweep_regions(predictor, film, [RIGHT], CONFIG, cache=cache)[0]
    assert zone.num_encoded == len(zone.times_s)
    assert np.abs(zone.scores - whole.scores).max() > 1e-4
    assert sweep(predictor, film, CONFIG, cache=cache).num_encoded == 0


def test_part_of_a_film_and_no_cache(predictor: Predictor, film: Path) -> None:
    found = sweep_regions(predictor, film, [RIGHT], CONFIG, start_s=1, end_s=4)[0]
    reference = sweep(region_predictor(predictor, RIGHT), film, CONFIG, start_s=1, end_s=4)
    assert (found.start_s, found.end_s) == (1, 4)
    assert_allclose(found.scores, reference.scores, atol=1e-6)
    assert found.num_encoded == reference.num_encoded == len(found.times_s)


def test_zones_of_one_place_are_encoded_once(predictor: Predictor, film: Path) -> None:
    found = sweep_regions(predictor, film, [RIGHT, replace(RIGHT, name="again")], CONFIG)
    num_frames = len(found[0].times_s)
    assert [line.num_encoded for line in found] == [num_frames, 0]
    assert_allclose(found[0].scores, found[1].scores)


def test_a_still_zone_is_encoded_once(predictor: Predictor, tmp_path: Path) -> None:
    from helpers.films import write_film

    film = write_film(tmp_path / "film.mp4", ("none",) * 3)
    found = sweep_regions(predictor, film, [LEFT, RIGHT], replace(CONFIG, still=3.0))
    assert [line.num_encoded for line in found] == [1, 1]
    assert [line.num_reused for line in found] == [len(found[0].times_s) - 1] * 2


def test_pictures_in_memory(predictor: Predictor, film: Path) -> None:
    _, pictures = alone(predictor, film, Zone("all", 0, 0, 1, 1))
    found = sweep_regions(predictor, pictures, [LEFT, RIGHT], CONFIG)
    assert_allclose(found[1].scores, sweep_regions(predictor, film, [RIGHT], CONFIG)[0].scores, atol=1e-5)


def test_damage_leaves_gaps(predictor: Predictor, film: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ts"
    drifting(cut, "mpeg2video", SECONDS * 25, gop=25, options={})
    content = bytearray(cut.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 6000] = bytes(6000)
    cut.write_bytes(content)
    whole = sweep(predictor, cut, CONFIG)
    found = sweep_regions(predictor, cut, [LEFT, RIGHT], CONFIG)
    assert [line.num_missing for line in found] == [whole.num_missing] * 2
    assert [line.gaps for line in found] == [whole.gaps] * 2


def test_a_zone_that_is_too_small(predictor: Predictor, film: Path) -> None:
    slit = Zone("slit", 0, 0, 0.1, 1)
    for way in (
        lambda: predict_regions(predictor, film, [LEFT, slit]),
        lambda: sweep_regions(predictor, film, [LEFT, slit], CONFIG),
    ):
        with pytest.raises(VideoError, match="zone slit is 10 x 96 pixels of a picture of 96 x 96"):
            way()


def test_many_videos(predictor: Predictor, film: Path, tmp_path: Path) -> None:
    found = list(predict_regions_many(predictor, [film, tmp_path / "none.mp4", film], [LEFT, RIGHT]))
    assert isinstance(found[1], Failure)
    assert found[1].missing
    for answers in (found[0], found[2]):
        assert isinstance(answers, tuple)
        assert [answer.zone for answer in answers] == ["left", "right"]


def test_frame_stores_have_no_parts(predictor: Predictor, tmp_path: Path) -> None:
    store = tmp_path / "film.frames"
    store.write_bytes(b"anything")
    with pytest.raises(ConfigError, match="a frame store has embeddings of whole pictures"):
        sweep_regions(predictor, store, [LEFT], CONFIG)


def test_times_within_stretches() -> None:
    assert times_within([(1.0, 3.0)], 4).tolist() == [1.25, 1.75, 2.25, 2.75]
    assert times_within([(0.0, 1.0), (5.0, 6.0)], 4).tolist() == [0.25, 0.75, 5.25, 5.75]
