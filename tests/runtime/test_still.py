"""Still cameras: identical frames are embedded once, a change is never missed, and drift does not creep."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.runtime.still import AFRESH_FRAMES, StillGate, each_once, thumbnails
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.search.index import Index
from fewframes.video.live_settings import StreamConfig

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


def noise(count: int, size: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 200, (count, 3, size, size), np.uint8)


def test_the_same_pixels_are_embedded_once_and_all_others_always(tiny: Predictor) -> None:
    a, b = noise(2, tiny.runtime.view.crop_px)
    nearly = a.copy()
    nearly[2, 5, 7] += 1
    frames = np.stack([a, a, nearly, nearly, a, b, b])
    gate = StillGate(tiny.runtime)
    found = np.concatenate([gate.embed(frames[:4]), gate.embed(frames[4:])])
    assert (gate.num_embedded, gate.num_reused) == (4, 3)
    assert_allclose(found, tiny.runtime.embed_frames(frames), rtol=0, atol=1e-6)
    for first in (0, 2, 5):
        assert_array_equal(found[first], found[first + 1])  # to the bit
    again = gate.embed(frames[6:])
    assert gate.num_embedded == 4
    assert_array_equal(again[0], found[6])
    gate.forget()
    gate.embed(frames[6:])
    assert gate.num_embedded == 5


def test_thumbnails_are_the_means_of_cells() -> None:
    frames = noise(2, 33)
    found = thumbnails(frames)
    assert found.shape == (2, 3, 14, 14)
    edges = [number * 33 // 14 for number in range(15)]
    cell = frames[1, 2, edges[3] : edges[4], edges[13] : edges[14]]
    assert found[1, 2, 3, 13] == pytest.approx(cell.mean())
    assert_array_equal(thumbnails(frames[..., :5, :5]), frames[..., :5, :5])


def test_drift_does_not_creep_and_a_change_of_one_cell_or_colour_is_seen(tiny: Predictor) -> None:
    size = tiny.runtime.view.crop_px
    drift = np.stack([np.full((3, size, size), 100 + number, np.uint8) for number in range(13)])
    gate = StillGate(tiny.runtime, 3.0)
    for frame in drift:  # one level a frame: frames 0, 4, 8 and 12 are 4 levels from the one embedded before
        gate.embed(frame[None])
    assert (gate.num_embedded, gate.num_reused) == (4, 9)
    whole = StillGate(tiny.runtime, 3.0)
    whole.embed(drift)
    assert whole.num_embedded == 4
    still = np.full((3, size, size), 100, np.uint8)
    corner, colour = still.copy(), still.copy()
    corner[:, :2, :2] = 200
    colour[0] += 10
    colour[1] -= 10  # as bright as before
    for changed in (corner, colour):
        gate = StillGate(tiny.runtime, 3.0)
        gate.embed(np.stack([still, changed]))
        assert gate.num_embedded == 2


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 s, 8 frames a second, lossless: a still picture with a faint flicker, and every 10 s another picture."""
    path = tmp_path_factory.mktemp("still") / "film.mkv"
    pictures = noise(8, 16).repeat(4, axis=2).repeat(4, axis=3)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=8, width=64, height=64, pix_fmt="bgr0")
        for number in range(640):
            picture = pictures[number // 80] + np.uint8(number // 2 % 2)
            shown = np.ascontiguousarray(picture.transpose(1, 2, 0))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format="bgr0")))
        out.mux(stream.encode())
    return path


def windows(level: float) -> TimelineConfig:
    return TimelineConfig(window_s=1.0, lengths=(1,), threshold=0.0, still=level)


def test_timeline_stream_and_index_reuse_the_same_frames(tiny: Predictor, film: Path, tmp_path: Path) -> None:
    plain, found = sweep(tiny, film, windows(0.0)), sweep(tiny, film, windows(2.0))
    num_frames = len(found.times_s)
    assert num_frames > AFRESH_FRAMES  # so that one is embedded afresh
    assert found.num_encoded + found.num_reused == num_frames
    assert found.num_encoded == 8 + (num_frames - 1) // AFRESH_FRAMES
    assert plain.num_encoded > 4 * found.num_encoded
    assert found.to_dict()["frames"] == {"embedded": found.num_encoded, "reused": found.num_reused, "missing": 0}

    stream = tiny.stream(str(film), StreamConfig(window_s=1.0, smooth_s=0.0, still=2.0))
    answers = {round(answer.start_s, 3): answer.scores for answer in stream}
    summary = stream.summary()
    assert (summary.num_encoded, summary.num_reused) == (found.num_encoded, found.num_reused)
    assert f"{found.num_reused} reused" in str(summary)
    one = found.windows[0]
    for start_s, logits_K in zip(one.starts_s.tolist(), one.logits, strict=True):
        softmax_K = np.exp(logits_K - logits_K.max())
        assert_allclose(answers[round(start_s, 3)], softmax_K / softmax_K.sum(), rtol=0, atol=1e-5)

    index = Index.open(tmp_path / "index", tiny, window_s=1.0, hop_s=0.5, still=2.0)
    added = index.add([film])
    assert (added.num_embedded, added.num_reused) == (found.num_encoded, found.num_reused)


