"""Embeddings of a data set: the same from the cache, whole after damage, and never lost by an interruption."""

from __future__ import annotations

import json
import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, key_of
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import content_of
from fewframes.data.layouts import Sample
from fewframes.errors import DataError
from fewframes.inference.frame_features import encoder_key
from fewframes.inference.predictor import Predictor, load
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.results import Failure
from fewframes.runtime.keys import WITHOUT_EFFECT
from fewframes.sampling import ONE_PASS, Views
from fewframes.training import features as room
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.features import EmbeddedVideos, VideoFeatures, embed_videos, extract_features
from fewframes.training.steps.augment import is_mirrored, seed_of
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


@pytest.fixture(scope="module")
def data(videos: Path) -> VideoSet:
    paths = [videos / "a.mp4", videos / "b.mp4", videos / "sub" / "c.mp4"]
    return VideoSet(tuple(Sample(path=str(path), labels=("hug",)) for path in paths), "three")


def embedded(
    data: VideoSet, predictor: Predictor, cache: EmbeddingCache | None, *, mirror: bool = False
) -> EmbeddedVideos:
    *counts, result = embed_videos(data, predictor, cache, mirror=mirror)
    assert counts == list(range(1, len(data.samples) + 1))
    assert isinstance(result, EmbeddedVideos)
    return result


def test_they_are_those_of_predict(data: VideoSet, predictor: Predictor, store: EmbeddingCache) -> None:
    for _ in range(2):
        found = embedded(data, predictor, store)
        for row, sample in zip(found.embeddings[:, 0], data.samples, strict=True):
            assert np.array_equal(row, predictor.predict(sample.path).frame_embeddings)
    assert found.num_cached == 3
    assert found.indices.tolist() == [0, 1, 2]


def test_the_second_view_is_mirrored(data: VideoSet, predictor: Predictor) -> None:
    both = embedded(data, predictor, None, mirror=True).embeddings
    plain = embedded(data, predictor, None).embeddings
    np.testing.assert_allclose(
        both[:, :1], plain, rtol=1e-5, atol=1e-5
    )  # other products of matrices for other numbers of frames
    clip = predictor.read_clip(data.samples[1].path)
    mirrored_TD = predictor.runtime.embed_frames(clip.frames[..., ::-1].copy())
    np.testing.assert_allclose(both[1, 1], mirrored_TD, rtol=1e-5, atol=1e-5)
    assert np.abs(both[:, 0] - both[:, 1]).max() > 1e-3


def test_damage_is_repaired(data: VideoSet, predictor: Predictor, store: EmbeddingCache) -> None:
    first = embedded(data, predictor, store)
    damaged = sorted(store.folder.rglob("*.safetensors"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-3])
    again = embedded(data, predictor, store)
    assert again.num_cached == 2
    assert np.array_equal(first.embeddings, again.embeddings)
    assert embedded(data, predictor, store).num_cached == 3


def test_an_interrupted_run_goes_on_where_it_stopped(
    data: VideoSet, predictor: Predictor, store: EmbeddingCache
) -> None:
    run = embed_videos(data, predictor, store, mirror=False)
    next(run)
    next(run)
    del run  # a generator ends where its last reference does
    assert embedded(data, predictor, store).num_cached == 2


def test_moments_and_content_make_the_difference(
    data: VideoSet, predictor: Predictor, store: EmbeddingCache, tmp_path: Path
) -> None:
    embedded(data, predictor, store)
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(Path(data.samples[0].path).read_bytes())
    samples = (Sample(path=str(moved), labels=("hug",)), Sample(path=str(moved), labels=("hug",), end_s=0.4))
    found = embedded(VideoSet(samples, "moved"), predictor, store)
    assert found.num_cached == 1  # the same bytes under another name, but another part of them is new


