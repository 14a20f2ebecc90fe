"""Compute the frame embeddings of labelled videos for the solved read-out, or take them from the cache. Arrays alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, key_of
from fewframes.core.process import num_cores, worked_ahead
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import content_of
from fewframes.data.layouts import Sample
from fewframes.errors import DataError, FewframesError
from fewframes.results import Failure
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.solved.views import views_of
from fewframes.video.view import ViewConfig

Progress = Callable[[str, int, int, str], None]
"""A function that is called with the name of the stage, the number done, the number in all, and a line of text."""
NO_DRAWS = AugmentConfig(views=0)
"""The settings of a video as it is, without random views."""
DRAWS_VERSION = 1
"""The version of how random views are drawn, a part of the cache's keys. A new value makes older entries unreachable."""


class FrameEmbedder(Protocol):
    """A frame encoder, and the view of the frames that it takes. Every runtime is one."""

    @property
    def view(self) -> ViewConfig:
        """Return the size and normalisation of the frames."""

    @property
    def num_frames(self) -> int:
        """Return T, the number of frames of a video."""

    def encoder_key(self) -> str:
        """Return a key of the encoder's weights and precision, under which embeddings are cached."""

    def embed_frames(self, frames_TCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embedding of each frame by itself: (T, C, H, W) uint8 -> (T, D)."""


@dataclass(frozen=True, eq=False)
class EmbeddedViews:
    """The frame embeddings of the videos that could be read."""

    embeddings: NDArray[np.float32]
    """(B, V, T, D), with V views of each video; the first is the video as it is."""
    indices: NDArray[np.intp]
    """The indices (B,) of these videos in the data."""
    failures: tuple[Failure, ...]
    """The videos that could not be read."""
    num_cached: int
    """Number of videos whose embeddings came from the cache."""


def embed_views(
    data: VideoSet,
    embedder: FrameEmbedder,
    cache: EmbeddingCache | None,
    progress: Progress,
    *,
    mirror: bool = False,
    augment: AugmentConfig = NO_DRAWS,
) -> EmbeddedViews:
    """Embed the frames of all videos, in several views of each. Threads decode ahead of the network.

    Args:
        data: The videos.
        embedder: The frame encoder.
        cache: Where embeddings are looked up and stored; None computes all of them.
        progress: Called after each video.
        mirror: Add a mirrored copy of each video, and mirror about half of the random views.
        augment: Adds `augment.views` random views of each video.

    Raises:
        DataError: Not a single video could be read.
    """
    view, num_frames, samples = embedder.view, embedder.num_frames, data.samples
    setting = key_of(embedder.encoder_key(), _settings(num_frames, mirror, augment))

    def read(sample: Sample) -> tuple[NDArray[Any], str, bool]:
        """Return embeddings and True, or frames and False; and the key of the embeddings."""
        content = content_of(sample) if cache is not None or augment.views else ""
        key = key_of(content, setting) if content else ""
        found = cache.get(key) if cache is not None and key else None
        if found is not None:
            return found, key, True
        frames_VTCHW = views_of(sample, num_frames, view, augment, content or sample.path, mirror=mirror)
        return frames_VTCHW, key, False

    rows: list[NDArray[np.float32]] = []
    indices: list[int] = []
    failures: list[Failure] = []
    num_cached = 0
    numbers = map(
        str, range(len(samples))
    )  # a file may be in the data several times, so its path does not tell its row
    for number, result in worked_ahead(numbers, lambda number: read(samples[int(os.fspath(number))]), num_cores()):
        sample = samples[int(number)]
        if isinstance(result, FewframesError):
            failures.append(Failure.of(sample.path, result, sample.start_s, sample.end_s))
        else:
            values, key, cached = result
            num_cached += cached
            if not cached:
                embeddings_MD = embedder.embed_frames(values.reshape(-1, *values.shape[2:]))
                values = np.asarray(embeddings_MD, np.float32).reshape(*values.shape[:2], -1)
                if cache is not None and key:
                    cache.put_or_warn(key, values)
            rows.append(values)
            indices.append(int(number))
        progress("embedding", int(number) + 1, len(samples), "")
    if not rows:
        raise DataError(f"{data.name}: none of {len(samples)} videos could be read; the first: {failures[0].error}")
    return EmbeddedViews(np.stack(rows), np.array(indices), tuple(failures), num_cached)


def _settings(num_frames: int, mirror: bool, augment: AugmentConfig) -> dict[str, Any]:
    """Return everything besides the encoder and the video that its embeddings depend on.

    Without random views this is the key of `training/features.py`, so that both use the same embeddings.
    """
    values: dict[str, Any] = {"num_frames": num_frames, "sampling": "centre", "mirror": mirror}
    if augment.views:
        values["drawn by numpy"] = DRAWS_VERSION
        values["drawn"] = asdict(replace(augment, auto="none", cutout=0.0, mixup=0.0, cutmix=0.0))
    return values
