"""Logistic regression with coefficients that are drawn towards given ones, and none below 0. Numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewframes.models.rejection.rejection import Floats

Bools = NDArray[np.bool_]
PULL = 1.0
"""The strength of that pull, in videos."""


def logistic(values_NE: Floats, is_known: Bools, weights_N: Floats, usual_E: Floats) -> tuple[Floats, float]:
    """Return coefficients (E,) of evidence against being known, none of them below 0, and a constant: a logistic regression.

    Args:
        values_NE: the evidence, standardised.
        is_known: True (N,) for known videos.
        weights_N: the weight of each video; known and unknown ones are weighed alike in all.
        usual_E: the coefficients towards which these are drawn. Evidence of 0 gets none.
    """
    weights_N = weights_N.astype(np.float64)
    for side in (is_known, ~is_known):
        weights_N[side] *= len(weights_N) / 2 / weights_N[side].sum()
    signs_N = np.where(is_known, 1.0, -1.0)
    used = usual_E > 0
    while True:
        rows_NE = np.concatenate([-values_NE[:, used], np.ones((len(values_NE), 1))], axis=1)
        wanted_E = np.append(usual_E[used], 0.0)
        pull_E = np.append(np.full(used.sum(), PULL), 1e-3)
        found_E = _least_loss(rows_NE * signs_N[:, None], weights_N, wanted_E, pull_E)
        coefficients_E = np.zeros(len(usual_E))
        coefficients_E[used] = found_E[:-1]
        if (found_E[:-1] >= 0).all():
            return coefficients_E, float(found_E[-1])
        used = used & (coefficients_E > 0)


def _least_loss(rows_NE: Floats, weights_N: Floats, wanted_E: Floats, pull_E: Floats) -> Floats:
    """Return the coefficients (E,) of a logistic regression, by Newton's steps that are halved until the loss falls.

    Args:
        rows_NE: the evidence for what each video is, so that products with good coefficients are positive.
        weights_N: the weight of each video.
        wanted_E: the coefficients towards which these are drawn.
        pull_E: the strength of that.
    """

    def loss(coefficients_E: Floats) -> float:
        pulled = (pull_E * (coefficients_E - wanted_E) ** 2).sum() / 2
        return float(weights_N @ np.logaddexp(0, -rows_NE @ coefficients_E) + pulled)

    found_E = wanted_E.astype(np.float64)
    least = loss(found_E)
    for _ in range(100):
        wrong_N = 0.5 * (1 - np.tanh(0.5 * rows_NE @ found_E))
        slope_E = pull_E * (found_E - wanted_E) - rows_NE.T @ (weights_N * wrong_N)
        bend_EE = (rows_NE * (weights_N * wrong_N * (1 - wrong_N))[:, None]).T @ rows_NE + np.diag(pull_E)
        step_E = np.linalg.solve(bend_EE, slope_E)
        while loss(found_E - step_E) > least and np.abs(step_E).max() > 1e-9:
            step_E = step_E / 2
        found_E = found_E - step_E
        before, least = least, loss(found_E)
        if before - least < 1e-9 * abs(before):
            break
    return found_E
