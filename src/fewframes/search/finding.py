"""Find windows in the table of an index: by id, by likeness to a vector, or by the model's label."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.data.samples import absolute
from fewframes.inference.detection.spans import Span, without_repeats
from fewframes.search.table import (
    COLUMNS,
    EMBEDDING,
    Hit,
    HitPart,
    Hits,
    SearchQuery,
    TaughtLabel,
    among,
    index_errors,
    quoted,
)

PROBES, REFINE = 40, 4
"""Parts of the vector index that are searched, and how many times as many rows are compared exactly."""
RANKS = 60
"""The constant of reciprocal rank fusion, which is its authors'. The larger it is, the less the first places count."""
FETCHED, MOST_FETCHED = 64, 16_384
"""The least and the most rows that are asked for, because many windows among them may overlap."""


class WindowFinder:
    """A finder of windows in the table of an index. Each answer is the best `num` windows that do not repeat each other."""

    def __init__(self, url: str, table: Any) -> None:
        self._url, self._table = url, table

    def by_id(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows with these ids, in any order."""
        if not ids:
            return []
        with index_errors(self._url):
            found: list[dict[str, Any]] = self._table.search().where(among("id", ids)).limit(len(ids)).to_list()
        return found

    def nearest(
        self,
        queries: Sequence[SearchQuery],
        conditions: Sequence[str],
        num: int,
        *,
        distinct: bool,
        head: TaughtLabel | None = None,
    ) -> Hits:
        """Return the windows whose vectors lie nearest to the query's in direction. `similarity` is a cosine.

        Of several queries the ranks are fused (`fused`).

        Args:
            queries: The queries, of which there is at least one.
            conditions: Conditions in SQL.
            num: The most windows to return.
            distinct: Return at most one window of each video.
            head: A taught label: windows that score below 0.5 are left out.
        """
        columns = {query.column for query in queries if len(queries) > 1 or query.rival is not None}
        columns |= {EMBEDDING} if head is not None else set()

        def nearest(query: SearchQuery, count: int, where: str, most_probes: int) -> _Rows:
            builder = self._table.search(query.vector, vector_column_name=query.column).distance_type("cosine")
            builder = builder.minimum_nprobes(PROBES).maximum_nprobes(most_probes).refine_factor(REFINE).limit(count)
            builder = builder.where(where) if where else builder
            return _Rows.of(builder.select([*COLUMNS, *sorted(columns), "_distance"]).to_arrow(), columns)

        def all_nearest(query: SearchQuery, count: int, where: str) -> _Rows:
            found = nearest(query, count, where, PROBES)
            # Conditions may leave too few rows in these parts. Then all parts (0) are searched; doing so at first would be slower.
            return nearest(query, count, where, 0) if where and len(found.rows) < count else found

        def rows(count: int, others: list[str]) -> tuple[int, list[dict[str, Any]]]:
            where = " AND ".join([*conditions, *others])
            lists = [all_nearest(query, count, where) for query in queries]
            found = lists[0] if len(lists) == 1 else fused(queries, lists)
            return len(found.rows), found.kept(_fits(queries, found, head))

        return self._best_hits(rows, num, distinct=distinct)

    def by_score(self, label: str, conditions: Sequence[str], num: int, *, distinct: bool) -> Hits:
        """Return the windows of one of the model's labels with the highest scores. `similarity` is the score."""
        ordering = importlib.import_module("lancedb.query").ColumnOrdering(column_name="score", ascending=False)

        def rows(count: int, others: list[str]) -> tuple[int, list[dict[str, Any]]]:
            where = " AND ".join([f"label = {quoted(label)}", *conditions, *others])
            builder = self._table.search().where(where).order_by([ordering]).select(list(COLUMNS)).limit(count)
            found = [{**row, "similarity": row["score"]} for row in builder.to_list()]
            return len(found), found

        return self._best_hits(rows, num, distinct=distinct)

    def _best_hits(
        self, rows: Callable[[int, list[str]], tuple[int, list[dict[str, Any]]]], num: int, *, distinct: bool
    ) -> Hits:
        """Return the best `num` hits, without windows that repeat each other.

        `rows(count, conditions)` returns the number of the best rows under further conditions, and those that count. It is asked
        for ever more rows, or, where hits must be `distinct`, for rows of ever more videos, until there are enough.
        """
        count, hits = max(FETCHED, 4 * num), list[Hit]()
        while True:
            others = [f"NOT {among('source', [hit.source for hit in hits])}"] if distinct and hits else []
            with index_errors(self._url):
                num_found, best = rows(count, others)
            found = [
                Hit(**{name: row[name] for name in (*COLUMNS, "similarity")}, parts=row.get("parts", ()))
                for row in best
            ]
            hits = hits + first_of_each(found) if distinct else without_overlaps(found)
            is_all = num_found < count or (count >= MOST_FETCHED and not (distinct and found))
            if len(hits) >= num or is_all:
                return Hits(hits[:num])
            count = min(4 * count, MOST_FETCHED)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of the table, with their vectors of length 1 in some columns: (N, D) by the name of the column."""

    rows: list[dict[str, Any]]
    vectors: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, found: Any, columns: Iterable[str]) -> _Rows:
        """Return the rows of an Arrow table that was found by a vector."""
        vectors = {}
        for name in columns:
            width = found.schema.field(name).type.list_size
            flat = found[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            vectors_ND = flat.astype(np.float32).reshape(-1, width)
            vectors[name] = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True).clip(min=1e-12)
        rows = found.select([*COLUMNS, "_distance"]).to_pylist()
        return cls([{**row, "similarity": 1 - row["_distance"]} for row in rows], vectors)

    def kept(self, good_N: NDArray[np.bool_] | None) -> list[dict[str, Any]]:
        """Return the rows that are marked, or all of them."""
        return self.rows if good_N is None else [row for row, good in zip(self.rows, good_N, strict=True) if good]


def _fits(queries: Sequence[SearchQuery], found: _Rows, head: TaughtLabel | None) -> NDArray[np.bool_] | None:
    """Return which rows are no more like the rival of a query than like the query, and score 0.5 or more by a taught label."""
    marks = []
    for query in queries:
        if query.rival is not None:
            own_ND = found.vectors[query.column]
            marks.append(own_ND @ query.rival <= own_ND @ query.vector)
    if head is not None:
        marks.append(found.vectors[EMBEDDING] @ head.weights + head.bias >= 0)
    return np.logical_and.reduce(marks) if marks else None


def fused(queries: Sequence[SearchQuery], lists: Sequence[_Rows]) -> _Rows:
    """Return the rows of several searches as one list, the best first, by reciprocal rank fusion (Cormack et al., 2009).

    All rows of the lists are ranked by each query. `similarity` is the mean over the queries of (`RANKS` + 1) / (`RANKS` + rank),
    so a row that is the first for each has 1. Cosines of different encoders cannot be added, because their ranges differ.

    Args:
        queries: The queries.
        lists: What each of them found, with the vectors of all their columns.
    """
    rows: list[dict[str, Any]] = []
    places: list[tuple[_Rows, int]] = []
    known: set[str] = set()
    for found in lists:
        for place, row in enumerate(found.rows):
            if row["id"] not in known:
                known.add(row["id"])
                rows.append(row)
                places.append((found, place))
    if not rows:
        return lists[0]
    vectors = {name: np.stack([found.vectors[name][place] for found, place in places]) for name in lists[0].vectors}
    cosines_QN = np.stack([vectors[query.column] @ _unit(query.vector) for query in queries])
    ranks_QN = 1 + np.argsort(np.argsort(-cosines_QN, axis=1, kind="stable"), axis=1, kind="stable")
    scores_N = ((RANKS + 1) / (RANKS + ranks_QN)).mean(axis=0)
    order = np.argsort(-scores_N, kind="stable")
    best = [
        {
            **rows[number],
            "similarity": float(scores_N[number]),
            "parts": tuple(
                HitPart(query.part, float(cosines_N[number]), int(ranks_N[number]))
                for query, cosines_N, ranks_N in zip(queries, cosines_QN, ranks_QN, strict=True)
            ),
        }
        for number in order.tolist()
    ]
    return _Rows(best, {name: vectors_ND[order] for name, vectors_ND in vectors.items()})


def _unit(vector_D: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector_D / max(float(np.linalg.norm(vector_D)), 1e-12)


def conditions_of(where: str, videos: str) -> list[str]:
    """Return the conditions in SQL that a caller's condition and pattern of paths stand for."""
    return [f"({where})"] * bool(where.strip()) + [f"source LIKE {quoted(like(videos))}"] * bool(videos)


def not_itself(query: SearchQuery) -> list[str]:
    """Return the condition that leaves out windows which overlap the queried part of a video itself."""
    if not query.content:
        return []
    start_s, end_s = float(query.start_s), float(query.end_s)  # numpy's numbers do not print as SQL
    last_s = f" AND start_s < {end_s}" if math.isfinite(end_s) else ""
    return [f"NOT (content = {quoted(query.content)}{last_s} AND end_s > {start_s})"]


def like(pattern: str) -> str:
    """Return a pattern of paths for SQL's LIKE. It is relative to the current folder unless it begins with `*`."""
    whole = pattern if pattern.startswith("*") else absolute(pattern)
    for mark in ("\\", "%", "_"):  # LIKE's own marks are escaped first, the backslash before the others
        whole = whole.replace(mark, f"\\{mark}")
    return whole.replace("*", "%").replace("?", "_")


def first_of_each(hits: Sequence[Hit]) -> list[Hit]:
    """Return the first hit of each video, in their order."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(hit.source, hit)
    return list(first.values())


def without_overlaps(hits: Sequence[Hit]) -> list[Hit]:
    """Return the best of hits that overlap in one video, best first."""
    by_span = {(hit.source, hit.start_s, hit.end_s): hit for hit in reversed(hits)}
    spans = [Span(hit.start_s, hit.end_s, hit.source, hit.similarity) for hit in hits]
    return [by_span[span.label, span.start_s, span.end_s] for span in without_repeats(spans)]
