"""Fit the linear head of a label that is taught from examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewframes.errors import DataError

STRENGTH, WRONG_WEIGHT = 100.0, 0.1
"""The inverse of the head's penalty, and the weight of a row marked as not showing the label, beside one that shows it."""


def taught_head(
    yes: list[list[float]], no: list[list[float]], others: list[list[float]]
) -> tuple[NDArray[np.float32], float]:
    """Fit a logistic regression, and return its weights (D,) and bias.

    Examples that show the label weigh together as much as the random rows; each row marked as not showing it weighs `WRONG_WEIGHT`
    of one that does (docs/decisions has how these were chosen).

    Args:
        yes: Embeddings of rows that show the label.
        no: Embeddings of rows that do not.
        others: Embeddings of random rows.
    """
    from sklearn.linear_model import LogisticRegression

    rows = np.array([*yes, *no, *others], np.float64)
    targets = np.array([1] * len(yes) + [0] * (len(no) + len(others)))
    weights = np.array(
        [1.0] * len(yes) + [WRONG_WEIGHT] * len(no) + [len(yes) / max(1, len(others))] * len(others), np.float64
    )
    if len(yes) == len(rows):
        raise DataError("all rows are examples of the label; index more videos, or name rows that do not show it")
    head = LogisticRegression(C=STRENGTH, max_iter=1000).fit(rows, targets, sample_weight=weights)
    return head.coef_[0].astype(np.float32), float(head.intercept_[0])
