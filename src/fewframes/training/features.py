"""Compute the frame embeddings of labelled videos, or take them from the cache.

Each view of a video is embedded and kept by itself, so a run with more views computes only those that are new. Threads decode
ahead of the network. Embeddings go into the cache as soon as they are computed, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

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

ViewName = str | int
"""The name of a view of a video that is kept by itself: `PLAIN`, `MIRRORED`, or the number of a drawn view from 0."""
PLAIN, MIRRORED = "plain", "mirrored"
"""The names of the views that are not drawn: the video as it is, in all clips and crops asked for, and its mirror image."""


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
    """Number of videos of which all views came from the cache."""


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
    """True if the embeddings of all views came from the cache."""
    length_s: float | None
    """Duration of the video, or of the labelled part of it. None if none was asked for and the video was not read as it is."""
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
    num_drawn = 0 if augment is None else augment.views
    return features_of(
        data.samples,
        _PredictorViews(predictor, views, num_frames, augment or AugmentConfig(views=0), mirror=mirror),
        runtime.encode_clips if embeds else None,
        cache if embeds else None,
        bytes_per_video=(len(views) * (1 + mirror) + num_drawn) * num_frames * 3 * runtime.view.crop_px**2,
        with_lengths=with_lengths,
    )


class VideoViews(Protocol):
    """The views of each video that are asked for, how they are read, and what their embeddings depend on."""

    @property
    def names(self) -> tuple[ViewName, ...]:
        """Return the names of the views, in the order of their rows."""

    def setting(self, name: ViewName, content: str) -> str:
        """Return a cache key of everything besides the video that the embeddings of a view depend on.

        Args:
            name: The view.
            content: A key of the video's content, which decides what is drawn.
        """

    def read(self, sample: Sample, content: str, names: Sequence[ViewName]) -> tuple[list[Frames], float | None]:
        """Return the frames (V, T, C, H, W) uint8 of each of these views, and the video's length in seconds where it is known.

        Args:
            sample: The video.
            content: A key of its content, which is empty without a cache or a local file.
            names: The views to read.
        """


def view_names(num_drawn: int, *, mirror: bool) -> tuple[ViewName, ...]:
    """Return the names of a video's views in their order: as it is, mirrored if asked for, and the drawn ones."""
    return (PLAIN, *(MIRRORED,) * mirror, *range(num_drawn))


