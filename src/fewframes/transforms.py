"""Decoded frames -> the network's input; the same view in training and inference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewframes.config import ViewConfig

MAX_ASPECT = 16
"""Frames longer than this many times their short side lose their far ends before they are resized to be cropped."""


def fit_frame(frame_CHW: Tensor, view: ViewConfig) -> Tensor:
    """One frame as the square the network takes: (C, H, W) uint8 -> (C, crop_px, crop_px) uint8.

    The shapes of `ViewConfig.fit`. Resampling is antialiased and equals torchvision's on tensors.
    """
    size = view.crop_px
    if view.fit == "squash":
        return _resized(frame_CHW, size, size, view)
    if view.fit == "crop":
        longest = MAX_ASPECT * min(frame_CHW.shape[-2:])
        frame_CHW = _centre(frame_CHW, min(frame_CHW.shape[-2], longest), min(frame_CHW.shape[-1], longest))
        height, width = frame_CHW.shape[-2:]
        scale = view.resize_px / min(height, width)
        # The long side is cut, not rounded, as torchvision does.
        resized_CHW = _resized(
            frame_CHW,
            view.resize_px if height <= width else int(height * scale),
            view.resize_px if width <= height else int(width * scale),
            view,
        )
        return _centre(resized_CHW, size, size).contiguous()
    height, width = frame_CHW.shape[-2:]
    scale = size / max(height, width)
    inside_CHW = _resized(frame_CHW, max(1, round(height * scale)), max(1, round(width * scale)), view)
    mean_C11 = torch.tensor(view.mean).mul(255).round().to(torch.uint8).view(-1, 1, 1)
    square_CHW = mean_C11.repeat(1, size, size)
    height, width = inside_CHW.shape[-2:]
    top, left = (size - height) // 2, (size - width) // 2
    square_CHW[:, top : top + height, left : left + width] = inside_CHW
    return square_CHW


def pixels_of(frames_TCHW: Tensor) -> Tensor:
    """uint8 0-255 -> float32 0-1, the scale the model takes (it subtracts mean and divides by std itself)."""
    return frames_TCHW.float().div_(255)


def _centre(frame_CHW: Tensor, height: int, width: int) -> Tensor:
    top = round((frame_CHW.shape[-2] - height) / 2)
    left = round((frame_CHW.shape[-1] - width) / 2)
    return frame_CHW[:, top : top + height, left : left + width]


def _resized(frame_CHW: Tensor, height: int, width: int, view: ViewConfig) -> Tensor:
    if frame_CHW.shape[-2:] == (height, width):
        return frame_CHW
    resized_1CHW = F.interpolate(
        frame_CHW[None], size=(height, width), mode=view.interpolation, antialias=True, align_corners=False
    )
    return resized_1CHW.squeeze(0)
