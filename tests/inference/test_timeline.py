"""Long videos: the same answers as `predict`, every frame encoded once, and nothing lost by an interruption."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from fewframes.core.cache import EmbeddingCache
from fewframes.errors import VideoError
from fewframes.inference import frame_features as rows
from fewframes.inference.detection.spans import Span
from fewframes.inference.detection.window_spans import WindowScores, confidences, spans_of
from fewframes.inference.frame_features import WindowSlider
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.runtime.protocol import Floats, Frames, scores_of
from fewframes.video.live_settings import StreamConfig
from helpers.numbered import Numbered, drifting

WINDOW = TimelineConfig(window_s=1.0, lengths=(1, 2, 3), threshold=0.0)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 s in which a picture drifts, 25 frames a second."""
    return drifting(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", 600, gop=50, options={})


class Counting:
    """Counts the frames that a predictor embeds, and breaks off before those of one call."""

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, breaks_at: int | None = None) -> None:
        self.calls: list[int] = []
        embed = predictor.runtime.embed_frames

        def counted(frames_TCHW: Frames) -> Floats:
            if len(self.calls) == breaks_at:
                raise KeyboardInterrupt
            self.calls.append(len(frames_TCHW))
            return embed(frames_TCHW)

        monkeypatch.setattr(predictor.runtime, "embed_frames", counted)


def test_windows_answer_as_predict_does(tiny: Predictor, film: Path) -> None:
    found = sweep(tiny, film, WINDOW)
    assert [len(one.starts_s) for one in found.windows] == [93, 90, 87]
    for one in found.windows:
        inside = (one.starts_s >= 0) & (one.starts_s + one.length_s <= found.duration_s)
        for place in np.flatnonzero(inside)[::17].tolist():
            start_s = float(one.starts_s[place])
            alone = tiny.predict(film, start_s=start_s, end_s=start_s + one.length_s)
            assert_allclose(scores_of(one.logits[place], "single"), alone.scores, rtol=0, atol=1e-5)


def test_a_stream_of_the_same_video_says_what_the_timeline_says(tiny: Predictor, film: Path) -> None:
    windows = sweep(tiny, film, WINDOW).windows[0]
    stream = StreamConfig(window_s=windows.length_s, smooth_s=0.0)
    answers = {round(answer.start_s, 3): answer.scores for answer in tiny.stream(str(film), stream)}
    assert len(answers) >= len(windows.starts_s) > 50
    for start_s, logits_K in zip(windows.starts_s.tolist(), windows.logits, strict=True):
        assert_allclose(answers[round(start_s, 3)], scores_of(logits_K, "single"), rtol=0, atol=1e-5)


