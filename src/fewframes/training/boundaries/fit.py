"""Fit a detector: its projection, its network, and how sure its spans are, judged on groups that it has not seen.

Letters in shapes: M rows of frame embeddings, D their width, B videos, V views, T frames, K actions, P spans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from fewframes.core.settings import Task
from fewframes.inference.detection.learned import confidences_of, spans_in
from fewframes.inference.detection.span_finder import DetectedSpans, ScoreSpans
from fewframes.inference.detection.spans import Span, overlap
from fewframes.models.boundaries.boundaries import Boundaries, evidence_of
from fewframes.models.boundaries.features import NUM_FEATURES, features_of, fit_projection
from fewframes.models.moments import SOLVED_MOMENTS, moment_features
from fewframes.models.read_out.solve import binary_cross_entropy, cross_entropy, solve_moments
from fewframes.runtime.protocol import scores_of
from fewframes.training.boundaries.compose import Material, Piece
from fewframes.training.boundaries.network import DetectorNetwork
from fewframes.training.boundaries.targets import detection_loss, targets_of
from fewframes.training.processes import few_threads

Floats = NDArray[Any]
Told = Callable[[str, int, int], None]

NUM_STEPS, FOLD_STEPS = 800, 400
"""The steps of the final network, and of those that judge left-out groups."""
BATCH, NUM_FRAMES = 8, 256
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 0.05, 0.1
NOISE = 0.03
"""The noise on projected frames, as a fraction of their mean size."""
NUM_FOLDS, NUM_SPLITS = 2, 20
"""The halves, and the ways to split groups that are tried until every action is in both."""
NUM_TRIALS, TRIAL_FRAMES = 12, 512
"""Sequences of left-out groups on which spans are judged, and their frames."""
RIGHT_OVERLAP = 0.5
"""The overlap (tIoU) with an action of its label from which a span is right."""
LEAST_RIGHT = 20
"""The least right spans, and as many wrong ones, from which the confidence is fitted."""
USUAL_COEFFICIENTS = np.array([1.0, 1.0], np.float32)
"""The confidence of a detector whose training data have too few groups to leave any out."""
THRESHOLD = 0.5
"""The confidence from which spans count: they are then more likely right than wrong, as left-out groups show."""


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The frames that a detector learns from."""

    rows: NDArray[np.float32]
    """The embeddings (M, D) of all frames."""
    material: Material
    """The clips and films, whose frames are rows of these."""
    labels: tuple[str, ...]
    """The K actions."""
    task: Task
    """The kind of labels: one action a video, or any number of them."""
    content_width: int
    """The first numbers of an embedding, which describe the whole frame."""


