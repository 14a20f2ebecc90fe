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
from fewframes.training.solved.views import drawn_view, read_drawn, recoloured, views_of
from fewframes.video.view import ViewConfig

VIEW = ViewConfig(resize_px=36, crop_px=32)


def test_the_first_view_is_what_predict_sees_and_the_second_its_mirror_image(
    videos: Path, predictor: Predictor
) -> None:
    sample = Sample(path=str(videos / "a.mp4"), labels=("hug",))
    views = views_of(sample, 4, VIEW, AugmentConfig(views=3), "key", mirror=True)
    assert views.shape == (5, 4, 3, 32, 32)
    assert np.array_equal(views[0], np.asarray(predictor.read_clip(sample.path, num_frames=4).frames))
    assert np.array_equal(views[1], views[0][..., ::-1])
    assert len({view.tobytes() for view in views}) == 5


def test_the_same_key_gives_the_same_views(clips: Path) -> None:
    sample = Sample(path=str(clips / "redden" / "2.mp4"), labels=("redden",), start_s=0.2)
    first, second, other = (read_drawn(sample, 4, VIEW, AugmentConfig(views=2), key, mirror=True) for key in "aab")
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    with pytest.raises(VideoError, match="2.mp4"):
        read_drawn(Sample(path=sample.path, labels=(), start_s=50.0), 4, VIEW, AugmentConfig(), "a", mirror=True)


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