def test_what_cannot_be_read_is_kept_apart(
    data: VideoSet, predictor: Predictor, store: EmbeddingCache, tmp_path: Path
) -> None:
    missing = Sample(path=str(tmp_path / "none.mp4"), labels=("hug",))
    mixed = VideoSet((data.samples[0], missing, data.samples[2]), "mixed")
    found = embedded(mixed, predictor, store)
    assert found.indices.tolist() == [0, 2]
    assert [failure.source for failure in found.failures] == [missing.path]
    with pytest.raises(DataError, match=r"none of 1 video could be read; the first: .*no such file"):
        embedded(VideoSet((missing,), "none"), predictor, store)


def test_a_cache_that_cannot_be_written_is_said_once(
    data: VideoSet, predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        found = embedded(data, predictor, EmbeddingCache(tmp_path / "file"))
    assert len(found.embeddings) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "are not cached" in caplog.text


def seen(
    data: VideoSet, predictor: Predictor, cache: EmbeddingCache | None, views: Views = ONE_PASS
) -> list[VideoFeatures]:
    found = list(extract_features(data, predictor, cache, views=views))
    return [each for each in found if not isinstance(each, Failure)]


def test_each_sampling_and_crop_is_kept_for_itself(data: VideoSet, predictor: Predictor, store: EmbeddingCache) -> None:
    kinds = [
        ONE_PASS,
        Views(num_crops=3),
        Views(num_clips=2),
        Views(num_clips=2, clip_s=0.4),
        Views(num_clips=2, num_crops=3),
        Views(clip_s=0.4),
    ]
    for views in kinds:
        first, second = seen(data, predictor, store, views), seen(data, predictor, store, views)
        assert [each.cached for each in first] == [False] * 3
        assert [each.cached for each in second] == [True] * 3
        for one, two in zip(first, second, strict=True):
            assert one.features.shape[:2] == (len(views), 4)
            assert np.array_equal(one.features, two.features)
    assert embedded(data, predictor, store).num_cached == 3  # one pass is the one of training
    same = seen(data, predictor, store, Views(num_clips=2, clip_s=8 / 3))
    assert all(each.cached for each in same)  # what is not said is 2.67 s


def test_many_views_wait_in_little_memory(
    data: VideoSet, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [each.features for each in seen(data, predictor, None, Views(num_clips=2, num_crops=3))]
    monkeypatch.setattr(room, "AHEAD_BYTES", 1)  # one video at a time
    found = [each.features for each in seen(data, predictor, None, Views(num_clips=2, num_crops=3))]
    assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))


def test_lengths_are_those_of_the_parts(data: VideoSet, predictor: Predictor, store: EmbeddingCache) -> None:
    path = data.samples[0].path  # 0.8 s
    parts = [(0.0, None), (0.2, 0.6), (0.2, 9.0)]
    samples = tuple(Sample(path=path, labels=("hug",), start_s=start_s, end_s=end_s) for start_s, end_s in parts)
    for cached in (False, True):
        found = list(extract_features(VideoSet(samples, "parts"), predictor, store, with_lengths=True))
        assert [isinstance(each, VideoFeatures) and each.cached for each in found] == [cached] * 3
        lengths = [each.length_s for each in found if isinstance(each, VideoFeatures)]
        assert lengths == pytest.approx([0.8, 0.4, 0.6])


def test_what_changes_embeddings_is_part_of_their_key(
    data: VideoSet, predictor: Predictor, tiny_model: Path, store: EmbeddingCache
) -> None:
    """Merged patches and moved moments give other embeddings; the plain ones stay what they were."""
    plain = embedded(data, predictor, store).embeddings
    merging = load(tiny_model, device="cpu", dtype="float32", merge=1)
    merged = embedded(data, merging, store)
    assert merged.num_cached == 0
    moved = list(extract_features(data, predictor, store, views=Views(tolerance=0.5)))
    assert not any(seen.cached for seen in moved if isinstance(seen, VideoFeatures))
    again = embedded(data, predictor, store)
    assert again.num_cached == 3
    assert np.array_equal(again.embeddings, plain)


