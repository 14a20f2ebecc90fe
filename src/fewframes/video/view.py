"""Choose the part of a frame that becomes the network's square, and its size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Finite, Pixels, Positive

Fit = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ViewConfig:
    """The settings that turn a decoded frame into the network's square input."""

    fit: Fit = "crop"
    """The way to a square. `crop` resizes the short side to `resize_px`, then takes the centre square of `crop_px` (the paper).
    `squash` resizes the whole frame to that square, which changes its proportions. `pad` puts the whole frame inside the square and
    fills the rest with the mean colour."""
    resize_px: Pixels = 256
    """The short side before cropping, in pixels (`crop` only)."""
    crop_px: Pixels = 224
    """The side of the square that goes into the network, in pixels."""
    interpolation: Interpolation = "bicubic"
    """The resampling filter, antialiased."""
    mean: tuple[Finite, Finite, Finite] = (0.5, 0.5, 0.5)
    """The values that are subtracted from the colour channels (R, G, B), on the scale 0-1."""
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    """The values that the colour channels are divided by after the mean is subtracted."""

    @model_validator(mode="after")
    def _fits_together(self) -> ViewConfig:
        if self.fit == "crop" and self.resize_px < self.crop_px:
            raise ValueError(f"resize_px {self.resize_px} is below crop_px {self.crop_px}")
        return self


MAX_ASPECT = 16
"""The largest ratio of long to short side. A longer frame loses its far ends before it is resized to be cropped."""


def not_too_long(frame_CHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the middle of a frame (C, H, W) that is longer than `MAX_ASPECT` allows; any other frame as it is."""
    height, width = frame_CHW.shape[-2:]
    longest = MAX_ASPECT * min(height, width)
    top, left = max(0, round((height - longest) / 2)), max(0, round((width - longest) / 2))
    return frame_CHW[:, top : top + longest, left : left + longest]


def short_side_size(shape: tuple[int, ...], resize_px: int) -> tuple[int, int]:
    """Return the height and width of a frame of this shape (..., H, W) when its short side is `resize_px`.

    The length of the long side is rounded down, as torchvision does.
    """
    height, width = shape[-2:]
    scale = resize_px / min(height, width)
    return (
        resize_px if height <= width else int(height * scale),
        resize_px if width <= height else int(width * scale),
    )


def size_inside(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Return the height and width of a whole frame of this shape (..., H, W) inside a square of side `size`."""
    height, width = shape[-2:]
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def window_corner(shape: tuple[int, int], size: int, fraction: float = 0.5) -> tuple[int, int]:
    """Return the top and left edge of a square window of a frame, in the middle of its short side.

    Args:
        shape: the height and width of the frame, in pixels.
        size: the side of the window.
        fraction: where it lies along the frame's long side, from 0 (one end) to 1 (the other).
    """
    height, width = shape
    upright = height > width
    return round((height - size) * (fraction if upright else 0.5)), round(
        (width - size) * (0.5 if upright else fraction)
    )