def features_of(
    samples: Sequence[Sample],
    views: VideoViews,
    embed: Callable[[Frames], Floats] | None,
    cache: EmbeddingCache | None,
    *,
    bytes_per_video: int,
    with_lengths: bool = False,
) -> Iterator[VideoFeatures | Failure]:
    """Yield the features, or the failure, of each video in order. Threads look them up in the cache or read ahead.

    Args:
        samples: The videos.
        views: The views of each video. A video is read only if some are not in the cache, and only for those.
        embed: Returns the embeddings (V, T, D) of frames; None leaves frames as they are.
        cache: Where embeddings are looked up and stored; None computes all of them.
        bytes_per_video: The size of the frames of all views of one video.
        with_lengths: Measure the duration of cached videos too, which opens their files.
    """

    def look_up(sample: Sample) -> _FoundViews:
        content = content_of(sample) if cache is not None else ""
        keys: dict[ViewName, str] = {}
        if cache is not None and content:
            keys = {name: key_of(content, views.setting(name, content)) for name in views.names}
        rows: dict[ViewName, Floats | None] = dict.fromkeys(views.names)
        if cache is not None:
            rows |= {name: cache.get(key) for name, key in keys.items()}
        missing = [name for name, found in rows.items() if found is None]
        frames, length_s = views.read(sample, content, missing) if missing else ([], None)
        if length_s is None and with_lengths:
            length_s = _length_s(sample)
        return _FoundViews(rows, dict(zip(missing, frames, strict=True)), keys, length_s)

    workers = num_cores()
    ahead = min(2 * workers, AHEAD_BYTES // bytes_per_video) - 1
    with closing(worked_ahead(samples, look_up, workers, max(0, ahead))) as results:
        for sample, result in results:
            if isinstance(result, FewframesError):
                yield Failure.of(sample.path, result, sample.start_s, sample.end_s)
            else:
                yield _completed(result, embed, cache)


@dataclass(frozen=True, eq=False)
class _FoundViews:
    """The views of a video: what the cache had of each, the frames (V, T, C, H, W) of all others, the keys, and the length."""

    rows: dict[ViewName, Floats | None]
    frames: dict[ViewName, Frames]
    keys: dict[ViewName, str]
    length_s: float | None


def _completed(
    video: _FoundViews, embed: Callable[[Frames], Floats] | None, cache: EmbeddingCache | None
) -> VideoFeatures:
    """Return the features of a video. The views that were read are embedded, each by itself, and stored."""
    if embed is None:
        return VideoFeatures(np.concatenate(list(video.frames.values())), False, video.length_s)
    rows: list[Floats] = []
    network_s = 0.0
    for name, found in video.rows.items():
        if found is None:
            began = time.perf_counter()
            # One view at a time: rounding depends on which frames share a batch, and the same view is the same in all runs.
            found = embed(np.ascontiguousarray(video.frames[name]))
            network_s += time.perf_counter() - began
            if cache is not None and name in video.keys:
                cache.put_or_warn(video.keys[name], found)  # a full disk is reported once, and the run goes on
        rows.append(found)
    return VideoFeatures(np.concatenate(rows), not video.frames, video.length_s, network_s)


def _length_s(sample: Sample) -> float:
    with closing(open_video(sample.path, threads=1)) as video:
        start_s, end_s = checked_range(video.duration_s, sample.start_s, sample.end_s)
    return end_s - start_s


class _PredictorViews:
    """The views of videos that a predictor reads, and drawn views as training draws them."""

    def __init__(
        self, predictor: Predictor, views: Views, num_frames: int, augment: AugmentConfig, *, mirror: bool
    ) -> None:
        self.names = view_names(augment.views, mirror=mirror)
        self._predictor, self._views, self._num_frames = predictor, views, num_frames
        self._augment, self._mirror = augment, mirror
        self._encoder = encoder_key(predictor) if predictor.runtime.embeds_frames else ""

    def read(self, sample: Sample, content: str, names: Sequence[ViewName]) -> tuple[list[Frames], float | None]:
        parts: dict[ViewName, Frames] = {}
        length_s = None
        if PLAIN in names or MIRRORED in names:
            parts, length_s = self._read_plain(sample)
        numbers = [name for name in names if isinstance(name, int)]
        if numbers:
            from fewframes.training.steps.augment import read_drawn, seed_of  # late: it loads torch

            content = content or content_of(sample) or sample.path
            seeds = [seed_of(content, number) for number in numbers]
            drawn_VTCHW = read_drawn(
                sample, self._num_frames, self._predictor.runtime.view, self._augment, seeds, mirror=self._mirror
            ).numpy()
            parts |= dict(zip(numbers, drawn_VTCHW[:, None], strict=True))
        return [parts[name] for name in names], length_s

    def _read_plain(self, sample: Sample) -> tuple[dict[ViewName, Frames], float]:
        clips = self._predictor.read_views(
            sample.path, self._views, num_frames=self._num_frames, start_s=sample.start_s, end_s=sample.end_s
        )
        frames_VTCHW = np.stack([clip.frames for clip in clips])
        start_s, end_s = checked_range(clips[0].duration_s, sample.start_s, sample.end_s)
        return {PLAIN: frames_VTCHW, MIRRORED: frames_VTCHW[..., ::-1]}, end_s - start_s

    def setting(self, name: ViewName, content: str) -> str:
        if isinstance(name, int):
            from fewframes.training.steps.augment import is_mirrored, seed_of  # late, as above

            mirrored = self._mirror and is_mirrored(seed_of(content, name))
            return key_of(self._encoder, drawn_setting(name, self._num_frames, self._augment, mirrored=mirrored))
        return key_of(self._encoder, plain_setting(name, self._num_frames, self._views))


def plain_setting(name: ViewName, num_frames: int, views: Views = ONE_PASS) -> dict[str, object]:
    """Return what the embeddings of a view that is not drawn depend on, besides the encoder and the video."""
    # "alone", because True stood for both copies in one array, in caches of earlier versions.
    values: dict[str, object] = {"num_frames": num_frames, "sampling": "centre", "mirror": name == MIRRORED and "alone"}
    if views.span_s is not None:
        values["sampling"] = {"num_clips": views.num_clips, "clip_s": views.span_s}
    if views.num_crops > 1:
        values["num_crops"] = views.num_crops
    if views.tolerance:
        values["tolerance"] = views.tolerance
    return values


def drawn_setting(name: ViewName, num_frames: int, augment: AugmentConfig, *, mirrored: bool) -> dict[str, object]:
    """Return what the embeddings of a drawn view depend on, besides the encoder and the video. How many there are is no matter."""
    draws = asdict(replace(augment, views=0, mixup=0.0, cutmix=0.0))  # the last two mix videos, after embedding
    return {"num_frames": num_frames, "view": name, "mirrored": mirrored, "drawn": draws}
