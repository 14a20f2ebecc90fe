"""Videos from which the judge of unknown videos learns: their moments, and the evidence on each from all other groups. Numpy alone.

Letters in shapes: B videos, V views of each, M = B*V, T frames, D width, P all moments of a view, S kinds of moments, K actions,
C answers: the actions, and the background if there is any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fewframes.models.moments import NUM_MOMENTS, STD_FLOOR, change_of, moment_features
from fewframes.models.rejection.rejection import (
    EVIDENCE,
    NUM_ANSWERS,
    NUM_NEIGHBOURS,
    Array,
    Floats,
    background_answer,
    distances,
    impurity,
    nearest,
    place_distances,
)

Bools = NDArray[np.bool_]
NUM_VIEWS = 2
"""The views of a video that are learned from: as it is, and the next one. It is judged as it is."""
MOST_EXAMPLES = 512
"""The most videos that others are compared with by their mean frames."""
MOST_DIRECTIONS = 64
"""The most directions in which mean frames are compared."""
RIDGE = 0.1
"""The strength of regularisation of a read-out, as a fraction of the mean of its kernel's diagonal."""


@dataclass(frozen=True, eq=False)
class JudgedMoments:
    """The moments of B videos that the judge learns from."""

    moments: Floats
    """The slow moments of at most `NUM_VIEWS` views of each video (B, V, P)."""
    changes: Floats
    """The mean change from frame to frame in each video as it is (B,)."""

    @classmethod
    def of(cls, embeddings_BVTD: Floats) -> JudgedMoments:
        """Return the moments of videos, by the frame embeddings of V views of each. The first view is the video as it is."""
        views_BVTD = np.asarray(embeddings_BVTD)[:, :NUM_VIEWS].astype(np.float32, copy=False)
        return cls(np.stack([moment_features(views_VTD) for views_VTD in views_BVTD]), change_of(views_BVTD[:, 0]))

    @classmethod
    def joined(cls, parts: Sequence[JudgedMoments]) -> JudgedMoments:
        """Return the videos of all parts. Each must have as many views."""
        return cls(np.concatenate([part.moments for part in parts]), np.concatenate([part.changes for part in parts]))

    def with_views(self, num_views: int) -> JudgedMoments:
        """Return the videos with this number of views: the first ones, repeated where there are fewer."""
        return JudgedMoments(self.moments[:, np.arange(num_views) % self.moments.shape[1]], self.changes)

    def some(self, rows: Array) -> JudgedMoments:
        """Return the videos of these rows."""
        return JudgedMoments(self.moments[rows], self.changes[rows])


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence on all videos, from models that never saw a video's own group."""

    answers: Floats
    values: Floats
    usable: Bools
    """False (B,) where no video of another group has the likeliest action."""


