"""Turn still images into arrays of pixels, and stack the network's view of pictures, without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewframes.results import Clip, Reading
from fewframes.video.pictures.display import Pixels, over_black
from fewframes.video.pictures.images import pixels_of_pil
from fewframes.video.view import ViewConfig, centre_fitted, put_inside

CHANNELS = (1, 3, 4)
"""The numbers of channels of grey, RGB and RGBA pictures."""


class Stack(Protocol):
    """A stack of the pictures that were asked for. A decoder adds them one by one, and takes a clip of them at the end."""

    def add(self, pixels_HWC: Pixels) -> int:
        """Add a picture. Return its index in the stack."""

    def clip(
        self, indices: list[int], times_s: Sequence[float], duration_s: float, source: str, reading: Reading
    ) -> Clip[Any]:
        """Return a clip of the pictures at these indices, in this order.

        Args:
            indices: indices in the stack; one may come several times.
            times_s: when each picture was first shown, in seconds.
            duration_s: the length of the video, in seconds.
            source: the path or address of the video.
            reading: the work of reading the pictures.
        """


NewStack = Callable[[int], Stack]
"""A function that makes a stack for at most so many pictures."""


class ViewStack:
    """A `Stack` of squares as the network takes them, in one array."""

    def __init__(self, count: int, view: ViewConfig) -> None:
        """Make a stack for at most `count` pictures as `view` has them."""
        around_C11 = np.round(np.array(view.mean, np.float32) * 255).astype(np.uint8)[:, None, None]
        self._frames: Pixels = np.empty((count, 3, view.crop_px, view.crop_px), dtype=np.uint8)
        self._frames[:] = around_C11  # the colour around a picture with the fit `pad`
        self._num, self._view = 0, view
        self.transform_s = 0.0
        """The seconds that making the squares took."""

    def add(self, pixels_HWC: Pixels) -> int:
        """Add a picture as the view has it. Return its index."""
        began = time.perf_counter()
        put_inside(self._frames[self._num], centre_fitted(pixels_HWC.transpose(2, 0, 1), self._view, resized))
        self.transform_s += time.perf_counter() - began
        self._num += 1
        return self._num - 1

    def clip(
        self, indices: list[int], times_s: Sequence[float], duration_s: float, source: str, reading: Reading
    ) -> Clip[NDArray[Any]]:
        """Return a clip of the pictures at these indices, in this order: `frames` (T, C, crop_px, crop_px)."""
        return Clip(self._frames[indices], np.array(times_s), duration_s, source, reading)


def resized(pixels_CHW: Pixels, height: int, width: int, view: ViewConfig) -> Pixels:
    """Resize pixels (C, H, W) with Pillow. On photographs the result is that of torch (transforms.py) up to one level of 255."""
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    image = Image.fromarray(np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)))
    return np.asarray(image.resize((width, height), filters[view.interpolation])).transpose(2, 0, 1)


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
