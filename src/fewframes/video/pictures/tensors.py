"""Turn decoded pictures into RGB tensors, one by one or stacked. It knows no files and no times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fewframes.results import Clip, Reading
from fewframes.video.pictures.display import Pixels

Prepare = Callable[[Tensor], Tensor]
"""A function that is applied to each frame (C, H, W) as soon as it is decoded, so that full-size frames do not pile up."""


def rgb_of_pixels(pixels_HWC: Pixels) -> Tensor:
    """Return pixels (H, W, C) as a tensor (C, H, W) in the same memory.

    Pixels that are read-only or mirrored are copied first, because torch does not take those.
    """
    if not pixels_HWC.flags.writeable or min(pixels_HWC.strides) < 0:
        pixels_HWC = pixels_HWC.copy()
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1)


class FrameStack:
    """A `Stack` that puts frames one by one into one tensor, so that no frame is copied twice.

    A frame of another size than the first (in a stream that changes its size) is resized to that of the first.
    """

    def __init__(self, count: int, prepare: Prepare | None = None) -> None:
        """Make a stack for at most `count` frames, each as `prepare` makes it."""
        self._count, self._num, self._prepare = count, 0, prepare
        self._frames: Tensor | None = None

    def add(self, pixels_HWC: Pixels) -> int:
        """Prepare a picture, and add it: (C, H, W), or several crops of it (S, C, H, W). Return its index."""
        frame = rgb_of_pixels(pixels_HWC)
        frame = frame if self._prepare is None else self._prepare(frame)
        if self._frames is None:
            # Decoded pictures have the colours of a pixel side by side in memory. The stack has too, so that whole rows are copied.
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

    def taken(self, indices: list[int]) -> Tensor:
        """Return the frames at these indices, in this order: (T, ...)."""
        assert self._frames is not None
        frames = self._frames[: self._num]
        return frames if indices == list(range(self._num)) else frames[indices]

    def clip(
        self, indices: list[int], times_s: Sequence[float], duration_s: float, source: str, reading: Reading
    ) -> Clip:
        """Return a clip of the frames at these indices, in this order. The arguments are those of `Stack.clip`."""
        return Clip(self.taken(indices), torch.tensor(times_s, dtype=torch.float64), duration_s, source, reading)