@dataclass(frozen=True, eq=False)
class JudgedVideos:
    """Videos that are learned from: standardised moments of V views of each, actions, and groups. M = B*V."""

    scaled: Floats
    """The standardised moments of all views (M, P)."""
    mean: Floats
    """The mean of each moment (P,)."""
    scale: Floats
    """The inverse of the spread of each moment (P,)."""
    labels: Array
    """The actions of each video (B, K)."""
    group: Array
    """The number of the group of each video (B,)."""
    has_background: bool
    """True if some videos show none of the actions."""
    changes: Floats
    """The mean change from frame to frame in each video (B,)."""
    width: int
    """D, the width of a frame embedding."""

    @classmethod
    def of(cls, moments: JudgedMoments, labels_BK: Bools, groups: Sequence[str]) -> JudgedVideos:
        """Return the videos, with their moments standardised."""
        moments_MP = moments.moments.reshape(-1, moments.moments.shape[2])
        mean_P, spread_MD = moments_MP.mean(axis=0), moments_MP.std(axis=0).reshape(NUM_MOMENTS, -1)
        spread_MD += STD_FLOOR * spread_MD.mean(axis=1, keepdims=True)
        mean_P, scale_P = rounded(mean_P), rounded(1 / np.maximum(1e-4, spread_MD).ravel())
        return cls(
            scaled=(moments_MP - mean_P) * scale_P,
            mean=mean_P,
            scale=scale_P,
            labels=labels_BK,
            group=np.unique(np.asarray(groups), return_inverse=True)[1],
            has_background=bool((~labels_BK.any(axis=1)).any()),
            changes=moments.changes,
            width=moments_MP.shape[1] // NUM_MOMENTS,
        )

    @property
    def num_views(self) -> int:
        return len(self.scaled) // len(self.labels)

    @property
    def is_action(self) -> Bools:
        """True (B,) for videos of an action, False for background."""
        return np.asarray(self.labels.any(axis=1))

    @cached_property
    def is_judged(self) -> Bools:
        """True (B,) for videos of an action that has videos in two groups or more."""
        num_groups_K = np.array([len(np.unique(self.group[own_B])) for own_B in self.labels.T])
        return np.asarray((self.labels & (num_groups_K > 1)).any(axis=1))

    @cached_property
    def targets(self) -> Floats:
        """The wanted answers (B, C): the actions, and the background if there is any."""
        columns = [self.labels, ~self.is_action[:, None]] if self.has_background else [self.labels]
        return np.concatenate(columns, axis=1).astype(np.float64)

    @cached_property
    def kernels(self) -> Floats:
        """The products of the views with each other (S, M, M), for each kind of moment by itself."""
        parts_SMD = self.scaled.reshape(len(self.scaled), NUM_MOMENTS, -1).swapaxes(0, 1)
        return np.stack([(part_MD @ part_MD.T).astype(np.float64) for part_MD in parts_SMD])

    @cached_property
    def kernel(self) -> Floats:
        """The products of the views with each other (M, M), over all moments."""
        return np.asarray(self.kernels.sum(axis=0))

    @cached_property
    def sizes(self) -> list[float]:
        """The means of the kernels' diagonals (S)."""
        return [max(1e-6, float(kernel_MM.diagonal().mean())) for kernel_MM in self.kernels]

    @property
    def read_outs(self) -> list[tuple[Floats, float]]:
        """The kernel of each of the S + 1 read-outs and its size: one for each kind of moments, the last for all together."""
        return list(zip([*self.kernels, self.kernel], [*self.sizes, sum(self.sizes)], strict=True))

    @cached_property
    def members(self) -> list[Array]:
        """The videos of each group."""
        return [np.flatnonzero(self.group == group) for group in range(self.group.max() + 1)]

    @cached_property
    def directions(self) -> tuple[Array, Floats]:
        """The directions (R, D) in which mean frames differ most, as int8, and the size of their steps (R,)."""
        means_MD = self.scaled[:, : self.width]
        count = min(MOST_DIRECTIONS, max(1, len(means_MD) - 1))
        return in_steps(np.linalg.svd(means_MD, full_matrices=False)[2][:count])

    @cached_property
    def places(self) -> Floats:
        """The mean frame of each video as it is, in these directions."""
        rows_RD, steps_R = self.directions
        return (self.scaled[:: self.num_views, : self.width] @ rows_RD.T.astype(np.float32)) * steps_R

    @cached_property
    def place_squares(self) -> Floats:
        """The square of the length of the mean frame of each video as it is."""
        return (self.scaled[:: self.num_views, : self.width] ** 2).sum(axis=1)

    @cached_property
    def place_distances(self) -> Floats:
        """The distances between videos by their mean frames, infinite within a group."""
        some = slice(MOST_EXAMPLES)
        found_BN = place_distances(
            self.places, self.place_squares, rounded(self.places[some]), self.place_squares[some], self.width
        )
        found_BN[self.group[:, None] == self.group[None, some]] = np.inf
        return found_BN

    def evidence(self, learned: Bools) -> Evidence:
        """Return the evidence on all videos, if those that are `learned` (B,) were learned from."""
        actions = np.flatnonzero(self.labels[learned].any(axis=0))
        columns = [*actions, *([len(self.labels[0])] if self.has_background else [])]
        found_BSC = self._answers(learned)[:, :, columns]
        answers_BSC, joint_BSC = found_BSC[:, :-1], found_BSC[:, -1:]
        answers_BC = answers_BSC.mean(axis=1)
        labels_BK = self.labels[:, actions] & learned[:, None]
        best_B = answers_BC[:, : len(actions)].argmax(axis=1)
        others_BN = np.where(learned[None, :MOST_EXAMPLES], self.place_distances, np.inf)
        from_answers_B = self._from_answers(answers_BC, labels_BK, best_B)
        from_centres_B = self._from_centres(labels_BK, best_B)
        values = {
            "impure": impurity(answers_BSC, len(actions)),
            "together": impurity(joint_BSC, len(actions)),
            "answer": from_answers_B,
            "centre": from_centres_B,
            "neighbours": nearest(others_BN, NUM_NEIGHBOURS),
            "background": background_answer(answers_BC, len(actions)),
        }
        usable = np.isfinite(from_answers_B) & np.isfinite(from_centres_B) & np.isfinite(others_BN).any(axis=1)
        return Evidence(answers_BC, np.stack([values[name] for name in EVIDENCE], axis=1), usable)

    def _answers(self, learned: Bools) -> Floats:
        """Return the answers (B, S + 1, C) to each video as it is, of read-outs of learned videos of other groups.

        The last one is the read-out of all moments together.
        """
        rows = self._rows(np.flatnonzero(learned))
        wanted_NC, group_N = self.targets[rows // self.num_views], self.group[rows // self.num_views]
        found_BSC = np.empty((len(self.labels), NUM_MOMENTS + 1, wanted_NC.shape[1]))
        for part, (kernel_MM, size) in enumerate(self.read_outs):
            inverse_NN = np.linalg.inv(kernel_MM[np.ix_(rows, rows)] + size + RIDGE * size * np.eye(len(rows)))
            dual_NC = inverse_NN @ wanted_NC
            for group, members in enumerate(self.members):
                own = np.flatnonzero(group_N == group)
                rest_NC = dual_NC
                if len(own):  # the solution of all other groups, from that of all
                    rest_NC = dual_NC - inverse_NN[:, own] @ np.linalg.solve(inverse_NN[np.ix_(own, own)], dual_NC[own])
                    rest_NC[own] = 0
                found_BSC[members, part] = (kernel_MM[np.ix_(members * self.num_views, rows)] + size) @ rest_NC
        return found_BSC

    def _from_answers(self, answers_BC: Floats, labels_BK: Bools, best_B: Array) -> Floats:
        """Return the distance (B,) to the nearest answers to videos of the likeliest action in other groups, or infinity."""
        found_BB = distances(answers_BC, answers_BC)
        found_BB[(self.group[:, None] == self.group) | ~labels_BK[:, best_B].T] = np.inf
        return np.where(np.isfinite(found_BB).any(axis=1), nearest(found_BB, NUM_ANSWERS), np.inf)

    def _from_centres(self, labels_BK: Bools, best_B: Array) -> Floats:
        """Return the distance (B,) per moment to the mean of videos of the likeliest action in other groups, or infinity."""
        kernel_MM, labels_MK = self.kernel, labels_BK.repeat(self.num_views, axis=0).astype(np.float64)
        sums_MK = kernel_MM @ labels_MK
        squares_K, counts_K = (labels_MK * sums_MK).sum(axis=0), labels_MK.sum(axis=0)
        found_B = np.empty(len(labels_BK))
        for members in self.members:
            rows, best = self._rows(members), best_B[members]
            own_NK = labels_MK[rows]
            own_sums_MK = kernel_MM[:, rows] @ own_NK
            square_K = squares_K - 2 * (own_NK * sums_MK[rows]).sum(axis=0) + (own_NK * own_sums_MK[rows]).sum(axis=0)
            count_K = counts_K - own_NK.sum(axis=0)
            firsts = members * self.num_views
            product_N = (sums_MK - own_sums_MK)[firsts, best]
            with np.errstate(divide="ignore", invalid="ignore"):
                squares_N = (
                    kernel_MM[firsts, firsts] - 2 * product_N / count_K[best] + square_K[best] / count_K[best] ** 2
                )
            found_B[members] = np.where(count_K[best] > 0, np.sqrt(np.maximum(0, squares_N)), np.inf)
        return found_B / np.sqrt(self.scaled.shape[1])

    def _rows(self, members: Array) -> Array:
        """Return the rows of all views of these videos."""
        return (members[:, None] * self.num_views + np.arange(self.num_views)).ravel()

    def stored(self, answers_BC: Floats) -> dict[str, Array]:
        """Return the arrays of a `Rejection` that depend on no choice: the read-out, the centres, and the examples.

        Args:
            answers_BC: the answers to these videos without their groups.
        """
        *duals, joint_MC = self._duals()
        duals_SMC = np.stack(duals)
        parts_SMD = self.scaled.reshape(len(self.scaled), NUM_MOMENTS, -1).swapaxes(0, 1)
        weights_CSD = np.stack(
            [dual_MC.T @ part_MD for dual_MC, part_MD in zip(duals_SMC, parts_SMD, strict=True)], axis=1
        )
        weight, weight_scale = in_steps(weights_CSD.reshape(len(weights_CSD), -1).astype(np.float32))
        joint, joint_scale = in_steps((joint_MC.T @ self.scaled).astype(np.float32))
        labels_MK = self.labels.repeat(self.num_views, axis=0).astype(np.float32)
        centres, centres_scale = in_steps((labels_MK.T @ self.scaled) / labels_MK.sum(axis=0)[:, None])
        directions, directions_scale = self.directions
        return {
            "mean": self.mean,
            "scale": self.scale,
            "weight": weight,
            "weight_scale": weight_scale,
            "bias": (np.array(self.sizes)[:, None] * duals_SMC.sum(axis=1)).astype(np.float32),
            "joint": joint,
            "joint_scale": joint_scale,
            "joint_bias": (sum(self.sizes) * joint_MC.sum(axis=0)).astype(np.float32),
            "centres": centres,
            "centres_scale": centres_scale,
            "directions": directions,
            "directions_scale": directions_scale,
            "examples": rounded(self.places[:MOST_EXAMPLES]),
            "example_squares": self.place_squares[:MOST_EXAMPLES].astype(np.float32),
            "example_answers": rounded(answers_BC[self.is_action]),
            "example_labels": self.labels[self.is_action].astype(np.uint8),
        }

    def _duals(self) -> Floats:
        """Return the dual variables (S + 1, M, C) of the read-outs of all videos, and of that of all moments together."""
        wanted_MC = self.targets.repeat(self.num_views, axis=0)
        ridge_MM = RIDGE * np.eye(len(wanted_MC))
        return np.stack(
            [np.linalg.solve(kernel_MM + size + size * ridge_MM, wanted_MC) for kernel_MM, size in self.read_outs]
        )


def in_steps(rows: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return rows of numbers as int8, and the size of the steps of each row."""
    steps = np.maximum(np.abs(rows).max(axis=1) / 127, 1e-30).astype(np.float32)
    return np.rint(rows / steps[:, None]).astype(np.int8), steps


def rounded(values: object) -> Floats:
    """Return numbers as float32 that float16 can hold, as they are after they were stored."""
    return np.asarray(values, np.float64).clip(-6e4, 6e4).astype(np.float16).astype(np.float32)