def test_the_cache_holds_the_level_apart_and_the_exact_gate_shares_its_key(
    tiny: Predictor, film: Path, tmp_path: Path
) -> None:
    cache = EmbeddingCache(tmp_path)
    exact = sweep(tiny, film, windows(0.0), cache=cache)
    assert exact.num_encoded > 0
    found = sweep(tiny, film, windows(2.0), cache=cache)
    assert found.num_encoded > 0  # not those of the exact gate
    again = sweep(tiny, film, windows(2.0), cache=cache)
    assert (again.num_encoded, again.num_reused) == (0, 0)
    assert_array_equal(again.windows[0].logits, found.windows[0].logits)
    assert sweep(tiny, film, TimelineConfig(window_s=1.0), cache=cache).num_encoded == 0
    # A chunk is the same whether the one before it came from the cache or not.
    afresh = EmbeddingCache(tmp_path / "afresh")
    sweep(tiny, film, windows(2.0), cache=afresh, end_s=16.0)
    resumed = sweep(tiny, film, windows(2.0), cache=afresh)
    assert_allclose(resumed.windows[0].logits, found.windows[0].logits, rtol=0, atol=1e-5)


def test_wrong_levels_and_another_level_of_an_index_are_told(tiny: Predictor, tmp_path: Path) -> None:
    for wrong in (-1.0, 256.0, float("nan")):
        with pytest.raises(ValueError, match="still"):
            TimelineConfig(still=wrong)
        with pytest.raises(ValueError, match="still"):
            StreamConfig(still=wrong)
        with pytest.raises(ConfigError, match=r"needs a change of brightness from 0 \(exact\) to 255"):
            Index.open(tmp_path / "wrong", tiny, still=wrong)
    Index.open(tmp_path / "index", tiny, window_s=1.0, hop_s=0.5)
    assert Index.open(tmp_path / "index", tiny, still=0.0).settings.still == 0
    with pytest.raises(ConfigError, match=r"was made with still 0\.0, not 3\.0; leave that out"):
        Index.open(tmp_path / "index", tiny, still=3.0)


def test_windows_of_the_same_embeddings_are_encoded_once_and_answered_alike(tiny: Predictor) -> None:
    a, b, c = np.random.default_rng(0).standard_normal((3, 4, tiny.runtime.frame_width)).astype(np.float32)
    missing = np.full_like(a, np.nan)
    windows_WTD = np.stack([a, a, b, b, b, missing, missing, c, a])
    asked: list[int] = []

    def encode(some_WTD: NDArray[np.float32]) -> NDArray[np.float32]:
        asked.append(len(some_WTD))
        return tiny.runtime.encode_windows(some_WTD).logits

    found = each_once(encode, windows_WTD)
    assert asked == [5]  # a, b, the two that say nothing, c, a
    assert_allclose(found, tiny.runtime.encode_windows(windows_WTD).logits, rtol=0, atol=1e-6)


def test_a_timeline_and_a_stream_judge_the_same_window_once(
    tiny: Predictor, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    kind, encode = type(tiny.runtime), type(tiny.runtime).encode_windows

    def counted(runtime: TorchRuntime, windows_WTD: NDArray[np.float32], *, with_attention: bool = False) -> object:
        asked.append(len(windows_WTD))
        return encode(runtime, windows_WTD, with_attention=with_attention)

    monkeypatch.setattr(kind, "encode_windows", counted)
    found = sweep(tiny, film, windows(2.0))
    num_windows = len(found.windows[0].logits)
    assert sum(asked) < num_windows / 2
    asked.clear()
    answers = list(tiny.stream(str(film), StreamConfig(window_s=1.0, smooth_s=0.0, still=2.0)))
    assert len(asked) < len(answers) / 2
