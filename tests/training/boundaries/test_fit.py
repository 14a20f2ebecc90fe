"""A detector learns where actions begin and end: from clips alone, and from a long video with labelled spans."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewframes.inference.detection.learned import confidences_of, spans_in
from fewframes.inference.detection.span_finder import ScoreSpans
from fewframes.inference.detection.spans import Span, overlap
from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.training.boundaries import fit
from fewframes.training.boundaries.compose import Clip, Film, FrameSpan, Material
from fewframes.training.boundaries.fit import BoundariesFit, TrainingRows, fit_boundaries
from fewframes.training.boundaries.targets import detection_loss, targets_of

WIDTH, T, LABELS = 24, 12, ("turn", "shake")
INTERVAL_S = 0.25


def clip_rows(label: int | None, generator: np.random.Generator) -> np.ndarray:
    """Embeddings of a clip: one action moves along one direction and back, the other quickly along another; background drifts."""
    place = generator.normal(size=WIDTH)
    times = np.arange(T) / T
    moved = np.zeros((T, WIDTH))
    if label == 0:
        moved[:, 0] = 4 * np.sin(np.pi * times)
    elif label == 1:
        moved[:, 1] = 3 * np.sin(6 * np.pi * times)
    else:
        moved[:, 2] = 0.5 * times
    return (place + moved + 0.05 * generator.normal(size=(T, WIDTH))).astype(np.float32)


def training_rows(num_groups: int = 12) -> TrainingRows:
    generator = np.random.default_rng(0)
    clips, rows = [], []
    for number in range(num_groups * 3):
        label = (0, 1, None)[number % 3]
        rows.append(clip_rows(label, generator))
        indices = np.arange(number * T, (number + 1) * T)[None]
        clips.append(Clip(indices, 3.0, () if label is None else (label,), f"group {number // 3}"))
    return TrainingRows(np.concatenate(rows), Material(tuple(clips), (), INTERVAL_S), LABELS, "single", WIDTH)


def test_a_drawn_piece_has_its_spans_where_its_clips_are() -> None:
    data = training_rows()
    generator = np.random.default_rng(1)
    label_of_row = {row: clip.labels for clip in data.material.clips for row in clip.rows[0].tolist()}
    for _ in range(20):
        piece = data.material.draw(128, generator)
        assert len(piece.rows) == 128
        for span in piece.spans:
            inside = piece.rows[max(0, int(span.start)) : int(span.end)]
            assert all(span.label in label_of_row[row] for row in inside.tolist())


def test_pieces_of_a_film_have_its_spans() -> None:
    film = Film(np.arange(100), (FrameSpan(10, 30, 0), FrameSpan(70, 95, 1)), "film")
    material = Material((), (film,), INTERVAL_S)
    piece = material.draw(50, np.random.default_rng(3))
    first = int(piece.rows[0])
    assert {(span.start + first, span.end + first, span.label) for span in piece.spans} <= {(10, 30, 0), (70, 95, 1)}
    short = material.draw(150, np.random.default_rng(3))
    assert short.rows.tolist() == [*range(100), *[99] * 50]


def test_each_span_is_a_target_of_some_level() -> None:
    for length in (4, 9, 20, 60, 150, 250):
        targets = targets_of([FrameSpan(2, 2 + length, 1)], 256, 2)
        assert any(labels[1].any() for _, labels, _ in targets), length
        assert not any(labels[0].any() for _, labels, _ in targets)
        for happening, _, distances in targets:
            assert torch.allclose(distances.sum(0)[happening > 0], torch.tensor(float(length)))


def test_the_right_answer_has_the_smaller_loss() -> None:
    targets = targets_of([FrameSpan(10, 22, 0)], 64, 2)
    right = [(20 * a[None] - 10, 20 * c[None] - 10, d[None]) for a, c, d in targets]
    wrong = [(10 - 20 * a[None], 10 - 20 * c[None], d[None] + 5) for a, c, d in targets]
    assert detection_loss(right, [targets]) < 0.01 < detection_loss(wrong, [targets])


@pytest.fixture(scope="module")
def fitted() -> tuple[TrainingRows, Boundaries, BoundariesFit]:
    data = training_rows()
    patch = pytest.MonkeyPatch()
    for name, value in (
        ("NUM_STEPS", 160),
        ("FOLD_STEPS", 60),
        ("NUM_FRAMES", 96),
        ("NUM_TRIALS", 4),
        ("TRIAL_FRAMES", 160),
    ):
        patch.setattr(fit, name, value)
    boundaries, facts = fit_boundaries(data)
    patch.undo()
    return data, boundaries, facts


def test_actions_are_found_where_they_are(fitted: tuple[TrainingRows, Boundaries, BoundariesFit]) -> None:
    _, boundaries, facts = fitted
    assert facts.frames_right is not None
    assert facts.nothing_right is not None
    assert facts.frames_right >= facts.nothing_right
    generator = np.random.default_rng(9)
    still = clip_rows(None, generator)[:1].repeat(25, axis=0)
    rows = np.concatenate([still, clip_rows(0, generator), still, clip_rows(1, generator), still])
    found = ScoreSpans(lambda windows: np.full((len(windows), 2), 0.5, np.float32), T).spans_of(rows, boundaries)
    surest = sorted(
        spans_in(found, confidences_of(found, boundaries, LABELS), LABELS, 1.0, 0.0), key=lambda span: -span.confidence
    )[:2]
    assert {span.label for span in surest} == set(LABELS)
    for span in surest:
        start = 25.0 if span.label == "turn" else 62.0
        assert overlap(span, Span(start, start + T, "")) > 0.35


def test_the_same_seed_gives_the_same_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("NUM_STEPS", 3),
        ("FOLD_STEPS", 2),
        ("NUM_FRAMES", 64),
        ("NUM_TRIALS", 1),
        ("TRIAL_FRAMES", 64),
    ):
        monkeypatch.setattr(fit, name, value)
    first, second = (fit_boundaries(training_rows(4), seed=5)[0] for _ in range(2))
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_one_group_is_too_few_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "NUM_STEPS", 2)
    boundaries, facts = fit_boundaries(training_rows(1))
    assert facts.frames_right is None
    assert "too few groups" in facts.fitted_on
    assert boundaries.threshold == fit.THRESHOLD
