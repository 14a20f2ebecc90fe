"""Actions in a stream: each begins and ends once, whatever the detector says from look to look."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewframes.inference.detection.frame_row import SteadyFrames
from fewframes.inference.detection.learned import span_reader
from fewframes.inference.detection.spans import Span, overlap
from fewframes.inference.live.spans import (
    BLOCK_FRAMES,
    LOOKS_TO_WITHDRAW,
    MOST_FRAMES,
    ActionLog,
    LiveSpan,
    LiveSpans,
    spans_of,
)
from fewframes.inference.predictor import Predictor
from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.runtime.protocol import Floats
from helpers.boundaries import drawn_boundaries

INTERVAL_S = 0.5


def looks(log: ActionLog, spans: list[list[Span]], start_s: float = 10.0) -> list[LiveSpan]:
    """What is told in looks that lie one frame apart."""
    return [told for number, found in enumerate(spans) for told in log.look(found, start_s + number * INTERVAL_S)]


def going_on(num_looks: int, label: str = "kick", start_s: float = 8.0) -> list[list[Span]]:
    """An action that goes on: it ends where the frames end."""
    return [[Span(start_s, 10 + number * INTERVAL_S, label, 0.7)] for number in range(num_looks)]


def test_an_action_is_told_when_it_has_begun_and_once_more_when_it_has_ended() -> None:
    log = ActionLog(0.5, INTERVAL_S)
    told = looks(log, [*going_on(4), *[[Span(8.2, 11.4, "kick", 0.8)]] * 5])
    assert [(span.number, span.state, span.label) for span in told] == [(1, "started", "kick"), (1, "ended", "kick")]
    assert (told[0].start_s, told[0].end_s) == (8.0, None)
    assert (told[1].start_s, told[1].end_s, told[1].confidence) == (8.2, 11.4, 0.8)
    assert spans_of(told) == [Span(8.2, 11.4, "kick", 0.8)]
    assert log.finish() == []


def test_what_one_look_alone_finds_is_not_told() -> None:
    assert looks(ActionLog(0.5, INTERVAL_S), [*going_on(1), [], *going_on(1), []]) == []


def test_an_action_that_vanishes_is_withdrawn() -> None:
    log = ActionLog(0.5, INTERVAL_S)
    told = looks(log, [*going_on(3), *[[]] * LOOKS_TO_WITHDRAW])
    assert [span.state for span in told] == ["started", "withdrawn"]
    assert spans_of(told) == []


def test_an_action_stays_while_it_is_a_little_less_sure() -> None:
    low = [[Span(8.0, 10 + number * INTERVAL_S, "kick", 0.4)] for number in range(8)]
    assert looks(ActionLog(0.5, INTERVAL_S), low) == []
    assert [span.state for span in looks(ActionLog(0.5, INTERVAL_S), [*going_on(3), *low[3:]])] == ["started"]


def test_actions_of_two_labels_go_on_at_once() -> None:
    both = [[*one, *other] for one, other in zip(going_on(3), going_on(3, "push", 9.0), strict=True)]
    told = looks(log := ActionLog(0.5, INTERVAL_S), both)
    assert [(span.state, span.label) for span in told] == [("started", "kick"), ("started", "push")]
    assert {span.label for span in log.finish()} == {"kick", "push"}


def test_the_end_of_the_stream_ends_what_goes_on() -> None:
    log = ActionLog(0.5, INTERVAL_S)
    looks(log, going_on(3))
    assert [(span.state, span.end_s) for span in log.finish()] == [("ended", 11.0)]
    assert log.finish() == []


SPANS = st.builds(
    lambda start, length, label, confidence: Span(start / 4, (start + length) / 4, label, confidence),
    st.integers(0, 80), st.integers(2, 30), st.sampled_from(["kick", "push"]), st.floats(0.35, 1),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(SPANS, max_size=3), max_size=30))
def test_each_action_starts_once_and_is_over_once(found: list[list[Span]]) -> None:
    log = ActionLog(0.5, INTERVAL_S)
    told = [*looks(log, found), *log.finish()]
    states = Counter((span.number, span.state) for span in told)
    assert set(states.values()) <= {1}
    numbers = {span.number for span in told}
    assert numbers == set(range(1, len(numbers) + 1))
    for number in numbers:
        assert states[number, "started"] == 1
        assert states[number, "ended"] + states[number, "withdrawn"] == 1


@pytest.fixture
def boundaries(predictor: Predictor) -> Boundaries:
    width = predictor.runtime.embed_frames(np.zeros((1, 3, 32, 32), np.uint8)).shape[1]
    return drawn_boundaries(width, len(predictor.labels))


def rows(boundaries: Boundaries, count: int) -> Floats:
    rows_ND = np.random.default_rng(3).normal(size=(count, len(boundaries.mean)))
    for number in range(1, count):
        rows_ND[number] = 0.8 * rows_ND[number - 1] + 0.4 * rows_ND[number]
    return (rows_ND + boundaries.mean).astype(np.float32)


def test_the_detector_sees_frames_at_its_own_rate(predictor: Predictor, boundaries: Boundaries) -> None:
    live, rows_ND = LiveSpans(predictor.runtime, boundaries, 0.1), rows(boundaries, 40)
    for index, row_D in enumerate(rows_ND):
        if index not in (11, 12, 13):  # dropped: the frame before them is taken to be shown still
            live.push(index, row_D, 100 + (index + 0.5) * 0.1)
    shown = [int((number + 0.5) * 0.25 / 0.1) for number in range(16)]
    assert shown[:6] == [1, 3, 6, 8, 11, 13]
    expected = rows_ND[[10 if index in (11, 12, 13) else index for index in shown]]
    assert np.array_equal(np.stack(live.rows), expected)


def test_the_newest_look_finds_what_a_timeline_of_the_same_frames_finds(
    predictor: Predictor, boundaries: Boundaries
) -> None:
    all_sure = replace(boundaries, threshold=0.0, coefficients=np.array([0.2, 0.3], np.float32))
    live, rows_ND = LiveSpans(predictor.runtime, all_sure, 0.25), rows(boundaries, 120)
    for index, row_D in enumerate(rows_ND):
        live.push(index, row_D, (index + 0.5) * 0.25)
    times_s = np.arange(120, dtype=np.float64) * 0.25 + 0.125
    reader = span_reader(predictor.runtime, all_sure, SteadyFrames(times_s, 0.25))
    reader.add(rows_ND)
    whole = reader.found(times_s).spans
    newest = [span for span in live.found(0.0) if span.end_s > 28.5]
    assert newest
    for span in newest:
        same = max(whole, key=lambda other: (other.label == span.label) * overlap(span, other))
        assert same.label == span.label
        assert [same.start_s, same.end_s] == pytest.approx([span.start_s, span.end_s])
        assert same.confidence == pytest.approx(span.confidence, abs=1e-4)


def test_what_is_forgotten_long_ago_changes_nothing(predictor: Predictor, boundaries: Boundaries) -> None:
    live, rows_ND = LiveSpans(predictor.runtime, boundaries, 0.25), rows(boundaries, 700)
    most = 0
    for index, row_D in enumerate(rows_ND):
        live.push(index, row_D, (index + 0.5) * 0.25)
        most = max(most, len(live.rows))
    assert most < MOST_FRAMES + BLOCK_FRAMES
    first = 700 - len(live.rows)
    assert first % BLOCK_FRAMES == 0
    whole, newest = boundaries.candidates(rows_ND), boundaries.candidates(np.stack(live.rows))
    ends = whole.ends[whole.ends > 680]
    assert len(ends)
    np.testing.assert_allclose(np.sort(newest.ends[newest.ends > 680 - first] + first), np.sort(ends), atol=1e-3)


def test_a_new_stretch_forgets_the_frames(predictor: Predictor, boundaries: Boundaries) -> None:
    live, rows_ND = LiveSpans(predictor.runtime, boundaries, 0.25), rows(boundaries, 60)
    for index, row_D in enumerate(rows_ND):
        live.push(index, row_D, (index + 0.5) * 0.25)
    live.restart()
    assert live.rows == []
    live.push(0, rows_ND[0], 50.0)
    assert len(live.rows) == 1
