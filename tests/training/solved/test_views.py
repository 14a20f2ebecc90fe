"""Random views by numpy: what is drawn, and what stays alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from fewframes.data.layouts import Sample
from fewframes.errors import VideoError
from fewframes.inference.predictor import Predictor
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.solved.views import drawn_view, is_mirrored, read_as_is, read_drawn, recoloured, view_seed
from fewframes.video.view import ViewConfig

VIEW = ViewConfig(resize_px=36, crop_px=32)


def test_the_plain_view_is_what_predict_sees(videos: Path, predictor: Predictor) -> None:
    sample = Sample(path=str(videos / "a.mp4"), labels=("hug",))
    seen = np.asarray(predictor.read_clip(sample.path, num_frames=4).frames)
    assert np.array_equal(read_as_is(sample, 4, VIEW), seen)


def test_the_same_seed_gives_the_same_view_whatever_the_others_are(clips: Path) -> None:
    sample = Sample(path=str(clips / "redden" / "2.mp4"), labels=("redden",), start_s=0.2)
    seeds = [view_seed("a", number) for number in range(4)]
    many = read_drawn(sample, 4, VIEW, AugmentConfig(), seeds, mirror=True)
    for seed, view_TCHW in zip(seeds, many, strict=True):
        assert np.array_equal(read_drawn(sample, 4, VIEW, AugmentConfig(), [seed], mirror=True)[0], view_TCHW)
    assert len({view.tobytes() for view in many}) == 4
    other = read_drawn(sample, 4, VIEW, AugmentConfig(), [view_seed("b", 0)], mirror=True)
    assert not np.array_equal(other[0], many[0])
    with pytest.raises(VideoError, match="2.mp4"):
        read_drawn(Sample(path=sample.path, labels=(), start_s=50.0), 4, VIEW, AugmentConfig(), seeds, mirror=True)


def test_the_views_that_are_mirrored_are_known_before_they_are_read(clips: Path) -> None:
    sample = Sample(path=str(clips / "redden" / "2.mp4"), labels=("redden",))
    seeds = [view_seed("a", number) for number in range(8)]
    for augment in (AugmentConfig(), AugmentConfig(jitter=False)):
        plain, mixed = (read_drawn(sample, 4, VIEW, augment, seeds, mirror=mirror) for mirror in (False, True))
        expected = [is_mirrored(seed, 4, augment) for seed in seeds]
        assert 0 < sum(expected) < 8
        for mirrored, before_TCHW, after_TCHW in zip(expected, plain, mixed, strict=True):
            # Colours are changed after mirroring, with a mean over all pixels: its rounding may differ by the order.
            wanted_TCHW = before_TCHW[..., ::-1] if mirrored else before_TCHW
            np.testing.assert_allclose(after_TCHW.astype(int), wanted_TCHW.astype(int), atol=1)


def test_crops_show_the_scale_and_place_that_were_drawn() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8), (3, 100, 200))
    augment, rng = AugmentConfig(colour=0.0), np.random.default_rng(0)
    for _ in range(20):
        view = drawn_view([ramp, ramp], VIEW, augment, rng, mirror=False)
        assert np.array_equal(view[0], view[1])
        widths = view[0, 0, 0, -1].astype(int) - view[0, 0, 0, 0]
        # The crop's side is 32 / 36 of the short side, 100 px, or down to 1 / 1.4 of that.
        assert 100 * 32 / 36 / 1.4 - 5 < widths < 100 * 32 / 36 + 1
    mirrored = [drawn_view([ramp], VIEW, augment, rng, mirror=True)[0, 0, 0] for _ in range(40)]
    assert 5 < sum(int(row[0]) > int(row[-1]) for row in mirrored) < 35
    padded = drawn_view([ramp], ViewConfig(fit="pad", crop_px=32), augment, rng, mirror=False)
    assert padded[0, 0, 0].tolist() == [128] * 32


def test_colours_change_as_those_of_torchvision() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    assert np.array_equal(recoloured(frames, 1, 1, 1), frames)
    wanted = v2.functional.adjust_brightness(torch.from_numpy(frames), 1.2)
    wanted = v2.functional.adjust_saturation(v2.functional.adjust_contrast(wanted, 0.85), 1.15)
    assert np.abs(recoloured(frames, 1.2, 0.85, 1.15).astype(int) - wanted.numpy()).max() <= 3  # it rounds in between
