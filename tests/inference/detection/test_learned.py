"""Spans found by a detector: cuts are respected, missing frames are left out, and confidence follows the evidence."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from fewframes.inference.detection.learned import confidences_of, cuts_in, most_of_spans, snapped, spans_in
from fewframes.inference.detection.span_finder import DetectedSpans, ScoreSpans
from fewframes.inference.detection.spans import Span
from fewframes.models.boundaries.boundaries import Boundaries, evidence_of
from helpers.boundaries import NUM_LABELS, WIDTH, drawn_boundaries


def shots(lengths: list[int], seed: int = 0) -> np.ndarray:
    """Embeddings of shots in which little moves, each of something else."""
    generator = np.random.default_rng(seed)
    return np.concatenate(
        [generator.normal(size=WIDTH) * 3 + 0.1 * generator.normal(size=(length, WIDTH)) for length in lengths]
    ).astype(np.float32)


def test_cuts_are_found_where_shots_join() -> None:
    assert cuts_in(shots([20, 13, 30])).tolist() == [20, 33]
    assert cuts_in(shots([40])).tolist() == []
    assert cuts_in(shots([2])).tolist() == []


def test_movement_is_no_cut() -> None:
    path = np.cumsum(np.random.default_rng(1).normal(size=(60, WIDTH)), axis=0) + 20
    assert cuts_in(path.astype(np.float32)).tolist() == []


def spans(starts: list[float], ends: list[float]) -> DetectedSpans:
    count = len(starts)
    scores = np.full((count, NUM_LABELS), 0.05, np.float32)
    scores[:, 1] = 0.9
    return DetectedSpans(
        np.array(starts),
        np.array(ends),
        np.full(count, 3.0),
        np.tile([-4.0, 3.0, -4.0], (count, 1)),
        scores,
        scores[:, :0],
    )


def test_ends_near_a_cut_are_moved_to_it_and_others_stay() -> None:
    found = snapped(spans([9.0, 30.0], [21.0, 52.0]), np.array([10, 20]))
    assert found.starts.tolist() == [10.0, 30.0]
    assert found.ends.tolist() == [20.0, 52.0]
    alone = snapped(spans([9.0], [21.0]), np.array([20]))
    assert (alone.starts.tolist(), alone.ends.tolist()) == ([9.0], [20.0])


def named(
    found: DetectedSpans, boundaries: Boundaries, labels: tuple[str, ...], interval_s: float, start_s: float
) -> list[Span]:
    return spans_in(found, confidences_of(found, boundaries, labels), labels, interval_s, start_s)


def test_spans_have_the_label_that_scores_and_detector_agree_on() -> None:
    boundaries = drawn_boundaries()
    found = named(spans([4.0], [12.0]), boundaries, ("hug", "kick", "push"), 0.25, 1.0)
    surest = max(found, key=lambda span: span.confidence)
    assert (surest.label, surest.start_s, surest.end_s) == ("kick", 2.0, 4.0)
    assert surest.confidence > 0.5


def test_negations_and_background_have_no_spans() -> None:
    boundaries = drawn_boundaries()
    for labels in (("hug", "noHug", "push"), ("hug", "background", "push"), ("hug", "not_hug", "push")):
        found = named(spans([4.0], [12.0]), boundaries, labels, 0.25, 0.0)
        assert labels[1] not in {span.label for span in found}


def test_missing_frames_have_no_spans_of_their_own() -> None:
    boundaries = drawn_boundaries()
    seen: list[int] = []

    def score(windows_WTD: np.ndarray) -> np.ndarray:
        assert not np.isnan(windows_WTD).any()
        seen.append(len(windows_WTD))
        return np.full((len(windows_WTD), NUM_LABELS), 1 / NUM_LABELS, np.float32)

    rows_ND = shots([60])
    rows_ND[10:50] = np.nan
    found = ScoreSpans(score, 4).spans_of(rows_ND, boundaries)
    inside = (found.starts >= 12) & (found.ends <= 48)
    assert not inside.any()
    nothing = ScoreSpans(score, 4).spans_of(np.full((9, WIDTH), np.nan, np.float32), boundaries)
    assert len(nothing.starts) == 0


def test_scores_over_time_are_those_of_the_surest_span() -> None:
    times_s = np.arange(10, dtype=np.float64) + 0.5
    found = most_of_spans(
        np.array([[0.2, 0.0], [0.6, 0.1]], np.float32), np.array([0.0, 2.0]), np.array([5.0, 4.0]), times_s
    )
    assert_allclose(found[:, 0], [0.2, 0.2, 0.6, 0.6, 0.2, 0, 0, 0, 0, 0], atol=1e-6)


def test_more_evidence_is_more_confidence() -> None:
    boundaries = drawn_boundaries()
    weak = boundaries.confidence(np.array([-1.0]), np.array([[0.3, 0.3]]), np.array([[-1.0, -1.0]]))
    strong = boundaries.confidence(np.array([3.0]), np.array([[0.9, 0.3]]), np.array([[3.0, -1.0]]))
    assert (strong > weak).all()
    assert np.isfinite(evidence_of(np.array([-80.0]), np.array([[0.0]]), np.array([[-80.0]]))).all()
