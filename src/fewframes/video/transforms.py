"""Turn decoded frames into the network's input: the same view in training and inference, and in every runtime."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fewframes.video.pictures.display import Pixels
from fewframes.video.view import Interpolation, ViewConfig

MAX_ASPECT = 16
"""The largest ratio of long to short side. A longer frame loses its far ends before it is resized to be cropped."""
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def fit_frame(frame_CHW: Pixels, view: ViewConfig) -> Pixels:
    """Return a frame as the square that the network takes: (C, H, W) uint8 -> (C, crop_px, crop_px) uint8.

    `ViewConfig.fit` says how it becomes a square. Resampling is antialiased.
    """
    square_CHW: Pixels = crops_of(frame_CHW, view, 1)[0]
    return square_CHW


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
        return _crops(frame_CHW, view, num_crops)
    if num_crops != 1:
        raise ValueError(
            f"num_crops = {num_crops}: the fit {view.fit!r} shows the whole frame, so there is one view of it"
        )
    size = view.crop_px
    if view.fit == "squash":
        return resized(frame_CHW, size, size, view.interpolation)[None]
    height, width = _inside(frame_CHW, size)
    mean_C = np.round(np.array(view.mean, np.float32) * 255).astype(np.uint8)
    square_HWC = np.empty((size, size, len(mean_C)), np.uint8)
    square_HWC[:] = mean_C
    square_CHW = square_HWC.transpose(2, 0, 1)
    top, left = (size - height) // 2, (size - width) // 2
    square_CHW[:, top : top + height, left : left + width] = resized(frame_CHW, height, width, view.interpolation)
    return square_CHW[None]


def resized(
    frame_CHW: Pixels,
    height: int,
    width: int,
    interpolation: Interpolation = "bilinear",
    *,
    window: tuple[int, int, int, int] | None = None,
) -> Pixels:
    """Return a frame (C, H, W) resized to a height and width, antialiased, or a window of that. It may share the frame's memory.

    Pillow resizes. On photographs it differs from torch's antialiased `interpolate` by at most 2 levels of 255. A window may be
    resized along its axes in another order than the whole, which shows on noise alone (docs/decisions).

    Args:
        frame_CHW: the frame.
        height: the height of the whole, in pixels.
        width: its width.
        interpolation: the filter.
        window: (top, left, height, width) of the part of the resized frame to return; nothing else is computed. None is the whole.
    """
    top, left, rows, columns = window or (0, 0, height, width)
    full_height, full_width = frame_CHW.shape[-2:]
    if (full_height, full_width) == (height, width):
        return frame_CHW[:, top : top + rows, left : left + columns]
    down, across = full_height / height, full_width / width
    # Rounding must not put the box beyond the frame, which Pillow refuses.
    box = (
        left * across,
        top * down,
        min((left + columns) * across, full_width),
        min((top + rows) * down, full_height),
    )
    image = Image.fromarray(np.ascontiguousarray(frame_CHW.transpose(1, 2, 0)))
    return np.array(image.resize((columns, rows), FILTERS[interpolation], box=box)).transpose(2, 0, 1)


def short_side_size(height: int, width: int, short_px: int) -> tuple[int, int]:
    """Return the height and width of a frame whose short side becomes `short_px`. Its long side is rounded down."""
    scale = short_px / min(height, width)
    return (
        short_px if height <= width else int(height * scale),
        short_px if width <= height else int(width * scale),
    )


def _crops(frame_CHW: Pixels, view: ViewConfig, num_crops: int) -> Pixels:
    """Return squares of a frame whose short side becomes `resize_px`: (S, C, crop_px, crop_px). Only what they show is resized."""
    size, longest = view.crop_px, MAX_ASPECT * min(frame_CHW.shape[-2:])
    frame_CHW = _middle(frame_CHW, longest)
    height, width = short_side_size(frame_CHW.shape[-2], frame_CHW.shape[-1], view.resize_px)
    above, beside, is_upright = height - size, width - size, height > width
    long_starts = [round(max(above, beside) * fraction) for fraction in _fractions(num_crops)]
    short_start, first = round(min(above, beside) * 0.5), long_starts[0]
    length = long_starts[-1] + size - first
    window = (first, short_start, length, size) if is_upright else (short_start, first, size, length)
    part_CHW = resized(frame_CHW, height, width, view.interpolation, window=window)
    crops_SHWC = np.empty((num_crops, size, size, part_CHW.shape[0]), np.uint8)
    for crop_HWC, start in zip(crops_SHWC, long_starts, strict=True):
        along = slice(start - first, start - first + size)
        crop_HWC[:] = (part_CHW[:, along] if is_upright else part_CHW[:, :, along]).transpose(1, 2, 0)
    return crops_SHWC.transpose(0, 3, 1, 2)


def _fractions(num_crops: int) -> list[float]:
    """Return where squares lie along the long side, from 0 (one end) to 1 (the other); one alone lies in the middle."""
    return [index / (num_crops - 1) for index in range(num_crops)] if num_crops > 1 else [0.5]


def _middle(frame_CHW: Pixels, longest: int) -> Pixels:
    """Return the middle of a frame, at most `longest` pixels high and wide."""
    height, width = (min(side, longest) for side in frame_CHW.shape[-2:])
    top, left = round((frame_CHW.shape[-2] - height) * 0.5), round((frame_CHW.shape[-1] - width) * 0.5)
    return frame_CHW[:, top : top + height, left : left + width]


def _inside(frame_CHW: Pixels, size: int) -> tuple[int, int]:
    """Return the height and width of the whole frame inside a square of side `size`."""
    height, width = frame_CHW.shape[-2:]
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
