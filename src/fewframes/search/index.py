"""Index windows of many videos in one table (LanceDB), on this machine or an object store, and search it for similar ones.

Whole videos are committed: however an indexing run ends, no video is indexed in part, and the next run continues after them. A
label can be taught from a few rows: a linear head on the embeddings that are there already, saved beside them.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fewframes.core.cache import EmbeddingCache
from fewframes.core.files import held
from fewframes.core.storage import is_address
from fewframes.data.lists import absolute
from fewframes.errors import ConfigError, DataError, nearest
from fewframes.inference.frame_features import Gap
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import Progress
from fewframes.results import Failure
from fewframes.search.rows import EncodedVideo, EncodeVideos, WindowEncoder, vectors_of
from fewframes.search.settings import KIND, check_same, new_settings
from fewframes.search.table import (
    COLUMNS,
    COMMIT_S,
    TAUGHT,
    WINDOWS,
    AddSummary,
    Hit,
    IndexSettings,
    Kind,
    RowBatch,
    SearchQuery,
    TaughtLabel,
    among,
    content_of,
    first_of_each,
    index_errors,
    lancedb,
    like,
    quoted,
    schema_of,
    settings_in,
    tables_at,
    without_overlaps,
)
from fewframes.search.teaching import taught_head

INDEXED_FROM = 100_000
"""Rows from which vectors, ids, paths and labels have indexes. Fewer rows are compared one by one, which is exact."""
PROBES, REFINE = 40, 4
"""Parts of the vector index that are searched, and how many times as many rows are compared exactly."""
FETCHED, MOST_FETCHED = 64, 16_384
"""The least and the most rows that are asked for, because many windows among them may overlap."""
OTHERS = 256
"""Random rows that serve as counterexamples of a taught label."""
OLD = timedelta(hours=1)
"""Former versions of the table that are younger than this stay, for those who are reading them."""


class Index:
    """An index of windows at a folder or URL; `Index.open` opens one."""

    def __init__(
        self, url: str, database: Any, table: Any, settings: IndexSettings, predictor: Predictor | None
    ) -> None:
        self.url, self.settings = url, settings
        self._database, self._table, self._predictor = database, table, predictor

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        predictor: Predictor | None = None,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        embedding: Kind | None = None,
    ) -> Index:
        """Open an index; with a predictor, make a new one where there is none.

        Without a predictor rows and labels can be searched, and labels taught; no video can be encoded. Raises ConfigError for an
        index of another model or with other settings, DataError where there is none or it cannot be read, and MissingDependency.

        Args:
            url: A folder or URL.
            predictor: The model.
            window_s: Seconds of a window (4 in a new index).
            hop_s: Seconds from the start of one window to the next (2 in a new index).
            embedding: The kind of vector that stands for a window (`video` in a new index).
        """
        url = os.fspath(url)
        with index_errors(url):
            there = tables_at(url)
        if there is not None:
            database, table = there
            settings = settings_in(url, table)
            check_same(url, settings, predictor, window_s, hop_s, embedding)
        elif predictor is None:
            raise DataError(f"{url}: no index there; make one with: fewframes index VIDEOS --index {url}")
        else:
            settings = new_settings(predictor, window_s, hop_s, embedding or KIND)
            with index_errors(url):
                database = lancedb().connect(url)
                table = database.create_table(WINDOWS, schema=schema_of(settings))
        return cls(url, database, table, settings, predictor)

    @property
    def num_rows(self) -> int:
        """Return the number of windows in the index."""
        return int(self._table.count_rows())

    def videos(self) -> dict[str, str]:
        """Return the key of each video's content by path.

        The key is empty for a video that two writers stored twice, so that `add` replaces it.
        """
        found: dict[str, str] = {}
        with index_errors(self.url):
            batches = self._table.search().where("number = 0").select(["source", "content"]).to_batches()
            for row in (row for batch in batches for row in batch.to_pylist()):
                found[row["source"]] = "" if row["source"] in found else row["content"]
        return found

    def add(
        self,
        videos: Iterable[str | os.PathLike[str]],
        *,
        cache: EmbeddingCache | None = None,
        commit_s: float = COMMIT_S,
        progress: Progress = lambda stage, done, total: None,
        encode: EncodeVideos | None = None,
    ) -> AddSummary:
        """Index these videos (files or URLs).

        Videos that are there already with the same content are skipped; rows of a changed file are replaced. However it ends, whole
        videos are indexed, and another call continues after them.

        Args:
            videos: Paths or URLs.
            cache: Where frame embeddings are cached, if anywhere.
            commit_s: Seconds after which whole videos are committed.
            progress: A callback.
            encode: A function that encodes videos elsewhere, such as `EncodeOnRay`; only this process writes.
        """
        encode = encode or WindowEncoder(self._require_predictor(), self.settings, cache).encode_videos
        paths = list(dict.fromkeys(absolute(os.fspath(video)) for video in videos))
        with self._write_lock():
            return self._add(paths, encode, commit_s, progress)

    def _write_lock(self) -> AbstractContextManager[None]:
        """Keep other processes of this machine from writing. Nothing locks an index in a store."""
        return nullcontext() if is_address(self.url) else held(Path(self.url))

    def _add(self, paths: Sequence[str], encode: EncodeVideos, commit_s: float, progress: Progress) -> AddSummary:
        known, batch, done = self.videos(), RowBatch(self._table, self.url, commit_s), _Tally()
        # Two writers stored these: their ids are equal, so merging new rows in would keep both.
        if twice := [path for path in paths if known.get(path) == ""]:
            with index_errors(self.url):
                self._table.delete(among("source", twice))
            known = {path: key for path, key in known.items() if path not in set(twice)}
        progress("videos", 0, len(paths))
        try:
            for number, video in enumerate(encode(paths, known), 1):
                done.note(video)
                if video.rows is not None:
                    batch.add(video.rows, video.path if video.path in known else "")
                progress("videos", number, len(paths))
        finally:
            batch.commit()  # whole videos that are encoded already are not lost when the run ends early
        if done.num_added:
            self.optimize()
        position = {path: number for number, path in enumerate(paths)}  # workers encode in any order
        failures = sorted(done.failures, key=lambda failure: position[failure.source])
        gaps = sorted(done.gaps, key=lambda gap: (position[gap[0]], gap[1].start_s))
        return AddSummary(done.num_added, done.num_kept, done.num_rows, tuple(failures), tuple(gaps))

    def remove(self, videos: Iterable[str | os.PathLike[str]]) -> int:
        """Remove these videos in one step, and return how many there were. Raises DataError for one that is not in the index."""
        with self._write_lock():
            return self._remove(videos)

    def _remove(self, videos: Iterable[str | os.PathLike[str]]) -> int:
        known = self.videos()
        paths = {absolute(os.fspath(video)) for video in videos}
        for path in sorted(paths):
            if path not in known:
                raise DataError(f"{path}: not in the index {self.url}; {nearest(path, list(known)[:1000])}")
        if paths:
            with index_errors(self.url):
                self._table.delete(among("source", paths))
        return len(paths)

    def prune(self) -> int:
        """Remove the videos whose files are gone, and return how many. Addresses (`https://...`) stay."""
        return self.remove(path for path in self.videos() if not is_address(path) and not os.path.exists(path))

    def optimize(self, *, indexed_from: int = INDEXED_FROM) -> None:
        """Join small files, drop the content of old versions, and update the indexes of vectors, ids, labels and paths.

        Where there are no indexes they are made, from `indexed_from` rows on.
        """
        with index_errors(self.url):
            if self._table.count_rows() >= indexed_from:
                kinds = importlib.import_module("lancedb.index")
                wanted = {
                    "embedding": kinds.IvfSq(distance_type="cosine"),
                    "id": kinds.BTree(),
                    "source": kinds.BTree(),
                    "label": kinds.Bitmap(),
                }
                existing = {column for index in self._table.list_indices() for column in index.columns}
                for column, kind in wanted.items():
                    if column not in existing:
                        self._table.create_index(column, config=kind)
            self._table.optimize(cleanup_older_than=OLD)

    def moment(self, video: str | os.PathLike[str], start_s: float = 0.0, end_s: float | None = None) -> SearchQuery:
        """Return a query for windows like this part of a video, which need not be in the index. Raises VideoError.

        The part is encoded once, as `predict` does.
        """
        predictor, path = self._require_predictor(), os.fspath(video)
        prediction = predictor.predict(path, start_s=start_s, end_s=end_s)
        embeddings_1TD, y_1D = prediction.frame_embeddings[None], prediction.embedding[None]
        vector_1D = vectors_of(self.settings.embedding, embeddings_1TD, y_1D)
        last_s = float("inf") if end_s is None else end_s
        return SearchQuery(vector_1D[0].numpy(), content_of(absolute(path)), start_s, last_s)

    def row(self, row_id: str) -> SearchQuery:
        """Return a query for windows like that of a row. Raises DataError where there is no such row."""
        rows = self._rows_by_id([row_id])
        if not rows:
            raise DataError(
                f"{row_id!r}: no such row in {self.url}; `fewframes search --json` shows the ids of what it finds"
            )
        row = rows[0]
        return SearchQuery(np.array(row["embedding"], np.float32), row["content"], row["start_s"], row["end_s"])

    def taught(self) -> dict[str, TaughtLabel]:
        """Return the labels that were taught here, by name."""
        with index_errors(self.url):
            if TAUGHT not in self._database.list_tables().tables:
                return {}
            rows = self._database.open_table(TAUGHT).to_arrow().to_pylist()
        return {
            row["name"]: TaughtLabel(
                row["name"], np.array(row["weights"], np.float32), row["bias"], tuple(row["yes"]), tuple(row["no"])
            )
            for row in rows
        }

    def search(
        self, query: SearchQuery | str, *, where: str = "", videos: str = "", num: int = 20, distinct: bool = False
    ) -> tuple[Hit, ...]:
        """Return the `num` windows that are most similar to a query, or most certainly of a label, best first.

        Of windows that overlap only the best one is returned. Raises DataError for an unknown label or a faulty condition.

        Args:
            query: A query, or a label: a taught one goes before one of the model's.
            where: A condition in SQL over the columns source, start_s, end_s, duration_s, label, score, number.
            videos: A pattern of paths (`*`, `?`).
            num: The most windows to return.
            distinct: Return at most one window of each video.
        """
        if num < 1:
            raise ValueError(f"num = {num}: needs at least 1")
        conditions = [f"({where})"] if where.strip() else []
        if videos:
            conditions.append(f"source LIKE {quoted(like(videos))}")
        if isinstance(query, str):
            taught = self.taught()
            if query not in taught:
                return self._by_score(query, taught, conditions, num, distinct=distinct)
            head = taught[query]
            size = float(np.linalg.norm(head.weights))
            found = self._nearest(SearchQuery(head.weights), conditions, num, distinct=distinct)
            # The search compares directions alone; length and bias of the head turn a cosine into its score.
            odds = (float(np.exp(-(size * hit.similarity + head.bias))) for hit in found)
            return tuple(replace(hit, similarity=1 / (1 + odd)) for hit, odd in zip(found, odds, strict=True))
        if query.content:
            start_s, end_s = float(query.start_s), float(query.end_s)  # numpy's numbers do not print as SQL
            last_s = f" AND start_s < {end_s}" if math.isfinite(end_s) else ""
            conditions.append(f"NOT (content = {quoted(query.content)}{last_s} AND end_s > {start_s})")
        return self._nearest(query, conditions, num, distinct=distinct)

    def teach(self, name: str, yes: Sequence[str], no: Sequence[str] = (), *, seed: int = 0) -> TaughtLabel:
        """Teach a label from rows that show it and rows that do not, and save it in the index. Nothing is encoded.

        Examples that were given for this name before count too, unless they are now said to be the opposite. Other rows, drawn at
        random, stand for everything else. Raises DataError for ids that are not there and where no row shows the label.

        Args:
            name: The label.
            yes: Ids of rows that show it.
            no: Ids of rows that do not.
            seed: Seed of the random rows.
        """
        before = self.taught().get(name)
        yes, no = tuple(dict.fromkeys(yes)), tuple(dict.fromkeys(no))
        if both := sorted({*yes} & {*no}):
            raise DataError(f"{both[0]}: cannot be an example of {name!r} and a counterexample at once")
        found = {row["id"]: row["embedding"] for row in self._rows_by_id([*yes, *no])}
        if missing := [row_id for row_id in (*yes, *no) if row_id not in found]:
            raise DataError(f"{missing[0]!r}: no such row in {self.url}")
        old = set() if before is None else {*before.yes, *before.no} - {*yes, *no}
        found |= {row["id"]: row["embedding"] for row in self._rows_by_id(sorted(old))}
        if before is not None:
            yes += tuple(row_id for row_id in before.yes if row_id in old and row_id in found)
            no += tuple(row_id for row_id in before.no if row_id in old and row_id in found)
        if not yes:
            raise DataError(f"{name!r} needs at least one row that shows it")
        others = [row["embedding"] for row in self._random_rows(seed) if row["id"] not in found]
        weights, bias = taught_head([found[i] for i in yes], [found[i] for i in no], others)
        taught = TaughtLabel(name, weights, bias, yes, no, num_gone=len(old - {*found}))
        self._save_taught(taught)
        return taught

    def _save_taught(self, taught: TaughtLabel) -> None:
        pa = importlib.import_module("pyarrow")
        columns: dict[str, Any] = {"name": pa.string(), "weights": pa.list_(pa.float32()), "bias": pa.float64()}
        schema = pa.schema([*columns.items(), ("yes", pa.list_(pa.string())), ("no", pa.list_(pa.string()))])
        values = {name: getattr(taught, name) for name in schema.names}
        with index_errors(self.url):
            row = pa.Table.from_pylist([{**values, "weights": taught.weights.tolist()}], schema=schema)
            table = self._database.create_table(TAUGHT, schema=schema, exist_ok=True)
            table.merge_insert("name").when_matched_update_all().when_not_matched_insert_all().execute(row)

    def _require_predictor(self) -> Predictor:
        if self._predictor is None:
            raise ConfigError(f"{self.url}: opened without a model, so no video can be encoded; pass a predictor")
        return self._predictor

    def _rows_by_id(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        with index_errors(self.url):
            found: list[dict[str, Any]] = self._table.search().where(among("id", ids)).limit(len(ids)).to_list()
        return found

    def _random_rows(self, seed: int) -> list[dict[str, Any]]:
        num_rows = self.num_rows
        offsets = np.random.default_rng(seed).choice(num_rows, min(OTHERS, num_rows), replace=False)
        with index_errors(self.url):
            drawn: list[dict[str, Any]] = self._table.take_offsets(sorted(offsets.tolist())).to_list()
        return drawn

    def _nearest(self, query: SearchQuery, conditions: list[str], num: int, *, distinct: bool) -> tuple[Hit, ...]:
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

    def _by_score(
        self, label: str, taught: Iterable[str], conditions: list[str], num: int, *, distinct: bool
    ) -> tuple[Hit, ...]:
        if label not in self.settings.labels:
            raise DataError(
                f"label {label!r}: not a label of the model, and not a taught one; "
                f"{nearest(label, {*self.settings.labels, *taught})}"
            )
        ordering = importlib.import_module("lancedb.query").ColumnOrdering(column_name="score", ascending=False)

        def rows(count: int, others: list[str]) -> list[dict[str, Any]]:
            where = " AND ".join([f"label = {quoted(label)}", *conditions, *others])
            builder = self._table.search().where(where).order_by([ordering]).select(list(COLUMNS)).limit(count)
            return [{**row, "similarity": row["score"]} for row in builder.to_list()]

        return self._best_hits(rows, num, distinct=distinct)

    def _best_hits(
        self, rows: Callable[[int, list[str]], list[dict[str, Any]]], num: int, *, distinct: bool
    ) -> tuple[Hit, ...]:
        """Return the best `num` hits, without windows that repeat each other.

        `rows(count, conditions)` returns the best rows under further conditions. It is asked for ever more rows, or, where hits
        must be `distinct`, for rows of ever more videos, until there are enough.
        """
        count, hits = max(FETCHED, 4 * num), list[Hit]()
        while True:
            others = [f"NOT {among('source', [hit.source for hit in hits])}"] if distinct and hits else []
            with index_errors(self.url):
                found = [Hit(**{name: row[name] for name in (*COLUMNS, "similarity")}) for row in rows(count, others)]
            hits = hits + first_of_each(found) if distinct else without_overlaps(found)
            if len(hits) >= num or len(found) < count or (count >= MOST_FETCHED and not distinct):
                return tuple(hits[:num])
            count = min(4 * count, MOST_FETCHED)


@dataclass
class _Tally:
    num_added: int = 0
    num_kept: int = 0
    num_rows: int = 0
    failures: list[Failure] = field(default_factory=list)
    gaps: list[tuple[str, Gap]] = field(default_factory=list)

    def note(self, video: EncodedVideo) -> None:
        """Count one video."""
        if video.failure is not None:
            self.failures.append(video.failure)
        elif video.rows is None:
            self.num_kept += 1
        else:
            self.num_added += 1
            self.num_rows += len(video.rows)
            self.gaps += [(video.path, gap) for gap in video.gaps]
