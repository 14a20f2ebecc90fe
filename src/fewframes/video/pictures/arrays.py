"""Turn still images into arrays of pixels, and stack the frames that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewframes.results import Clip, Reading
from fewframes.video.pictures.display import Pixels, over_black
from fewframes.video.pictures.images import pixels_of_pil
from fewframes.video.transforms import resized

CHANNELS = (1, 3, 4)
"""The numbers of channels of grey, RGB and RGBA pictures."""


Prepare = Callable[[Pixels], Pixels]
"""A function that is applied to each frame (C, H, W) as soon as it is decoded, so that full-size frames do not pile up."""


def frame_of_pixels(pixels_HWC: Pixels) -> Pixels:
    """Return pixels (H, W, C) as a frame (C, H, W) in the same memory.

    Pixels that are read-only or mirrored are copied first, because torch does not take those.
    """
    if not pixels_HWC.flags.writeable or min(pixels_HWC.strides) < 0:
        pixels_HWC = pixels_HWC.copy(order="C")
    return pixels_HWC.transpose(2, 0, 1)


class FrameStack:
    """A stack of the frames that were asked for, in one array, so that no frame is copied twice.

    A frame of another size than the first (in a stream that changes its size) is resized to that of the first.
    """

    def __init__(self, count: int, prepare: Prepare | None = None) -> None:
        """Make a stack for at most `count` frames, each as `prepare` makes it."""
        self._count, self._num, self._prepare = count, 0, prepare
        self._frames: Pixels | None = None

    def add(self, pixels_HWC: Pixels) -> int:
        """Prepare a picture, and add it: (C, H, W), or several crops of it (S, C, H, W). Return its index."""
        frame = frame_of_pixels(pixels_HWC)
        return self.put(frame if self._prepare is None else np.asarray(self._prepare(frame)))

    def put(self, frame: Pixels) -> int:
        """Add a frame that is prepared: (C, H, W), or several crops of it (S, C, H, W). Return its index."""
        if self._frames is None:
            # Decoded pictures have the colours of a pixel side by side in memory. The stack has too, so that whole rows are copied.
            together = frame.strides[-3] == frame.itemsize
            *crops, channels, height, width = frame.shape
            shape = (*crops, height, width, channels) if together else frame.shape
            frames = np.empty((self._count, *shape), dtype=frame.dtype)
            self._frames = np.moveaxis(frames, -1, -3) if together else frames
        height, width = self._frames.shape[-2:]
        if frame.shape[-2:] != (height, width):
            crops_NCHW = frame.reshape(-1, *frame.shape[-3:])
            fitting_NCHW = np.stack([resized(crop_CHW, height, width) for crop_CHW in crops_NCHW])
            frame = fitting_NCHW.reshape(*frame.shape[:-2], height, width)
        self._frames[self._num] = frame
        self._num += 1
        return self._num - 1

    def taken(self, indices: list[int]) -> Pixels:
        """Return the frames at these indices, in this order: (T, ...)."""
        assert self._frames is not None
        frames = self._frames[: self._num]
        return frames if indices == list(range(self._num)) else frames[indices]

    def clip(
        self, indices: list[int], times_s: Sequence[float], duration_s: float, source: str, reading: Reading
    ) -> Clip:
        """Return a clip of the frames at these indices, in this order.

        Args:
            indices: indices in the stack; one may come several times.
            times_s: when each frame was first shown, in seconds.
            duration_s: the length of the video, in seconds.
            source: the path or address of the video.
            reading: the work of reading the frames.
        """
        return Clip(self.taken(indices), np.array(times_s, dtype=np.float64), duration_s, source, reading)


def pixels_of_image(image: Any) -> Pixels:
    """Return a still image as it is shown: (H, W, C) uint8 RGB.

    Takes a PIL image (see `images.pixels_of_pil`), or an array or tensor of uint8 values 0-255 of shape (H, W, 3), (3, H, W),
    (H, W), or with 1 or 4 channels for grey and RGBA. Raises ValueError for anything else, with what was found.
    """
    if isinstance(image, Image.Image):
        return pixels_of_pil(image)
    pixels = _as_array(image)
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif pixels.ndim == 3 and shape[0] == 3 == shape[-1] and shape[1] > 3:
        raise ValueError(
            f"a frame of shape {shape}: its colours may be first or last; pass frames more than 3 pixels wide and high"
        )
    elif pixels.ndim == 3 and shape[-1] != 3 and (shape[0] == 3 or (shape[0] == 1 and shape[-1] not in CHANNELS)):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[-1] not in CHANNELS or 0 in shape:
        raise ValueError(f"a frame of shape {shape}: needs (H, W, 3), (3, H, W) or (H, W), or 1 or 4 channels")
    if pixels.shape[-1] == 4:
        return over_black(pixels)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[-1] == 1 else pixels


def _as_array(image: Any) -> NDArray[np.uint8]:
    """Return an image as a uint8 array, in the same memory where that is possible. Raises ValueError."""
    if np.ma.is_masked(image):
        raise ValueError("a frame that is masked in parts: fill these first, with frame.filled(0) for black")
    given = getattr(image, "dtype", None)
    try:
        pixels = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    except (TypeError, RuntimeError) as error:  # types that numpy does not have, and tensors without values
        raise ValueError(
            f"a frame of dtype {given}: cannot be made an array; needs uint8 values 0-255 ({error})"
        ) from None
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"a frame of dtype {given or pixels.dtype}: needs uint8 values 0-255 (floats in 0-1: multiply by 255)"
        )
    return pixels
