"""Counting in whole videos: drawn films with a known count, names, caches, parts, and videos in which nothing can be counted."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

import fewframes
from fewframes.core.cache import EmbeddingCache
from fewframes.core.settings import settings_from
from fewframes.errors import ConfigError, VideoError
from fewframes.inference.counting.config import CountConfig
from fewframes.inference.counting.count import count_repetitions
from fewframes.inference.predictor import Predictor
from helpers.repeated import crossings, write_square


@pytest.fixture(scope="module")
def packaged() -> Predictor:
    return fewframes.load(unknown="off")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven crossings of a square of changing speed, a pause of two seconds, and five quicker ones."""
    slow, quick = crossings([1.5, 1.7, 2.0, 1.8, 1.6, 1.4, 1.5]), crossings([1.2] * 5)
    return write_square(tmp_path_factory.mktemp("count") / "square.mp4", [*slow, *[0.0] * 40, *quick])


def test_drawn_repetitions_are_counted_where_they_are(packaged: Predictor, film: Path) -> None:
    found = count_repetitions(packaged, film)
    assert found.count == 12
    ends = [one.end_s for stretch in found.stretches for one in stretch.repetitions]
    assert ends[6] == pytest.approx(11.5, abs=0.8)
    assert ends[-1] == pytest.approx(19.5, abs=0.8)
    assert sum(found.counts.values()) == 12
    assert set(found.counts) <= {*packaged.labels, "unknown"}


def test_nothing_is_repeated_over_a_pause_of_the_recording(packaged: Predictor, film: Path, tmp_path: Path) -> None:
    # The clock jumps by an hour while the square rests.
    path = tmp_path / "paused.mkv"
    with av.open(str(film)) as given, av.open(str(path), "w") as taken:
        stream = taken.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = (
            given.streams.video[0].width,
            given.streams.video[0].height,
            "yuv420p",
        )
        stream.codec_context.time_base, stream.codec_context.max_b_frames = Fraction(1, 1000), 0
        for frame in given.decode(video=0):
            assert frame.time is not None
            frame.pts, frame.time_base = (
                round(1000 * (frame.time + (3600 if frame.time >= 12.5 else 0))),
                Fraction(1, 1000),
            )
            taken.mux(stream.encode(frame))
        taken.mux(stream.encode())
    found = count_repetitions(packaged, path)
    assert [stretch.count for stretch in found.stretches] == [7, 5]
    (pause,) = found.gaps
    assert pause.is_pause
    assert pause.end_s - pause.start_s == pytest.approx(3600, abs=0.1)
    assert found.stretches[0].end_s < pause.start_s + 0.2
    assert found.stretches[1].start_s > pause.end_s - 0.2
    assert len(found.similarity) == len(found.similarity_times_s)


def test_a_part_and_another_run_read_the_cache(packaged: Predictor, film: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    first = count_repetitions(packaged, film, cache=cache)
    assert first.num_encoded + first.num_reused == first.num_frames == 156
    again = count_repetitions(packaged, film, cache=cache)
    assert again.num_encoded == again.num_reused == 0
    assert again.to_dict()["stretches"] == first.to_dict()["stretches"]
    part = count_repetitions(packaged, film, cache=cache, start_s=13.5)
    assert part.count == 5
    assert all(stretch.start_s >= 13.4 for stretch in part.stretches)


def test_the_similarity_shows_the_period(packaged: Predictor, film: Path) -> None:
    found = count_repetitions(packaged, film, start_s=13.5)
    lags_s = found.similarity_lags_s
    inside = (lags_s > 0.5) & (lags_s < 1.9)
    similarity_L = np.nanmean(found.similarity[:, inside], axis=0)
    assert lags_s[inside][similarity_L.argmax()] == pytest.approx(1.2, abs=0.2)
    assert found.similarity.shape == (len(found.similarity_times_s), len(lags_s))


@pytest.mark.parametrize(
    "phases",
    [[None] * 200, [0.5] * 200, crossings([6.0]), [None], [0.3] * 3, crossings([0.4, 0.4])],
    ids=["empty", "still", "once", "one frame", "three frames", "too short"],
)
def test_what_does_not_repeat_counts_nothing(packaged: Predictor, phases: list[float | None], tmp_path: Path) -> None:
    found = count_repetitions(packaged, write_square(tmp_path / "film.mp4", phases))
    assert (found.count, found.stretches, found.counts) == (0, (), {})
    assert found.to_dict()["count"] == 0
    assert found.to_csv().count("\n") == 1


def test_results_as_rows_and_tables(packaged: Predictor, film: Path) -> None:
    found = count_repetitions(packaged, film)
    rows = found.to_rows()
    assert len(rows) == 12
    assert rows[0]["repetition"] == 1
    assert len(found.to_csv().splitlines()) == 13
    assert "12 repetitions" in repr(found)
    assert "12 repetitions" in found._repr_html_()


def test_bad_settings_and_videos(packaged: Predictor, tmp_path: Path) -> None:
    for values, words in (
        ({"shortest_s": 5.0, "longest_s": 2.0}, "swap them"),
        ({"rate": 0.1}, "raise rate"),
        ({"rate": 100.0}, "more than 1024 frames"),
        ({"least_fit": 1.0}, "least_fit"),
    ):
        with pytest.raises(ConfigError, match=words):
            settings_from(CountConfig, values, "count")
    with pytest.raises(VideoError, match="no such file"):
        count_repetitions(packaged, tmp_path / "missing.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError):
        count_repetitions(packaged, tmp_path / "empty.mp4")
