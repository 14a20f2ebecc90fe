"""Judge whether a video shows one of a model's actions at all, and whether the model has learned from anything like it.

The two are told apart. An *unfamiliar* video is far from every video that was learned from: a new place, another camera. Its answer
stands, with a warning. An *unknown* video shows none of the actions, and is not given the name of one. What is compared are the
moments of its frame embeddings (moments.py), so the judgement is the same for every kind of head and every runtime.

There is a read-out for each of the S kinds of moments, and what they agree on counts: videos of an action get the same pure answer
from each, and others get answers that differ. One more read-out is of all moments together.

Letters in shapes: B videos, T frames, D width, S kinds of moments, P = S*D moments, K actions, C columns of the read-outs (K, and
one for the background if there was any), R directions, N examples, E kinds of evidence, Q steps of the shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.errors import ConfigError
from fewframes.models.moments import NUM_MOMENTS, WindowMoments

Floats = NDArray[np.floating[Any]]
Array = NDArray[Any]

NUM_NEIGHBOURS = 3
"""The nearest examples whose mean distance counts."""
NUM_ANSWERS = 5
"""The nearest answers of the same action whose mean distance counts."""
KEPT = 0.95
"""The fraction of the videos of its actions that a model keeps as known, unless another one is asked for."""
SHARES = np.linspace(0, 1, 201)
"""The fractions of known videos for which thresholds are stored (Q,)."""
BETWEEN = 0.6
"""The score of the second action, as a fraction of that of the first, from which a video lies between the two."""
MOST_AT_ONCE = 1024
"""The most videos that are judged together."""
HALVES = ("mean", "scale", "examples", "example_answers")
"""The arrays that are stored as float16. Their numbers are rounded when they are fitted."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence for and against B videos being known."""

    answers: Floats
    """The mean of the read-outs (B, C): about 1 for the action that a video shows, about 0 for the others."""
    values: Floats
    """All kinds of evidence (B, E), in the order of `EVIDENCE`. Larger values speak against it."""

    @property
    def distance(self) -> Floats:
        """Return the distance (B,) to the nearest examples, whatever their actions."""
        return self.values[:, EVIDENCE.index("neighbours")]


