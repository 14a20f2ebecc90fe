"""Write videos into the table of an index: whole videos are committed, and only one process of a machine writes."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from fewframes.core.files import held
from fewframes.core.process import Progress
from fewframes.core.storage import is_address
from fewframes.data.samples import absolute
from fewframes.errors import DataError, nearest
from fewframes.inference.frame_features import Gap
from fewframes.results import Failure
from fewframes.search.rows import EncodedVideo, EncodeVideos
from fewframes.search.table import EMBEDDING, WORDS, among, index_errors

INDEXED_FROM = 100_000
"""Rows from which vectors, ids, paths and labels have indexes. Fewer rows are compared one by one, which is exact."""
OLD = timedelta(hours=1)
"""Former versions of the table that are younger than this stay, for those who are reading them."""
COMMIT_ROWS, COMMIT_S = 1024, 5.0
"""Rows and seconds after which whole videos are committed together. A commit for each video would be slow for short ones."""


@dataclass(frozen=True)
class AddSummary:
    """The result of adding videos: how many were added, how many were there already, and the rows added (windows and spans).

    `num_spans` of the rows are learned spans. `gaps` are the parts of added videos that could not be decoded. Of their frames,
    `num_embedded` were embedded now and `num_reused` showed nothing new; the others came from the cache.
    """

    num_added: int = 0
    num_kept: int = 0
    num_rows: int = 0
    failures: tuple[Failure, ...] = ()
    gaps: tuple[tuple[str, Gap], ...] = ()
    num_embedded: int = 0
    num_reused: int = 0
    num_spans: int = 0


class VideoWriter:
    """A writer of whole videos into the table of an index."""

    def __init__(self, url: str, table: Any) -> None:
        self._url, self._table = url, table

    def videos(self) -> dict[str, str]:
        """Return the key of each video's content by path; empty for a video that two writers stored twice."""
        found: dict[str, str] = {}
        with index_errors(self._url):
            batches = self._table.search().where("number = 0").select(["source", "content"]).to_batches()
            for row in (row for batch in batches for row in batch.to_pylist()):
                found[row["source"]] = "" if row["source"] in found else row["content"]
        return found

    def add(
        self, paths: Sequence[str], encode: EncodeVideos, *, commit_s: float = COMMIT_S, progress: Progress
    ) -> AddSummary:
        """Encode these videos and write those that are new or have changed. `Index.add` explains the arguments."""
        with self._lock():
            known, batch, done = self.videos(), RowBatch(self._table, self._url, commit_s), _Tally()
            # Two writers stored these: their ids are equal, so merging new rows in would keep both.
            if twice := {path for path in paths if known.get(path) == ""}:
                self._delete(twice)
                known = {path: key for path, key in known.items() if path not in twice}
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
        return done.summary(paths)

    def remove(self, videos: Iterable[str | os.PathLike[str]]) -> int:
        """Remove these videos in one step, and return how many there were. Raises DataError for one that is not in the index."""
        with self._lock():
            known = self.videos()
            paths = {absolute(os.fspath(video)) for video in videos}
            for path in sorted(paths):
                if path not in known:
                    raise DataError(f"{path}: not in the index {self._url}; {nearest(path, list(known)[:1000])}")
            if paths:
                self._delete(paths)
        return len(paths)

    def optimize(self, *, indexed_from: int = INDEXED_FROM) -> None:
        """Join small files, drop the content of old versions, and update the indexes of vectors, ids, labels and paths.

        Where there are no indexes they are made, from `indexed_from` rows on.
        """
        with index_errors(self._url):
            if self._table.count_rows() >= indexed_from:
                kinds = importlib.import_module("lancedb.index")
                vectors = [column for column in (EMBEDDING, WORDS) if column in self._table.schema.names]
                wanted = {
                    **{column: kinds.IvfSq(distance_type="cosine") for column in vectors},
                    "id": kinds.BTree(),
                    "source": kinds.BTree(),
                    "label": kinds.Bitmap(),
                }
                existing = {column for index in self._table.list_indices() for column in index.columns}
                for column, kind in wanted.items():
                    if column not in existing:
                        self._table.create_index(column, config=kind)
            self._table.optimize(cleanup_older_than=OLD)

    def _lock(self) -> AbstractContextManager[None]:
        """Keep other processes of this machine from writing. Nothing locks an index in a store."""
        return nullcontext() if is_address(self._url) else held(Path(self._url))

    def _delete(self, paths: Iterable[str]) -> None:
        with index_errors(self._url):
            self._table.delete(among("source", paths))


class RowBatch:
    """A batch of whole videos for the table. Each commit is one step, which happens or does not."""

    def __init__(self, table: Any, url: str, commit_s: float) -> None:
        self._table, self._url, self._commit_s = table, url, commit_s
        self._rows: list[Any] = []
        self._replaced: list[str] = []
        self._last = time.monotonic()

    def add(self, rows: Any, replaced: str) -> None:
        """Add the rows of one video; `replaced` is its path where older rows are in the table."""
        self._rows.append(rows)
        self._replaced += [replaced] if replaced else []
        if sum(map(len, self._rows)) >= COMMIT_ROWS or time.monotonic() - self._last >= self._commit_s:
            self.commit()

    def commit(self) -> None:
        """Write the batch. New rows come and old ones go in the same step."""
        if self._rows:
            rows = importlib.import_module("pyarrow").concat_tables(self._rows)
            with index_errors(self._url):
                if self._replaced:
                    merge = self._table.merge_insert("id").when_not_matched_insert_all()
                    merge.when_not_matched_by_source_delete(among("source", self._replaced)).execute(rows)
                else:
                    self._table.add(rows)
        self._rows, self._replaced, self._last = [], [], time.monotonic()


@dataclass
class _Tally:
    num_added: int = 0
    num_kept: int = 0
    num_rows: int = 0
    num_embedded: int = 0
    num_reused: int = 0
    num_spans: int = 0
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
            self.num_embedded += video.num_embedded
            self.num_reused += video.num_reused
            self.num_spans += video.num_spans
            self.gaps += [(video.path, gap) for gap in video.gaps]

    def summary(self, paths: Sequence[str]) -> AddSummary:
        """Return the counts, with failures and gaps in the order of these paths: workers encode in any order."""
        position = {path: number for number, path in enumerate(paths)}
        failures = sorted(self.failures, key=lambda failure: position[failure.source])
        gaps = sorted(self.gaps, key=lambda gap: (position[gap[0]], gap[1].start_s))
        return AddSummary(
            self.num_added,
            self.num_kept,
            self.num_rows,
            tuple(failures),
            tuple(gaps),
            self.num_embedded,
            self.num_reused,
            self.num_spans,
        )
