"""Turn still images into arrays of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewframes.video.pictures.display import Pixels, over_black
from fewframes.video.pictures.images import pixels_of_pil

CHANNELS = (1, 3, 4)
"""The numbers of channels of grey, RGB and RGBA pictures."""


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
