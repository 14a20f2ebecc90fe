"""Answers of a stream: equal to predict's, each picture encoded once, smoothed by hand's numbers, in flat memory."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from fewframes.core.settings import settings_from
from fewframes.errors import ConfigError
from fewframes.inference.live.model import EmbeddingRing, Smoother
from fewframes.inference.live.results import StreamPrediction
from fewframes.inference.predictor import Predictor, load
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.results import UNKNOWN
from fewframes.runtime.protocol import Floats, Frames
from fewframes.video.live_settings import StreamConfig
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY
from helpers.numbered import Numbered, drifting

WINDOW = StreamConfig(window_s=0.8, smooth_s=0.0)


@pytest.fixture
def predictor(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifting(tmp_path_factory.mktemp("stream") / "drift.mp4", "libx264", 75, gop=25, options={})


def counted(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each pass of the frame encoder took."""
    passes: list[int] = []
    embed = predictor.runtime.embed_frames

    def spy(frames_TCHW: Frames) -> Floats:
        passes.append(len(frames_TCHW))
        return embed(frames_TCHW)

    monkeypatch.setattr(predictor.runtime, "embed_frames", spy)
    return passes


@pytest.mark.parametrize("live", [False, True])
def test_a_stream_says_what_predict_says_and_encodes_each_frame_once(
    predictor: Predictor, video: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    passes = counted(predictor, monkeypatch)
    stream = predictor.stream(str(video), replace(WINDOW, live=live, drop="never"))
    answers = list(stream)
    assert sum(passes) == stream.summary().num_encoded == 15  # 3 s, a frame each 0.2 s
    assert [answer.end_s for answer in answers] == pytest.approx([0.8 + 0.2 * place for place in range(12)])
    for answer in answers[::3]:
        expected = predictor.predict(str(video), start_s=answer.start_s, end_s=answer.end_s)
        assert_allclose(answer.scores, expected.scores, rtol=0, atol=1e-5)
    assert (answers[0].scores != answers[5].scores).any()


def test_a_causal_model_answers_from_the_first_frame_on_and_as_predict(video: Path) -> None:
    torch.manual_seed(0)
    view = ViewConfig(resize_px=36, crop_px=32)
    causal = Predictor(
        Checkpoint(build_model(replace(TINY, temporal="causal"), view), view, LABELS), device="cpu", dtype="float32"
    )
    answers = list(causal.stream(str(video), WINDOW))
    assert [answer.num_frames for answer in answers[:5]] == [1, 2, 3, 4, 4]
    assert [answer.start_s for answer in answers[:5]] == pytest.approx([0, 0, 0, 0, 0.2])
    for answer in (*answers[:4], answers[-1]):
        expected = causal.predict(
            str(video), start_s=max(0.0, answer.start_s), end_s=answer.end_s, num_frames=answer.num_frames
        )
        assert_allclose(answer.scores, expected.scores, rtol=0, atol=1e-5)


def test_a_model_with_cells_answers_as_predict(video: Path) -> None:
    torch.manual_seed(0)
    view = ViewConfig(resize_px=36, crop_px=32)
    model = build_model(replace(TINY, cells=2, cell_width=5, cells_layer=1), view)
    cells = Predictor(Checkpoint(model, view, LABELS), device="cpu", dtype="float32")
    answers = list(cells.stream(str(video), WINDOW))
    assert len(answers) == 12
    for answer in answers[::4]:
        expected = cells.predict(str(video), start_s=answer.start_s, end_s=answer.end_s)
        assert_allclose(answer.scores, expected.scores, rtol=0, atol=1e-5)


def test_the_pace_is_the_nearest_on_the_frames_grid(predictor: Predictor, video: Path) -> None:
    stream = predictor.stream(str(video), replace(WINDOW, every_s=0.55))
    assert stream.every_s == pytest.approx(0.6)
    assert [answer.end_s for answer in stream] == pytest.approx([1.2, 1.8, 2.4, 3.0])


def test_smoothing_by_hand() -> None:
    smoother = Smoother(2.0, enter=0.6, leave=0.4)
    assert smoother.step(np.array([0.5, 0.5], np.float32), 0.0).tolist() == [0.5, 0.5]
    assert smoother.choice is None
    smoothed_K = smoother.step(np.array([1.0, 0.0], np.float32), 1.0)
    kept = math.exp(-0.5)
    assert_allclose(smoothed_K, [1 - 0.5 * kept, 0.5 * kept], rtol=1e-6)
    assert smoother.choice == 0  # 0.697
    unsmoothed = Smoother(0.0, enter=0.6, leave=0.4)
    choices = []
    for time_s, share in enumerate((0.7, 0.5, 0.45, 0.3, 0.45, 0.2)):
        unsmoothed.step(np.array([share, 1 - share], np.float32), float(time_s))
        choices.append(unsmoothed.choice)
    assert choices == [0, 0, 0, 1, 1, 1]


def test_a_label_is_given_up_below_leave() -> None:
    smoother = Smoother(0.0, enter=0.6, leave=0.4)
    choices = []
    for time_s, scores in enumerate(([0.6, 0.2, 0.2], [0.4, 0.3, 0.3], [0.39, 0.31, 0.3], [0.5, 0.3, 0.2])):
        smoother.step(np.array(scores, np.float32), float(time_s))
        choices.append(smoother.choice)
    assert choices == [0, 0, None, None]


def test_an_action_that_is_not_wanted_hides_none_of_several() -> None:
    smoother = Smoother(0.0, enter=0.6, leave=0.4, wanted_K=np.array([False, True]))
    smoother.step(np.array([0.9, 0.7], np.float32), 0.0)
    assert smoother.choice == 1
    smoother.step(np.array([0.9, 0.3], np.float32), 1.0)
    assert smoother.choice is None


def test_a_dropped_moment_shows_the_one_before_it() -> None:
    ring = EmbeddingRing(4, lambda before_D, embedding_D: np.stack([embedding_D, embedding_D - before_D]))
    for place in (0, 1, 4):
        ring.push(place, np.array([float(place)], np.float32))
    assert ring.embeddings_TD.squeeze(1).tolist() == [1, 1, 1, 4]
    assert ring.cached_T2W is not None
    assert ring.cached_T2W.squeeze(2).tolist() == [[1, 1], [1, 0], [1, 0], [4, 3]]
    ring.push(10_000, np.array([7.0], np.float32))
    assert ring.embeddings_TD.squeeze(1).tolist() == [4, 4, 4, 7]


@pytest.mark.parametrize("temporal", ["paper", "causal"])
def test_what_windows_share_of_motion_tokens_changes_no_answer(
    video: Path, temporal: Literal["paper", "causal"]
) -> None:
    torch.manual_seed(0)
    view = ViewConfig(resize_px=36, crop_px=32)
    config = replace(TINY, temporal=temporal, motion_width=16, temporal_width=16, moment_head=True)
    model = Predictor(Checkpoint(build_model(config, view), view, LABELS), device="cpu", dtype="float32")
    answers = list(model.stream(str(video), WINDOW))
    for answer in (answers[-1], answers[4]):
        expected = model.predict(str(video), start_s=answer.start_s, end_s=answer.end_s)
        assert_allclose(answer.scores, expected.scores, rtol=0, atol=1e-5)


def test_windows_do_not_reach_across_a_clock_that_jumps(predictor: Predictor, tmp_path: Path) -> None:
    times_ms = [*range(0, 2000, 40), *range(90_000, 92_000, 40)]
    stream = predictor.stream(str(Numbered(times_ms=times_ms).write(tmp_path / "jump")), WINDOW)
    answers = list(stream)
    assert len(answers) == 2 * 7  # of 10 moments each, the first three have no full window
    assert [event.kind for answer in answers for event in answer.events] == ["clock"]
    assert answers[7].events[0].kind == "clock"
    assert answers[7].start_s == pytest.approx(2.0)
    assert stream.summary().events == {"clock": 1, "end": 1}


def test_a_late_network_keeps_to_its_budget_by_dropping(
    predictor: Predictor, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = predictor.runtime.embed_frames

    def slow(frames_TCHW: Frames) -> Floats:
        time.sleep(0.45)
        return embed(frames_TCHW)

    monkeypatch.setattr(predictor.runtime, "embed_frames", slow)
    stream = predictor.stream(str(video), replace(WINDOW, live=True, max_latency_s=0.8))
    answers = list(stream)
    summary = stream.summary()
    assert summary.num_dropped > 3
    assert answers[-1].num_dropped <= summary.num_dropped
    assert max(answer.latency_s for answer in answers) < 2.5  # without dropping the last ones come 3.7 s late
    assert summary.num_moments + summary.num_dropped == 15


def test_memory_is_flat(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Numbered(suffix=".ts", format="mpegts", times_ms=range(0, 20_000, 40), gop=50).write(tmp_path / "long")
    monkeypatch.setattr("fewframes.inference.live.feed.MOST_LATENCIES", 50)
    stream = predictor.stream(str(path), StreamConfig(window_s=0.4))
    feed = stream._feed
    ring = feed.regions[""].ring
    kept = {(len(ring.embeddings_TD), len(feed._latencies_s) <= 50, len(feed._new_events)) for _ in stream}
    assert kept == {(4, True, 0)}
    assert stream.summary().num_predictions == 197


def test_what_happens_is_heard_at_once_and_kept(predictor: Predictor, video: Path) -> None:
    heard: list[str] = []
    stream = predictor.stream(str(video), WINDOW, on_event=lambda event: heard.append(event.kind))
    answers = list(stream)
    assert heard == [event.kind for event in stream.events] == ["end"]
    assert all(answer.events == () for answer in answers)
    values = answers[0].to_dict(topk=2)
    assert set(values) == {"start_s", "end_s", "label", "top", "latency_s", "frames", "dropped", "events"}
    assert isinstance(answers[0], StreamPrediction)
    assert "0.00-0.80 s" in repr(answers[0])
    assert "12 predictions" in str(stream.summary())


def test_ending_early_gives_the_source_back(predictor: Predictor, video: Path) -> None:
    stream = predictor.stream(str(video), replace(WINDOW, live=True))
    for _ in stream:
        break
    stream.close()
    assert not stream._reader._thread.is_alive()


def test_impossible_settings_are_refused(video: Path) -> None:
    with pytest.raises(ConfigError, match=r"leave 0.6 is above enter 0.5: a label would be given up at once"):
        settings_from(StreamConfig, {"leave": 0.6}, "stream")
    view = ViewConfig(resize_px=36, crop_px=32)
    joint = Predictor(Checkpoint(build_model(replace(TINY, layout="joint"), view), view, LABELS), device="cpu")
    with pytest.raises(ConfigError, match="mixes frames inside its encoder"):
        joint.stream(str(video))


def test_of_several_actions_the_likeliest_that_is_asked_for_is_told(video: Path) -> None:
    torch.manual_seed(0)
    view = ViewConfig(resize_px=36, crop_px=32)
    several = Predictor(
        Checkpoint(build_model(replace(TINY, task="multilabel"), view), view, LABELS), device="cpu", dtype="float32"
    )
    config = replace(WINDOW, enter=0.01, leave=0.0)
    likeliest = {answer.label for answer in several.stream(str(video), config)}
    others = tuple(name for name in several.labels if name not in likeliest)
    told = {answer.label for answer in several.stream(str(video), replace(config, only=others[:1]))}
    assert told == {others[0]}


def test_labels_that_are_not_asked_for_count_as_none(predictor: Predictor, video: Path) -> None:
    config = replace(WINDOW, smooth_s=0.0, enter=0.01, leave=0.0)
    told = {answer.label for answer in predictor.stream(str(video), config)}
    (label,) = told
    other = next(name for name in predictor.labels if name != label)
    assert label in predictor.labels
    assert {answer.label for answer in predictor.stream(str(video), replace(config, only=(other,)))} == {UNKNOWN}
    assert {answer.label for answer in predictor.stream(str(video), replace(config, only=(str(label),)))} == told
    with pytest.raises(ConfigError, match=r"has no action 'hgu'; did you mean 'hug'"):
        predictor.stream(str(video), replace(config, only=("hgu",)))
