"""Videos whose embeddings are cached: no byte of them is read, and a change of the file is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fewframes.core import cache as caching
from fewframes.core.cache import EmbeddingCache, FileState, KnownFile
from fewframes.errors import VideoError
from fewframes.inference.detection.known_video import UnopenedVideo, open_known
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from helpers.numbered import drifting
from helpers.reads import needs_inotify, opened

CONFIG = TimelineConfig(window_s=1.0, lengths=(1, 2), threshold=0.0)


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(caching, "SETTLED_S", 0.0)  # nobody writes to this file within the step of the clock
    return drifting(tmp_path / "film.mp4", "libx264", 200, gop=50, options={})


@needs_inotify
def test_no_byte_is_read_where_all_is_cached(predictor: Predictor, film: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    with opened(film) as was_opened:
        first = sweep(predictor, film, CONFIG, cache=cache)
    assert was_opened == [True]
    with opened(film) as was_opened:
        again = sweep(predictor, film, CONFIG, cache=cache)
    assert was_opened == [False]
    assert again.num_encoded == 0
    assert (again.spans, again.duration_s, again.source) == (first.spans, first.duration_s, str(film))
    # Frames that are not cached yet are decoded from the file, which is opened for them.
    with opened(film) as was_opened:
        other = sweep(predictor, film, TimelineConfig(window_s=2.0), cache=cache)
    assert was_opened == [True]
    assert other.num_encoded == len(other.times_s)


def test_a_changed_file_is_another_video(predictor: Predictor, film: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    before = sweep(predictor, film, CONFIG, cache=cache)
    state = os.stat(film)
    changed = bytearray(film.read_bytes())
    changed[-1] ^= 1  # the size stays, and so does the date
    film.write_bytes(changed)
    os.utime(film, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = sweep(predictor, film, CONFIG, cache=cache)
    assert before.num_encoded == after.num_encoded > 0


def test_a_file_that_was_just_written_is_not_recorded(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.mp4", EmbeddingCache(tmp_path / "cache")
    path.write_bytes(b"a")
    state = FileState.of(str(path))
    assert not state.is_settled
    cache.remember("key", state, KnownFile("content", 1.0))
    assert cache.recall("key", state) is None


def test_records_that_are_none_are_read_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "SETTLED_S", 0.0)
    path, cache = tmp_path / "a.mp4", EmbeddingCache(tmp_path / "cache")
    path.write_bytes(b"a")
    state = FileState.of(str(path))
    cache.remember("key", state, KnownFile("content", 1.0))
    assert cache.recall("key", state) == KnownFile("content", 1.0)
    (record,) = (tmp_path / "cache" / "files").rglob("*.json")
    for content in (b"", b"[]", b"{}", b'{"state": 1, "known": {"other": 1}}', b"\xff"):
        record.write_bytes(content)
        assert cache.recall("key", state) is None
    (tmp_path / "cache full").write_bytes(b"")
    EmbeddingCache(tmp_path / "cache full").remember(
        "key", state, KnownFile("content", 1.0)
    )  # it only cannot be recalled


def test_a_video_is_opened_once_and_its_errors_are_its_own(predictor: Predictor, film: Path, tmp_path: Path) -> None:
    calls = []

    def open_video() -> object:
        calls.append(1)
        return predictor.reader.open_video(film)

    video = UnopenedVideo("film", 8.0, open_video)  # type: ignore[arg-type]
    video.close()
    assert not calls
    assert video.frames_at([1.0]).times_s.tolist() == [1.0]
    assert video.span_s([1.0]) >= 0
    assert video.work([1.0])
    assert video.steps() == ()
    video.check(0, 1)
    video.close()
    assert len(calls) == 1
    with pytest.raises(VideoError, match="no such file"):
        open_known(predictor.reader, tmp_path / "missing.mp4", 25.0, EmbeddingCache(tmp_path / "cache"))
