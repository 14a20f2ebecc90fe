"""Frame stores: written from a video or its cached embeddings, read in its place, refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save_file

from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError, MissingVideo, OutputError, VideoError
from fewframes.inference.frame_features import Gap
from fewframes.inference.frame_store import quantise, write
from fewframes.inference.frame_store.quantise import code_part
from fewframes.inference.frame_store.store import (
    FORMAT,
    StoreInfo,
    is_frame_store,
    read_frame_store,
    save_frame_store,
)
from fewframes.inference.frame_store.write import is_current, write_frame_store
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import TimelineConfig, sweep
from helpers.numbered import drifting

CONFIG = TimelineConfig(window_s=2.0, lengths=(1, 2), threshold=0.2)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s in which a picture drifts, 25 frames a second."""
    return drifting(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", 500, gop=50, options={})


@pytest.fixture
def rate(tiny: Predictor) -> float:
    """The rate at which windows of `CONFIG` have the model's number of frames."""
    assert CONFIG.window_s is not None
    return tiny.num_frames / CONFIG.window_s


def test_windows_from_the_store_are_those_from_the_video(
    tiny: Predictor, film: Path, tmp_path: Path, rate: float
) -> None:
    store = write_frame_store(tiny, film, tmp_path / "film.frames", rate=rate)
    video, stored = sweep(tiny, film, CONFIG), sweep(tiny, tmp_path / "film.frames", CONFIG)
    assert_allclose(stored.times_s, video.times_s, rtol=0, atol=1e-9)
    assert (stored.num_encoded, stored.num_missing, stored.gaps) == (0, 0, ())
    for one, other in zip(stored.windows, video.windows, strict=True):
        assert_allclose(one.starts_s, other.starts_s, rtol=0, atol=1e-9)
        assert_allclose(one.logits, other.logits, atol=0.05 * float(np.ptp(other.logits)))
    assert store.info.source == "film.mp4"
    assert store.info.duration_s == pytest.approx(20.0)


def test_spans_of_a_fine_store_are_those_of_the_video(
    tiny: Predictor, film: Path, tmp_path: Path, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "STEP", 1e-4)
    monkeypatch.setattr(quantise, "MOST_BYTES", 10_000)
    write_frame_store(tiny, film, tmp_path / "film.frames", rate=rate)
    video, stored = sweep(tiny, film, CONFIG).spans, sweep(tiny, tmp_path / "film.frames", CONFIG).spans
    assert len(video) > 3
    assert [span.label for span in stored] == [span.label for span in video]
    assert_allclose([span.start_s for span in stored], [span.start_s for span in video], atol=1e-9)
    assert_allclose([span.end_s for span in stored], [span.end_s for span in video], atol=1e-9)


def test_no_byte_of_the_video_is_needed(tiny: Predictor, film: Path, tmp_path: Path, rate: float) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(film.read_bytes())
    write_frame_store(tiny, copy, tmp_path / "film.frames", rate=rate)
    copy.unlink()
    assert sweep(tiny, tmp_path / "film.frames", CONFIG).times_s[-1] > 19


def test_a_part_of_a_store_is_that_part_of_the_whole(tiny: Predictor, film: Path, tmp_path: Path, rate: float) -> None:
    path = tmp_path / "film.frames"
    write_frame_store(tiny, film, path, rate=rate)
    whole, part = sweep(tiny, path, CONFIG), sweep(tiny, path, CONFIG, start_s=4.0, end_s=10.0)
    same = np.isin(whole.times_s, part.times_s)
    assert (part.times_s[0] >= 4.0, part.times_s[-1] <= 10.0, same.sum()) == (True, True, len(part.times_s))
    brief = sweep(tiny, path, CONFIG, start_s=4.0, end_s=5.0)  # less than a window
    assert len(brief.windows[0].starts_s) == 1
    with pytest.raises(VideoError, match="film.frames"):
        sweep(tiny, path, CONFIG, start_s=30.0)


def test_a_higher_rate_serves_windows_of_several_lengths(
    tiny: Predictor, film: Path, tmp_path: Path, rate: float
) -> None:
    path = tmp_path / "film.frames"
    write_frame_store(tiny, film, path, rate=2 * rate)
    for window_s in (1.0, 2.0, 4.0):
        found = sweep(tiny, path, TimelineConfig(window_s=window_s, lengths=(1,)))
        assert found.windows[0].length_s == pytest.approx(window_s)
    with pytest.raises(ConfigError, match="windows of .* last 1 s or more.*--rate"):
        sweep(tiny, path, TimelineConfig(window_s=0.5, lengths=(1,)))


def test_another_encoder_is_refused(
    tiny: Predictor, predictor: Predictor, film: Path, tmp_path: Path, rate: float
) -> None:
    path = tmp_path / "film.frames"
    write_frame_store(tiny, film, path, rate=rate)
    assert sweep(predictor, path, CONFIG).num_encoded == 0  # the same file, loaded anew
    with pytest.raises(ConfigError, match="another frame encoder"):
        sweep(load("lite0-16"), path, CONFIG)
    if predictor.runtime.kind == "torch":
        half = load(predictor.name, device="cpu", dtype="bfloat16", runtime="torch")
        with pytest.raises(ConfigError, match="embedded in float32.*--dtype float32"):
            sweep(half, path, CONFIG)


def test_parts_and_the_cache(
    tiny: Predictor, film: Path, tmp_path: Path, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    whole = write_frame_store(tiny, film, tmp_path / "whole.frames", rate=rate, cache=cache)
    monkeypatch.setattr(write, "PART_FRAMES", 13)
    monkeypatch.setattr(tiny.runtime, "embed_frames", None)  # all come from the cache
    parts = write_frame_store(tiny, film, tmp_path / "parts.frames", rate=rate, cache=cache)
    assert parts.info == whole.info
    read = read_frame_store(tmp_path / "parts.frames")
    assert read.info == parts.info
    assert_array_equal(read.embeddings(), parts.embeddings())
    some = np.array([0, 12, 13, 14, 30])
    assert_array_equal(np.concatenate(list(read.chunks(some))), read.embeddings()[some])
    assert_allclose(read.embeddings(), whole.embeddings(), atol=0.5 * float(np.ptp(whole.embeddings())))


def test_frames_that_could_not_be_decoded_stay_gaps(tiny: Predictor, tmp_path: Path) -> None:
    exact_ND = np.random.default_rng(0).standard_normal((160, tiny.runtime.frame_width)).astype(np.float32)
    missing = [0, 1, 50, 51, 159]
    holes_ND = exact_ND.copy()
    holes_ND[missing] = np.nan
    filled_ND = write._filled(holes_ND)
    assert np.isfinite(filled_ND).all()
    info = StoreInfo("a.mp4", "", 80.0, 2.0, 160, exact_ND.shape[1], "tiny", write.store_key(tiny), "float32", 0.0,
                     (Gap(0.0, 1.0, "damaged"), Gap(25.0, 26.0, "damaged")))  # fmt: skip
    save_frame_store(tmp_path / "a.frames", info, [(160, code_part(filled_ND))], missing)
    store = read_frame_store(tmp_path / "a.frames")
    assert_array_equal(np.flatnonzero(np.isnan(store.embeddings()).any(axis=1)), missing)
    found = sweep(tiny, tmp_path / "a.frames", CONFIG)
    assert (found.num_missing, len(found.gaps)) == (5, 2)
    assert np.isnan(found.windows[0].logits).any()
    assert np.isfinite(found.windows[0].logits).any()


def test_damaged_and_foreign_files_are_told(tiny: Predictor, film: Path, tmp_path: Path, rate: float) -> None:
    path = tmp_path / "film.frames"
    write_frame_store(tiny, film, path, rate=rate)
    content = path.read_bytes()
    changed = bytearray(content)
    changed[-40] ^= 1
    for number, damage in enumerate((content[:-100], content[:5], b"", bytes(changed), b"not a store" * 100)):
        bad = tmp_path / f"{number}.frames"
        bad.write_bytes(damage)
        with pytest.raises(VideoError, match=f"{number}.frames: a damaged frame store"):
            sweep(tiny, bad, CONFIG)
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.frames")
    with pytest.raises(VideoError, match="no frame store; .*--frames-store"):
        sweep(tiny, tmp_path / "other.frames", CONFIG)
    with pytest.raises(MissingVideo):
        sweep(tiny, tmp_path / "nothing.frames", CONFIG)
    (tmp_path / "folder.frames").mkdir()
    with pytest.raises(VideoError, match="cannot be read"):
        sweep(tiny, tmp_path / "folder.frames", CONFIG)


def test_a_store_of_a_later_format_is_refused(
    tiny: Predictor, film: Path, tmp_path: Path, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.frames"
    monkeypatch.setattr("fewframes.inference.frame_store.store.FORMAT", FORMAT + "1")
    write_frame_store(tiny, film, path, rate=rate)
    monkeypatch.undo()
    with pytest.raises(VideoError, match=f"format {FORMAT}1 .* reads {FORMAT}"):
        read_frame_store(path)


def test_wrong_use_is_told_before_any_work(tiny: Predictor, film: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ends in .frames"):
        write_frame_store(tiny, film, tmp_path / "film.npz")
    with pytest.raises(ConfigError, match="rate = 0"):
        write_frame_store(tiny, film, tmp_path / "film.frames", rate=0)
    with pytest.raises(VideoError, match="less than one frame"):
        write_frame_store(tiny, film, tmp_path / "film.frames", rate=0.01)
    with pytest.raises(VideoError, match="frame store already"):
        write_frame_store(tiny, tmp_path / "film.frames", tmp_path / "again.frames")
    with pytest.raises(OutputError):
        write_frame_store(tiny, film, tmp_path / "nowhere" / "film.frames", rate=2)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_current_as_long_as_all_is_the_same(tiny: Predictor, film: Path, tmp_path: Path) -> None:
    path, video = tmp_path / "film.frames", str(film)
    assert not is_current(path, tiny, video, 2.0, 0.0)
    write_frame_store(tiny, film, path, rate=2.0)
    assert is_current(path, tiny, video, 2.0, 0.0)
    assert not is_current(path, tiny, video, 4.0, 0.0)
    assert not is_current(path, load("lite0-16"), video, 2.0, 0.0)
    path.write_bytes(path.read_bytes()[:-7])
    assert not is_current(path, tiny, video, 2.0, 0.0)


def test_a_store_is_known_by_its_name(tmp_path: Path) -> None:
    named = ["a.frames", Path("A.FRAMES"), "s3://bucket/a.frames"]
    others: list[object] = ["a.mp4", "frames", b"a.frames", ["a.frames"]]
    assert [is_frame_store(source) for source in [*named, *others]] == [True] * 3 + [False] * 4
