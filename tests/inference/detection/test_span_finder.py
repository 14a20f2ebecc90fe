"""Spans in blocks: they are those of the whole video at once, whatever comes when, and only a block is in memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fewframes.inference.detection.frame_row import SteadyFrames
from fewframes.inference.detection.learned import SpanReader
from fewframes.inference.detection.span_finder import Blocks, DetectedSpans, ScoreSpans, SpanFinder
from fewframes.models.boundaries.boundaries import Boundaries
from helpers.boundaries import NUM_LABELS, WIDTH, drawn_boundaries

WHOLE = Blocks(core=2**20)
SMALL = Blocks(core=256, margin=512)
LABELS = ("hug", "kick", "push")


def film(num_rows: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    """Embeddings of shots of 5 to 200 frames, in some of which much moves, with frames that could not be decoded."""
    generator = np.random.default_rng(seed)
    rows_ND = np.empty((num_rows, width), np.float32)
    first = 0
    while first < num_rows:
        length = int(generator.integers(5, 200))
        part = rows_ND[first : first + length]
        steps = generator.normal(size=part.shape) * generator.choice([0.02, 0.1, 0.3])
        part[:] = generator.normal(size=width) * 3 + np.cumsum(steps, axis=0)
        first += length
    for start, length in ((0, 7), (500, 1), (900, 40), (num_rows - 3, 3)):
        rows_ND[start : start + length] = np.nan
    return rows_ND


def with_longer_spans(boundaries: Boundaries, farther: float) -> Boundaries:
    """A detector whose spans reach farther to both sides."""
    weights = dict(boundaries.weights)
    weights["distances.bias"] = weights["distances.bias"] + np.float32(farther)
    return replace(boundaries, weights=weights)


def score(windows_WTD: np.ndarray) -> np.ndarray:
    """Scores that depend on each frame of a window, and a vector beside them."""
    times = np.linspace(0.5, 1.5, windows_WTD.shape[1], dtype=np.float32)
    means_WD = np.einsum("wtd,t->wd", windows_WTD, times) / windows_WTD.shape[1]
    return np.concatenate([1 / (1 + np.exp(-means_WD[:, :NUM_LABELS])), means_WD[:, :5]], axis=1)


def sorted_fields(found: DetectedSpans) -> list[np.ndarray]:
    order = np.lexsort((found.happening, found.ends.round(3), found.starts.round(3)))
    return [getattr(found, name)[order] for name in ("starts", "ends", "happening", "labels", "scores", "vectors")]


@pytest.mark.parametrize("farther", [0.0, 4.0])
def test_blocks_find_what_the_whole_video_at_once_shows(farther: float) -> None:
    boundaries, rows_ND = with_longer_spans(drawn_boundaries(), farther), film(2600)
    scored = ScoreSpans(score, 8)
    whole = scored.spans_of(rows_ND, boundaries, WHOLE)
    blocks = scored.spans_of(rows_ND, boundaries, SMALL)
    assert len(whole.starts) > 50
    assert (whole.ends - whole.starts).max() > (50 if farther else 10)
    assert len(blocks.starts) == len(whole.starts)
    for found, wanted in zip(sorted_fields(blocks), sorted_fields(whole), strict=True):
        assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_timeline_in_blocks_is_that_of_the_whole_video() -> None:
    boundaries, rows_ND = drawn_boundaries(), film(3000, seed=1)
    frames = SteadyFrames(np.linspace(0.125, 749.875, 3000), 0.25)
    found = []
    for blocks, size in ((WHOLE, 3000), (SMALL, 100)):
        reader = SpanReader(boundaries, ScoreSpans(score, 8), LABELS, frames, blocks)
        for first in range(0, 3000, size):
            reader.add(rows_ND[first : first + size])
        found.append(reader.found(frames.times_s))
    whole, parts = found
    assert len(whole.cuts_s) > 5
    assert parts.cuts_s == whole.cuts_s
    assert [span.label for span in parts.spans] == [span.label for span in whole.spans]
    for name in ("start_s", "end_s", "confidence"):
        own, other = ([getattr(span, name) for span in side.spans] for side in (parts, whole))
        assert_allclose(own, other, rtol=0, atol=1e-3)
    assert_allclose(parts.scores, whole.scores, rtol=0, atol=1e-4)
    assert_allclose(parts.vectors, whole.vectors, rtol=0, atol=1e-3)
    assert parts.vectors.shape == (len(parts.spans), 5)


def test_the_size_of_chunks_does_not_matter_and_a_late_beginning_is_filled() -> None:
    boundaries, rows_ND = drawn_boundaries(), film(2500, seed=2)
    rows_ND[:1700] = np.nan
    scored = ScoreSpans(score, 8)
    whole = scored.spans_of(rows_ND, boundaries, WHOLE)
    finder = SpanFinder(scored, boundaries, len(rows_ND), SMALL)
    for first in range(0, len(rows_ND), 37):
        finder.add(rows_ND[first : first + 37])
    found = finder.finish()
    assert len(whole.starts) > 5
    assert finder.missing[:1700].all()
    for own, wanted in zip(sorted_fields(found), sorted_fields(whole), strict=True):
        assert_allclose(own, wanted, rtol=1e-4, atol=1e-4)


def test_memory_is_that_of_a_block() -> None:
    width, peaks = 400, []
    boundaries, scored = drawn_boundaries(width), ScoreSpans(score, 8)
    weights = {**boundaries.weights, "happening.bias": np.full(1, -20, np.float32)}  # what is found is in memory too
    for num_rows in (2_000, 6_000):
        finder = SpanFinder(scored, replace(boundaries, weights=weights), num_rows, SMALL)
        some_ND = film(200, width=width)
        tracemalloc.start()
        for _ in range(0, num_rows, 200):
            finder.add(some_ND)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(finder.missing) == num_rows
    assert peaks[1] - peaks[0] < 4_000 * width * 4 / 5


def test_blocks_are_whole_strides() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        Blocks(core=100)
    with pytest.raises(ValueError, match="multiples of 32"):
        Blocks(margin=16)