VIEW = ViewConfig(resize_px=36, crop_px=32)


def tower(*, quick_gelu: bool) -> dict[str, Any]:
    """The encoder of a small image-text model."""
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32}
    settings = {"embed_dim": 64, "quick_gelu": quick_gelu, "vision_cfg": vision}
    return {"encoder": "clip:tiny", "tower": json.dumps(settings)}


OTHER_MODELS: dict[str, dict[str, Any]] = {
    "encoder": {"encoder": "lite0"}, "image_size": {"image_size": 24}, "patch_size": {"patch_size": 16},
    "width": {"width": 96}, "depth": {"depth": 2}, "heads": {"heads": 6}, "cells": {"encoder": "lite0", "cells": 2},
    "cells_layer": {"depth": 3, "cells": 2, "cells_layer": 1}, "tower": tower(quick_gelu=True),
    "cell_width": {"depth": 3, "cells": 2, "cell_width": 5}, "moments": {"moments": "motion"},
    "mlp_ratio": {"mlp_ratio": 2.0}, "qkv_bias": {"qkv_bias": False}, "norm_eps": {"norm_eps": 0.1},
    "merge": {"merge": 1}, "layout": {"layout": "joint", "temporal": "mean"}, "temporal": {"temporal": "mean"},
    "temporal_depth": {"temporal_depth": 2}, "temporal_heads": {"temporal_heads": 2}, "temporal_width": {"temporal_width": 16},
    "temporal_mlp_width": {"temporal_mlp_width": 8}, "motion_width": {"motion_width": 8}, "moment_head": {"moment_head": True},
    "temporal_positions": {"temporal_positions": "waves"}, "token_dropout": {"token_dropout": 0.5},
    "temporal_dropout": {"temporal_dropout": 0.5}, "drop_path": {"drop_path": 0.5}, "num_frames": {"num_frames": 8},
    "num_classes": {"num_classes": 2}, "task": {"task": "multilabel"},
    "cell_tokens": {"cell_tokens": True, "cells": 2, "cell_width": 8, "temporal_width": 16},
}  # fmt: skip
"""A value other than the tiny model's for every setting of a model."""
OTHER_VIEWS: dict[str, dict[str, Any]] = {
    "fit": {"fit": "squash"}, "resize_px": {"resize_px": 40}, "crop_px": {"crop_px": 24},
    "interpolation": {"interpolation": "bilinear"}, "mean": {"mean": (0.4, 0.5, 0.5)}, "std": {"std": (0.4, 0.5, 0.5)},
}  # fmt: skip
OTHER_DRAWS: dict[str, Any] = {
    "views": 0, "scale": 1.2, "jitter": False, "colour": 0.1, "auto": "randaugment", "cutout": 0.3, "mixup": 0.5, "cutmix": 0.5,
}  # fmt: skip


def of(model: ModelConfig = TINY, view: ViewConfig = VIEW) -> Predictor:
    torch.manual_seed(0)
    view = replace(view, crop_px=model.image_size)
    labels = LABELS[: model.num_classes]
    return Predictor(Checkpoint(build_model(model, view), view, labels), device="cpu", dtype="float32")


@pytest.mark.parametrize("name", [field.name for field in fields(ModelConfig)])
def test_each_setting_of_a_model_is_in_the_key_or_changes_no_embedding(name: str) -> None:
    if name == "tower":
        pytest.importorskip("open_clip")
    plain, other = of(), of(replace(TINY, **OTHER_MODELS[name]))
    if name == "tower":  # beside the same weights with another activation
        plain = of(replace(TINY, **tower(quick_gelu=False)))
    if name == "cells":  # beside the same encoder without them
        plain = of(replace(TINY, encoder="lite0"))
    if name in ("cells_layer", "cell_width"):  # beside the same cells of another layer, or in all channels
        plain = of(replace(TINY, depth=3, cells=2))
    if name == "cell_tokens":  # beside the same cells, joined
        plain = of(replace(TINY, **{**OTHER_MODELS[name], name: False}))
    if name not in WITHOUT_EFFECT or name == "merge":
        assert encoder_key(other) != encoder_key(plain)
        return
    assert encoder_key(other) == encoder_key(plain)
    frames_TCHW = np.random.default_rng(0).integers(256, size=(4, 3, 32, 32), dtype=np.uint8)
    assert np.array_equal(other.runtime.embed_frames(frames_TCHW), plain.runtime.embed_frames(frames_TCHW))


