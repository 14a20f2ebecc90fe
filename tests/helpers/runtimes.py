"""Answers of two runtimes for the same model, compared through every verb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.testing import assert_allclose

from fewframes.inference.explain import explain
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.results import Prediction
from fewframes.video.live_settings import StreamConfig

SCORES, EMBEDDINGS = 1e-4, 1e-3
"""The most that scores (0-1), and values of embeddings, may differ."""


def near(found: Any, wanted: Any, tolerance: float = SCORES) -> None:
    assert_allclose(found, wanted, rtol=0, atol=tolerance)


def same_prediction(found: Prediction, wanted: Prediction) -> None:
    near(found.scores, wanted.scores)
    near(found.frame_attention, wanted.frame_attention)
    near(found.embedding, wanted.embedding, EMBEDDINGS)
    near(found.frame_embeddings, wanted.frame_embeddings, EMBEDDINGS)
    assert found.times_s.tolist() == wanted.times_s.tolist()
    assert (found.labels, found.steps, found.source) == (wanted.labels, wanted.steps, wanted.source)
    assert (found.label, found.unfamiliar, found.reason) == (wanted.label, wanted.unfamiliar, wanted.reason)
    if wanted.known is not None:
        near(found.known, wanted.known, EMBEDDINGS)


def assert_same_answers(found: Predictor, live: Predictor, videos: list[Path]) -> None:
    """Compare predict, predict_many, early exits, stream, timeline and explain. `embed` writes what predict_many answers."""
    assert live.runtime.kind == "torch" != found.runtime.kind
    video = videos[0]
    same_prediction(found.predict(video), live.predict(video))
    same_prediction(found.predict(video, num_frames=5), live.predict(video, num_frames=5))
    for one, other in zip(found.predict_many(videos), live.predict_many(videos), strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        same_prediction(one, other)
    for threshold in (1e-6, 1.0):  # after the first stage, and never
        early = [predictor.predict(video, early_exit=threshold) for predictor in (found, live)]
        same_prediction(*early)
        assert (len(early[0].times_s) < found.num_frames) == (threshold < 1)
    steps = [list(predictor.stream(video, StreamConfig(window_s=0.4))) for predictor in (found, live)]
    assert len(steps[0]) == len(steps[1]) > 1
    for step, wanted in zip(*steps, strict=True):
        near([*step.scores, *step.smoothed], [*wanted.scores, *wanted.smoothed])
        assert (step.start_s, step.end_s, step.num_frames) == (wanted.start_s, wanted.end_s, wanted.num_frames)
    lines = [sweep(predictor, video, TimelineConfig(window_s=0.3)) for predictor in (found, live)]
    assert [span.label for span in lines[0].spans] == [span.label for span in lines[1].spans]
    near(lines[0].scores, lines[1].scores)
    assert len(lines[0].scores) > 1
    reasons = [explain(predictor, video, maps="none") for predictor in (found, live)]
    near(reasons[0].occlusion, reasons[1].occlusion)
    assert reasons[0].label == reasons[1].label
