"""Labelled videos -> their frame embeddings, from the cache where they lie there, computed once where they do not.

Decoding runs ahead in threads. What is computed is kept in the cache at once, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from fewframes.core.cache import EmbeddingCache, content_key, key_of
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.errors import DataError, FewframesError
from fewframes.inference.frame_features import encoder_key
from fewframes.inference.predictor import Predictor
from fewframes.results import Failure
from fewframes.training.augment import AugmentConfig, read_drawn, seed_of
from fewframes.video.sampling import ONE_PASS, Views
from fewframes.video.source import open_video
from fewframes.video.times import checked_range

log = logging.getLogger("fewframes")

AHEAD_BYTES = 2**30
"""Pictures that are read ahead of the network: two videos a thread, fewer where many views would fill the memory."""


@dataclass(frozen=True, eq=False)
class EmbeddedVideos:
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
    drawn: AugmentConfig | None = None,
) -> Iterator[int | EmbeddedVideos]:
    """The frame embeddings of a data set, of `num_frames` frames or the model's own number; yields how many videos are done
    as it goes, at last the result. `drawn` adds its number of views as training draws them. Raises DataError when no video at
    all could be read."""
    tensors: list[Tensor] = []
    kept: list[int] = []
    failures: list[Failure] = []
    num_cached = 0
    videos = see_videos(data, predictor, cache, mirror=mirror, num_frames=num_frames, drawn=drawn)
    for number, seen in enumerate(videos):
        if isinstance(seen, Failure):
            failures.append(seen)
        else:
            tensors.append(seen.frames)
            kept.append(number)
            num_cached += seen.cached
        yield number + 1
    check_some(data, len(kept), failures)
    yield EmbeddedVideos(torch.stack(tensors), torch.tensor(kept), tuple(failures), num_cached)


def check_some(data: VideoSet, num_read: int, failures: list[Failure]) -> None:
    """DataError when no video at all could be read."""
    if num_read == 0:
        raise DataError(
            f"{data.name}: none of {len(data.samples)} videos could be read; the first: {failures[0].error}"
        )


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """One video in V views: `frames` are embeddings (V, T, D) float32, or, for a model that mixes frames inside its encoder,
    the pictures (V, T, C, H, W) uint8; whether they came from the cache; how long the video, or the part of it that is looked
    at, lasts (None when it came from the cache and nobody asked); and the seconds that embedding took."""

    frames: Tensor
    cached: bool
    length_s: float | None
    network_s: float = 0.0


def see_videos(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None,
    *,
    views: Views = ONE_PASS,
    mirror: bool = False,
    num_frames: int | None = None,
    with_lengths: bool = False,
    drawn: AugmentConfig | None = None,
) -> Iterator[VideoFeatures | Failure]:
    """Each video of a data set, in its order, as the temporal half takes it; with `mirror`, all views a second time mirrored;
    with `drawn`, its number of views more as training draws them. A video's draws depend on its content and range alone.

    Only embeddings of single frames are cached: a model that mixes frames inside its encoder has none.
    """
    predictor.check_views(views)
    embeds = predictor.config.layout == "factorised"
    num_frames = num_frames or predictor.config.num_frames
    cache = cache if embeds else None
    keeping = cache is not None
    drawn = drawn if drawn is not None and drawn.views else None
    setting = _setting(predictor, views, num_frames, mirror, drawn) if cache is not None else ""

    def read(sample: Sample) -> _Read:
        content = _content(sample) if cache is not None or drawn is not None else ""
        key = key_of(content, setting) if cache is not None and content else ""
        found = cache.get(key) if cache is not None and key else None
        if found is not None:
            return _Read(found, key, True, _length_s(sample) if with_lengths else None)
        clips = predictor.read_views(
            sample.path, views, num_frames=num_frames, start_s=sample.start_s, end_s=sample.end_s
        )
        frames_VTCHW = torch.stack([clip.frames for clip in clips])
        if mirror:
            frames_VTCHW = torch.cat([frames_VTCHW, frames_VTCHW.flip(-1)])
        if drawn is not None:
            seeds = [seed_of(content or sample.path, number) for number in range(drawn.views)]
            more_VTCHW = read_drawn(sample, num_frames, predictor.view, drawn, seeds, mirror=mirror)
            frames_VTCHW = torch.cat([frames_VTCHW, more_VTCHW])
        start_s, end_s = checked_range(clips[0].duration_s, sample.start_s, sample.end_s)
        return _Read(frames_VTCHW, key, False, end_s - start_s)

    num_views = len(views) * (1 + mirror) + (0 if drawn is None else drawn.views)
    bytes_a_video = num_views * num_frames * 3 * predictor.view.crop_px**2
    for result in _read_ahead(data.samples, read, AHEAD_BYTES // bytes_a_video):
        if isinstance(result, Failure) or result.cached:
            yield result if isinstance(result, Failure) else VideoFeatures(result.tensor, True, result.length_s)
            continue
        began = time.perf_counter()
        frames = predictor.encode_clips(result.tensor) if embeds else result.tensor
        network_s = time.perf_counter() - began
        if keeping and cache is not None and result.key:
            keeping = cache.put_or_warn(result.key, frames)
        yield VideoFeatures(frames, False, result.length_s, network_s)


@dataclass(frozen=True, eq=False)
class _Read:
    """Embeddings (V, T, D) when `cached`, else pictures (V, T, C, H, W) that are still to be embedded."""

    tensor: Tensor
    key: str
    cached: bool
    length_s: float | None


def _read_ahead(
    samples: tuple[Sample, ...], read: Callable[[Sample], _Read], most_waiting: int
) -> Iterator[_Read | Failure]:
    workers = torch.get_num_threads()
    most_waiting = max(1, min(2 * workers, most_waiting))
    waiting: deque[Future[_Read]] = deque()
    submitted = iter(samples)
    with ThreadPoolExecutor(workers, thread_name_prefix="fewframes-embed") as pool:
        try:
            for sample in samples:
                while len(waiting) < most_waiting and (ahead := next(submitted, None)) is not None:
                    waiting.append(pool.submit(read, ahead))
                try:
                    result = waiting.popleft().result()
                except FewframesError as error:
                    yield Failure.of(sample.path, error, sample.start_s, sample.end_s)
                    continue
                yield result
        finally:
            for future in waiting:
                future.cancel()


def _length_s(sample: Sample) -> float:
    with closing(open_video(sample.path, threads=1)) as video:
        start_s, end_s = checked_range(video.duration_s, sample.start_s, sample.end_s)
    return end_s - start_s


def _setting(predictor: Predictor, views: Views, num_frames: int, mirror: bool, drawn: AugmentConfig | None) -> str:
    """Return the key of all that embeddings depend on beside the video."""
    values: dict[str, object] = {"num_frames": num_frames, "sampling": "centre", "mirror": mirror}
    if views.span_s is not None:
        values["sampling"] = {"num_clips": views.num_clips, "clip_s": views.span_s}
    if views.num_crops > 1:
        values["num_crops"] = views.num_crops
    if views.tolerance:
        values["tolerance"] = views.tolerance
    if drawn is not None:
        values["drawn"] = asdict(replace(drawn, mixup=0.0, cutmix=0.0))  # these two are not of single videos
    return key_of(encoder_key(predictor), values)


def _content(sample: Sample) -> str:
    """Return a key of what is embedded of a video, wherever it lies; empty for what is no file here.

    Addresses are not cached, and a missing file fails where it is read.
    """
    try:
        content = content_key(sample.path)
    except OSError:
        return ""
    return key_of(content, {"start_s": sample.start_s, "end_s": sample.end_s})
