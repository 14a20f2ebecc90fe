"""Compute the frame embeddings of labelled videos for the solved read-out, or take them from the cache. Arrays alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, key_of
from fewframes.core.process import TalkingProgress
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import content_of
from fewframes.data.layouts import Sample
from fewframes.runtime.protocol import Floats, Frames
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.features import (
    MIRRORED,
    PLAIN,
    EmbeddedVideos,
    ViewName,
    drawn_setting,
    features_of,
    gathered,
    plain_setting,
    view_names,
)
from fewframes.training.solved.views import is_mirrored, read_as_is, read_drawn, view_seed
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
    views = _EmbedderViews(embedder, augment, mirror=mirror)

    def embed(frames_VTCHW: Frames) -> Floats:
        embeddings_ND = embedder.embed_frames(frames_VTCHW.reshape(-1, *frames_VTCHW.shape[2:]))
        return np.asarray(embeddings_ND, np.float32).reshape(*frames_VTCHW.shape[:2], -1)

    bytes_per_video = len(views.names) * embedder.num_frames * 3 * embedder.view.crop_px**2
    results = []
    for result in features_of(data.samples, views, embed, cache, bytes_per_video=bytes_per_video):
        results.append(result)
        progress("embedding", len(results), len(data.samples), "")
    return gathered(data, results)


class _EmbedderViews:
    """The views of videos for a frame encoder: as they are, mirrored, and drawn by numpy.

    Views that are not drawn have the keys of `training/features.py`, so that both use the same embeddings.
    """

    def __init__(self, embedder: FrameEmbedder, augment: AugmentConfig, *, mirror: bool) -> None:
        self.names = view_names(augment.views, mirror=mirror)
        self._view, self._num_frames, self._encoder = embedder.view, embedder.num_frames, embedder.encoder_key()
        self._augment, self._mirror = augment, mirror

    def read(self, sample: Sample, content: str, names: Sequence[ViewName]) -> tuple[list[Frames], None]:
        parts: dict[ViewName, Frames] = {}
        if PLAIN in names or MIRRORED in names:
            as_is_TCHW = read_as_is(sample, self._num_frames, self._view)
            parts = {PLAIN: as_is_TCHW[None], MIRRORED: as_is_TCHW[None, ..., ::-1]}
        numbers = [name for name in names if isinstance(name, int)]
        if numbers:
            content = content or content_of(sample) or sample.path
            seeds = [view_seed(content, number) for number in numbers]
            drawn_VTCHW = read_drawn(sample, self._num_frames, self._view, self._augment, seeds, mirror=self._mirror)
            parts |= dict(zip(numbers, drawn_VTCHW[:, None], strict=True))
        return [parts[name] for name in names], None

    def setting(self, name: ViewName, content: str) -> str:
        if not isinstance(name, int):
            return key_of(self._encoder, plain_setting(name, self._num_frames))
        mirrored = self._mirror and is_mirrored(view_seed(content, name), self._num_frames, self._augment)
        draws = replace(self._augment, auto="none", cutout=0.0)  # numpy draws neither
        values = drawn_setting(name, self._num_frames, draws, mirrored=mirrored)
        return key_of(self._encoder, {**values, "drawn by numpy": DRAWS_VERSION})
