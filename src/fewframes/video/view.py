"""Which part of a frame becomes the network's square, and at which size: the same for tensors and arrays (C, H, W)."""

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
    """How a decoded frame becomes the network's square input."""

    fit: Fit = "crop"
    """`crop`: short side to `resize_px`, then the centre `crop_px` square (the paper); `squash`: the whole frame to
    `crop_px` square, proportions changed; `pad`: the whole frame inside the square, the rest filled with the mean colour."""
    resize_px: Pixels = 256
    """Short side before cropping, in pixels (`crop` only)."""
    crop_px: Pixels = 224
    """Side of the square that goes into the network, in pixels."""
    interpolation: Interpolation = "bicubic"
    """Resampling filter, antialiased."""
    mean: tuple[Finite, Finite, Finite] = (0.5, 0.5, 0.5)
    """Subtracted from each colour channel (R, G, B), on the scale 0-1."""
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    """Each colour channel is divided by this after the mean is subtracted."""

    @model_validator(mode="after")
    def _fits_together(self) -> ViewConfig:
        if self.fit == "crop" and self.resize_px < self.crop_px:
            raise ValueError(f"resize_px {self.resize_px} is below crop_px {self.crop_px}")
        return self


Frame = TypeVar("Frame", bound=Any)
Resize = Callable[[Frame, int, int, ViewConfig], Frame]
"""A frame at another height and width."""

MAX_ASPECT = 16
"""Frames longer than this many times their short side lose their far ends before they are resized to be cropped."""


def centre_fitted(frame_CHW: Frame, view: ViewConfig, resize: Resize[Frame]) -> Frame:
    """One frame as the square the network takes (`ViewConfig.fit`), but that `pad` leaves the rest of the square to the caller:
    (C, crop_px, crop_px), or with `pad` the picture inside it."""
    size = view.crop_px
    if view.fit == "crop":
        return cut(short_side_resized(frame_CHW, view, resize), size, size)
    height, width = (size, size) if view.fit == "squash" else inside(frame_CHW, size)
    return _as_sized(frame_CHW, height, width, view, resize)


def short_side_resized(frame_CHW: Frame, view: ViewConfig, resize: Resize[Frame]) -> Frame:
    """A frame whose short side is `resize_px`."""
    longest = MAX_ASPECT * min(frame_CHW.shape[-2:])
    frame_CHW = cut(frame_CHW, min(frame_CHW.shape[-2], longest), min(frame_CHW.shape[-1], longest))
    height, width = frame_CHW.shape[-2:]
    scale = view.resize_px / min(height, width)
    # The long side is cut, not rounded, as torchvision does.
    return _as_sized(
        frame_CHW,
        view.resize_px if height <= width else int(height * scale),
        view.resize_px if width <= height else int(width * scale),
        view,
        resize,
    )


def inside(frame_CHW: Any, size: int) -> tuple[int, int]:
    """Height and width of the whole frame inside a square."""
    height, width = frame_CHW.shape[-2:]
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def cut(frame_CHW: Frame, height: int, width: int, share: float = 0.5) -> Frame:
    """A window of the frame, `share` of the way along its long side, in the middle of the other."""
    above, beside = frame_CHW.shape[-2] - height, frame_CHW.shape[-1] - width
    upright = frame_CHW.shape[-2] > frame_CHW.shape[-1]
    top = round(above * (share if upright else 0.5))
    left = round(beside * (0.5 if upright else share))
    return frame_CHW[:, top : top + height, left : left + width]


def put_inside(square_CHW: Any, inside_CHW: Any) -> None:
    """The picture into the middle of the square."""
    size, (height, width) = square_CHW.shape[-1], inside_CHW.shape[-2:]
    top, left = (size - height) // 2, (size - width) // 2
    square_CHW[:, top : top + height, left : left + width] = inside_CHW


def _as_sized(frame_CHW: Frame, height: int, width: int, view: ViewConfig, resize: Resize[Frame]) -> Frame:
    return frame_CHW if tuple(frame_CHW.shape[-2:]) == (height, width) else resize(frame_CHW, height, width, view)
