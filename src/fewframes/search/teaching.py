"""Teach labels from examples: a linear head on the embeddings that are in the index already, saved beside them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.errors import DataError
from fewframes.search.finding import WindowFinder
from fewframes.search.table import TAUGHT, TaughtLabel, index_errors

STRENGTH, WRONG_WEIGHT = 100.0, 0.1
"""The inverse of the head's penalty, and the weight of a row marked as not showing the label, beside one that shows it."""
OTHERS = 256
"""Random rows that serve as counterexamples of a taught label."""


class LabelTeacher:
    """A teacher of labels, which are saved in a table of their own beside the windows."""

    def __init__(self, url: str, database: Any, table: Any) -> None:
        self._url, self._database, self._table = url, database, table

    def taught(self) -> dict[str, TaughtLabel]:
        """Return the labels that were taught here, by name."""
        with index_errors(self._url):
            if TAUGHT not in self._database.list_tables().tables:
                return {}
            rows = self._database.open_table(TAUGHT).to_arrow().to_pylist()
        return {
            row["name"]: TaughtLabel(
                row["name"], np.array(row["weights"], np.float32), row["bias"], tuple(row["yes"]), tuple(row["no"])
            )
            for row in rows
        }

    def teach(self, name: str, yes: Sequence[str], no: Sequence[str], seed: int) -> TaughtLabel:
        """Teach a label, and save it. `Index.teach` explains the arguments."""
        before = self.taught().get(name)
        yes, no = tuple(dict.fromkeys(yes)), tuple(dict.fromkeys(no))
        if both := sorted({*yes} & {*no}):
            raise DataError(f"{both[0]}: cannot be an example of {name!r} and a counterexample at once")
        found = self._embeddings([*yes, *no])
        if missing := [row_id for row_id in (*yes, *no) if row_id not in found]:
            raise DataError(f"{missing[0]!r}: no such row in {self._url}")
        old = set() if before is None else {*before.yes, *before.no} - {*yes, *no}
        found |= self._embeddings(sorted(old))
        if before is not None:
            yes += tuple(row_id for row_id in before.yes if row_id in old and row_id in found)
            no += tuple(row_id for row_id in before.no if row_id in old and row_id in found)
        if not yes:
            raise DataError(f"{name!r} needs at least one row that shows it")
        others = [row["embedding"] for row in self._random_rows(seed) if row["id"] not in found]
        weights, bias = taught_head([found[i] for i in yes], [found[i] for i in no], others)
        taught = TaughtLabel(name, weights, bias, yes, no, num_gone=len(old - {*found}))
        self._save(taught)
        return taught

    def _embeddings(self, ids: Sequence[str]) -> dict[str, list[float]]:
        return {row["id"]: row["embedding"] for row in WindowFinder(self._url, self._table).by_id(ids)}

    def _random_rows(self, seed: int) -> list[dict[str, Any]]:
        num_rows = self._table.count_rows()
        offsets = np.random.default_rng(seed).choice(num_rows, min(OTHERS, num_rows), replace=False)
        with index_errors(self._url):
            drawn: list[dict[str, Any]] = self._table.take_offsets(sorted(offsets.tolist())).to_list()
        return drawn

    def _save(self, taught: TaughtLabel) -> None:
        pa = importlib.import_module("pyarrow")
        columns: dict[str, Any] = {"name": pa.string(), "weights": pa.list_(pa.float32()), "bias": pa.float64()}
        schema = pa.schema([*columns.items(), ("yes", pa.list_(pa.string())), ("no", pa.list_(pa.string()))])
        values = {name: getattr(taught, name) for name in schema.names}
        with index_errors(self._url):
            row = pa.Table.from_pylist([{**values, "weights": taught.weights.tolist()}], schema=schema)
            table = self._database.create_table(TAUGHT, schema=schema, exist_ok=True)
            table.merge_insert("name").when_matched_update_all().when_not_matched_insert_all().execute(row)


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
