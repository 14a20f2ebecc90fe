"""Index windows of many videos in one table (LanceDB), on this machine or an object store, and search it for similar ones.

Whole videos are committed: however an indexing run ends, no video is indexed in part, and the next run continues after them. A
label can be taught from a few rows: a linear head on the embeddings that are there already, saved beside them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress
from fewframes.core.storage import is_address
from fewframes.data.samples import absolute
from fewframes.errors import ConfigError, DataError, nearest
from fewframes.inference.detection.changes import DEFAULTS, ArchiveChanges, ChangesConfig
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import SpanMethod
from fewframes.results import Failure, background_labels
from fewframes.search.encoders import column_of, new_encoder, opened_encoder, words_beside
from fewframes.search.finding import WindowFinder, conditions_of, not_itself
from fewframes.search.relabel import EncodeFromCache, window_changes
from fewframes.search.rows import EncodeVideos, WindowEncoder, vectors_of
from fewframes.search.settings import KIND, check_same, new_settings
from fewframes.search.table import (
    EMBEDDING,
    WINDOWS,
    WORDS,
    Hits,
    IndexSettings,
    Kind,
    SearchQuery,
    TaughtLabel,
    WordsColumn,
    content_of,
    index_errors,
    lancedb,
    quoted,
    schema_of,
    settings_in,
    tables_at,
)
from fewframes.search.teaching import LabelTeacher
from fewframes.search.words import encoder_of_model, model_knows_words, text_query
from fewframes.search.writing import COMMIT_S, INDEXED_FROM, AddSummary, VideoWriter

if TYPE_CHECKING:
    from fewframes.models.words.image_text import ImageText


class Index:
    """An index of windows at a folder or URL; `Index.open` opens one."""

    def __init__(
        self,
        url: str,
        database: Any,
        table: Any,
        settings: IndexSettings,
        predictor: Predictor | None,
        encoder: ImageText | None = None,
    ) -> None:
        self.url, self.settings = url, settings
        self._encoder = encoder
        self._table, self._predictor = table, predictor
        self._writer, self._finder = VideoWriter(url, table), WindowFinder(url, table)
        self._teacher = LabelTeacher(url, database, table)

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        predictor: Predictor | None = None,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        embedding: Kind | None = None,
        still: float | None = None,
        spans: SpanMethod = "auto",
        words: str | WordsColumn | None = None,
    ) -> Index:
        """Open an index; with a predictor, make a new one where there is none.

        Without a predictor rows and labels can be searched, and labels taught; no video can be encoded. Raises ConfigError for an
        index of another model or with other settings, DataError where there is none or it cannot be read, and MissingDependency.

        Args:
            url: A folder or URL.
            predictor: The model.
            window_s: Seconds of a window (in a new index 4, or with learned spans as long as the detector needs).
            hop_s: Seconds from the start of one window to the next (in a new index 2, or half a window with learned spans).
            embedding: The kind of vector that stands for a window (`video` in a new index).
            still: Largest change of brightness (0-255) up to which a frame reuses the embedding of the last one that was embedded
                (0 in a new index: the same pixels only).
            spans: `learned`: the spans that the model's detector finds are rows too, beside the windows. `windows`: windows alone.
                `auto` in a new index is the first if the model has a detector and the windows have the frames that it needs.
            words: The name or folder of an image-text encoder: rows have a vector by it too, with which words are compared.
                `WordsColumn` is that of another index. None in a new index is none.
        """
        url = os.fspath(url)
        with index_errors(url):
            there = tables_at(url)
        if there is not None:
            database, table = there
            settings = settings_in(url, table)
            check_same(url, settings, predictor, window_s, hop_s, embedding, still, spans)
            encoder = _checked_words(url, settings, words)
        elif predictor is None:
            raise DataError(f"{url}: no index there; make one with: fewframes index VIDEOS --index {url}")
        else:
            encoder = _new_words(url, words)
            settings = new_settings(predictor, window_s, hop_s, embedding or KIND, still or 0.0, spans)
            settings = settings if encoder is None else replace(settings, words=column_of(encoder))
            with index_errors(url):
                database = lancedb().connect(url)
                table = database.create_table(WINDOWS, schema=schema_of(settings))
        return cls(url, database, table, settings, predictor, encoder)

    @property
    def num_rows(self) -> int:
        """Return the number of windows and spans in the index."""
        return int(self._table.count_rows())

    @property
    def knows_words(self) -> bool:
        """Return True if it can be searched by text, as long as the image-text encoder is where it was."""
        return self.settings.words is not None or model_knows_words(self.settings)

    def videos(self) -> dict[str, str]:
        """Return the key of each video's content by path.

        The key is empty for a video that two writers stored twice, so that `add` replaces it.
        """
        return self._writer.videos()

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
        encode = encode or self._window_encoder(cache).encode_videos
        paths = list(dict.fromkeys(absolute(os.fspath(video)) for video in videos))
        return self._writer.add(paths, encode, commit_s=commit_s, progress=progress)

    def relabel(
        self,
        older: Index,
        *,
        cache: EmbeddingCache,
        progress: Progress = lambda stage, done, total: None,
    ) -> AddSummary:
        """Index the videos of an older index with this one's model, from cached embeddings: no video is read, files may be gone.

        It works where the two models share the frame encoder and the number of frames. A video of which an embedding is not cached
        is a failure; embeddings by the image-text encoder are needed too, if there is one. Labels taught there are taught here,
        from the same windows. Another call continues after an interruption.

        Args:
            older: The older index, with the same windows.
            cache: The cache that has the frame embeddings.
            progress: A callback.
        """
        encoder = self._window_encoder(cache)
        added = self.add(older.videos(), progress=progress, encode=EncodeFromCache(older.url, older._table, encoder))
        for name, label in older.taught().items():
            there = {row["id"] for row in self._finder.by_id([*label.yes, *label.no])}
            if there.intersection(label.yes):
                self.teach(name, *([row for row in ids if row in there] for ids in (label.yes, label.no)))
        return added

    def changes_since(
        self, older: Index, config: ChangesConfig = DEFAULTS, *, failures: Sequence[Failure] = ()
    ) -> ArchiveChanges:
        """Return which windows have another label here than in an older index, or are surer or less sure.

        If both indexes have learned spans, these are compared, and spans may be new, gone or moved too.

        Args:
            older: The older index.
            config: The smallest difference of confidence that counts.
            failures: Videos that `relabel` could not take over.
        """
        with index_errors(self.url):
            return window_changes((older.settings, older._table), (self.settings, self._table), failures, config)

    def remove(self, videos: Iterable[str | os.PathLike[str]]) -> int:
        """Remove these videos in one step, and return how many there were. Raises DataError for one that is not in the index."""
        return self._writer.remove(videos)

    def prune(self) -> int:
        """Remove the videos whose files are gone, and return how many. Addresses (`https://...`) stay."""
        return self.remove(path for path in self.videos() if not is_address(path) and not os.path.exists(path))

    def optimize(self, *, indexed_from: int = INDEXED_FROM) -> None:
        """Join small files, drop the content of old versions, and update the indexes of vectors, ids, labels and paths.

        Where there are no indexes they are made, from `indexed_from` rows on.
        """
        self._writer.optimize(indexed_from=indexed_from)

    def moment(self, video: str | os.PathLike[str], start_s: float = 0.0, end_s: float | None = None) -> SearchQuery:
        """Return a query for windows like this part of a video, which need not be in the index. Raises VideoError.

        The part is encoded once, as `predict` does.
        """
        predictor, path = self._require_predictor(), os.fspath(video)
        prediction = predictor.predict(path, start_s=start_s, end_s=end_s)
        embeddings_1TD = np.asarray(prediction.frame_embeddings)[None]
        vector_1D = vectors_of(self.settings.embedding, embeddings_1TD, np.asarray(prediction.embedding)[None])
        last_s = float("inf") if end_s is None else end_s
        return SearchQuery(vector_1D[0], content_of(absolute(path)), start_s, last_s)

    def text(
        self, text: str, *, not_text: str = "", model: str | None = None, encoder: str | None = None
    ) -> SearchQuery:
        """Return a query for windows that show what a text says; several phrasings are separated by `|`.

        Raises ConfigError if the index has no vectors of an image-text encoder, and WeightsError if that cannot be opened.

        Args:
            text: The text.
            not_text: Leave out windows that are more like this text.
            model: The model file of the index, if it has been moved.
            encoder: The name or folder of its image-text encoder, if it has been moved.
        """
        found = self.open_encoder(model, encoder)
        return text_query(found, EMBEDDING if self.settings.words is None else WORDS, text, not_text)

    def open_encoder(self, model: str | None = None, encoder: str | None = None) -> ImageText:
        """Open the image-text encoder of the index, once for a place. The arguments and errors are those of `text`."""
        if self._encoder is None or model is not None or encoder is not None:
            own = self.settings.words
            self._encoder = (
                encoder_of_model(self.url, self.settings, model, encoder)
                if own is None
                else opened_encoder(self.url, own, encoder)
            )
        return self._encoder

    def refresh(self) -> None:
        """Take in what another process has added or removed since the index was opened."""
        with index_errors(self.url):
            self._table.checkout_latest()

    def row(self, row_id: str) -> SearchQuery:
        """Return a query for windows like that of a row. Raises DataError where there is no such row."""
        rows = self._finder.by_id([row_id])
        if not rows:
            raise DataError(
                f"{row_id!r}: no such row in {self.url}; `fewframes search --json` shows the ids of what it finds"
            )
        row = rows[0]
        return SearchQuery(np.array(row["embedding"], np.float32), row["content"], row["start_s"], row["end_s"])

    def taught(self) -> dict[str, TaughtLabel]:
        """Return the labels that were taught here, by name."""
        return self._teacher.taught()

    def search(
        self,
        query: SearchQuery | Sequence[SearchQuery] | str,
        *,
        label: str | None = None,
        where: str = "",
        videos: str = "",
        num: int = 20,
        distinct: bool = False,
    ) -> Hits:
        """Return the `num` windows that are most similar to a query, or most certainly of a label, best first.

        Of windows and spans that overlap only the best one is returned. With learned spans, those of a label of the model are
        searched, with the detector's confidence as `similarity`. Raises DataError for an unknown label or a faulty condition.

        Several queries, such as a text and a moment, are one search: each ranks the windows, and the ranks are fused (`fused`).
        `similarity` is then 1 for a window that is the first for each, and `Hit.parts` says how well it fits each.

        Args:
            query: A query, or several, or a label: a taught one goes before one of the model's.
            label: Keep only windows of this label: of a taught one those that score 0.5 or more.
            where: A condition in SQL over the columns source, start_s, end_s, duration_s, label, score, number, and in an index
                with learned spans kind (`span` or `window`).
            videos: A pattern of paths (`*`, `?`).
            num: The most windows to return.
            distinct: Return at most one window of each video.
        """
        if num < 1:
            raise ValueError(f"num = {num}: needs at least 1")
        conditions = conditions_of(where, videos)
        if not isinstance(query, str):
            queries = [query] if isinstance(query, SearchQuery) else list(query)
            if not queries:
                raise ValueError("query = []: needs at least one query")
            head = None if label is None else self._taught_label(label)
            conditions += [condition for one in queries for condition in not_itself(one)]
            if label is not None and head is None:
                conditions += [f"label = {quoted(label)}", *self._spans_alone(label)]
            return self._finder.nearest(queries, conditions, num, distinct=distinct, head=head)
        if label is not None and label != query:
            raise ValueError(f"label = {label!r}: {query!r} is searched for already; search for one label")
        head = self._taught_label(query)
        if head is not None:
            size = float(np.linalg.norm(head.weights))
            found = self._finder.nearest([SearchQuery(head.weights)], conditions, num, distinct=distinct)
            # The search compares directions alone; length and bias of the head turn a cosine into its score.
            odds = (float(np.exp(-(size * hit.similarity + head.bias))) for hit in found)
            return Hits(replace(hit, similarity=1 / (1 + odd)) for hit, odd in zip(found, odds, strict=True))
        return self._finder.by_score(query, [*conditions, *self._spans_alone(query)], num, distinct=distinct)

    def _taught_label(self, label: str) -> TaughtLabel | None:
        """Return a taught label, or None for a label of the model. Raises DataError for neither."""
        taught = self.taught()
        if label not in taught and label not in self.settings.labels:
            raise DataError(
                f"label {label!r}: not a label of the model, and not a taught one; "
                f"{nearest(label, {*self.settings.labels, *taught})}"
            )
        return taught.get(label)

    def _spans_alone(self, label: str) -> list[str]:
        """Return the condition that leaves the spans of a label of the model, if the index has spans of it.

        Windows of a label that stands for nothing are all there is of it: a detector finds no spans of it.
        """
        has_spans = self.settings.spans == "learned" and label not in background_labels(self.settings.labels)
        return ["kind = 'span'"] * has_spans

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
        return self._teacher.teach(name, yes, no, seed)

    def _window_encoder(self, cache: EmbeddingCache | None) -> WindowEncoder:
        predictor = self._require_predictor()
        beside = None if self.settings.words is None else words_beside(self.open_encoder(), predictor)
        return WindowEncoder(predictor, self.settings, cache, beside=beside)

    def _require_predictor(self) -> Predictor:
        if self._predictor is None:
            raise ConfigError(f"{self.url}: opened without a model, so no video can be encoded; pass a predictor")
        return self._predictor


def _new_words(url: str, words: str | WordsColumn | None) -> ImageText | None:
    """Open the image-text encoder of a new index, if it has one."""
    if words is None:
        return None
    return opened_encoder(url, words) if isinstance(words, WordsColumn) else new_encoder(words)


def _checked_words(url: str, settings: IndexSettings, words: str | WordsColumn | None) -> ImageText | None:
    """Open the image-text encoder that is named for an index; None if none is. Raises ConfigError if it is not its own."""
    if words is None:
        return None
    if settings.words is None:
        named = words.encoder if isinstance(words, WordsColumn) else words
        raise ConfigError(
            f"{url}: was made without words, and each of its rows would need them; make another index: fewframes index VIDEOS "
            f"--index OTHER --words {named} (what is in the cache is not embedded again)"
        )
    return opened_encoder(url, settings.words, words if isinstance(words, str) else None)
