"""Decoded pictures as RGB tensors, and several of them as one. No files, no times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fewframes.results import Clip, Reading
from fewframes.video.pictures.arrays import pixels_of_image
from fewframes.video.pictures.display import Pixels

Prepare = Callable[[Tensor], Tensor]
"""Applied to each full-size frame (C, H, W) as soon as it is decoded, so that full-size frames are not piled up."""


def rgb_of_image(image: Any) -> Tensor:
    """`pixels_of_image` as a tensor (C, H, W)."""
    return rgb_of_pixels(pixels_of_image(image))


def rgb_of_pixels(pixels_HWC: Pixels) -> Tensor:
    """Return the picture as a tensor (C, H, W) that lies where it lay; what torch does not take is copied: pixels that may not be
    written to, or stand backwards."""
    if not pixels_HWC.flags.writeable or min(pixels_HWC.strides) < 0:
        pixels_HWC = pixels_HWC.copy()
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1)


class FrameStack:
    """Frames put one by one into one tensor, so that none is copied twice; of another size (a stream that changes it) they take
    the first's."""

    def __init__(self, count: int, prepare: Prepare | None = None) -> None:
        self._count, self._num, self._prepare = count, 0, prepare
        self._frames: Tensor | None = None

    def add(self, pixels_HWC: Pixels) -> int:
        """The place where this picture is kept, prepared: (C, H, W), or several crops of it (S, C, H, W)."""
        frame = rgb_of_pixels(pixels_HWC)
        frame = frame if self._prepare is None else self._prepare(frame)
        if self._frames is None:
            # Decoded pictures have their colours together in memory, and keep them so: whole rows are copied.
            together = frame.ndim == 3 and frame.stride(0) == 1
            shape = (*frame.shape[1:], frame.shape[0]) if together else frame.shape
            frames = torch.empty((self._count, *shape), dtype=frame.dtype, device=frame.device)
            self._frames = frames.permute(0, 3, 1, 2) if together else frames
        size = self._frames.shape[-2:]
        if frame.shape[-2:] != size:
            frame = F.interpolate(frame[None], size=size, mode="bilinear", antialias=True).squeeze(0)
        self._frames[self._num] = frame
        self._num += 1
        return self._num - 1

    def taken(self, places: list[int]) -> Tensor:
        """Those at these places, in this order: (T, ...)."""
        assert self._frames is not None
        frames = self._frames[: self._num]
        return frames if places == list(range(self._num)) else frames[places]

    def clip(
        self, places: list[int], times_s: Sequence[float], duration_s: float, source: str, reading: Reading
    ) -> Clip:
        """Those at these places, in this order."""
        return Clip(self.taken(places), torch.tensor(times_s, dtype=torch.float64), duration_s, source, reading)