EVIDENCE = ("impure", "together", "answer", "centre", "neighbours", "background")
"""The kinds of evidence: how far the read-outs are from one pure answer, how far the read-out of all moments together is from one,
how far the mean of the read-outs is from the answers to examples of the likeliest action, how far the moments are from the mean of
that action, how far the mean frame is from the nearest examples, and the answer for background."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """The judgement on B videos."""

    known: NDArray[np.float32]
    """The probability that each shows one of the actions (B,), 0-1, if known and unknown videos were equally many."""
    unfamiliar: NDArray[np.bool_]
    """True (B,) where nothing like it was learned from."""
    evidence: Evidence
    """The evidence that the judgement rests on."""
    still: NDArray[np.bool_]
    """True (B,) where less moves than in nearly every video that was learned from."""


def check_names(arrays: Mapping[str, Array], names: set[str]) -> None:
    """Raise ConfigError unless these are the arrays of a judge."""
    if names != set(arrays):
        raise ConfigError(f"its rejection has other arrays than expected: {', '.join(sorted(names ^ set(arrays)))}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Rejection:
    """A fitted judge. Its arrays travel in the model file, as 8-bit numbers and float16."""

    mean: Array
    """The mean of each moment (P,)."""
    scale: Array
    """The inverse of the spread of each moment (P,)."""
    weight: Array
    """The read-outs of standardised moments (C, P), int8."""
    weight_scale: Array
    """The size of one step of each row of `weight` (C,)."""
    bias: Array
    """The biases of the read-outs (S, C)."""
    joint: Array
    """The read-out of all moments together (C, P), int8."""
    joint_scale: Array
    """The size of one step of each row of `joint` (C,)."""
    joint_bias: Array
    """The bias of that read-out (C,)."""
    centres: Array
    """The mean standardised moments of each action (K, P), int8."""
    centres_scale: Array
    """The size of one step of each row of `centres` (K,)."""
    directions: Array
    """The directions (R, D), int8, in which standardised mean frames are compared."""
    directions_scale: Array
    """The size of one step of each row of `directions` (R,)."""
    examples: Array
    """The mean frames of examples in these directions (N, R)."""
    example_squares: Array
    """The squares of the lengths of these mean frames (N,)."""
    example_answers: Array
    """The mean of the read-outs (N', C) of the videos, without their own groups."""
    example_labels: Array
    """The actions (N', K) of these videos, 0 or 1, uint8."""
    coefficients: Array
    """The weight of each kind of evidence (E,), and a constant (E + 1,)."""
    thresholds: Array
    """The values of `known` below which a fraction of known videos lies (Q,), in the order of `SHARES`."""
    far: Array
    """The distance from which a video is unfamiliar, a single number (1,)."""
    least_change: Array
    """The mean change from frame to frame below which hardly anything moves, a single number (1,)."""

    @property
    def num_actions(self) -> int:
        """Return K, the number of actions."""
        return len(self.centres)

    def threshold(self, kept: float | None = None) -> float:
        """Return the value of `known` below which a video is unknown, such that this fraction of known videos is kept.

        None keeps `KEPT`. Raises ConfigError if it is not a fraction between 0 and 1.
        """
        kept = KEPT if kept is None else kept
        if not 0 < kept < 1:
            raise ConfigError(
                f"unknown = {kept}: needs a fraction of known videos to keep, between 0 and 1, such as 0.9"
            )
        return float(np.interp(1 - kept, SHARES, self.thresholds))

    def judge(self, embeddings_BTD: Floats) -> Judgement:
        """Judge videos by their frame embeddings (B, T, D)."""
        parts = [
            self.judge_moments(WindowMoments(np.asarray(embeddings_BTD[first : first + MOST_AT_ONCE], np.float32)))
            for first in range(0, len(embeddings_BTD), MOST_AT_ONCE)
        ]
        return Judgement(
            np.concatenate([part.known for part in parts]),
            np.concatenate([part.unfamiliar for part in parts]),
            Evidence(
                np.concatenate([part.evidence.answers for part in parts]),
                np.concatenate([part.evidence.values for part in parts]),
            ),
            np.concatenate([part.still for part in parts]),
        )

    def judge_moments(self, moments: WindowMoments) -> Judgement:
        """Judge videos by the moments of their frame embeddings, which several models may share."""
        scaled_BP = (moments.of("slow") - self.mean) * self.scale
        answers_BSC = self._answers(scaled_BP)
        answers_BC = answers_BSC.mean(axis=1)
        best_B = answers_BC[:, : self.num_actions].argmax(axis=1)
        evidence = Evidence(
            answers_BC,
            np.stack(
                [
                    impurity(answers_BSC, self.num_actions),
                    impurity((scaled_BP @ self._joint + self.joint_bias)[:, None], self.num_actions),
                    self._distance_of_answers(answers_BC, best_B),
                    self._distance_of_centres(scaled_BP, best_B),
                    nearest(self._distances_of_places(scaled_BP[:, : self.directions.shape[1]]), NUM_NEIGHBOURS),
                    background_answer(answers_BC, self.num_actions),
                ],
                axis=1,
            ),
        )
        return Judgement(
            known=known_of(evidence.values, self.coefficients),
            unfamiliar=evidence.distance > self.far,
            evidence=evidence,
            still=moments.change < self.least_change,
        )

    @cached_property
    def _weights(self) -> Floats:
        """The read-outs (S, D, C)."""
        rows_CP = self.weight.astype(np.float32) * self.weight_scale[:, None]
        return np.ascontiguousarray(rows_CP.reshape(len(rows_CP), NUM_MOMENTS, -1).transpose(1, 2, 0))

    @cached_property
    def _joint(self) -> Floats:
        """The read-out of all moments together (P, C)."""
        return np.ascontiguousarray(self.joint.T.astype(np.float32) * self.joint_scale)

    @cached_property
    def _centres(self) -> Floats:
        """The mean standardised moments of each action (K, P)."""
        return self.centres.astype(np.float32) * self.centres_scale[:, None]

    @cached_property
    def _directions(self) -> Floats:
        """The directions of mean frames (D, R)."""
        return np.ascontiguousarray(self.directions.T.astype(np.float32) * self.directions_scale)

    def _answers(self, scaled_BP: Floats) -> Floats:
        """Return the answers (B, S, C) of the read-outs to standardised moments."""
        parts_SBD = scaled_BP.reshape(len(scaled_BP), NUM_MOMENTS, -1).swapaxes(0, 1)
        answers_SBC = parts_SBD @ self._weights + self.bias[:, None]
        return answers_SBC.swapaxes(0, 1)

    def _distance_of_answers(self, answers_BC: Floats, best_B: Array) -> Floats:
        """Return the distance (B,) to the nearest answers to examples of the likeliest action."""
        found_B = np.empty(len(answers_BC), np.float32)
        for label in np.unique(best_B):
            rows, own = best_B == label, self.example_labels[:, label] > 0
            found_B[rows] = nearest(distances(answers_BC[rows], self.example_answers[own]), NUM_ANSWERS)
        return found_B

    def _distances_of_places(self, means_BD: Floats) -> Floats:
        """Return the distances (B, N) of standardised mean frames to those of the examples."""
        places_BR = means_BD @ self._directions
        squares_B = (means_BD**2).sum(axis=1)
        return place_distances(places_BR, squares_B, self.examples, self.example_squares, means_BD.shape[1])

    def _distance_of_centres(self, scaled_BP: Floats, best_B: Array) -> Floats:
        """Return the distance (B,) of moments to the mean of the likeliest action, per moment."""
        return np.linalg.norm(scaled_BP - self._centres[best_B], axis=1) / np.sqrt(np.float32(scaled_BP.shape[1]))

    def to_arrays(self) -> dict[str, Array]:
        """Return all arrays by name, as they are stored: whole numbers as they are, others as float32 that float16 can hold."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def reason(self, judgement: Judgement, row: int, labels: tuple[str, ...], *, unknown: bool) -> str:
        """Return the reason for the judgement on one video in plain words, as `reason_of` does."""
        return reason_of(judgement, row, labels, unknown=unknown)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], num_actions: int, width: int | None = None) -> Rejection:
        """Return the judge that `to_arrays` gave. Raises ConfigError if arrays are missing, unknown or do not fit together.

        Args:
            arrays: the arrays by name.
            num_actions: K of the model.
            width: D of the model's frame encoder, if it is known.
        """
        check_names(arrays, {field.name for field in fields(cls)})
        found = cls(**{name: np.asarray(array) for name, array in arrays.items()})
        problem = found._problem(num_actions, width)
        if problem:
            raise ConfigError(f"its rejection is damaged ({problem})")
        return found

    def _problem(self, num_actions: int, width: int | None) -> str:
        """Return the reason why these arrays cannot be a judge of this many actions; an empty text if there is none."""
        size = dict(
            zip("CPRN", (len(self.weight), len(self.mean), len(self.directions), len(self.examples)), strict=True)
        )
        inner = self.directions.shape[-1]
        shapes = {
            "mean": (size["P"],), "scale": (size["P"],), "weight": (size["C"], size["P"]), "weight_scale": (size["C"],),
            "bias": (NUM_MOMENTS, size["C"]), "joint": (size["C"], size["P"]), "joint_scale": (size["C"],),
            "joint_bias": (size["C"],), "centres": (num_actions, size["P"]), "centres_scale": (num_actions,),
            "directions": (size["R"], inner), "directions_scale": (size["R"],), "examples": (size["N"], size["R"]),
            "example_squares": (size["N"],), "example_answers": (len(self.example_labels), size["C"]),
            "example_labels": (len(self.example_labels), num_actions), "coefficients": (len(EVIDENCE) + 1,),
            "thresholds": (len(SHARES),), "far": (1,), "least_change": (1,),
        }  # fmt: skip
        wrong = [name for name, shape in shapes.items() if getattr(self, name).shape != shape]
        if wrong:
            return f"{wrong[0]} is of shape {getattr(self, wrong[0]).shape}, not {shapes[wrong[0]]}"
        if (
            size["C"] not in (num_actions, num_actions + 1)
            or size["P"] != NUM_MOMENTS * inner
            or (width or inner) != inner
        ):
            return f"{size['C']} answers and {size['P']} moments for {num_actions} actions and frames {width or inner} wide"
        if not size["N"] or not (self.example_labels.sum(axis=0) > 0).all():
            return "an action has no example"
        broken = [name for name, array in self.to_arrays().items() if not np.isfinite(array).all()]
        return f"{broken[0]} has values that are no numbers" if broken else ""


def reason_of(judgement: Judgement, row: int, labels: tuple[str, ...], *, unknown: bool) -> str:
    """Return the reason for a judgement in plain words; an empty text for a known and familiar video.

    Args:
        judgement: the judgement on several videos.
        row: the video.
        labels: the names of the K actions.
        unknown: True if the video is taken to show none of the actions.
    """
    unfamiliar = bool(judgement.unfamiliar[row])
    if not unknown:
        return "unlike the videos that it has learned from" if unfamiliar else ""
    answers_C = judgement.evidence.answers[row]
    answers_K = answers_C[: len(labels)]
    second, first = np.argsort(answers_K, kind="stable")[-2:] if len(labels) > 1 else (0, 0)
    if len(answers_C) > len(labels) and answers_C[-1] >= answers_K[first]:
        return "like the background that it has learned"
    if judgement.still[row]:
        return "hardly anything moves"
    if unfamiliar:
        return "far from everything that it has learned"
    if first != second and answers_K[second] >= BETWEEN * answers_K[first] > 0:
        return f"between {labels[first]!r} and {labels[second]!r}"
    return "not enough like any of its actions"


def known_of(values_BE: Floats, coefficients: Floats) -> NDArray[np.float32]:
    """Return how likely videos with this evidence (B, E) are known (B,), 0-1."""
    logits_B = coefficients[-1] - values_BE @ coefficients[:-1]
    return (0.5 * (1 + np.tanh(0.5 * logits_B))).astype(np.float32)


def impurity(answers_BSC: Floats, num_actions: int) -> Floats:
    """Return the mean distance of the read-outs (B, S, C) to the pure answer that their mean is nearest to (B,).

    That answer is 1 for each action that the mean gives at least half, or gives the most, and 0 for all others.
    """
    answers_BSK = answers_BSC[:, :, :num_actions]
    mean_BK = answers_BSK.mean(axis=1)
    pure_BK = (mean_BK >= 0.5) | (mean_BK >= mean_BK.max(axis=1, keepdims=True))
    return np.linalg.norm(answers_BSK - pure_BK[:, None], axis=2).mean(axis=1)


def background_answer(answers_BC: Floats, num_actions: int) -> Floats:
    """Return the answer for the background (B,); 0 if none was learned."""
    return answers_BC[:, num_actions] if answers_BC.shape[1] > num_actions else np.zeros_like(answers_BC[:, 0])


def distances(rows_BR: Floats, others_NR: Floats) -> Floats:
    """Return the distances (B, N) of rows to other rows."""
    squares_BN = (rows_BR**2).sum(axis=1)[:, None] + (others_NR**2).sum(axis=1) - 2 * rows_BR @ others_NR.T
    return np.sqrt(np.maximum(0, squares_BN))


def place_distances(
    places_BR: Floats, squares_B: Floats, examples_NR: Floats, example_squares_N: Floats, width: int
) -> Floats:
    """Return the distances (B, N) of mean frames to those of examples, per channel.

    Lengths are whole. Only what two frames have in common is taken in the directions in which the examples differ, so a frame that
    lies outside of these directions is far from all examples.

    Args:
        places_BR: the frames in these directions.
        squares_B: the squares of their whole lengths.
        examples_NR: the examples in these directions.
        example_squares_N: the squares of their whole lengths.
        width: D, the number of channels.
    """
    squares_BN = squares_B[:, None] + example_squares_N - 2 * places_BR @ examples_NR.T
    return np.sqrt(np.maximum(0, squares_BN) / width)


def nearest(distances_BN: Floats, count: int) -> Floats:
    """Return the mean of the smallest distances (B,): of `count` of them, or of as many as are finite."""
    count = min(count, distances_BN.shape[1])
    smallest = np.partition(distances_BN, count - 1, axis=1)[:, :count]
    finite = np.isfinite(smallest)
    return np.where(finite, smallest, 0).sum(axis=1) / np.maximum(1, finite.sum(axis=1))
