"""The archive: which videos a session has, their windows, and the embeddings that it shares with timelines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewframes.core.cache import EmbeddingCache
from fewframes.errors import DataError
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.label.archive import Archive, ArchivedVideo, Window, window_of
from fewframes.label.values import Segment
from helpers.films import WINDOW_S, write_film, write_films
from helpers.numbered import write_fading

Made = Callable[..., Archive]


@pytest.fixture
def made(predictor: Predictor) -> Made:
    """Makes an archive of sources, embedded; notes are appended to a list."""

    def make(*sources: Path, cache: Path | None = None, notes: list[str] | None = None) -> Archive:
        kept = [] if notes is None else notes
        archive = Archive(
            [str(source) for source in sources],
            predictor,
            EmbeddingCache(cache) if cache else None,
            WINDOW_S,
            kept.append,
        )
        archive.embed_all(lambda video: None)
        return archive

    return make  # fmt: skip


def named(archive: Archive, name: str) -> ArchivedVideo:
    return next(video for video in archive.videos.values() if video.name == name)


def test_odd_names_broken_files_and_copies(tmp_path: Path, made: Made) -> None:
    names = ("a b.mp4", "日本 ü.mp4", "-dash #1 %20?.mp4", "q'\".mp4")
    for number, name in enumerate(names):
        write_fading(tmp_path / name, 20 + number, turned=False)
    (tmp_path / "sub").mkdir()
    shutil.copy(tmp_path / names[0], tmp_path / "sub" / "copy.mp4")
    write_fading(tmp_path / "sub" / names[0], 30, turned=True)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    notes: list[str] = []
    archive = made(tmp_path, tmp_path / "none.mp4", notes=notes)
    found = {video.name: video for video in archive.videos.values()}
    assert set(found) == {*names[1:], f"{tmp_path.name}/{names[0]}", f"sub/{names[0]}", "broken.mp4"}
    assert {video.status for video in archive.videos.values()} == {"ready", "failed"}
    assert found["broken.mp4"].status == "failed"
    assert "broken.mp4" in found["broken.mp4"].reason
    assert len(notes) == 3
    assert any("copy.mp4: the same file as" in note for note in notes)
    assert any("none.mp4: not a file on this machine that can be read (No such file" in note for note in notes)


def test_nothing_to_label_is_an_error(tmp_path: Path, made: Made) -> None:
    with pytest.raises(DataError, match=r"no videos in this folder .*; name one with videos"):
        made(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"none of these can be opened; name videos"):
        made(tmp_path)
    with pytest.raises(DataError, match=r"none of these can be opened"):
        made(tmp_path / "none.mp4")


def test_frames_are_those_of_a_timeline_and_embedded_once(tmp_path: Path, made: Made, predictor: Predictor) -> None:
    film = write_film(tmp_path / "film.mp4")
    archive = made(film, cache=tmp_path / "cache")
    cache = EmbeddingCache(tmp_path / "cache")
    timeline = sweep(predictor, str(film), TimelineConfig(window_s=WINDOW_S, lengths=(1, 2)), cache=cache)
    assert timeline.num_encoded == 0
    assert made(film, cache=tmp_path / "cache").videos.keys() == archive.videos.keys()
    video = named(archive, "film.mp4")
    assert video.num_frames == len(timeline.times_s) == 32
    for stride, length in zip((1, 2), timeline.windows, strict=True):
        starts_s = [
            archive.times_of(Window(video.id, stride, first))[0] for first in archive.windows(video, stride).tolist()
        ]
        assert set(np.round(starts_s, 6)) <= set(np.round(np.maximum(0, length.starts_s), 6))  # fmt: skip


def test_windows_lie_in_the_video_and_the_last_one_ends_with_it(tmp_path: Path, made: Made) -> None:
    archive = made(write_film(tmp_path / "film.mp4"))
    video = named(archive, "film.mp4")
    for stride in (1, 2):
        times = [archive.times_of(Window(video.id, stride, first)) for first in archive.windows(video, stride).tolist()]
        assert times[0][0] == 0
        assert times[-1][1] == pytest.approx(video.duration_s)
        assert all(0 <= start_s < end_s <= video.duration_s for start_s, end_s in times)
    assert window_of(Window(video.id, 2, 7).key) == Window(video.id, 2, 7)
    for key in ("", "a", "a:1", "a:1:b", "a:-1:2", "segment x", f"a:1:{'9' * 5000}"):
        with pytest.raises(DataError, match="not a moment of this session"):
            window_of(key)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 24])
def test_a_video_shorter_than_a_window_is_one_window(tmp_path: Path, made: Made, num_frames: int) -> None:
    write_fading(tmp_path / "short.mp4", num_frames, turned=False)
    archive = made(tmp_path)
    video = named(archive, "short.mp4")
    assert video.status == "ready"
    assert archive.windows(video, 1).tolist() == [0]
    assert archive.windows(video, 2).tolist() == []
    assert archive.times_of(Window(video.id, 1, 0)) == pytest.approx((0, video.duration_s))
    segment = Segment("s", video.id, 0.0, video.duration_s, "redden", "ada")
    assert archive.whole_windows_of(segment) == [Window(video.id, 1, 0)]


@pytest.mark.parametrize(
    ("start_s", "end_s", "wanted"),
    [
        (2.0, 3.0, [(2.0, 3.0)]),  # as long as a window
        (2.4, 2.6, [(2.0, 3.0)]),  # a short action is learned with what is around it
        (0.0, 0.1, [(0.0, 1.0)]),  # at the ends of the video
        (7.9, 8.0, [(7.0, 8.0)]),
        (2.0, 4.0, [(1.875, 3.875)]),  # frames two apart lie around the centre as well as they can
        (0.0, 8.0, 4),  # side by side
    ],
)
def test_a_segment_is_learned_from_windows_around_its_centre(
    tmp_path: Path, made: Made, start_s: float, end_s: float, wanted: list[tuple[float, float]] | int
) -> None:
    archive = made(write_film(tmp_path / "film.mp4"))
    video = named(archive, "film.mp4")
    windows = archive.whole_windows_of(Segment("s", video.id, start_s, end_s, "redden", "ada"))
    times = [archive.times_of(window) for window in windows]
    if isinstance(wanted, int):
        assert len(times) == wanted
        assert all(later[0] >= earlier[1] - 0.3 for earlier, later in zip(times, times[1:], strict=False))
    else:
        assert np.abs(np.array(times) - np.array(wanted)).max() <= 0.13  # half an interval between frames
    assert archive.windows_of(Segment("s", "gone", 0.0, 1.0, "redden", "ada")) == []


def test_embedding_ends_when_the_session_does(tmp_path: Path, predictor: Predictor) -> None:
    archive = Archive([str(write_films(tmp_path, 3))], predictor, None, WINDOW_S, lambda note: None)
    archive.embed_all(lambda video: archive.stop())
    assert sorted(video.status for video in archive.videos.values()) == ["ready", "waiting", "waiting"]
