"""Choose the part of a frame that becomes the network's square, and its size; the same for tensors and arrays (C, H, W)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

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


Frame = TypeVar("Frame", bound=Any)
Resize = Callable[[Frame, int, int, ViewConfig], Frame]
"""A function of (frame, height, width, view) that returns the frame at another size."""

MAX_ASPECT = 16
"""The largest ratio of long to short side. A longer frame loses its far ends before it is resized to be cropped."""


def centre_fitted(frame_CHW: Frame, view: ViewConfig, resize: Resize[Frame]) -> Frame:
    """Return a frame as the square that the network takes (`ViewConfig.fit`): (C, crop_px, crop_px).

    With `pad` only the picture inside the square is returned; the caller fills the rest of the square.

    Args:
        frame_CHW: the frame.
        view: the view of it.
        resize: a function that resizes such a frame.
    """
    size = view.crop_px
    if view.fit == "crop":
        return cut(short_side_resized(frame_CHW, view, resize), size, size)
    height, width = (size, size) if view.fit == "squash" else inside(frame_CHW, size)
    return _as_sized(frame_CHW, height, width, view, resize)


def short_side_resized(frame_CHW: Frame, view: ViewConfig, resize: Resize[Frame]) -> Frame:
    """Return a frame resized so that its short side is `resize_px`. The arguments are those of `centre_fitted`."""
    longest = MAX_ASPECT * min(frame_CHW.shape[-2:])
    frame_CHW = cut(frame_CHW, min(frame_CHW.shape[-2], longest), min(frame_CHW.shape[-1], longest))
    height, width = frame_CHW.shape[-2:]
    scale = view.resize_px / min(height, width)
    # The length of the long side is rounded down, as torchvision does.
    return _as_sized(
        frame_CHW,
        view.resize_px if height <= width else int(height * scale),
        view.resize_px if width <= height else int(width * scale),
        view,
        resize,
    )


def inside(frame_CHW: Any, size: int) -> tuple[int, int]:
    """Return the height and width of the whole frame inside a square of side `size`."""
    height, width = frame_CHW.shape[-2:]
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def cut(frame_CHW: Frame, height: int, width: int, fraction: float = 0.5) -> Frame:
    """Return a window of a frame, in the middle of its short side.

    Args:
        frame_CHW: the frame.
        height: the height of the window, in pixels.
        width: its width.
        fraction: where it lies along the frame's long side, from 0 (one end) to 1 (the other).
    """
    above, beside = frame_CHW.shape[-2] - height, frame_CHW.shape[-1] - width
    upright = frame_CHW.shape[-2] > frame_CHW.shape[-1]
    top = round(above * (fraction if upright else 0.5))
    left = round(beside * (0.5 if upright else fraction))
    return frame_CHW[:, top : top + height, left : left + width]


def put_inside(square_CHW: Any, inside_CHW: Any) -> None:
    """Write a picture into the middle of a square."""
    size, (height, width) = square_CHW.shape[-1], inside_CHW.shape[-2:]
    top, left = (size - height) // 2, (size - width) // 2
    square_CHW[:, top : top + height, left : left + width] = inside_CHW


def _as_sized(frame_CHW: Frame, height: int, width: int, view: ViewConfig, resize: Resize[Frame]) -> Frame:
    """Return a frame at a height and width; one that has that size already stays as it is."""
    return frame_CHW if tuple(frame_CHW.shape[-2:]) == (height, width) else resize(frame_CHW, height, width, view)
