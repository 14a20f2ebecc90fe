"""A video -> the rows of its windows, in this process or in many; an index takes them in (retrieve.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fewframes import __version__
from fewframes.core.cache import EmbeddingCache, key_of, module_key
from fewframes.core.storage import is_address
from fewframes.data.lists import is_text
from fewframes.errors import DataError, FewframesError
from fewframes.inference.frame_features import Gap, encoder_key
from fewframes.inference.predictor import BackendChoice, DtypeName, Predictor, load
from fewframes.inference.spans import Span
from fewframes.inference.timeline import look
from fewframes.models.token_merging import merged_per_block
from fewframes.results import Failure
from fewframes.search.table import IndexSettings, Kind, content_of, rows_of, schema_of


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """What became of a video: a table of its `rows` and `gaps` in them, or a `failure`; neither where what is known of it still
    holds."""

    path: str
    rows: Any = None
    gaps: tuple[Gap, ...] = ()
    failure: Failure | None = None


LookAt = Callable[[Sequence[str], Mapping[str, str]], Iterator[EncodedVideo]]
"""Looks once at each of these videos, in any order; those whose content has the key that is known of it are left out."""


@dataclass(frozen=True, kw_only=True)
class WindowJob:
    """What a process needs to look at videos for an index; it can be pickled. `known` has the key of each video's content that
    is in the index; the cache's folder is each machine's own."""

    model: str
    settings: IndexSettings
    device: str = "auto"
    dtype: DtypeName = "float32"
    """`auto` is float32 too: what is measured to be faster may differ from machine to machine, and so would the rows."""
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
    """A loaded model that looks at videos as an index's settings say; a `shards.Rows`."""

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
        """What workers must have in common; nobody asks where there is one process."""
        return {"fewframes": __version__, "weights": model_key_of(self._predictor)}

    def look_at(self, paths: Sequence[str], known: Mapping[str, str]) -> Iterator[EncodedVideo]:
        """Each video, in this order."""
        for path in paths:
            yield self.look(path, known.get(path, ""))

    def rows(self, sources: Sequence[str]) -> Iterator[dict[str, object]]:
        """The same as rows, of what is known by itself."""
        for seen in self.look_at(sources, self._known):
            yield {"looked": seen}

    def look(self, path: str, known: str) -> EncodedVideo:
        """One video, unless its content has the key that is known."""
        try:
            content = content_of(path)
            if content and known == content:
                return EncodedVideo(path)
            return self._windows(path, content)
        except FewframesError as error:
            return EncodedVideo(path, failure=Failure.of(path, error))

    def _windows(self, path: str, content: str) -> EncodedVideo:
        """Raises VideoError, also where nothing could be decoded, and DataError for a file whose name no table can hold."""
        if content and not is_text(path):
            raise DataError(f"{path}: its name is not UTF-8, and an index holds text; rename it")
        predictor, settings = self._predictor, self._settings
        num_labels = len(settings.labels)

        def encode(windows_WTD: Tensor) -> Tensor:
            said = predictor.encode_windows(windows_WTD)
            vectors_WD = vectors_of(settings.embedding, windows_WTD, said.embedding)
            return torch.cat([predictor.model.scores(said.logits), vectors_WD], dim=1)

        interval = max(1, round(predictor.config.num_frames * settings.hop_s / settings.window_s))
        swept = look(
            predictor,
            path,
            encode,
            window_s=settings.window_s,
            intervals=(interval,),
            cache=self._cache,
            encoder=self._encoder,
            content="" if is_address(path) else content,
        )
        length_s, starts_s, found = swept.windows[0]
        good_W = ~found.isnan().any(dim=1)
        if not good_W.any():
            raise swept.no_answers()
        spans = [
            Span(max(0.0, start_s), min(swept.duration_s, start_s + length_s), settings.labels[label], score)
            for start_s, score, label in zip(starts_s[good_W].tolist(), *_best(found[good_W, :num_labels]), strict=True)
        ]
        video = path, content, swept.duration_s
        return EncodedVideo(path, rows_of(self._schema, video, spans, found[good_W, num_labels:].float()), swept.gaps)


def model_key_of(predictor: Predictor) -> str:
    """A key of all that embeddings depend on but the precision: bfloat16 of the weights are the same from either."""
    rounded = torch.nn.ParameterDict()
    for name, tensor in predictor.model.state_dict().items():
        tensor = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        rounded[name.replace(".", "/")] = torch.nn.Parameter(tensor, requires_grad=False)
    merge = merged_per_block(predictor.model.frame_encoder)
    return key_of(module_key(rounded), asdict(predictor.view), {"merge": merge})


def vectors_of(kind: Kind, windows_WTD: Tensor, y_WD: Tensor) -> Tensor:
    """What stands for windows of frame embeddings (W, T, D) and their video embeddings: (W, D'), of length 1."""
    y_WD, mean_WD = F.normalize(y_WD, dim=1), F.normalize(windows_WTD.mean(dim=1), dim=1)
    if kind == "both":
        return F.normalize(torch.cat([y_WD, mean_WD], dim=1), dim=1)
    return y_WD if kind == "video" else mean_WD


def _best(scores_WK: Tensor) -> tuple[list[float], list[int]]:
    """The highest score of each window, and whose it is."""
    score_W, label_W = scores_WK.max(dim=1)
    return score_W.tolist(), label_W.tolist()
