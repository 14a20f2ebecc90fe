"""Pillow's pictures -> pixels as they are shown: depth, palette, transparency, orientation; how many a file holds. No torch."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin, features

from fewframes.errors import VideoError
from fewframes.video.pictures.display import Pixels, check_pixels, over_black

ORIENTATION = 0x0112
"""EXIF's tag, and what undoes each of its values."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BITS_PER_SAMPLE, PHOTOMETRIC, NEW_SUBFILE_TYPE = 258, 262, 254
REDUCED_OR_MASK = 0b101
"""Bits of a TIFF page's kind that make it no picture of its own."""
FORMATS = [
    "BMP",
    "GIF",
    "JPEG",
    "JPEG2000",
    "PNG",
    "PPM",
    "TIFF",
    "WEBP",
    *(["AVIF"] if features.check("avif") else []),
]
"""What is read as an image, whatever it is called: Pillow knows more, some of which start other programs."""
PAGED = frozenset({"TIFF"})
ANIMATED = frozenset({"AVIF", "GIF", "PNG", "WEBP"})
"""Formats whose further pictures are pages, and those whose are frames. An MPO's belong to its first: previews, depth."""
SHORTEST_MS, INSTEAD_MS = 10, 100
"""A frame that is to be shown no longer than the one is shown for the other, as browsers do."""
DAMAGE = (
    OSError, SyntaxError, EOFError, ValueError, TypeError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError
)  # fmt: skip
"""What Pillow raises where a file is damaged, or more than it says."""


def pixels_of_pil(image: Image.Image) -> Pixels:
    """Return Pillow's current picture as it is shown: (H, W, C) uint8 RGB, EXIF's orientation applied, transparent parts black.

    16 bits are scaled to 8. Raises ValueError for values that do not say what is white.
    """
    image.load()  # a TIFF turns itself while it is loaded, and says no more of it then
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        kind = "whole numbers" if image.mode == "I" else "floats"
        raise ValueError(f"a picture of 32-bit {kind}, which do not say what is white: save it with 8 or 16 bits")
    method = UPRIGHT.get(_orientation(image))
    if image.has_transparency_data:
        pixels_HWC = over_black(np.asarray(image.convert("RGBA")))
        if method is None:
            return pixels_HWC
        image = Image.fromarray(pixels_HWC)
    image = image.convert("RGB")
    return np.asarray(image if method is None else image.transpose(method))


def pages_of(image: Image.Image) -> list[int]:
    """Return which of a file's pictures are the video's: one of a photograph, all frames of an animation, a TIFF's pages."""
    num_pictures = getattr(image, "n_frames", 1)
    if num_pictures == 1 or image.format not in PAGED | ANIMATED:
        return [0]
    if image.format in ANIMATED:
        # A PNG may begin with a picture for those who know no animations.
        return list(range(bool(getattr(image, "default_image", False)), num_pictures))
    pages = []
    for page in range(num_pictures):
        image.seek(page)
        if not _tag(image, NEW_SUBFILE_TYPE, 0) & REDUCED_OR_MASK:
            pages.append(page)
    return pages or [0]


def shown_s(image: Image.Image) -> float:
    """Return how long the current picture of an animation is shown, in seconds."""
    duration_ms = image.info.get("duration", 0)
    return (duration_ms if duration_ms > SHORTEST_MS else INSTEAD_MS) / 1000


@contextmanager
def opened(file: Any, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image file by path or as a binary file; all damage, then and while it is open, is a VideoError with its name."""
    with reading(name), Image.open(file, formats=FORMATS) as image:
        check_pixels(name, image.width, image.height, max_pixels)
        yield image


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what Pillow raises into a VideoError."""
    try:
        yield
    except DAMAGE as error:
        raise VideoError(f"{name}: cannot be read as an image ({error})") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    bits = _tag(image, BITS_PER_SAMPLE, 16)
    values = np.asarray(image).astype(np.uint32)
    white = 2 ** (bits[0] if isinstance(bits, tuple) else bits) - 1
    pixels = ((values * 255 + white // 2) // white).astype(np.uint8)
    if _tag(image, PHOTOMETRIC, 1) == 0:  # 0 is white
        pixels = 255 - pixels
    small = Image.fromarray(pixels)
    small.getexif()[ORIENTATION] = _orientation(image)
    return small


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, OSError, struct.error):
        return 1  # no viewer minds a broken EXIF


def _tag(image: Image.Image, tag: int, default: Any) -> Any:
    return image.tag_v2.get(tag, default) if isinstance(image, TiffImagePlugin.TiffImageFile) else default
