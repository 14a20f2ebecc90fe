"""Encode a video into the rows of its windows, in this process or in many; an index takes them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from fewframes.inference.frame_features import Gap, encoder_key
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.spans import Span
from fewframes.inference.timeline import score_windows
from fewframes.results import Failure
from fewframes.runtime.protocol import DtypeName, scores_of
from fewframes.runtime.still import each_once
from fewframes.search.table import IndexSettings, Kind, content_of, rows_of, schema_of


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
    known: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> WindowEncoder:
        """Load the model. Raises WeightsError or ConfigError."""
        dtype: DtypeName = "float32" if self.dtype == "auto" else self.dtype
        predictor = load(self.model, device=self.device, dtype=dtype, backend=self.backend, merge=self.merge)
        cache = None if self.cache is None else EmbeddingCache(self.cache)
        return WindowEncoder(predictor, self.settings, cache, self.known)


class WindowEncoder:
    """A loaded model that encodes videos as an index's settings say; it implements `Rows`."""

    def __init__(
        self,
        predictor: Predictor,
        settings: IndexSettings,
        cache: EmbeddingCache | None,
        known: Mapping[str, str] | None = None,
    ) -> None:
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
            return self._windows(path, content)
        except FewframesError as error:
            return EncodedVideo(path, failure=Failure.of(path, error))

    def _windows(self, path: str, content: str) -> EncodedVideo:
        """Encode the windows of a video.

        Raises VideoError, also where nothing could be decoded, and DataError for a file whose name no table can hold.
        """
        if content and not is_text(path):
            raise DataError(f"{path}: its name is not UTF-8, and an index holds text only; rename the file")
        predictor, settings = self._predictor, self._settings
        num_labels = len(settings.labels)

        def encode(windows_WTD: Any) -> NDArray[np.float32]:
            encoded = predictor.runtime.encode_windows(windows_WTD)
            vectors_WD = vectors_of(settings.embedding, np.asarray(windows_WTD), np.asarray(encoded.embedding))
            return np.concatenate([scores_of(encoded.logits, predictor.runtime.task), vectors_WD], axis=1)

        interval = max(1, round(predictor.num_frames * settings.hop_s / settings.window_s))
        result = score_windows(
            predictor,
            path,
            partial(each_once, encode),
            window_s=settings.window_s,
            intervals=(interval,),
            still=settings.still,
            cache=self._cache,
            encoder=self._encoder,
            content="" if is_address(path) else content,
        )
        length_s, starts_s, found = result.windows[0]
        found_WV = np.asarray(found, np.float32)
        good_W = ~np.isnan(found_WV).any(axis=1)
        if not good_W.any():
            raise result.no_answers()
        scores_WK, vectors_WD = found_WV[good_W, :num_labels], found_WV[good_W, num_labels:]
        best = zip(
            np.asarray(starts_s)[good_W].tolist(), scores_WK.max(axis=1).tolist(), scores_WK.argmax(axis=1), strict=True
        )
        spans = [
            Span(max(0.0, start_s), min(result.duration_s, start_s + length_s), settings.labels[label], score)
            for start_s, score, label in best
        ]
        video = path, content, result.duration_s
        rows = rows_of(self._schema, video, spans, vectors_WD)
        return EncodedVideo(path, rows, result.gaps, None, result.num_encoded, result.num_reused)


def model_key_of(predictor: Predictor) -> str:
    """Return a key of everything that embeddings depend on except the precision."""
    runtime = predictor.runtime
    return key_of(runtime.model_key(), asdict(runtime.view), {"merge": runtime.merge})


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