@pytest.mark.parametrize("name", [field.name for field in fields(ViewConfig)])
def test_each_setting_of_a_view_is_in_the_key(name: str) -> None:
    view = replace(VIEW, **OTHER_VIEWS[name])
    assert encoder_key(of(replace(TINY, image_size=view.crop_px), view)) != encoder_key(of())


def test_the_precision_and_the_decoder_are_in_the_key(predictor: Predictor, tiny_model: Path) -> None:
    keys = {encoder_key(predictor), encoder_key(load(tiny_model, device="cpu", dtype="bfloat16"))}
    other = load(tiny_model, device="cpu", dtype="float32")
    other.reader = replace(other.reader, backend="torchcodec")
    assert len(keys | {encoder_key(other)}) == 3


@pytest.mark.parametrize("name", [field.name for field in fields(AugmentConfig)])
def test_each_setting_of_a_drawn_view_is_in_the_key_or_is_of_pairs(
    name: str, data: VideoSet, predictor: Predictor, store: EmbeddingCache
) -> None:
    one = data.subset([0])
    drawn = AugmentConfig(views=1)
    list(embed_videos(one, predictor, store, mirror=False, augment=drawn))
    *_, again = embed_videos(one, predictor, store, mirror=False, augment=replace(drawn, **{name: OTHER_DRAWS[name]}))
    assert isinstance(again, EmbeddedVideos)
    assert again.num_cached == (name in ("views", "mixup", "cutmix"))


def test_numbers_of_frames_and_mirrored_views_do_not_mix(
    data: VideoSet, predictor: Predictor, store: EmbeddingCache
) -> None:
    found = [
        result
        for num_frames in (4, 2)
        for mirror in (False, True)
        for result in embed_videos(data, predictor, store, mirror=mirror, num_frames=num_frames)
        if isinstance(result, EmbeddedVideos)
    ]
    assert [(each.num_cached, *each.embeddings.shape[:3]) for each in found] == [
        (0, 3, 1, 4), (0, 3, 2, 4), (0, 3, 1, 2), (0, 3, 2, 2),
    ]  # fmt: skip
    again = embedded(data, predictor, store)
    assert again.num_cached == 3
    assert np.array_equal(again.embeddings, found[0].embeddings)
    assert np.array_equal(again.embeddings, found[1].embeddings[:, :1])


