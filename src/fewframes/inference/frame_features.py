"""A steady row of frames of one video -> their embeddings, chunk by chunk, each kept on disk as soon as it is there.

What cannot be decoded is left out and named.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fewframes.core.cache import EmbeddingCache, key_of, module_key
from fewframes.errors import Unreachable, VideoError
from fewframes.inference.predictor import Predictor
from fewframes.models.token_merging import merged_per_block
from fewframes.video.decode.clock import STEP_S
from fewframes.video.source import OpenVideo
from fewframes.video.transforms import fit_frame

FRAMES_VERSION = 2
"""Raised when the same video begins to give other frames or embeddings, so that those cached before are not found."""
WITHOUT_EFFECT = frozenset(
    """temporal temporal_depth temporal_heads temporal_width temporal_mlp_width motion_width moment_head temporal_positions
    token_dropout temporal_dropout drop_path num_frames num_classes task merge""".split()
)
"""Settings of a model that cannot change the embedding of a frame: they belong to the temporal part, the head or training. How
many frames there are and what is merged stand in the key by themselves, for a predictor may be asked for others."""

log = logging.getLogger("fewframes")

CHUNK_FRAMES = 256
"""Frames that are decoded, embedded and kept together."""
PART_FRAMES = 16
"""Frames of a chunk that are left out together where one of them cannot be decoded."""


@dataclass(frozen=True)
class Gap:
    """A part of a video that could not be decoded, and why."""

    start_s: float
    end_s: float
    error: str

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {"start_s": round(self.start_s, 3), "end_s": round(self.end_s, 3), "error": self.error}


class FrameFeatures:
    """The embeddings of a steady row of moments of an open video, chunk by chunk, from the cache where they lie there."""

    def __init__(
        self, video: OpenVideo, predictor: Predictor, spacing_s: float, cache: EmbeddingCache | None, setting: str
    ) -> None:
        """`setting` is the cache's key of all that embeddings depend on beside the moments; empty where none is kept."""
        self.gaps: list[Gap] = []
        """What could not be decoded so far."""
        self.num_encoded = 0
        """Frames that did not come from the cache so far."""
        self._video, self._predictor, self._spacing_s = video, predictor, spacing_s
        self._cache, self._setting = cache, setting
        self.num_missing = 0
        """Frames that could not be decoded so far."""
        self._untried = self._num_failed = 0
        self._is_still = False
        """Whether a picture that is shown for long was met, and told."""

    def chunks(self, times_s: Tensor, first: int = 0) -> Generator[Tensor, None, None]:
        """Embeddings (n, D) float32 of chunk after chunk of ascending moments (N,), NaN for what could not be decoded.

        Chunks end where the place in the video's whole row, that of the first moment being `first`, is a multiple of
        `CHUNK_FRAMES`; so parts of a video share them. The next one is decoded while one is embedded.
        """
        head = min(-first % CHUNK_FRAMES, len(times_s))
        chunks = [part for part in (times_s[:head], *times_s[head:].split(CHUNK_FRAMES)) if len(part)]
        waiting: deque[Future[_Chunk]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="fewframes-decode") as pool:
            try:
                for ahead in [*chunks[1:], None]:
                    if not waiting:
                        waiting.append(pool.submit(self._read, chunks[0]))
                    chunk = waiting.popleft().result()
                    if ahead is not None:
                        waiting.append(pool.submit(self._read, ahead))
                    yield self._embedded(chunk)
            finally:
                for future in waiting:
                    future.cancel()

    def _read(self, times_s: Tensor) -> _Chunk:
        key = ""
        if self._cache is not None and self._setting:
            key = key_of(self._setting, {"times_s": [float(times_s[0]), float(times_s[-1]), len(times_s)]})
            found_ND = self._cache.get(key)
            if found_ND is not None:
                return _Chunk(key, embeddings=found_ND)
        if not self._untried:
            try:
                return _Chunk(key, frames=self._frames(times_s))
            except Unreachable:
                raise
            except VideoError as error:
                log.debug("%s", error)
        return self._in_parts(times_s)

    def _frames(self, times_s: Tensor) -> Tensor:
        clip = self._video.frames_at(times_s, lambda frame_CHW: fit_frame(frame_CHW, self._predictor.view))
        still = (times_s.double() - clip.times_s.double() >= STEP_S).nonzero()
        if len(still) and not self._is_still:
            self._is_still = True
            log.warning(
                "%s: the picture of %.2f s is shown for %g s and longer: a clock that steps on, or nothing was recorded; leave "
                "that out with a start and an end where it matters",
                self._video.name,
                float(clip.times_s[still[0, 0]]),
                STEP_S,
            )
        return clip.frames

    def _in_parts(self, times_s: Tensor) -> _Chunk:
        """What can be decoded of a chunk.

        After each part that cannot, twice as many are left out untried: a try at a damaged place decodes from the start.
        """
        frames, good = [], []
        for part_s in times_s.split(PART_FRAMES):
            if self._untried:
                self._untried -= 1
                error = ""
            else:
                try:
                    frames.append(self._frames(part_s))
                    self._num_failed = 0
                    good += [True] * len(part_s)
                    continue
                except Unreachable:
                    raise
                except VideoError as failed:
                    error = str(failed)
                    self._untried = 2**self._num_failed - 1
                    self._num_failed += 1
            good += [False] * len(part_s)
            self._add_gap(float(part_s[0]), float(part_s[-1]), error)
        return _Chunk("", frames=torch.cat(frames) if frames else None, good=torch.tensor(good))

    def _add_gap(self, first_s: float, last_s: float, error: str) -> None:
        start_s, end_s = first_s - self._spacing_s / 2, last_s + self._spacing_s / 2
        if self.gaps and (not error or abs(self.gaps[-1].end_s - start_s) < self._spacing_s / 2):
            before = self.gaps.pop()
            start_s, error = before.start_s, before.error
        self.gaps.append(Gap(start_s, end_s, error))

    def _embedded(self, chunk: _Chunk) -> Tensor:
        if chunk.embeddings is not None:
            return chunk.embeddings
        rows_ND = torch.empty(0) if chunk.frames is None else self._predictor.embed_frames(chunk.frames)
        self.num_encoded += len(rows_ND)
        if chunk.good is not None:
            self.num_missing += len(chunk.good) - len(rows_ND)
            whole_ND = torch.full((len(chunk.good), self._predictor.model.frame_width), torch.nan)
            if len(rows_ND):
                whole_ND[chunk.good] = rows_ND
            return whole_ND
        if self._cache is not None and chunk.key and not self._cache.put_or_warn(chunk.key, rows_ND):
            self._cache = None
        return rows_ND


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Embeddings (n, D) from the cache, or pictures (n, C, H, W) still to be embedded: of all its moments, or of the `good`."""

    key: str
    embeddings: Tensor | None = None
    frames: Tensor | None = None
    good: Tensor | None = None


def encoder_key(predictor: Predictor) -> str:
    """Return a key of everything of a predictor that decides what embedding a frame gets.

    Weights do not tell all: heads, cells and the norms' epsilon have no tensor of their own.
    """
    settings = {name: value for name, value in asdict(predictor.config).items() if name not in WITHOUT_EFFECT}
    settings |= {"frames_version": FRAMES_VERSION, "backend": predictor.reader.backend}
    settings |= {"merge": merged_per_block(predictor.model.frame_encoder)}
    return key_of(module_key(predictor.model.frame_encoder), settings, asdict(predictor.view))
