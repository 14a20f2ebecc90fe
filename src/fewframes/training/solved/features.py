"""Compute the frame embeddings of labelled videos for the solved read-out, or take them from the cache. Arrays alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, key_of
from fewframes.core.process import TalkingProgress
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import content_of
from fewframes.data.layouts import Sample
from fewframes.runtime.protocol import Floats, Frames
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.features import EmbeddedVideos, features_of, gathered
from fewframes.training.solved.views import views_of
from fewframes.video.view import ViewConfig

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


def embed_views(
    data: VideoSet,
    embedder: FrameEmbedder,
    cache: EmbeddingCache | None,
    progress: TalkingProgress,
    *,
    mirror: bool = False,
    augment: AugmentConfig = NO_DRAWS,
) -> EmbeddedVideos:
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
    view, num_frames = embedder.view, embedder.num_frames
    setting = key_of(embedder.encoder_key(), _settings(num_frames, mirror, augment))

    def read(sample: Sample, content: str) -> tuple[Frames, None]:
        if augment.views:
            content = content or content_of(sample) or sample.path
        return views_of(sample, num_frames, view, augment, content, mirror=mirror), None

    def embed(frames_VTCHW: Frames) -> Floats:
        embeddings_ND = embedder.embed_frames(frames_VTCHW.reshape(-1, *frames_VTCHW.shape[2:]))
        return np.asarray(embeddings_ND, np.float32).reshape(*frames_VTCHW.shape[:2], -1)

    bytes_per_video = (1 + mirror + augment.views) * num_frames * 3 * view.crop_px**2
    results = []
    for result in features_of(data.samples, read, embed, cache, setting, bytes_per_video=bytes_per_video):
        results.append(result)
        progress("embedding", len(results), len(data.samples), "")
    return gathered(data, results)


def _settings(num_frames: int, mirror: bool, augment: AugmentConfig) -> dict[str, Any]:
    """Return everything besides the encoder and the video that its embeddings depend on.

    Without random views this is the key of `training/features.py`, so that both use the same embeddings.
    """
    values: dict[str, Any] = {"num_frames": num_frames, "sampling": "centre", "mirror": mirror}
    if augment.views:
        values["drawn by numpy"] = DRAWS_VERSION
        values["drawn"] = asdict(replace(augment, auto="none", cutout=0.0, mixup=0.0, cutmix=0.0))
    return values