def counted(monkeypatch: pytest.MonkeyPatch, predictor: Predictor) -> list[tuple[int, ...]]:
    """Return a list that grows by the shape of the frames of each call of the frame encoder."""
    calls: list[tuple[int, ...]] = []
    encode = predictor.runtime.encode_clips

    def noted(frames_BTCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        calls.append(frames_BTCHW.shape)
        return encode(frames_BTCHW)

    monkeypatch.setattr(predictor.runtime, "encode_clips", noted)
    return calls


def views_of(
    data: VideoSet, predictor: Predictor, cache: EmbeddingCache | None, num_drawn: int, *, mirror: bool
) -> EmbeddedVideos:
    *_, found = embed_videos(data, predictor, cache, mirror=mirror, augment=AugmentConfig(views=num_drawn))
    assert isinstance(found, EmbeddedVideos)
    return found


def test_only_new_views_are_embedded(
    data: VideoSet, predictor: Predictor, store: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch, predictor)
    seeds = [seed_of(content_of(sample), number) for sample in data.samples for number in range(4)]
    num_turned = sum(is_mirrored(seed) for seed in seeds)
    assert 0 < num_turned < 12
    steps = [
        (0, False, 3, 0),  # each video as it is
        (2, False, 6, 0),
        (4, False, 6, 0),
        (4, True, 3 + num_turned, 0),  # mirrored copies, and the drawn views that are mirrored now
        (2, True, 0, 3),
        (4, False, 0, 3),
        (0, False, 0, 3),
    ]
    for num_drawn, mirror, num_calls, num_cached in steps:
        calls.clear()
        kept = views_of(data, predictor, store, num_drawn, mirror=mirror)
        assert (len(calls), kept.num_cached) == (num_calls, num_cached)
        assert set(calls) <= {(1, 4, 3, 32, 32)}
        fresh = views_of(data, predictor, None, num_drawn, mirror=mirror)
        assert kept.embeddings.shape[1] == 1 + mirror + num_drawn
        assert np.array_equal(kept.embeddings, fresh.embeddings)


def test_a_video_with_a_view_missing_is_not_counted_as_cached(
    data: VideoSet, predictor: Predictor, store: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = views_of(data, predictor, store, 2, mirror=True)
    damaged = sorted(store.folder.rglob("*.safetensors"))[4]
    damaged.unlink()
    calls = counted(monkeypatch, predictor)
    again = views_of(data, predictor, store, 2, mirror=True)
    assert (len(calls), again.num_cached) == (1, 2)
    assert np.array_equal(again.embeddings, whole.embeddings)


def test_a_plain_view_from_an_earlier_version_is_found(
    data: VideoSet, predictor: Predictor, store: EmbeddingCache
) -> None:
    """The key of a video as it is has not changed since version 0.1."""
    kept = np.ones((1, 4, predictor.torch.model.config.width), np.float32)
    setting = key_of(encoder_key(predictor), {"num_frames": 4, "sampling": "centre", "mirror": False})
    store.put(key_of(content_of(data.samples[0]), setting), kept)
    found = views_of(data.subset([0]), predictor, store, 1, mirror=True)
    assert np.array_equal(found.embeddings[0, :1], kept)
    assert not np.array_equal(found.embeddings[0, 1:2], kept)


def test_the_same_weights_with_other_heads_embed_anew(
    data: VideoSet, predictor: Predictor, store: EmbeddingCache
) -> None:
    """Heads have no tensor of their own, and attention of other heads is another network."""
    other = of(replace(TINY, heads=6))
    other.torch.model.frame_encoder.load_state_dict(predictor.torch.model.frame_encoder.state_dict())
    for _ in range(2):
        first, second = embedded(data, predictor, store), embedded(data, other, store)
        assert np.abs(first.embeddings - second.embeddings).max() > 1e-3
    assert first.num_cached == second.num_cached == 3
    assert other.torch.model.config == replace(predictor.torch.model.config, heads=6)


def test_what_is_drawn_depends_on_the_video_alone(data: VideoSet, predictor: Predictor, tmp_path: Path) -> None:
    """Neither a cache nor where the video lies draws others."""
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(Path(data.samples[0].path).read_bytes())
    one, moved = (VideoSet((Sample(path=path, labels=("hug",)),), "one") for path in (data.samples[0].path, str(copy)))
    drawn = AugmentConfig(views=2)
    *_, with_cache = embed_videos(one, predictor, EmbeddingCache(tmp_path / "cache"), mirror=False, augment=drawn)
    *_, without = embed_videos(moved, predictor, None, mirror=False, augment=drawn)
    assert isinstance(with_cache, EmbeddedVideos)
    assert isinstance(without, EmbeddedVideos)
    assert np.array_equal(with_cache.embeddings, without.embeddings)
    assert not np.array_equal(with_cache.embeddings[:, 1], with_cache.embeddings[:, 2])
