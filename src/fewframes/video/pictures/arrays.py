"""Pictures that lie ready -> arrays of pixels; one view of pixels for a network. No torch."""

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
"""Of grey, RGB and RGBA pictures."""


class Stack(Protocol):
    """Where a decoder puts the pictures that were asked for, one by one, and whence a clip of them is taken."""

    def add(self, pixels_HWC: Pixels) -> int:
        """The place where this picture is kept."""

    def clip(
        self, places: list[int], times_s: Sequence[float], duration_s: float, source: str, reading: Reading
    ) -> Clip[Any]:
        """Those at these places, in this order."""


NewStack = Callable[[int], Stack]
"""A stack for so many pictures."""


class ViewStack:
    """A `Stack` of squares as the network takes them, in one array."""

    def __init__(self, count: int, view: ViewConfig) -> None:
        around_C11 = np.round(np.array(view.mean, np.float32) * 255).astype(np.uint8)[:, None, None]
        self._frames: Pixels = np.empty((count, 3, view.crop_px, view.crop_px), dtype=np.uint8)
        self._frames[:] = around_C11  # what the fit `pad` leaves
        self._num, self._view = 0, view
        self.transform_s = 0.0
        """Seconds that making these squares took."""

    def add(self, pixels_HWC: Pixels) -> int:
        """The place where this picture is kept, as the view has it."""
        began = time.perf_counter()
        put_inside(self._frames[self._num], centre_fitted(pixels_HWC.transpose(2, 0, 1), self._view, resized))
        self.transform_s += time.perf_counter() - began
        self._num += 1
        return self._num - 1

    def clip(
        self, places: list[int], times_s: Sequence[float], duration_s: float, source: str, reading: Reading
    ) -> Clip[NDArray[Any]]:
        """Those at these places, in this order: `frames` (T, C, crop_px, crop_px)."""
        return Clip(self._frames[places], np.array(times_s), duration_s, source, reading)


def resized(pixels_CHW: Pixels, height: int, width: int, view: ViewConfig) -> Pixels:
    """Another size, by Pillow: what torch gives (transforms.py), up to one level of 255 on photographs."""
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
    """Return an array of bytes that lies where the image lay, if that is in this machine's memory. Raises ValueError."""
    if np.ma.is_masked(image):
        raise ValueError("a frame that is masked in parts: fill these first, with frame.filled(0) for black")
    given = getattr(image, "dtype", None)
    try:
        pixels = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    except (TypeError, RuntimeError) as error:  # what numpy has no word for, and tensors without values
        raise ValueError(
            f"a frame of dtype {given}: cannot be made an array; needs uint8 values 0-255 ({error})"
        ) from None
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"a frame of dtype {given or pixels.dtype}: needs uint8 values 0-255 (floats in 0-1: multiply by 255)"
        )
    return pixels
