"""Read image files with Pillow as a viewer shows them: depth, palette, transparency, orientation, number of pictures. No torch."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, features

from fewframes.errors import VideoError
from fewframes.video.pictures.display import Pixels, check_pixels, over_black

ORIENTATION = 0x0112
"""The tag of EXIF for the orientation of a picture."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that sets a picture upright, for each value of that tag but 1."""
BITS_PER_SAMPLE, PHOTOMETRIC, NEW_SUBFILE_TYPE = 258, 262, 254
"""Tags of TIFF."""
REDUCED_OR_MASK = 0b101
"""The bits of a TIFF page's type that mark it as a preview or mask of another page."""
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
"""The formats that are read, whatever the file is called. Pillow knows more formats, and starts other programs for some."""
PAGED = frozenset({"TIFF"})
"""Formats whose pictures are pages."""
ANIMATED = frozenset({"AVIF", "GIF", "PNG", "WEBP"})
"""Formats whose pictures are frames of an animation. The further pictures of an MPO are previews or depth of its first."""
SHORTEST_MS, INSTEAD_MS = 10, 100
"""Two durations in milliseconds: a frame of at most the first is shown for the second, as in browsers."""
DAMAGE = (
    OSError, SyntaxError, EOFError, ValueError, TypeError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError
)  # fmt: skip
"""The errors that Pillow raises for a damaged file, or for one that is larger than it says."""


def pixels_of_pil(image: Image.Image) -> Pixels:
    """Return Pillow's current picture as a viewer shows it: (H, W, C) uint8 RGB.

    The orientation of EXIF is applied, transparent parts are black, and 16 bits are scaled to 8. Raises ValueError for 32-bit
    values, because nothing says which value is white.
    """
    image.load()  # Pillow turns a TIFF while loading it, and removes its orientation then
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
    """Return the indices of the pictures in a file: the one of a photograph, all frames of an animation, or a TIFF's pages."""
    num_pictures = getattr(image, "n_frames", 1)
    if num_pictures == 1 or image.format not in PAGED | ANIMATED:
        return [0]
    if image.format in ANIMATED:
        # A PNG may begin with a picture for programs that know no animations.
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
    """Open an image file, by path or as a binary file, for the length of a `with` block.

    Damage that is found in the block raises a VideoError with the file's name; too many pixels raise TooLarge.
    """
    with reading(name), Image.open(file, formats=FORMATS) as image:
        check_pixels(name, image.width, image.height, max_pixels)
        yield image


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn the errors that Pillow raises in a `with` block into a VideoError with the file's name."""
    try:
        yield
    except DAMAGE as error:
        raise VideoError(f"{name}: cannot be read as an image ({error})") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture of more than eight bits scaled to eight."""
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
    """Return the orientation that EXIF states, from 1 (upright) to 8."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, OSError, struct.error):
        return 1  # viewers ignore a broken EXIF, too


def _tag(image: Image.Image, tag: int, default: Any) -> Any:
    """Return the value of a TIFF's tag; `default` if it has none, and for other formats."""
    from PIL.TiffImagePlugin import TiffImageFile  # late, because it is slow to import

    return image.tag_v2.get(tag, default) if isinstance(image, TiffImageFile) else default
