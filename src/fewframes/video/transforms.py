"""Turn decoded frames into the network's input as tensors: the same view in training and inference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewframes.video.view import ViewConfig, centre_fitted, cut, put_inside, short_side_resized


def fit_frame(frame_CHW: Tensor, view: ViewConfig) -> Tensor:
    """Return a frame as the square that the network takes: (C, H, W) uint8 -> (C, crop_px, crop_px) uint8.

    `ViewConfig.fit` says how it becomes a square. Resampling is antialiased, and equals that of torchvision on tensors.
    """
    return crops_of(frame_CHW, view, 1).squeeze(0)


def crops_of(frame_CHW: Tensor, view: ViewConfig, num_crops: int) -> Tensor:
    """Return squares along the long side of a frame, from end to end: (C, H, W) uint8 -> (S, C, crop_px, crop_px) uint8.

    One square is the centre. Three squares are left, centre and right, or top, centre and bottom of an upright frame.

    Args:
        frame_CHW: the frame.
        view: the view of it; only the fit `crop` can give several squares.
        num_crops: the number of squares, S.

    Raises:
        ValueError: if several squares are asked of another fit.
    """
    size = view.crop_px
    if view.fit == "crop":
        resized_CHW = short_side_resized(frame_CHW, view, _resized)
        fractions = torch.linspace(0, 1, num_crops).tolist() if num_crops > 1 else [0.5]
        return torch.stack([cut(resized_CHW, size, size, fraction) for fraction in fractions])
    if num_crops != 1:
        raise ValueError(
            f"num_crops = {num_crops}: the fit {view.fit!r} shows the whole frame, so there is one view of it"
        )
    return (centre_fitted(frame_CHW, view, _resized) if view.fit == "squash" else _padded(frame_CHW, view))[None]


def _padded(frame_CHW: Tensor, view: ViewConfig) -> Tensor:
    """Return the whole frame inside a square of the mean colour."""
    mean_C11 = torch.tensor(view.mean, device=frame_CHW.device).mul(255).round().to(torch.uint8).view(-1, 1, 1)
    square_CHW = mean_C11.repeat(1, view.crop_px, view.crop_px)
    put_inside(square_CHW, centre_fitted(frame_CHW, view, _resized))
    return square_CHW


def _resized(frame_CHW: Tensor, height: int, width: int, view: ViewConfig) -> Tensor:
    """Return the frame at another height and width."""
    on_cpu = frame_CHW.device.type == "cpu"  # torch resizes uint8 on the CPU only
    frame_1CHW = frame_CHW[None] if on_cpu else frame_CHW[None].float()
    resized_1CHW = F.interpolate(
        frame_1CHW, size=(height, width), mode=view.interpolation, antialias=True, align_corners=False
    )
    return resized_1CHW.squeeze(0) if on_cpu else resized_1CHW.squeeze(0).round().clamp(0, 255).to(torch.uint8)
