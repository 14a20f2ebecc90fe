"""Encode a video into the rows of its windows and spans, in this process or in many; an index takes them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, key_of
from fewframes.core.storage import is_address
from fewframes.core.version import __version__
from fewframes.data.samples import is_text
from fewframes.errors import DataError, FewframesError
from fewframes.inference.clips import BackendChoice
from fewframes.inference.detection.frame_row import FrameRow, SteadyFrames, opened_row
from fewframes.inference.detection.learned import Detected, SpanReader, is_long_enough, span_reader
from fewframes.inference.detection.spans import Span
from fewframes.inference.detection.windows import WindowReader
from fewframes.inference.frame_features import Gap, Times, encoder_key
from fewframes.inference.frame_sides import Beside
from fewframes.inference.predictor import Predictor, load
from fewframes.results import Failure
from fewframes.runtime.protocol import DtypeName, Floats, scores_of
from fewframes.runtime.still import each_once
from fewframes.search.encoders import opened_encoder, words_beside
from fewframes.search.table import IndexSettings, Kind, content_of, rows_of, schema_of
from fewframes.video.source import OpenVideo
from fewframes.video.view import ViewConfig

LEAST_CONFIDENCE = 0.1
"""The confidence from which a span is a row. It is below the one from which a timeline shows it, because a search shows the surest
first, and a condition on `score` leaves out the others."""


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """The result of encoding one video for the index: either its `rows` (and undecodable `gaps`) or a `failure`.

    Both are empty if the indexed version is still current.
    """

    path: str
    rows: Any = None
    gaps: tuple[Gap, ...] = ()
    failure: Failure | None = None
    num_embedded: int = 0
    num_reused: int = 0
    num_spans: int = 0
    """Rows that are spans."""


EncodeVideos = Callable[[Sequence[str], Mapping[str, str]], Iterator[EncodedVideo]]
"""A function that encodes each of these videos once, in any order. A video whose content has the key known of it is skipped."""


@dataclass(frozen=True, kw_only=True)
class WindowJob:
    """Settings with which a process encodes videos for an index; it can be pickled.

    `known` has the key of the content of each video in the index. The cache's folder is each machine's own.
    """

    model: str
    settings: IndexSettings
    device: str = "auto"
    dtype: DtypeName = "float32"
    """Precision of the frame encoder. `auto` is float32 too: the faster one may differ between machines, and so would the rows."""
    backend: BackendChoice = "auto"
    merge: int | None = None
    cache: Path | None = None
    words: str | None = None
    """The name or folder of the image-text encoder of the index, if it is not where it was."""
    known: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> WindowEncoder:
        """Load the model. Raises WeightsError or ConfigError."""
        dtype: DtypeName = "float32" if self.dtype == "auto" else self.dtype
        predictor = load(self.model, device=self.device, dtype=dtype, backend=self.backend, merge=self.merge)
        cache = None if self.cache is None else EmbeddingCache(self.cache)
        words = self.settings.words
        beside = None if words is None else words_beside(opened_encoder("the index", words, self.words), predictor)
        return WindowEncoder(predictor, self.settings, cache, self.known, beside)


class WindowEncoder:
    """A loaded model that encodes videos as an index's settings say; it implements `Rows`."""

    def __init__(
        self,
        predictor: Predictor,
        settings: IndexSettings,
        cache: EmbeddingCache | None,
        known: Mapping[str, str] | None = None,
        beside: Beside | None = None,
    ) -> None:
        """Prepare to encode videos.

        Args:
            predictor: The model.
            settings: The settings of the index.
            cache: Where frame embeddings are cached, if anywhere.
            known: The keys of the content of videos in the index, for `rows`.
            beside: The image half of the image-text encoder, if the index has words.
        """
        self._beside = beside
        self._predictor, self._settings, self._cache, self._known = predictor, settings, cache, known or {}
        self._schema = schema_of(settings)
        self._encoder = encoder_key(predictor) if cache else ""

    @cached_property
    def about(self) -> Mapping[str, str]:
        """The properties in which all workers must agree. Where there is one process nobody reads them."""
        return {"fewframes": __version__, "weights": model_key_of(self._predictor)}

    def encode_videos(self, paths: Sequence[str], known: Mapping[str, str]) -> Iterator[EncodedVideo]:
        """Yield each video, in this order."""
        for path in paths:
            yield self.encode_video(path, known.get(path, ""))

    def rows(self, sources: Sequence[str]) -> Iterator[dict[str, object]]:
        """Yield each video as a row, by the keys that this encoder was given."""
        for video in self.encode_videos(sources, self._known):
            yield {"encoded": video}

    def encode_video(self, path: str, known: str) -> EncodedVideo:
        """Encode one video, unless its content has the key that is known."""
        try:
            content = content_of(path)
            if content and known == content:
                return EncodedVideo(path)
            return self.windows(path, content)
        except FewframesError as error:
            return EncodedVideo(path, failure=Failure.of(path, error))

    def windows(self, path: str, content: str, video: OpenVideo | None = None) -> EncodedVideo:
        """Encode the windows of a video, whose content has this key, and find its spans, if the index has them.

        The `video` itself is given where the caller has opened it. Raises VideoError, also where nothing could be decoded, and
        DataError for a file whose name no table can hold.
        """
        if content and not is_text(path):
            raise DataError(f"{path}: its name is not UTF-8, and an index holds text only; rename the file")
        predictor, settings = self._predictor, self._settings
        num_frames = predictor.num_frames
        hop = max(1, round(num_frames * settings.hop_s / settings.window_s))
        with opened_row(
            predictor,
            path,
            lambda _: settings.window_s / num_frames,
            still=settings.still,
            cache=self._cache,
            encoder=self._encoder,
            content="" if is_address(path) else content,
            video=video,
            beside=self._beside,
        ) as row:
            windows = WindowReader(partial(each_once, self._encoded), row.frames, num_frames, (1,), (hop,))
            readers: list[tuple[WindowReader | SpanReader, SteadyFrames]] = [(windows, row.frames)]
            spans = self._span_reader(row)
            readers += [] if spans is None else [spans]
            row.read(readers)
        ((length_s, starts_s, found_WV),) = windows.found()
        good_W = ~np.isnan(found_WV).any(axis=1)
        if not good_W.any():
            raise row.no_answers()
        rows = self._window_spans(row, length_s, starts_s[good_W], found_WV[good_W])
        detected = [] if spans is None else self._detected(row, spans[0].found(row.frames.times_s))
        vectors_RD = np.stack([*found_WV[good_W, len(settings.labels) :], *(vector_D for _, vector_D in detected)])
        table = rows_of(
            self._schema,
            (path, content, row.duration_s),
            rows,
            vectors_RD.astype(np.float32),
            None if spans is None else [span for span, _ in detected],
        )
        return EncodedVideo(path, table, row.gaps, None, row.num_encoded, row.num_reused, len(detected))

    def _encoded(self, windows_WTD: Floats) -> Floats:
        """Return the scores (W, K) of windows, and their vectors."""
        own_WTD = np.ascontiguousarray(windows_WTD[..., : self._predictor.runtime.frame_width])
        encoded = self._predictor.runtime.encode_windows(own_WTD)
        scores_WK = scores_of(encoded.logits, self._predictor.runtime.task)
        return np.concatenate([scores_WK, self._vectors(windows_WTD, encoded.embedding)], axis=1)

    def _vectors(self, windows_WTD: Floats, y_WD: Floats) -> Floats:
        """Return the vectors of windows, and after them those by the image-text encoder, if there is one."""
        width = self._predictor.runtime.frame_width
        own_WD = vectors_of(self._settings.embedding, np.asarray(windows_WTD)[..., :width], np.asarray(y_WD))
        if self._beside is None:
            return own_WD
        return np.concatenate([own_WD, _unit(windows_WTD[..., width:].mean(axis=1))], axis=1)

    def _span_reader(self, row: FrameRow) -> tuple[SpanReader, SteadyFrames] | None:
        """Return a reader of spans and its frames; None for an index of windows, and for a video too short for the detector."""
        runtime, length_s = self._predictor.runtime, row.range_s[1] - row.range_s[0]
        boundaries = runtime.boundaries if self._settings.spans == "learned" else None
        if boundaries is None or not is_long_enough(boundaries, runtime.num_frames, length_s):
            return None
        frames = row.frames.at(boundaries.interval_s, runtime.num_frames)
        return span_reader(runtime, boundaries, frames, self._vectors), frames

    def _window_spans(self, row: FrameRow, length_s: float, starts_s: Times, found_WV: Floats) -> list[Span]:
        """Return the seconds, the likeliest label and its score of each window."""
        labels = self._settings.labels
        scores_WK = found_WV[:, : len(labels)]
        return [
            Span(max(0.0, start_s), min(row.duration_s, start_s + length_s), labels[label], score)
            for start_s, score, label in zip(
                starts_s.tolist(), scores_WK.max(axis=1).tolist(), scores_WK.argmax(axis=1).tolist(), strict=True
            )
        ]

    def _detected(self, row: FrameRow, found: Detected) -> list[tuple[Span, Floats]]:
        """Return the spans that become rows, with their vectors."""
        return [
            (replace(span, start_s=max(0.0, span.start_s), end_s=min(row.duration_s, span.end_s)), vector_D)
            for span, vector_D in zip(found.spans, found.vectors, strict=True)
            if span.confidence >= LEAST_CONFIDENCE and not np.isnan(vector_D).any()
        ]


def model_key_of(predictor: Predictor) -> str:
    """Return a key of everything that embeddings depend on except the precision."""
    runtime = predictor.runtime
    return weights_key(runtime.model_key(), runtime.view, runtime.merge)


def weights_key(weights: str, view: ViewConfig, merge: int) -> str:
    """Return a key of the key of all weights, of the view, and of the patches that each block merges away."""
    return key_of(weights, asdict(view), {"merge": merge})


def vectors_of(kind: Kind, windows_WTD: NDArray[np.float32], y_WD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors of windows (W, D'), of length 1.

    Args:
        kind: The video embedding, the mean of the frame embeddings, or both side by side.
        windows_WTD: Frame embeddings of the windows.
        y_WD: Video embeddings of the windows.
    """
    y_WD, mean_WD = _unit(y_WD), _unit(windows_WTD.mean(axis=1))
    if kind == "both":
        return _unit(np.concatenate([y_WD, mean_WD], axis=1))
    return y_WD if kind == "video" else mean_WD


def _unit(vectors_WD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors of the same directions and of length 1."""
    return vectors_WD / np.linalg.norm(vectors_WD, axis=1, keepdims=True).clip(min=1e-12)
