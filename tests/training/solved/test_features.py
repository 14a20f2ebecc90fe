"""Embeddings for the solved read-out: each view is embedded once, and the plain one is that of every other command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import content_of
from fewframes.data.layouts import Sample
from fewframes.inference.frame_features import encoder_key
from fewframes.inference.predictor import Predictor
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.features import EmbeddedVideos, embed_videos
from fewframes.training.solved.features import embed_views
from fewframes.training.solved.views import is_mirrored, view_seed
from fewframes.video.view import ViewConfig


class CountingEmbedder:
    """A predictor's frame encoder that counts its calls."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.num_calls = predictor, 0

    @property
    def view(self) -> ViewConfig:
        return self.predictor.runtime.view

    @property
    def num_frames(self) -> int:
        return self.predictor.num_frames

    def encoder_key(self) -> str:
        return encoder_key(self.predictor)

    def embed_frames(self, frames_TCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.num_calls += 1
        return self.predictor.runtime.embed_frames(frames_TCHW)


@pytest.fixture
def data(videos: Path) -> VideoSet:
    paths = [videos / "a.mp4", videos / "b.mp4", videos / "sub" / "c.mp4"]
    return VideoSet(tuple(Sample(path=str(path), labels=("hug",)) for path in paths), "three")


def views_of(
    data: VideoSet, embedder: CountingEmbedder, cache: EmbeddingCache | None, num_drawn: int, *, mirror: bool
) -> EmbeddedVideos:
    augment = AugmentConfig(views=num_drawn)
    return embed_views(data, embedder, cache, lambda *_: None, mirror=mirror, augment=augment)


def test_only_new_views_are_embedded(data: VideoSet, predictor: Predictor, tmp_path: Path) -> None:
    embedder, cache = CountingEmbedder(predictor), EmbeddingCache(tmp_path / "cache")
    seeds = [view_seed(content_of(sample), number) for sample in data.samples for number in range(4)]
    num_turned = sum(is_mirrored(seed, embedder.num_frames, AugmentConfig()) for seed in seeds)
    assert 0 < num_turned < 12
    steps = [
        (0, False, 3, 0),  # each video as it is
        (2, False, 6, 0),
        (4, False, 6, 0),
        (4, True, 3 + num_turned, 0),  # mirrored copies, and the drawn views that are mirrored now
        (2, True, 0, 3),
    ]
    for num_drawn, mirror, num_calls, num_cached in steps:
        before = embedder.num_calls
        kept = views_of(data, embedder, cache, num_drawn, mirror=mirror)
        assert (embedder.num_calls - before, kept.num_cached) == (num_calls, num_cached)
        fresh = views_of(data, embedder, None, num_drawn, mirror=mirror)
        assert np.array_equal(kept.embeddings, fresh.embeddings)


def test_both_heads_share_what_is_not_drawn(data: VideoSet, predictor: Predictor, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    solved = views_of(data, CountingEmbedder(predictor), cache, 1, mirror=True)
    *_, shared = embed_videos(data, predictor, cache, mirror=True)
    assert isinstance(shared, EmbeddedVideos)
    assert shared.num_cached == 3
    assert np.array_equal(shared.embeddings, solved.embeddings[:, :2])
    *_, drawn = embed_videos(data, predictor, cache, mirror=True, augment=AugmentConfig(views=1))
    assert isinstance(drawn, EmbeddedVideos)
    assert drawn.num_cached == 0  # torch draws other views than numpy
