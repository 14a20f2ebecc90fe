"""Moments that are like a moment: embeddings of windows of many videos in one table (LanceDB), here or on an object store.

Whole videos are committed, so that whatever ends an indexing run leaves none in part, and the next run goes on after them. A label
can be taught from a few rows: a linear head on embeddings that are there already, kept beside them.
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
import torch
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache
from fewframes.core.files import held
from fewframes.core.storage import is_address
from fewframes.data.lists import absolute
from fewframes.errors import ConfigError, DataError, nearest
from fewframes.inference.frame_features import Gap
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import Progress
from fewframes.models.token_merging import merged_per_block
from fewframes.results import Failure
from fewframes.search.rows import EncodedVideo, LookAt, WindowEncoder, model_key_of, vectors_of
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
    apart,
    content_of,
    first_of_each,
    lancedb,
    like,
    quoted,
    schema_of,
    settings_in,
    tables_at,
    told,
)

WINDOW_S, HOP_S = 4.0, 2.0
MOST_FPS, MOST_WINDOW_S = 240, 86_400
"""Frames of a window that are nearer would be one picture of nearly all videos, encoded again and again. A longer window than a
day would hold a whole video, as that does."""
KIND: Kind = "video"
INDEXED_FROM = 100_000
"""Rows from which there are indexes of vectors, ids, paths and labels; fewer are compared one by one, which is exact."""
PROBES, REFINE = 40, 4
"""Parts of the vector index that are searched, and how many times as many rows are compared exactly."""
FETCHED, MOST_FETCHED = 64, 16_384
"""Rows that are asked for at least and at most, for there may be many windows of one moment among them."""
OTHERS, STRENGTH, WRONG_WEIGHT = 256, 100.0, 0.1
"""Rows drawn as examples of what a taught label is not, how little its head is held back (the inverse of its penalty), and what a
row that was said not to show it weighs beside one that does."""
OLD = timedelta(hours=1)
"""Former versions of the table that are younger stay, for those who are reading them."""


class Index:
    """An index at a folder or URL; see `open`."""

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
        """The index there; with a predictor, a new one where there is none.

        `window_s`, `hop_s`: seconds of windows and from one to the next (4 and 2 in a new index). Without a predictor rows and
        labels can be searched, and labels taught; no video can. Raises ConfigError where the index there is of another model
        or other settings, DataError where there is none or it cannot be read, MissingDependency without lancedb.
        """
        url = os.fspath(url)
        with told(url):
            there = tables_at(url)
        if there is not None:
            database, table = there
            settings = settings_in(url, table)
            _check_same(url, settings, predictor, window_s, hop_s, embedding)
        elif predictor is None:
            raise DataError(f"{url}: no index there; make one with: fewframes index VIDEOS --index {url}")
        else:
            settings = _new_settings(predictor, window_s, hop_s, embedding or KIND)
            with told(url):
                database = lancedb().connect(url)
                table = database.create_table(WINDOWS, schema=schema_of(settings))
        return cls(url, database, table, settings, predictor)

    @property
    def num_rows(self) -> int:
        """Windows in the index."""
        return int(self._table.count_rows())

    def videos(self) -> dict[str, str]:
        """Return each video and the key of its content; an empty key for one that two writers stored twice, so that `add` replaces
        it."""
        found: dict[str, str] = {}
        with told(self.url):
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
        look: LookAt | None = None,
    ) -> AddSummary:
        """Index these videos (files or URLs); those whose content is there already under the same path are skipped, rows of a
        changed file are replaced. Ended in any way it leaves whole videos alone, and called again goes on after them.

        `look` has others look at the videos, as `ray_moments` does; only this process writes."""
        look = look or WindowEncoder(self._needed_predictor(), self.settings, cache).look_at
        paths = list(dict.fromkeys(absolute(os.fspath(video)) for video in videos))
        with self._held():
            return self._added(paths, look, commit_s, progress)

    def _held(self) -> AbstractContextManager[None]:
        """Keep other processes of this machine from writing; nothing locks an index in a store."""
        return nullcontext() if is_address(self.url) else held(Path(self.url))

    def _added(self, paths: Sequence[str], look: LookAt, commit_s: float, progress: Progress) -> AddSummary:
        known, batch, done = self.videos(), RowBatch(self._table, self.url, commit_s), _Tally()
        if twice := [
            path for path in paths if known.get(path) == ""
        ]:  # merging would keep both, for their ids are the same
            with told(self.url):
                self._table.delete(among("source", twice))
            known = {path: key for path, key in known.items() if path not in set(twice)}
        progress("videos", 0, len(paths))
        try:
            for number, seen in enumerate(look(paths, known), 1):
                done.note(seen)
                if seen.rows is not None:
                    batch.add(seen.rows, seen.path if seen.path in known else "")
                progress("videos", number, len(paths))
        finally:
            batch.commit()
        if done.num_added:
            self.optimize()
        place = {path: number for number, path in enumerate(paths)}  # others look in any order
        failures = sorted(done.failures, key=lambda failure: place[failure.source])
        gaps = sorted(done.gaps, key=lambda gap: (place[gap[0]], gap[1].start_s))
        return AddSummary(done.num_added, done.num_kept, done.num_rows, tuple(failures), tuple(gaps))

    def remove(self, videos: Iterable[str | os.PathLike[str]]) -> int:
        """Forget these videos, in one step; how many there were. Raises DataError for one that is not in the index."""
        with self._held():
            return self._removed(videos)

    def _removed(self, videos: Iterable[str | os.PathLike[str]]) -> int:
        known = self.videos()
        paths = {absolute(os.fspath(video)) for video in videos}
        for path in sorted(paths):
            if path not in known:
                raise DataError(f"{path}: not in the index {self.url}; {nearest(path, list(known)[:1000])}")
        if paths:
            with told(self.url):
                self._table.delete(among("source", paths))
        return len(paths)

    def prune(self) -> int:
        """Forget the videos whose files are gone; how many. Addresses (`https://...`) stay."""
        return self.remove(path for path in self.videos() if not is_address(path) and not os.path.exists(path))

    def optimize(self, *, indexed_from: int = INDEXED_FROM) -> None:
        """Join small files, drop what old versions held, and bring the indexes of vectors, ids, labels and paths up to date, or
        make them where there are `indexed_from` rows."""
        with told(self.url):
            if self._table.count_rows() >= indexed_from:
                kinds = importlib.import_module("lancedb.index")
                wanted = {
                    "embedding": kinds.IvfSq(distance_type="cosine"),
                    "id": kinds.BTree(),
                    "source": kinds.BTree(),
                    "label": kinds.Bitmap(),
                }
                there = {column for index in self._table.list_indices() for column in index.columns}
                for column, kind in wanted.items():
                    if column not in there:
                        self._table.create_index(column, config=kind)
            self._table.optimize(cleanup_older_than=OLD)

    def moment(self, video: str | os.PathLike[str], start_s: float = 0.0, end_s: float | None = None) -> SearchQuery:
        """A moment of a video, in the index or not, to search for: one look at it, as `predict` does. Raises VideoError."""
        predictor, path = self._needed_predictor(), os.fspath(video)
        seen = predictor.predict(path, start_s=start_s, end_s=end_s)
        frames_1TD, y_1D = seen.frame_embeddings[None], seen.embedding[None]
        vector_1D = vectors_of(self.settings.embedding, frames_1TD, y_1D)
        last_s = float("inf") if end_s is None else end_s
        return SearchQuery(vector_1D[0].numpy(), content_of(absolute(path)), start_s, last_s)

    def row(self, row_id: str) -> SearchQuery:
        """The moment of a row, to search for more like it. Raises DataError where there is no such row."""
        rows = self._rows_by_id([row_id])
        if not rows:
            raise DataError(
                f"{row_id!r}: no such row in {self.url}; `fewframes search --json` shows the ids of what it finds"
            )
        row = rows[0]
        return SearchQuery(np.array(row["embedding"], np.float32), row["content"], row["start_s"], row["end_s"])

    def taught(self) -> dict[str, TaughtLabel]:
        """The labels that were taught here, by name."""
        with told(self.url):
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
        """The `num` moments most like a moment, or of a label (the model's, or a taught one, which goes first), best first.

        `where` is a condition in SQL over the columns source, start_s, end_s, duration_s, label, score, number; `videos` a
        pattern (`*`, `?`) of paths; `distinct` allows one moment of each video. Of windows that overlap the best one is taken.
        Raises DataError for a label that is not known and a condition that cannot be read.
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
            odds = (float(np.exp(-(size * hit.similarity + head.bias))) for hit in found)
            return tuple(replace(hit, similarity=1 / (1 + one)) for hit, one in zip(found, odds, strict=True))
        if query.content:
            start_s, end_s = float(query.start_s), float(query.end_s)  # numpy's own print as no numbers of SQL
            last_s = f" AND start_s < {end_s}" if math.isfinite(end_s) else ""
            conditions.append(f"NOT (content = {quoted(query.content)}{last_s} AND end_s > {start_s})")
        return self._nearest(query, conditions, num, distinct=distinct)

    def teach(self, name: str, yes: Sequence[str], no: Sequence[str] = (), *, seed: int = 0) -> TaughtLabel:
        """A label from rows that show it and rows that do not (ids), kept in the index; examples of the same name given before
        count too, unless they are now said to be the opposite. Other rows, drawn at random, stand for all the rest.

        Nothing is encoded. Raises DataError for ids that are not there and where no row shows it.
        """
        before = self.taught().get(name)
        yes, no = tuple(dict.fromkeys(yes)), tuple(dict.fromkeys(no))
        if both := sorted({*yes} & {*no}):
            raise DataError(f"{both[0]}: cannot be an example of {name!r} and of what it is not")
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
        others = [row["embedding"] for row in self._drawn(seed) if row["id"] not in found]
        weights, bias = taught_head([found[i] for i in yes], [found[i] for i in no], others)
        taught = TaughtLabel(name, weights, bias, yes, no, num_gone=len(old - {*found}))
        self._keep_taught(taught)
        return taught

    def _keep_taught(self, taught: TaughtLabel) -> None:
        pa = importlib.import_module("pyarrow")
        columns: dict[str, Any] = {"name": pa.string(), "weights": pa.list_(pa.float32()), "bias": pa.float64()}
        schema = pa.schema([*columns.items(), ("yes", pa.list_(pa.string())), ("no", pa.list_(pa.string()))])
        values = {name: getattr(taught, name) for name in schema.names}
        with told(self.url):
            row = pa.Table.from_pylist([{**values, "weights": taught.weights.tolist()}], schema=schema)
            table = self._database.create_table(TAUGHT, schema=schema, exist_ok=True)
            table.merge_insert("name").when_matched_update_all().when_not_matched_insert_all().execute(row)

    def _needed_predictor(self) -> Predictor:
        if self._predictor is None:
            raise ConfigError(f"{self.url}: opened without a model, so no video can be looked at; pass a predictor")
        return self._predictor

    def _rows_by_id(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        with told(self.url):
            found: list[dict[str, Any]] = self._table.search().where(among("id", ids)).limit(len(ids)).to_list()
        return found

    def _drawn(self, seed: int) -> list[dict[str, Any]]:
        num_rows = self.num_rows
        places = np.random.default_rng(seed).choice(num_rows, min(OTHERS, num_rows), replace=False)
        with told(self.url):
            drawn: list[dict[str, Any]] = self._table.take_offsets(sorted(places.tolist())).to_list()
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
            # Conditions may leave too few rows in these parts: then in all (0), which at once is slower where it is not needed.
            return nearest(count, where, 0) if where and len(found) < count else found

        return self._merged(rows, num, distinct=distinct)

    def _by_score(
        self, label: str, taught: Iterable[str], conditions: list[str], num: int, *, distinct: bool
    ) -> tuple[Hit, ...]:
        if label not in self.settings.labels:
            raise DataError(
                f"label {label!r}: neither one of the model's nor taught; {nearest(label, {*self.settings.labels, *taught})}"
            )
        ordering = importlib.import_module("lancedb.query").ColumnOrdering(column_name="score", ascending=False)

        def rows(count: int, others: list[str]) -> list[dict[str, Any]]:
            where = " AND ".join([f"label = {quoted(label)}", *conditions, *others])
            builder = self._table.search().where(where).order_by([ordering]).select(list(COLUMNS)).limit(count)
            return [{**row, "similarity": row["score"]} for row in builder.to_list()]

        return self._merged(rows, num, distinct=distinct)

    def _merged(
        self, rows: Callable[[int, list[str]], list[dict[str, Any]]], num: int, *, distinct: bool
    ) -> tuple[Hit, ...]:
        """The best `num` of `rows`, so many of those that hold to further conditions, without windows that repeat each other:
        from ever more rows, or where they must be distinct from ever more videos, until there are so many."""
        count, hits = max(FETCHED, 4 * num), list[Hit]()
        while True:
            others = [f"NOT {among('source', [hit.source for hit in hits])}"] if distinct and hits else []
            with told(self.url):
                found = [Hit(**{name: row[name] for name in (*COLUMNS, "similarity")}) for row in rows(count, others)]
            hits = hits + first_of_each(found) if distinct else apart(found)
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

    def note(self, seen: EncodedVideo) -> None:
        """Count what became of a video."""
        if seen.failure is not None:
            self.failures.append(seen.failure)
        elif seen.rows is None:
            self.num_kept += 1
        else:
            self.num_added += 1
            self.num_rows += len(seen.rows)
            self.gaps += [(seen.path, gap) for gap in seen.gaps]


def _new_settings(predictor: Predictor, window_s: float | None, hop_s: float | None, embedding: Kind) -> IndexSettings:
    num_frames = predictor.config.num_frames
    window_s = WINDOW_S if window_s is None else float(window_s)
    least_s = math.ceil(1000 * num_frames / MOST_FPS) / 1000
    if not least_s <= window_s <= MOST_WINDOW_S:
        raise ConfigError(
            f"windows of {window_s:g} s: needs at least {least_s:g} s, {num_frames} frames at {MOST_FPS} a second, and at most "
            f"{MOST_WINDOW_S:g} s; leave that out for {WINDOW_S:g} s"
        )
    spacing_s = window_s / num_frames
    hop_s = max(spacing_s, min(HOP_S, window_s)) if hop_s is None else float(hop_s)
    if not (0 < hop_s <= window_s and round(hop_s / spacing_s)):
        raise ConfigError(
            f"windows of {window_s:g} s every {hop_s:g} s: needs a hop of at least {spacing_s:.3g} s, from frame to frame, and at "
            "most the window's length"
        )
    probe_1TD = torch.zeros(1, num_frames, predictor.model.frame_width)
    width = vectors_of(embedding, probe_1TD, predictor.encode_windows(probe_1TD).embedding).shape[1]
    # A checkpoint is found again from any folder.
    name = os.path.abspath(predictor.name) if os.path.isfile(predictor.name) else predictor.name
    merge = merged_per_block(predictor.model.frame_encoder)
    return IndexSettings(name, model_key_of(predictor), predictor.labels, width, window_s, hop_s, embedding, merge)


def _check_same(
    url: str,
    settings: IndexSettings,
    predictor: Predictor | None,
    window_s: float | None,
    hop_s: float | None,
    embedding: Kind | None,
) -> None:
    asked = {"window_s": window_s, "hop_s": hop_s, "embedding": embedding}
    for name, value in asked.items():
        there = getattr(settings, name)
        if value is not None and value != there:
            raise ConfigError(
                f"{url}: was made with {name} {there}, not {value}; leave that out, or take another place"
            )
    if predictor is not None and model_key_of(predictor) != settings.model_key:
        merge = merged_per_block(predictor.model.frame_encoder)
        raise ConfigError(
            f"{url}: was made with the model {settings.model!r} ({len(settings.labels)} labels, embeddings {settings.width} "
            f"wide{_merging(settings.merge)}), and {predictor.name!r}{_merging(merge)} is another or has other weights; take "
            "that model, or another place"
        )


def _merging(merge: int | None) -> str:
    return f", merging {merge} patches a block" if merge else ""


def taught_head(
    yes: list[list[float]], no: list[list[float]], others: list[list[float]]
) -> tuple[NDArray[np.float32], float]:
    """Logistic regression; examples that show the label weigh together as much as the rows drawn at random, each row that was said
    not to show it `WRONG_WEIGHT` of one that does (docs/decisions.md has how these were chosen)."""
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
