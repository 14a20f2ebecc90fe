"""Pictures for exported graphs are those that the model sees, up to one level of 255 where pictures are smooth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewframes.config import Fit, Interpolation, ViewConfig
from fewframes.pixels import ViewStack, pixels_of_image
from fewframes.transforms import fit_frame
from fewframes.video import open_video
from numbered import Numbered

VIEW = ViewConfig(resize_px=36, crop_px=32, mean=(0.485, 0.456, 0.406))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(48, 64), (97, 41), (20, 700), (32, 36)])
def test_views_of_arrays_are_those_of_tensors(fit: Fit, interpolation: Interpolation, size: tuple[int, int]) -> None:
    view = replace(VIEW, fit=fit, interpolation=interpolation)
    row, column = np.mgrid[: size[0], : size[1]]  # a smooth picture: in noise, steps between pixels round differently
    waves = [np.sin(row / 5 + channel) + np.cos(column / 7) for channel in range(3)]
    pixels_HWC = (127 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)
    stack = ViewStack(1, view)
    assert stack.add(pixels_HWC) == 0
    found = stack.clip([0], [0.0], 1.0, "waves", None).frames[0]  # type: ignore[arg-type]
    wanted = fit_frame(torch.from_numpy(pixels_HWC).permute(2, 0, 1), view).numpy()
    assert found.shape == wanted.shape
    apart = np.abs(found.astype(int) - wanted.astype(int))
    assert apart.max() <= 2
    assert (apart > 1).mean() < 0.001


def test_both_ways_read_the_same_moments_of_a_video(tmp_path: Path) -> None:
    path = Numbered(times_ms=range(0, 800, 40)).write(tmp_path / "video")
    times_s = [0.7, 0.1, 0.1, 0.33]
    view = replace(VIEW, fit="squash", crop_px=160, resize_px=160)
    video = open_video(path)
    tensors = video.frames_at(torch.tensor(times_s), lambda frame: fit_frame(frame, view))
    arrays = video.clip_at(times_s, lambda count: ViewStack(count, view))  # type: ignore[attr-defined]
    video.close()
    assert arrays.times_s.tolist() == tensors.times_s.tolist()
    assert np.abs(arrays.frames.astype(int) - tensors.frames.numpy().astype(int)).max() <= 1


def test_pictures_of_other_kinds() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert pixels_of_image(grey)[..., 2].tolist() == grey.tolist()
    planes = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4)
    assert pixels_of_image(planes).tolist() == planes.permute(1, 2, 0).tolist()
