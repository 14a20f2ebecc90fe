"""Turn decoded frames into the squares that the network takes: the same pixels in training and inference, whatever computes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fewframes.video.pictures.display import Pixels
from fewframes.video.view import Interpolation, ViewConfig, not_too_long, short_side_size, size_inside, window_corner

FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
"""Pillow's filters. They are antialiased. On photographs the result is that of torch's antialiased filters up to one level of 255
(docs/decisions/2026-11-28-numpy-borders.md)."""


def fit_frame(frame_CHW: Pixels, view: ViewConfig) -> Pixels:
    """Return a frame as the square that the network takes: (C, H, W) uint8 -> (C, crop_px, crop_px) uint8.

    `ViewConfig.fit` says how it becomes a square.
    """
    return crops_of(frame_CHW, view, 1)[0]


def crops_of(frame_CHW: Pixels, view: ViewConfig, num_crops: int) -> Pixels:
    """Return squares along the long side of a frame, from end to end: (C, H, W) uint8 -> (S, C, crop_px, crop_px) uint8.

    One square is the centre. Three squares are left, centre and right, or top, centre and bottom of an upright frame.

    Args:
        frame_CHW: the frame.
        view: the view of it; only the fit `crop` can give several squares.
        num_crops: the number of squares, S.

    Raises:
        ValueError: if several squares are asked of another fit.
    """
    if view.fit == "crop":
        fractions = np.linspace(0, 1, num_crops).tolist() if num_crops > 1 else [0.5]
        return np.stack([_cropped(frame_CHW, view, fraction) for fraction in fractions])
    if num_crops != 1:
        raise ValueError(
            f"num_crops = {num_crops}: the fit {view.fit!r} shows the whole frame, so there is one view of it"
        )
    size = view.crop_px
    if view.fit == "squash":
        return resized(frame_CHW, size, size, view.interpolation)[None]
    square_CHW = np.empty((size, size, 3), np.uint8).transpose(2, 0, 1)
    square_CHW[:] = np.round(np.array(view.mean) * 255).astype(np.uint8)[:, None, None]
    height, width = size_inside(frame_CHW.shape, size)
    top, left = (size - height) // 2, (size - width) // 2
    square_CHW[:, top : top + height, left : left + width] = resized(frame_CHW, height, width, view.interpolation)
    return square_CHW[None]


def resized(
    frame_CHW: Pixels,
    height: int,
    width: int,
    interpolation: Interpolation,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    """Return a frame (C, H, W) at another size, antialiased; one that has that size already stays as it is.

    Args:
        frame_CHW: the frame.
        height: the height of the result, in pixels.
        width: its width.
        interpolation: the filter.
        box: the part of the frame that is resized: its left, upper, right and lower edge in pixels. None is the whole frame.
    """
    if box is None and frame_CHW.shape[-2:] == (height, width):
        return frame_CHW
    image = Image.fromarray(np.ascontiguousarray(frame_CHW.transpose(1, 2, 0)))
    return np.array(image.resize((width, height), FILTERS[interpolation], box)).transpose(2, 0, 1)


def _cropped(frame_CHW: Pixels, view: ViewConfig, fraction: float) -> Pixels:
    """Return a square of a frame whose short side is resized to `resize_px`.

    Only the part of the frame that the square shows is resized. The pixels are those of resizing all of it and cutting then.

    Args:
        frame_CHW: the frame.
        view: the view of it.
        fraction: where the square lies along the long side, from 0 (one end) to 1 (the other).
    """
    frame_CHW = not_too_long(frame_CHW)
    height, width = short_side_size(frame_CHW.shape, view.resize_px)
    size = view.crop_px
    top, left = window_corner((height, width), size, fraction)
    if frame_CHW.shape[-2:] == (height, width):
        return frame_CHW[:, top : top + size, left : left + size]
    down, across = frame_CHW.shape[-2] / height, frame_CHW.shape[-1] / width
    right, bottom = min((left + size) * across, frame_CHW.shape[-1]), min((top + size) * down, frame_CHW.shape[-2])
    return resized(frame_CHW, size, size, view.interpolation, (left * across, top * down, right, bottom))
