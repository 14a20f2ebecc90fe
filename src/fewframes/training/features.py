"""Compute the frame embeddings of labelled videos, or take them from the cache.

Threads decode ahead of the network. Each video's embeddings go into the cache as soon as they are computed, so an interrupted run
continues where it stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, key_of
from fewframes.core.process import num_cores, worked_ahead
from fewframes.core.text import count_of
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import content_of
from fewframes.data.layouts import Sample
from fewframes.errors import DataError, FewframesError
from fewframes.inference.frame_features import encoder_key
from fewframes.inference.predictor import Predictor
from fewframes.results import Failure
from fewframes.runtime.protocol import Floats, Frames
from fewframes.sampling import ONE_PASS, Views
from fewframes.training.augment_config import AugmentConfig
from fewframes.video.source import open_video
from fewframes.video.times import checked_range

log = logging.getLogger("fewframes")

AHEAD_BYTES = 2**30
"""The most bytes of decoded frames that wait for the network. Up to two videos per thread are decoded ahead, fewer if many views
would fill the memory."""


@dataclass(frozen=True, eq=False)
class EmbeddedVideos:
    """The frame embeddings of the videos of a data set that could be read."""

    embeddings: NDArray[np.float32]
    """(B, V, T, D) float32, with V views of each video: the video as it is and, when asked for, mirrored and augmented."""
    indices: NDArray[np.int64]
    """The indices (B,) of these videos in the data."""
    failures: tuple[Failure, ...]
    """The videos that could not be read."""
    num_cached: int
    """Number of videos whose embeddings came from the cache."""


def embed_videos(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None,
    *,
    mirror: bool,
    num_frames: int | None = None,
    augment: AugmentConfig | None = None,
) -> Iterator[int | EmbeddedVideos]:
    """Embed the frames of all videos of a data set. Yields the number of videos done after each, and the result at the end.

    Args:
        data: The videos to embed.
        predictor: The model whose frame encoder embeds them.
        cache: Where embeddings are looked up and stored; None computes all of them.
        mirror: Add a mirrored copy of each view.
        num_frames: Frames of each view; the model's own number by default.
        augment: Adds `augment.views` randomly augmented views of each video, as training draws them.

    Raises:
        DataError: Not a single video could be read.
    """
    videos = extract_features(data, predictor, cache, mirror=mirror, num_frames=num_frames, augment=augment)
    results = []
    for result in videos:
        results.append(result)
        yield len(results)
    yield gathered(data, results)


def gathered(data: VideoSet, results: Sequence[VideoFeatures | Failure]) -> EmbeddedVideos:
    """Return the embeddings of all videos of a data set as one array. Raises DataError if not a single one could be read."""
    failures = [result for result in results if isinstance(result, Failure)]
    read = {index: result for index, result in enumerate(results) if isinstance(result, VideoFeatures)}
    check_some(data, len(read), failures)
    rows_BVTD = np.stack([video.features for video in read.values()])
    num_cached = sum(video.cached for video in read.values())
    return EmbeddedVideos(rows_BVTD, np.array(list(read)), tuple(failures), num_cached)


def check_some(data: VideoSet, num_read: int, failures: list[Failure]) -> None:
    """Raise DataError if not a single video could be read. The message names the first failure."""
    if num_read == 0:
        raise DataError(
            f"{data.name}: none of {count_of(len(data.samples), 'video')} could be read; the first: {failures[0].error}"
        )


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """The input of the temporal encoder for one video, in V views."""

    features: NDArray[Any]
    """Frame embeddings (V, T, D) float32. For a model that mixes frames inside its encoder, the frames (V, T, C, H, W) uint8."""
    cached: bool
    """True if the embeddings came from the cache."""
    length_s: float | None
    """Duration of the video, or of the labelled part of it. None if it came from the cache and no length was asked for."""
    network_s: float = 0.0
    """Seconds that the frame encoder took."""


def extract_features(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None,
    *,
    views: Views = ONE_PASS,
    mirror: bool = False,
    num_frames: int | None = None,
    with_lengths: bool = False,
    augment: AugmentConfig | None = None,
) -> Iterator[VideoFeatures | Failure]:
    """Yield the features, or the failure, of each video of a data set in its order.

    Only embeddings of single frames are cached. A model that mixes frames inside its encoder has none.

    Args:
        data: The videos to read.
        predictor: The model whose frame encoder embeds them.
        cache: Where embeddings are looked up and stored; None computes all of them.
        views: Clips and crops of each video.
        mirror: Add a mirrored copy of each view.
        num_frames: Frames of each view; the model's own number by default.
        with_lengths: Measure the duration of cached videos too, which opens their files.
        augment: Adds `augment.views` randomly augmented views of each video, as training draws them. The draws of a video
            depend on its content and range alone.
    """
    predictor.check_views(views)
    runtime, embeds = predictor.runtime, predictor.runtime.embeds_frames
    num_frames = num_frames or predictor.num_frames
    cache = cache if embeds else None
    augment = augment if augment is not None and augment.views else None

    def read(sample: Sample, content: str) -> tuple[Frames, float]:
        clips = predictor.read_views(
            sample.path, views, num_frames=num_frames, start_s=sample.start_s, end_s=sample.end_s
        )
        frames_VTCHW = np.stack([clip.frames for clip in clips])
        if mirror:
            frames_VTCHW = np.concatenate([frames_VTCHW, frames_VTCHW[..., ::-1]])
        if augment is not None:
            from fewframes.training.steps.augment import read_drawn, seed_of  # late: it loads torch

            seeds = [seed_of(content or content_of(sample) or sample.path, number) for number in range(augment.views)]
            more_VTCHW = read_drawn(sample, num_frames, runtime.view, augment, seeds, mirror=mirror)
            frames_VTCHW = np.concatenate([frames_VTCHW, more_VTCHW.numpy()])
        start_s, end_s = checked_range(clips[0].duration_s, sample.start_s, sample.end_s)
        return frames_VTCHW, end_s - start_s

    num_views = len(views) * (1 + mirror) + (0 if augment is None else augment.views)
    return features_of(
        data.samples,
        read,
        runtime.encode_clips if embeds else None,
        cache,
        _setting(predictor, views, num_frames, mirror, augment) if cache is not None else "",
        bytes_per_video=num_views * num_frames * 3 * runtime.view.crop_px**2,
        with_lengths=with_lengths,
    )


def features_of(
    samples: Sequence[Sample],
    read: Callable[[Sample, str], tuple[Frames, float | None]],
    embed: Callable[[Frames], Floats] | None,
    cache: EmbeddingCache | None,
    setting: str,
    *,
    bytes_per_video: int,
    with_lengths: bool = False,
) -> Iterator[VideoFeatures | Failure]:
    """Yield the features, or the failure, of each video in order. Threads look them up in the cache or read ahead.

    Args:
        samples: The videos.
        read: Returns the frames (V, T, C, H, W) uint8 of a video, and its length in seconds where it is known. It is called
            with the video and a key of its content, which is empty without a cache or a local file.
        embed: Returns the embeddings (V, T, D) of frames; None leaves frames as they are.
        cache: Where embeddings are looked up and stored; None computes all of them.
        setting: The cache's key of everything besides the video that its embeddings depend on.
        bytes_per_video: The size of the frames of one video.
        with_lengths: Measure the duration of cached videos too, which opens their files.
    """

    def look_up(sample: Sample) -> tuple[VideoFeatures, str]:
        """Return embeddings from the cache, or frames still to be embedded; and the key of the embeddings."""
        content = content_of(sample) if cache is not None else ""
        key = key_of(content, setting) if cache is not None and content else ""
        found = cache.get(key) if cache is not None and key else None
        if found is not None:
            return VideoFeatures(found, True, _length_s(sample) if with_lengths else None), key
        frames_VTCHW, length_s = read(sample, content)
        return VideoFeatures(frames_VTCHW, False, length_s), key

    workers = num_cores()
    ahead = min(2 * workers, AHEAD_BYTES // bytes_per_video) - 1
    with closing(worked_ahead(samples, look_up, workers, max(0, ahead))) as results:
        for sample, result in results:
            if isinstance(result, FewframesError):
                yield Failure.of(sample.path, result, sample.start_s, sample.end_s)
                continue
            video, key = result
            if video.cached or embed is None:
                yield video
                continue
            began = time.perf_counter()
            features = embed(video.features)
            network_s = time.perf_counter() - began
            if cache is not None and key:
                cache.put_or_warn(key, features)  # a full disk is reported once, and the run goes on
            yield VideoFeatures(features, False, video.length_s, network_s)


def _length_s(sample: Sample) -> float:
    with closing(open_video(sample.path, threads=1)) as video:
        start_s, end_s = checked_range(video.duration_s, sample.start_s, sample.end_s)
    return end_s - start_s


def _setting(predictor: Predictor, views: Views, num_frames: int, mirror: bool, augment: AugmentConfig | None) -> str:
    """Return a cache key of everything besides the video that its embeddings depend on."""
    values: dict[str, object] = {"num_frames": num_frames, "sampling": "centre", "mirror": mirror}
    if views.span_s is not None:
        values["sampling"] = {"num_clips": views.num_clips, "clip_s": views.span_s}
    if views.num_crops > 1:
        values["num_crops"] = views.num_crops
    if views.tolerance:
        values["tolerance"] = views.tolerance
    if augment is not None:
        values["drawn"] = asdict(replace(augment, mixup=0.0, cutmix=0.0))  # these mix videos, after embedding
    return key_of(encoder_key(predictor), values)