def test_each_frame_is_encoded_once_whatever_the_windows(
    tiny: Predictor, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(tiny, monkeypatch)
    assert sweep(tiny, film, WINDOW).num_encoded == sum(counting.calls) == 24 * 4
    half = sweep(tiny, film, WINDOW, end_s=12.0)
    assert half.num_encoded == 12 * 4
    assert float(half.times_s[-1]) == 11.875


def test_an_interrupted_sweep_goes_on(
    tiny: Predictor, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_FRAMES", 20)
    whole = sweep(tiny, film, WINDOW)
    cache = EmbeddingCache(tmp_path)
    with monkeypatch.context() as patch:
        Counting(tiny, patch, breaks_at=3)
        with pytest.raises(KeyboardInterrupt):
            sweep(tiny, film, WINDOW, cache=cache)
    told: list[tuple[str, int, int]] = []
    counting = Counting(tiny, monkeypatch)
    resumed = sweep(tiny, film, WINDOW, cache=cache, progress=lambda *values: told.append(values))
    assert sum(counting.calls) == resumed.num_encoded == 96 - 3 * 20
    assert told == [("frames", done, 96) for done in (0, 20, 40, 60, 80, 96)]
    for one, other in zip(resumed.windows, whole.windows, strict=True):
        assert_allclose(one.logits, other.logits, rtol=0, atol=1e-5)
    other_windows = TimelineConfig(window_s=1.0, lengths=(1, 4), threshold=0.5)
    assert sweep(tiny, film, other_windows, cache=cache).num_encoded == 0
    assert sweep(tiny, film, WINDOW, cache=cache, start_s=5.0, end_s=10.0).num_encoded == 0


def test_memory_holds_what_windows_still_need(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    real_concatenate = np.concatenate

    def watched(arrays: Any, *arguments: Any, **options: Any) -> Any:
        joined = real_concatenate(arrays, *arguments, **options)
        held.append(len(joined))
        return joined

    monkeypatch.setattr(np, "concatenate", watched)
    row = np.arange(1000, dtype=np.float32)[:, None]
    slider = WindowSlider(lambda windows: windows[..., 0], 16, (1, 2), (2, 4))
    starts = [places for chunk in np.split(row, 20) for places in slider.add(chunk)] + slider.finish()
    assert max(held) <= 50 + 31 + 50
    assert np.array_equal(real_concatenate([places for places, _ in starts[::2]]), np.arange(0, 985, 2))
    assert real_concatenate([places for places, _ in starts[1::2]])[-2:].tolist() == [968, 969]
    windows = real_concatenate([found for _, found in starts[1::2] if len(found)])
    assert windows[3].tolist() == [12.0 + 2 * place for place in range(16)]


def test_short_videos_and_parts_are_one_window(tiny: Predictor, film: Path, videos: Path) -> None:
    short = sweep(tiny, videos / "a.mp4")
    assert [len(one.starts_s) for one in short.windows] == [1]
    assert_allclose(
        scores_of(short.windows[0].logits[0], "single"), tiny.predict(videos / "a.mp4").scores, rtol=0, atol=1e-5
    )
    part = sweep(tiny, film, start_s=7.1, end_s=8.3)
    alone = tiny.predict(film, start_s=7.1, end_s=8.3)
    assert_allclose(scores_of(part.windows[0].logits[0], "single"), alone.scores, rtol=0, atol=1e-5)
    with pytest.raises(VideoError, match="nothing to look at between 30 s and 24 s"):
        sweep(tiny, film, start_s=30)


def damaged(path: Path, target: Path, part: tuple[float, float]) -> Path:
    """A copy in which the given share of the bytes is overwritten."""
    content = bytearray(path.read_bytes())
    first, last = (int(share * len(content)) for share in part)
    content[first:last] = b"\xa5" * (last - first)
    target.write_bytes(bytes(content))
    return target


def test_what_cannot_be_decoded_is_a_gap(tiny: Predictor, film: Path, tmp_path: Path) -> None:
    whole = sweep(tiny, film, WINDOW)
    broken = sweep(tiny, damaged(film, tmp_path / "broken.mp4", (0.48, 0.52)), WINDOW, cache=EmbeddingCache(tmp_path))
    (gap,) = broken.gaps
    assert 4 <= gap.start_s < 12.5
    assert 12 < gap.end_s <= 20
    assert broken.num_missing == round((gap.end_s - gap.start_s) * 4)
    assert "damaged" in gap.error or "decoded" in gap.error
    before = broken.windows[0].starts_s + 1 <= gap.start_s
    assert_allclose(broken.windows[0].logits[before], whole.windows[0].logits[before], rtol=0, atol=1e-5)
    inside = (broken.times_s > gap.start_s + 0.5) & (
        broken.times_s < gap.end_s - 0.5
    )  # longer windows jut out a little
    assert not broken.scores[inside].any()
    assert broken.scores[broken.times_s < gap.start_s].sum(axis=1).min() > 0
    assert broken.scores[broken.times_s > gap.end_s].sum(axis=1).min() > 0
    with pytest.raises(VideoError, match="damaged|decoded|picture"):
        sweep(tiny, damaged(film, tmp_path / "none.mp4", (0.03, 0.95)), WINDOW)


@pytest.mark.parametrize("pauses", [{50: 600.0}, {50: 3600.0, 150: 7200.0}])
def test_nothing_is_found_where_the_clock_jumps(tiny: Predictor, tmp_path: Path, pauses: dict[int, float]) -> None:
    steady = Numbered(suffix=".mkv", bframes=0, times_ms=range(0, 8000, 40))
    times_ms = [
        time_ms + round(sum(1000 * by_s for at, by_s in pauses.items() if number >= at))
        for number, time_ms in enumerate(steady.times_ms)
    ]
    whole = sweep(tiny, steady.write(tmp_path / "steady"), WINDOW)
    path = replace(steady, times_ms=times_ms).write(tmp_path / "stepping")
    cache = EmbeddingCache(tmp_path / "cache")
    first, again = sweep(tiny, path, WINDOW, cache=cache), sweep(tiny, path, WINDOW, cache=cache)
    for found in (first, again):
        assert [(gap.is_pause, round(gap.end_s - gap.start_s)) for gap in found.gaps] == [
            (True, by_s) for by_s in pauses.values()
        ]
        assert "nothing was recorded: its timestamps jump by" in found.gaps[0].error
        in_pause = np.logical_or.reduce(
            [(found.times_s > gap.start_s + 1) & (found.times_s < gap.end_s - 1) for gap in found.gaps]
        )
        assert in_pause.sum() > 2000
        assert not found.scores[in_pause].any()
        # About each of the frames of the steady film, and nothing else, was looked at; the clock's own times are told.
        assert len(found.times_s) - found.num_missing == pytest.approx(len(whole.times_s), abs=4)
        assert all(
            not (span.start_s < gap.start_s and span.end_s > gap.end_s) for span in found.spans for gap in found.gaps
        )
        assert max(span.end_s for span in found.spans) > found.gaps[-1].end_s
    assert_allclose(again.scores, first.scores, rtol=0, atol=1e-6)


def test_a_picture_that_is_shown_for_long_is_told(
    tiny: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slides = sweep(tiny, Numbered(bframes=0, times_ms=[0, 15_000, 30_000]).write(tmp_path / "slides"), WINDOW)
    sweep(tiny, Numbered(suffix=".mkv").write(tmp_path / "steady"), WINDOW)
    assert slides.gaps == ()
    assert [record.message.split(": ")[1] for record in caplog.records] == [
        "the picture of 0.00 s is shown for 10 s and longer; leave that out with a start and an end where it matters"
    ]


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="ascending numbers that begin with 1"):
        TimelineConfig(lengths=(2, 1))
    with pytest.raises(ValueError, match="greater than 0"):
        TimelineConfig(window_s=0)


def test_what_breaks_off_a_sweep_leaves_no_thread_in_a_closed_video(
    tiny: Predictor, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_FRAMES", 16)

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny.runtime, "encode_windows", broken)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            sweep(tiny, film, WINDOW)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("fewframes-decode")]


def test_pictures_at_another_rate_are_others(tiny: Predictor, tmp_path: Path) -> None:
    pictures, store = tmp_path / "pictures", EmbeddingCache(tmp_path / "kept")
    pictures.mkdir()
    for number in range(60):
        Image.new("RGB", (48, 48), (4 * number, 255 - 4 * number, 90)).save(pictures / f"{number:03d}.png")
    part: dict[str, Any] = {"end_s": 2.0}  # of both rates, so that the same moments are looked at
    first = sweep(tiny, pictures, WINDOW, cache=store, fps=25, **part)
    again = sweep(tiny, pictures, WINDOW, cache=store, fps=20, **part)
    afresh = sweep(tiny, pictures, WINDOW, fps=20, **part)
    assert np.array_equal(first.times_s, afresh.times_s)
    assert not np.array_equal(first.scores, afresh.scores)
    assert again.num_encoded == afresh.num_encoded
    assert_allclose(again.scores, afresh.scores, atol=1e-6)


def windows_of(logits: list[list[float]], changes: list[float]) -> WindowScores:
    return WindowScores(
        1.0, np.arange(len(logits), dtype=float), np.array(logits, np.float32), np.array(changes, np.float32)
    )


def test_scores_of_windows_are_softened() -> None:
    """Worked out by hand: logits 0 and 2 ln 3 at temperature 2 are shares of 1 : 3; calibrated logits are taken as they are."""
    config = TimelineConfig(still_share=0.0, temperature=2.0)
    (found_WK,) = confidences(
        [windows_of([[0.0, 2 * math.log(3)]], [1.0])],
        "single",
        temperature=config.temperature,
        still_share=0.0,
    )
    assert found_WK.tolist()[0] == pytest.approx([0.25, 0.75])
    (plain_WK,) = confidences([windows_of([[0.0, 2 * math.log(3)]], [1.0])], "single", still_share=0.0)
    assert plain_WK.tolist()[0] == pytest.approx([0.1, 0.9])


def test_where_nothing_moves_nothing_happens() -> None:
    """Ten windows change by 2, the measure of the liveliest tenth; the factor is worked out by hand: sigmoid(8 (c / 2 - 0.5))."""
    one = windows_of([[0.0, 0.0]] * 12, [2.0] * 10 + [1.0, 0.0])
    (found_WK,) = confidences([one], "single")
    lively, half, still = (0.5 / (1 + math.exp(-8 * (change / 2 - 0.5))) for change in (2.0, 1.0, 0.0))
    assert found_WK[0].tolist() == pytest.approx([lively] * 2)
    assert found_WK[10].tolist() == pytest.approx([half] * 2)
    assert found_WK[11].tolist() == pytest.approx([still] * 2)
    (all_WK,) = confidences([one], "single", still_share=0.0)
    assert np.array_equal(all_WK, np.full((12, 2), 0.5, np.float32))


def test_background_is_no_action() -> None:
    sure_WK = np.full((1, 6), 0.9, np.float32)
    labels = ("Background", "hug", "none", "No Action", "nothing", "other")
    spans = spans_of([windows_of([[0.0] * 6], [1.0])], [sure_WK], labels, (0.0, 1.0), 0.8)
    assert [span.label for span in spans] == ["hug"]


@pytest.mark.parametrize(
    "bad",
    [{"start_s": math.nan}, {"end_s": math.inf}, {"fps": 0}, {"fps": math.nan}, {"fps": "25"}, {"start_s": "1"}],
    ids=str,
)
def test_wrong_arguments_of_a_sweep(tiny: Predictor, film: Path, bad: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
        sweep(tiny, film, WINDOW, **bad)


def test_a_notebook_shows_spans_as_a_table(tiny: Predictor, film: Path) -> None:
    spans = (Span(1.2, 65.0, "<b>hug</b>", 0.9), Span(70.0, 71.0, "kick", 0.25))
    found = replace(sweep(tiny, film, WINDOW), source="a&b.mp4", start_s=0.0, end_s=90.0, spans=spans)
    shown = found._repr_html_()
    assert "<b>" not in shown
    assert ">a&amp;b.mp4: 2 spans in 1:30</caption>" in shown
    cells = re.findall(r"<td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td>.*?</span> ([\d.]+%)", shown)
    assert cells == [("0:01", "1:05", "&lt;b&gt;hug&lt;/b&gt;", "90.0%"), ("1:10", "1:11", "kick", "25.0%")]
    places = re.findall(r"left: ([\d.]+)%; width: ([\d.]+)%; min-width", shown)
    assert [float(value) for value in places[1]] == pytest.approx([100 * 70 / 90, 100 / 90])
    assert "1 span in" in replace(found, spans=spans[:1])._repr_html_()
