"""Make an index with another model from the cached embeddings of the frames of an older index: no video is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from fewframes.errors import DataError, FewframesError
from fewframes.inference.detection.changes import (
    ArchiveChanges,
    ChangesConfig,
    VideoSpans,
    compare_archives,
    same_place,
)
from fewframes.inference.detection.known_video import UnopenedVideo
from fewframes.inference.detection.spans import Span
from fewframes.results import Failure
from fewframes.search.rows import EncodedVideo, WindowEncoder
from fewframes.search.table import IndexSettings, index_errors, is_window
from fewframes.video.source import OpenVideo


class EncodeFromCache:
    """An encoder for `Index.add` that takes the videos of an older index for what that index says of them.

    Their files may be gone. A video is a failure if an embedding of it is not cached.
    """

    def __init__(self, url: str, table: Any, encoder: WindowEncoder) -> None:
        """Read which videos there are.

        Args:
            url: The older index, for errors.
            table: Its windows.
            encoder: An encoder with the new model and a cache.
        """
        self._encoder = encoder
        with index_errors(url):
            rows = table.search().where("number = 0").select(["source", "content", "duration_s"]).to_list()
        self._videos = {row["source"]: (row["content"], row["duration_s"]) for row in rows}

    def __call__(self, paths: Sequence[str], known: Mapping[str, str]) -> Iterator[EncodedVideo]:
        """Yield each video, in this order."""
        for path in paths:
            content, duration_s = self._videos[path]
            if known.get(path) == content:
                yield EncodedVideo(path)
                continue
            try:
                yield self._encoder.windows(path, content, UnopenedVideo(path, duration_s, partial(_not_cached, path)))
            except FewframesError as error:
                yield EncodedVideo(path, failure=Failure.of(path, error))


def _not_cached(path: str) -> OpenVideo:
    # Not a VideoError: that would make a gap in the video, and its other windows would be indexed.
    raise DataError(
        f"{path}: some embeddings of this model's frame encoder are not in the cache; index the video itself, with this model"
    )


def window_changes(
    before: tuple[IndexSettings, Any],
    after: tuple[IndexSettings, Any],
    failures: Sequence[Failure],
    config: ChangesConfig,
) -> ArchiveChanges:
    """Return which windows of an index have another label, or are surer or less sure, in another one.

    If both have learned spans, these are compared, as those of two timelines.

    Args:
        before: The settings and rows of the older index.
        after: Those of the newer one.
        failures: Videos that could not be made part of it.
        config: The smallest differences that count.
    """
    failed = {failure.source: VideoSpans.of(failure) for failure in failures}
    learned = before[0].spans == after[0].spans == "learned"
    old, new = (_spans_in(*side, learned=learned) for side in (before, after))
    return compare_archives(old, {**new, **failed}, config, match=None if learned else same_place)


def _spans_in(settings: IndexSettings, table: Any, *, learned: bool) -> dict[str, VideoSpans]:
    """Return the learned spans of each video, or else its windows."""
    spans: dict[str, list[Span]] = {}
    lengths: dict[str, float] = {}
    columns = ["id", "source", "duration_s", "start_s", "end_s", "label", "score", *(["kind"] if learned else [])]
    for batch in table.search().select(columns).to_batches():
        for row in batch.to_pylist():
            lengths[row["source"]] = row["duration_s"]
            own = spans.setdefault(row["source"], [])  # a video may have no spans
            if row["kind"] == "span" if learned else is_window(row["id"]):
                own.append(Span(row["start_s"], row["end_s"], row["label"], row["score"]))
    return {
        source: VideoSpans(
            source=source,
            model=settings.model,
            weights=settings.model_key,
            range_s=(0.0, lengths[source]),
            spans=tuple(sorted(found, key=lambda span: span.start_s)),
        )
        for source, found in spans.items()
    }
