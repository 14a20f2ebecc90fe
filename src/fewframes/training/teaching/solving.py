"""Solve the read-out, the calibration and the judge of unknown videos from the examples of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewframes.core.metrics import MultiLabelReport, Report, report_of
from fewframes.data.dataset import VideoSet
from fewframes.data.samples import Sample
from fewframes.errors import DataError
from fewframes.models.moments import Floats, Indices
from fewframes.models.read_out.solve import Loss, SolvedMoments, binary_cross_entropy, cross_entropy
from fewframes.models.rejection.evidence import JudgedMoments
from fewframes.models.rejection.fitting import MOST_BACKGROUND, MOST_VIDEOS, evenly_chosen, fit_judge
from fewframes.models.rejection.rejection import Rejection
from fewframes.results import is_background
from fewframes.training.calibration import MOST_LEFT_OUT, CalibrationFit
from fewframes.training.solved.run import calibrated, targets_of
from fewframes.training.solved.words import with_text, words_note
from fewframes.training.teaching.changes import words_of
from fewframes.training.teaching.state import TeachingState


@dataclass(frozen=True, eq=False)
class TaughtReadOut:
    """A read-out that was solved from the examples of a model, with what is known of it."""

    labels: tuple[str, ...]
    """The names of the K labels."""
    solved: SolvedMoments
    """The read-out, divided by the temperature of its calibration."""
    calibration: CalibrationFit
    """The calibration, with the thresholds of a multi-label model."""
    report: Report | MultiLabelReport
    """The figures on examples whose group was left out."""
    num_examples: int
    """Number of examples that it was solved from."""
    num_groups: int
    """Number of their groups."""
    notes: tuple[str, ...]
    """Notes for users on what limits the figures."""


def solve_examples(state: TeachingState) -> TaughtReadOut:
    """Solve the read-out of all examples. Raises DataError if there are fewer than two labels to tell apart."""
    rows, labels = actions_of(state)
    samples = [state.samples[row] for row in rows.tolist()]
    if set(labels) != set(state.labels):
        # Without words for none of the actions, which a video of several labels may have beside others.
        samples = [
            replace(sample, labels=tuple(name for name in sample.labels if name in labels)) for sample in samples
        ]
    data = VideoSet(tuple(samples), "the examples", multilabel=state.task == "multilabel")
    if state.task == "multilabel":
        if not labels:
            raise DataError("no example shows a label; teach one: --label NAME --yes CLIP")
    elif len(labels) < 2:
        raise DataError(
            f"only {', '.join(map(repr, labels)) or 'no label'} is left, and it takes two labels to tell apart; add clips "
            "that show none: --no CLIP, or clips of another label"
        )
    targets_BK = targets_of(data, labels)
    names, notes = groups_of(samples)
    groups, groups_B = np.unique(names, return_inverse=True)
    solved = state.features.solved(rows, targets_BK, _loss(state, targets_BK), groups_B)
    words = None if state.task == "multilabel" else state.words
    absent = () if words is None else words.absent(labels)
    if words is not None and not absent:
        text_KD = words.rows(labels)
        text_NVK = state.features.products(rows[solved.indices], text_KD)
        solved = with_text(solved, text_KD, text_NVK, targets_BK, groups_B, cross_entropy)
    notes = [*notes, *words_note(absent, solved.share_of_text)]
    some = np.sort(evenly_chosen(targets_BK[solved.indices] > 0, MOST_LEFT_OUT))
    part = replace(solved, left_out=solved.left_out[some], indices=solved.indices[some])
    divided, calibration = calibrated(part, targets_BK, groups_B, [names[row] for row in part.indices], state.task)
    solved = solved.divided(calibration.temperature)
    report = report_of(state.task, divided.left_out[:, 0], targets_BK[divided.indices], labels, calibration.thresholds)
    return TaughtReadOut(labels, solved, calibration, report, len(rows), len(groups), tuple(notes))


def actions_of(state: TeachingState) -> tuple[Indices, tuple[str, ...]]:
    """Return the indices of the examples that the read-out is solved from, and its labels.

    Beside two actions or more, background is no label, as in training: the judge of unknown videos learns from it.
    """
    background = {label for label in state.labels if is_background(label)}
    if len(state.labels) - len(background) < 2:
        return np.arange(len(state.samples)), state.labels
    rows = [
        row for row, sample in enumerate(state.samples) if not sample.labels or not background.issuperset(sample.labels)
    ]
    return np.array(rows, np.int64), tuple(label for label in state.labels if label not in background)


def solve_judge(state: TeachingState) -> Rejection | None:
    """Fit the judge of unknown videos to the examples that it learns from."""
    rows, labels = actions_of(state)
    is_action = np.isin(state.judged, rows)
    samples = [state.samples[row] for row in state.judged.tolist()]
    labels_BK = np.array([[label in sample.labels for label in labels] for sample in samples]).reshape(len(samples), -1)
    labels_BK[~is_action] = False
    groups = [sample.group or sample.path for sample in samples]
    actions = np.flatnonzero(is_action)
    chosen = [actions[evenly_chosen(labels_BK[actions], MOST_VIDEOS)]]
    others = np.flatnonzero(~is_action)
    chosen.append(others[evenly_chosen(labels_BK[others], MOST_BACKGROUND)])
    some = np.concatenate(chosen)
    parts, labels_parts, names = [state.judge.some(some)], [labels_BK[some]], [groups[row] for row in some]
    room = MOST_BACKGROUND - len(chosen[1])
    if state.footage is not None and room > 0:
        parts.append(state.footage.some(np.arange(len(state.footage.changes))[:room]))
        labels_parts.append(np.zeros((len(parts[1].changes), len(labels)), bool))
        names += state.footage_groups[:room]
    return fit_judge(JudgedMoments.joined(parts), np.concatenate(labels_parts), names)


def groups_of(samples: Sequence[Sample]) -> tuple[list[str], list[str]]:
    """Return the group by which each example is left out, and notes for users.

    Where all examples of a label are in one group, each of them is its own: with the group left out nothing would know the label.
    """
    names = [sample.group or sample.path for sample in samples]
    alone: list[str] = []
    single: list[str] = []
    rows_of: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        for label in sample.labels:
            rows_of.setdefault(label, []).append(row)
    for label, rows in sorted(rows_of.items()):
        if len({names[row] for row in rows}) > 1:
            continue
        (alone if len(rows) > 1 else single).append(label)
        for row in rows:
            names[row] = words_of(samples[row])
    notes = []
    if alone:
        notes.append(
            f"all examples of {', '.join(alone)} are of one video: the figures say how well they know each other, not other "
            "videos; add examples of a second video"
        )
    if single:
        notes.append(
            f"{', '.join(single)}: a single example cannot be left out, so nothing is known of how often it is right; add a second"
        )
    return names, notes


def _loss(state: TeachingState, targets_BK: NDArray[np.float64]) -> Loss:
    """Return the loss that chooses the scale. Labels of a single example count for nothing in it, unless there are no others."""
    loss = binary_cross_entropy if state.task == "multilabel" else cross_entropy
    single_K = targets_BK.sum(axis=0) == 1
    if single_K.all() or not single_K.any() or state.task == "multilabel":
        return loss

    def of_others(logits_MK: Floats, targets_MK: Floats) -> float:
        rows_M = ~(targets_MK[:, single_K] > 0).any(axis=1)
        return loss(logits_MK[rows_M], targets_MK[rows_M])

    return of_others


def counts_of(samples: Sequence[Sample]) -> dict[str, int]:
    """Return the number of examples of each label."""
    return dict(sorted(Counter(label for sample in samples for label in sample.labels).items()))
