"""Find windows in the table of an index: by id, by likeness to a vector, or by the model's label."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

from fewframes.data.samples import absolute
from fewframes.inference.detection.spans import Span, without_repeats
from fewframes.search.table import COLUMNS, Hit, Hits, SearchQuery, among, index_errors, quoted

PROBES, REFINE = 40, 4
"""Parts of the vector index that are searched, and how many times as many rows are compared exactly."""
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

    def nearest(self, query: SearchQuery, conditions: Sequence[str], num: int, *, distinct: bool) -> Hits:
        """Return the windows whose vectors lie nearest to the query's in direction. `similarity` is a cosine."""

        def nearest(count: int, where: str, most_probes: int) -> list[dict[str, Any]]:
            builder = self._table.search(query.vector, vector_column_name="embedding").distance_type("cosine")
            builder = builder.minimum_nprobes(PROBES).maximum_nprobes(most_probes).refine_factor(REFINE).limit(count)
            builder = builder.where(where) if where else builder
            found = builder.select([*COLUMNS, "_distance"]).to_list()
            return [{**row, "similarity": 1 - row["_distance"]} for row in found]

        def rows(count: int, others: list[str]) -> list[dict[str, Any]]:
            where = " AND ".join([*conditions, *others])
            found = nearest(count, where, PROBES)
            # Conditions may leave too few rows in these parts. Then all parts (0) are searched; doing so at first would be slower.
            return nearest(count, where, 0) if where and len(found) < count else found

        return self._best_hits(rows, num, distinct=distinct)

    def by_score(self, label: str, conditions: Sequence[str], num: int, *, distinct: bool) -> Hits:
        """Return the windows of one of the model's labels with the highest scores. `similarity` is the score."""
        ordering = importlib.import_module("lancedb.query").ColumnOrdering(column_name="score", ascending=False)

        def rows(count: int, others: list[str]) -> list[dict[str, Any]]:
            where = " AND ".join([f"label = {quoted(label)}", *conditions, *others])
            builder = self._table.search().where(where).order_by([ordering]).select(list(COLUMNS)).limit(count)
            return [{**row, "similarity": row["score"]} for row in builder.to_list()]

        return self._best_hits(rows, num, distinct=distinct)

    def _best_hits(self, rows: Callable[[int, list[str]], list[dict[str, Any]]], num: int, *, distinct: bool) -> Hits:
        """Return the best `num` hits, without windows that repeat each other.

        `rows(count, conditions)` returns the best rows under further conditions. It is asked for ever more rows, or, where hits
        must be `distinct`, for rows of ever more videos, until there are enough.
        """
        count, hits = max(FETCHED, 4 * num), list[Hit]()
        while True:
            others = [f"NOT {among('source', [hit.source for hit in hits])}"] if distinct and hits else []
            with index_errors(self._url):
                found = [Hit(**{name: row[name] for name in (*COLUMNS, "similarity")}) for row in rows(count, others)]
            hits = hits + first_of_each(found) if distinct else without_overlaps(found)
            if len(hits) >= num or len(found) < count or (count >= MOST_FETCHED and not distinct):
                return Hits(hits[:num])
            count = min(4 * count, MOST_FETCHED)


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
