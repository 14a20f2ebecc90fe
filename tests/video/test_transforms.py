"""The view: torchvision's arithmetic but for rounding, and shapes that hold for any frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewframes.video.transforms import crops_of, fit_frame
from fewframes.video.view import ViewConfig


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth waves with fine ones and a little noise on them, (3, H, W)."""
    row, column = np.mgrid[:height, :width]
    waves = [
        50 * np.sin(row / 23 + one) + 40 * np.cos(column / 17 - one) + 20 * np.sin((row + column) / 5)
        for one in range(3)
    ]
    grain = np.random.default_rng(0).normal(0, 4, (3, height, width))
    return np.clip(127 + np.stack(waves) + grain, 0, 255).astype(np.uint8)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """Every pixel by chance, (3, H, W)."""
    return np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("make", [photograph, noise])
@pytest.mark.parametrize(("height", "width"), [(240, 426), (300, 200), (333, 500), (256, 256), (221, 152), (720, 1280)])
def test_crop_is_torchvisions_but_for_rounding(
    interpolation: str, make: Callable[[int, int], NDArray[np.uint8]], height: int, width: int
) -> None:
    from torchvision.transforms import v2

    frame_CHW = make(height, width)
    view = ViewConfig(interpolation=interpolation)  # type: ignore[arg-type]
    reference = v2.Compose([v2.Resize(256, v2.InterpolationMode(interpolation)), v2.CenterCrop(224)])
    wanted_CHW = reference(torch.from_numpy(frame_CHW)).numpy()
    apart = np.abs(fit_frame(frame_CHW, view).astype(int) - wanted_CHW)
    if height <= width:
        assert apart.max() <= 2
        assert apart.mean() < 0.02
    else:  # Pillow may take the other axis first, and rounds and clips between the two passes
        assert apart.max() <= (25 if make is noise else 2)
        assert apart.mean() < (2 if make is noise else 0.25)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["crop", "squash", "pad"]))
def test_any_frame_becomes_the_square(height: int, width: int, fit: str) -> None:
    frame_CHW = np.full((3, height, width), 200, np.uint8)
    view = ViewConfig(fit=fit, resize_px=36, crop_px=32)  # type: ignore[arg-type]
    square_CHW = fit_frame(frame_CHW, view)
    assert square_CHW.shape == (3, 32, 32)
    assert square_CHW.dtype == np.uint8
    assert (square_CHW[:, 15:17, 15:17] == 200).any()


def test_squash_keeps_everything_and_pad_keeps_proportions() -> None:
    frame_CHW = np.zeros((3, 40, 80), np.uint8)
    frame_CHW[:, :, :8] = frame_CHW[:, :, -8:] = 255  # marks at both ends of the long side
    squashed = fit_frame(frame_CHW, ViewConfig(fit="squash", crop_px=40, interpolation="bilinear"))
    assert squashed[0, 20, 0] == squashed[0, 20, -1] == 255
    padded = fit_frame(frame_CHW, ViewConfig(fit="pad", crop_px=40, interpolation="bilinear", mean=(0.5, 0.5, 0.5)))
    assert (padded[:, :10] == 128).all()
    assert (padded[:, -10:] == 128).all()
    assert padded[0, 20, 0] == padded[0, 20, -1] == 255
    cropped = fit_frame(frame_CHW, ViewConfig(resize_px=40, crop_px=40))
    assert cropped.max() == 0


def test_very_long_frames_do_not_blow_up() -> None:
    frame_CHW = np.zeros((3, 2, 16384), np.uint8)
    assert fit_frame(frame_CHW, ViewConfig()).shape == (3, 224, 224)


def marked(height: int, width: int) -> NDArray[np.uint8]:
    """A frame that is 50 where its long side begins, 100 in the middle and 200 at its end."""
    frame_CHW = np.full((3, height, width), 100, np.uint8)
    along = frame_CHW.transpose(0, 2, 1) if height > width else frame_CHW
    side = min(height, width)
    along[..., : side // 2], along[..., -side // 2 :] = 50, 200
    return frame_CHW


@pytest.mark.parametrize(("height", "width"), [(40, 120), (120, 40)])
def test_crops_lie_along_the_long_side(height: int, width: int) -> None:
    view = ViewConfig(resize_px=40, crop_px=40, interpolation="bilinear")  # nothing is cut off the short side
    crops_SCHW = crops_of(marked(height, width), view, 3)
    assert crops_SCHW.shape == (3, 3, 40, 40)
    first, middle, last = (sorted(set(crop_CHW.flatten().tolist())) for crop_CHW in crops_SCHW)
    assert (first, middle, last) == ([50, 100], [100], [100, 200])
    assert np.array_equal(crops_SCHW[1], fit_frame(marked(height, width), view))
    ends_SCHW = crops_of(marked(height, width), view, 2)
    assert np.array_equal(ends_SCHW, crops_SCHW[[0, 2]])


def test_crops_leave_the_short_side_in_the_middle() -> None:
    frame_CHW = np.broadcast_to(np.arange(50, dtype=np.uint8)[None, :, None], (3, 50, 100))
    crops_SCHW = crops_of(frame_CHW, ViewConfig(resize_px=50, crop_px=40), 3)
    assert crops_SCHW[:, 0, :, 0].tolist() == [list(range(5, 45))] * 3


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_a_whole_frame_has_one_view(fit: str) -> None:
    view = ViewConfig(fit=fit, crop_px=32)  # type: ignore[arg-type]
    frame_CHW = np.zeros((3, 40, 80), np.uint8)
    assert np.array_equal(crops_of(frame_CHW, view, 1)[0], fit_frame(frame_CHW, view))
    with pytest.raises(ValueError, match=f"num_crops = 3: the fit '{fit}' shows the whole frame"):
        crops_of(frame_CHW, view, 3)
