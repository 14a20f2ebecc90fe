"""Labelled videos -> their frame embeddings, from the cache where they lie there, computed once where they do not."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fewframes.cache import EmbeddingCache, content_key, key_of, module_key
from fewframes.data import VideoSet
from fewframes.errors import DataError, FewframesError
from fewframes.layouts import Sample
from fewframes.predictor import Failure, Predictor

log = logging.getLogger("fewframes")


@dataclass(frozen=True, eq=False)
class Embedded:
    """Frame embeddings of the videos that could be read: `embeddings` (B, V, T, D) float32 with V views of each (as it is
    and, when asked for, mirrored), `places` (B,) of these videos in the data, `failures` the others, `num_cached` how many
    came from the cache."""

    embeddings: Tensor
    places: Tensor
    failures: tuple[Failure, ...]
    num_cached: int


def embed_videos(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None,
    *,
    mirror: bool,
    num_frames: int | None = None,
) -> Iterator[int | Embedded]:
    """The frame embeddings of a data set, of `num_frames` frames or the model's own number; yields how many videos are done
    as it goes, at last the result.

    Decoding runs ahead in threads. What is computed is kept in the cache at once, so an interrupted run goes on where it
    stopped. Raises DataError when no video at all could be read.
    """
    num_frames = num_frames or predictor.config.num_frames
    setting = key_of(
        module_key(predictor.model.frame_encoder),
        asdict(predictor.view),
        {"num_frames": num_frames, "sampling": "centre", "mirror": mirror},
    )
    workers = torch.get_num_threads()
    tensors: list[Tensor] = []
    kept: list[int] = []
    failures: list[Failure] = []
    num_cached, keeping = 0, cache is not None
    waiting: deque[Future[_Read]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="fewframes-embed") as pool:
        submitted = iter(data.samples)
        try:
            for number in range(len(data.samples)):
                while len(waiting) < 2 * workers and (sample := next(submitted, None)) is not None:
                    waiting.append(pool.submit(_read, sample, predictor, cache, setting, num_frames))
                try:
                    read = waiting.popleft().result()
                except FewframesError as error:
                    failures.append(Failure.of(data.samples[number].path, error))
                    yield number + 1
                    continue
                num_cached += read.cached
                embeddings_VTD = read.tensor if read.cached else _computed(read.tensor, predictor, mirror)
                if keeping and cache is not None and read.key and not read.cached:
                    keeping = _kept(cache, read.key, embeddings_VTD)
                tensors.append(embeddings_VTD)
                kept.append(number)
                yield number + 1
        finally:
            for future in waiting:
                future.cancel()
    if not tensors:
        raise DataError(
            f"{data.name}: none of {len(data.samples)} videos could be read; the first: {failures[0].error}"
        )
    yield Embedded(torch.stack(tensors), torch.tensor(kept), tuple(failures), num_cached)


@dataclass(frozen=True, eq=False)
class _Read:
    """Embeddings (V, T, D) when `cached`, else frames (T, C, H, W) that are still to be embedded."""

    tensor: Tensor
    key: str
    cached: bool


def _read(sample: Sample, predictor: Predictor, cache: EmbeddingCache | None, setting: str, num_frames: int) -> _Read:
    key = _key(sample, setting) if cache is not None else ""
    found = cache.get(key) if cache is not None and key else None
    if found is not None:
        return _Read(found, key, cached=True)
    clip = predictor.read_clip(sample.path, num_frames=num_frames, start_s=sample.start_s, end_s=sample.end_s)
    return _Read(clip.frames, key, cached=False)


def _key(sample: Sample, setting: str) -> str:
    """The cache's key; empty for what is no file here: URLs are not cached, and a missing file fails where it is read."""
    try:
        content = content_key(sample.path)
    except OSError:
        return ""
    return key_of(content, {"start_s": sample.start_s, "end_s": sample.end_s}, setting)


def _computed(frames_TCHW: Tensor, predictor: Predictor, mirror: bool) -> Tensor:
    views = [frames_TCHW, frames_TCHW.flip(-1)] if mirror else [frames_TCHW]
    return predictor.embed_frames(torch.cat(views)).unflatten(0, (len(views), -1))


def _kept(cache: EmbeddingCache, key: str, embeddings_VTD: Tensor) -> bool:
    """Whether the cache took it: a full or forbidden disk costs the next run its time, not this one its work."""
    try:
        cache.put(key, embeddings_VTD)
    except OSError as error:
        log.warning("%s: frame embeddings are not kept (%s)", cache.folder, error.strerror or error)
        return False
    return True