@dataclass(frozen=True)
class BoundariesFit:
    """The record of a fitted detector."""

    num_clips: int
    num_films: int
    num_spans: int
    """The spans of the films."""
    fitted_on: str
    """The spans on which its confidence rests, in words."""
    frames_right: float | None = None
    """The fraction of frames of left-out sequences with the right label at the threshold, background included."""
    nothing_right: float | None = None
    """The fraction that would be right if no action were ever named."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        figures = {"frames_right": self.frames_right, "naming_nothing": self.nothing_right}
        return {
            "clips": self.num_clips,
            "long_videos": self.num_films,
            "spans": self.num_spans,
            "fitted_on": self.fitted_on,
            **{name: round(value, 4) for name, value in figures.items() if value is not None},
        }


def fit_boundaries(
    data: TrainingRows, seed: int = 0, progress: Told = lambda stage, done, total: None
) -> tuple[Boundaries, BoundariesFit]:
    """Fit a detector, and how sure its spans are.

    Half of the groups judge a detector of the other half, and the other way round. Both halves together fit the confidence. The
    detector that is returned has learned from all.

    Args:
        data: The frames.
        seed: The source of random numbers.
        progress: Called with the stage, the steps done and the steps in all.
    """
    material = data.material
    found = _trained(data, material, NUM_STEPS, seed, partial_progress(progress, "boundaries"))
    spans = sum(len(film.spans) for film in material.films)
    halves = _halves(data)
    if halves is None:
        words = "nothing: too few groups to leave any out; usual values"
        return found, BoundariesFit(len(material.clips), len(material.films), spans, words)
    trials = []
    for number, (learned, left) in enumerate(halves):
        stage = f"boundaries, half {number + 1} of {NUM_FOLDS}"
        own = _trained(data, learned, FOLD_STEPS, seed + number + 1, partial_progress(progress, stage))
        trials += _trials(data, learned, left, own, np.random.default_rng(seed + number))
    coefficients = _coefficients(trials)
    found = replace(found, coefficients=coefficients)
    # Only the coefficients matter from here on, and they are the same in all detectors.
    right = float(np.mean([(trial.painted(found, data.labels) == trial.true_labels()).mean() for trial in trials]))
    nothing = float(np.mean([(trial.true_labels() < 0).mean() for trial in trials]))
    fit = BoundariesFit(
        len(material.clips), len(material.films), spans, f"left-out groups, {NUM_FOLDS} halves", right, nothing
    )
    return found, fit


def partial_progress(progress: Told, stage: str) -> Callable[[int, int], None]:
    """Return a function that reports the steps of one stage."""
    return lambda done, total: progress(stage, done, total)


def _halves(data: TrainingRows) -> list[tuple[Material, Material]] | None:
    """Return both ways of learning from half of the groups and judging on the others; None if a label would be missing."""
    groups, whole = sorted(data.material.groups), _labels_in(data.material)
    for number in range(NUM_SPLITS):
        order = np.random.default_rng(number).permutation(len(groups)) if number else np.arange(len(groups))
        first = {groups[place] for place in order[::2]}
        halves = [data.material.of_groups(part) for part in (first, set(groups) - first)]
        if all(_labels_in(half) == whole and half.actions for half in halves):
            return [(halves[0], halves[1]), (halves[1], halves[0])]
    return None


def _labels_in(material: Material) -> set[int]:
    clips = {label for clip in material.clips for label in clip.labels}
    return clips | {span.label for film in material.films for span in film.spans}


def _trained(
    data: TrainingRows, material: Material, num_steps: int, seed: int, progress: Callable[[int, int], None]
) -> Boundaries:
    """Return a detector that has learned from this part of the data, with usual confidence."""
    generator = np.random.default_rng(seed)
    clips = [data.rows[clip.rows[0]] for clip in material.clips] + [data.rows[film.rows] for film in material.films]
    mean, projection, change_mean, change_spread = fit_projection(clips, data.content_width, generator)
    mean, projection = mean.astype(np.float16).astype(np.float32), projection.astype(np.float16).astype(np.float32)
    projected = (data.rows - mean) @ projection
    noise = NOISE * np.abs(projected).mean()

    def features(rows: NDArray[np.int64]) -> Floats:
        frames = projected[rows]
        return features_of(frames + noise * generator.normal(size=frames.shape), change_mean, change_spread)

    with few_threads(torch.device("cpu"), 0.0), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DetectorNetwork(NUM_FEATURES, len(data.labels))
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=num_steps, pct_start=WARM_UP
        )
        for step in range(num_steps):
            pieces = [material.draw(NUM_FRAMES, generator) for _ in range(BATCH)]
            batch_BNF = torch.from_numpy(np.stack([features(piece.rows) for piece in pieces]))
            wanted = [targets_of(piece.spans, NUM_FRAMES, len(data.labels)) for piece in pieces]
            loss = detection_loss(network(batch_BNF), wanted)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress(step + 1, num_steps)
    weights = {
        name: tensor.detach().numpy().astype(np.float16).astype(np.float32)
        for name, tensor in network.state_dict().items()
    }
    return Boundaries(
        mean=mean,
        projection=projection,
        change_mean=change_mean.astype(np.float32),
        change_spread=change_spread.astype(np.float32),
        weights=weights,
        coefficients=USUAL_COEFFICIENTS,
        interval_s=material.interval_s,
        threshold=THRESHOLD,
    )


@dataclass(frozen=True, eq=False)
class _Trial:
    """A sequence of left-out groups: its actions, and what a detector of the others found in it."""

    piece: Piece
    found: DetectedSpans

    def true_labels(self) -> NDArray[np.int64]:
        """Return the label of each frame, -1 for none."""
        labels = np.full(len(self.piece.rows), -1)
        for span in self.piece.spans:
            labels[max(0, round(span.start)) : max(0, round(span.end))] = span.label
        return labels

    def painted(self, boundaries: Boundaries, labels: Sequence[str]) -> NDArray[np.int64]:
        """Return the label of each frame by the spans that count, the surest last, -1 for none.

        Args:
            boundaries: A detector with the coefficients of the confidence.
            labels: Names of the K actions.
        """
        painted = np.full(len(self.piece.rows), -1)
        spans = spans_in(self.found, confidences_of(self.found, boundaries, labels), labels, 1.0, 0.0)
        for span in sorted(spans, key=lambda span: span.confidence):
            if span.confidence >= THRESHOLD:
                painted[max(0, round(span.start_s)) : round(span.end_s)] = labels.index(span.label)
        return painted


def _trials(
    data: TrainingRows, learned: Material, left: Material, boundaries: Boundaries, generator: np.random.Generator
) -> list[_Trial]:
    """Return sequences of left-out groups, with the spans that a detector and a read-out of the other groups find in them."""
    score = _read_out(data, learned)
    trials = []
    for _ in range(NUM_TRIALS):
        piece = left.draw(TRIAL_FRAMES, generator)
        trials.append(_Trial(piece, score.spans_of(data.rows[piece.rows], boundaries)))
    return trials


def _read_out(data: TrainingRows, learned: Material) -> ScoreSpans:
    """Return what scores spans as a model of these groups would: a read-out that is solved for their clips."""
    clips = [clip for clip in learned.actions if len(clip.rows[0]) == len(learned.actions[0].rows[0])]
    embeddings_BVTD = data.rows[np.stack([clip.rows[:2] for clip in clips])]
    targets_BK = np.zeros((len(clips), len(data.labels)))
    for row, clip in enumerate(clips):
        targets_BK[row, list(clip.labels)] = 1
    groups = [clip.group for clip in clips]
    loss = binary_cross_entropy if data.task == "multilabel" else cross_entropy
    _, groups_B = np.unique(groups, return_inverse=True)
    solved = solve_moments(embeddings_BVTD, targets_BK, loss, groups_B=groups_B, moments=SOLVED_MOMENTS)

    def scores(windows_WTD: Floats) -> Floats:
        logits = moment_features(windows_WTD, SOLVED_MOMENTS) @ solved.weight.T + solved.bias
        return scores_of(logits.astype(np.float32), data.task)

    return ScoreSpans(scores, embeddings_BVTD.shape[2])


def _coefficients(trials: Sequence[_Trial]) -> NDArray[np.float32]:
    """Return the factor of the evidence and a constant, fitted to which spans are right."""
    rows, right = [], []
    for trial in trials:
        found = trial.found
        evidence_PK = evidence_of(found.happening, found.scores, found.labels)
        for row, (start, end) in enumerate(zip(found.starts, found.ends, strict=True)):
            span = Span(float(start), float(end), "")
            for label in np.argsort(-found.scores[row])[:3].tolist():
                rows.append([evidence_PK[row, label]])
                right.append(
                    any(
                        true.label == label and overlap(span, Span(true.start, true.end, "")) >= RIGHT_OVERLAP
                        for true in trial.piece.spans
                    )
                )
    if min(sum(right), len(right) - sum(right)) < LEAST_RIGHT:
        return USUAL_COEFFICIENTS
    fitted = LogisticRegression(C=1.0).fit(np.array(rows), np.array(right))
    return np.array([fitted.coef_[0, 0], fitted.intercept_[0]], np.float32)
