"""Stack decoded pictures as frames in one array. It knows no files and no times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fewframes.video.pictures.display import Pixels
from fewframes.video.transforms import resized

Prepare = Callable[[Pixels], Pixels]
"""A function that is applied to each frame (C, H, W) as soon as it is decoded, so that full-size frames do not pile up."""


def frame_of(pixels_HWC: Pixels) -> Pixels:
    """Return pixels (H, W, C) as a frame (C, H, W) in the same memory.

    Pixels that are read-only or mirrored are copied first, so that every library takes the frame as it is.
    """
    if not pixels_HWC.flags.writeable or min(pixels_HWC.strides) < 0:
        pixels_HWC = pixels_HWC.copy()
    return pixels_HWC.transpose(2, 0, 1)


class FrameStack:
    """A stack that puts frames one by one into one array, so that no frame is copied twice.

    A frame of another size than the first (in a stream that changes its size) is resized to that of the first.
    """

    def __init__(self, count: int, prepare: Prepare | None = None) -> None:
        """Make a stack for at most `count` frames, each as `prepare` makes it."""
        self._count, self._num, self._prepare = count, 0, prepare
        self._frames: Pixels | None = None

    def add(self, pixels_HWC: Pixels) -> int:
        """Prepare a picture, and add it: (C, H, W), or several crops of it (S, C, H, W). Return its index."""
        frame = frame_of(pixels_HWC)
        frame = frame if self._prepare is None else self._prepare(frame)
        if self._frames is None:
            # Decoded pictures have the colours of a pixel side by side in memory. The stack has too, so that whole rows are copied.
            *leading, channels, height, width = frame.shape
            frames = np.empty((self._count, *leading, height, width, channels), np.uint8)
            self._frames = np.moveaxis(frames, -1, -3)
        size = self._frames.shape[-2:]
        if frame.shape[-2:] != size:
            frame = resized(frame, size[0], size[1], "bilinear")
        self._frames[self._num] = frame
        self._num += 1
        return self._num - 1

    def taken(self, indices: list[int]) -> Pixels:
        """Return the frames at these indices, in this order: (T, ...)."""
        assert self._frames is not None
        frames = self._frames[: self._num]
        return frames if indices == list(range(self._num)) else frames[indices]
