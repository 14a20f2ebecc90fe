"""Draw text and named boxes over pictures, readable on light and dark ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from fewframes.core.text import plain

log = logging.getLogger("fewframes")

FONT = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
"""The font that comes with matplotlib. It has the letters of Europe, the Caucasus and the Near East, and many signs."""
LEAST_LETTER_PX, MOST_LETTER_PX = 9, 48
PICTURE_LETTERS = 20
"""The height of a picture in letters."""
SHADE = (0, 0, 0, 175)
"""The colour behind text, with its opacity."""
CUT = "…"
COLOURS = ("#ffb000", "#37c4ff", "#ff4fa3", "#5fd35f", "#c49bff", "#ff6a3d")
"""The colours of regions, one after the other."""

Pixels = NDArray[np.uint8]
"""A picture (H, W, C) as uint8 RGB."""


class Box(NamedTuple):
    """A rectangle to draw, in fractions of the picture's width and height, with the origin at the top left."""

    x0: float
    y0: float
    x1: float
    y1: float
    name: str = ""
    colour: str = "#f5c518"


def box_over(sides: Iterable[float], size: tuple[int, int], words: Sequence[str], number: int) -> Box:
    """Return the rectangle of a region with its name and labels, in a colour of its own.

    Args:
        sides: Left, top, right and bottom.
        size: Width and height of the picture, in the unit of the sides.
        words: The name, and what is told of the region.
        number: The number of the region, which chooses the colour.
    """
    left, top, right, bottom = sides
    width, height = size
    return Box(
        left / width, top / height, right / width, bottom / height, "  ".join(words), COLOURS[number % len(COLOURS)]
    )


@dataclass(frozen=True)
class Overlay:
    """Text and boxes over one picture."""

    lines: tuple[str, ...] = ()
    """Lines of text at the top left. The first one is in larger letters."""
    boxes: tuple[Box, ...] = ()
    is_below: bool = False
    """True for text at the bottom left, where it hides no name of a box."""


def clock_of(time_s: float) -> str:
    """Return a time to the tenth of a second that has begun: `0:07.3`, `1:02:03.0`."""
    minutes, tenths = divmod(int(10 * max(0.0, time_s) + 1e-6), 600)
    hours = f"{minutes // 60}:{minutes % 60:02d}" if minutes >= 60 else f"{minutes}"
    return f"{hours}:{tenths // 10:02d}.{tenths % 10}"


def drawn(pixels_HWC: Pixels, overlay: Overlay) -> Pixels:
    """Return a picture with text and boxes over it. Text that finds no room is shortened, and lines that find none are left out."""
    image = Image.fromarray(pixels_HWC)
    height_px = min(image.height, image.width * 3 // 4)  # a high, narrow picture has no room for letters of its height
    letter_px = min(MOST_LETTER_PX, max(LEAST_LETTER_PX, height_px // PICTURE_LETTERS))
    for box in overlay.boxes:
        _draw_box(image, box, letter_px)
    if overlay.lines:
        panel = _panel(overlay.lines, letter_px, image.width, image.height)
        image.paste(panel, (0, image.height - panel.height if overlay.is_below else 0), panel)
    return np.asarray(image)


@lru_cache(maxsize=64)  # a text stands over many pictures
def _panel(lines: tuple[str, ...], letter_px: int, width_px: int, height_px: int) -> Image.Image:
    """Return lines of text on a dark ground (RGBA), as wide as they need and no larger than the picture."""
    margin_px = max(2, letter_px // 3)
    sizes_px = [round(1.4 * letter_px), *[letter_px] * (len(lines) - 1)]
    rows: list[tuple[str, ImageFont.FreeTypeFont, int]] = []
    bottom_px = margin_px
    for line, size_px in zip(lines, sizes_px, strict=True):
        row_px = round(1.3 * size_px)
        if rows and bottom_px + row_px > height_px:
            break
        font = font_for(plain(line), size_px)
        rows.append((shortened(plain(line), font, width_px - 2 * margin_px), font, bottom_px))
        bottom_px += row_px
    widest_px = max(font.getlength(text) for text, font, _ in rows)
    size = (min(width_px, int(widest_px) + 2 * margin_px + 1), min(height_px, bottom_px + margin_px))
    panel = Image.new("RGBA", size, SHADE)
    draw = ImageDraw.Draw(panel)
    for text, font, top_px in rows:
        draw.text((margin_px, top_px), text, font=font, fill="white")
    return panel


def _draw_box(image: Image.Image, box: Box, letter_px: int) -> None:
    """Draw a box with its name. A dark line around the coloured one shows it on ground of its own colour."""
    draw = ImageDraw.Draw(image)
    line_px = max(1, letter_px // 8)
    left, right = (round(min(1.0, max(0.0, x)) * (image.width - 1)) for x in sorted((box.x0, box.x1)))
    top, bottom = (round(min(1.0, max(0.0, y)) * (image.height - 1)) for y in sorted((box.y0, box.y1)))
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=line_px + 2)
    draw.rectangle((left, top, right, bottom), outline=box.colour, width=line_px)
    if not box.name:
        return
    font = font_for(plain(box.name), letter_px)
    text = shortened(plain(box.name), font, image.width - left - 4)
    tall_px = round(1.3 * letter_px)
    above_px = top - tall_px if top >= tall_px else top  # inside the box where there is no room above it
    draw.rectangle((left, above_px, left + int(font.getlength(text)) + 4, above_px + tall_px), fill=box.colour)
    red, green, blue = ImageColor.getrgb(box.colour)[:3]
    is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    draw.text((left + 2, above_px), text, font=font, fill="black" if is_light else "white")


def shortened(text: str, font: ImageFont.FreeTypeFont, width_px: float) -> str:
    """Return a text that is at most so many pixels wide in a font, with a mark where letters are left out."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + CUT) > width_px:
        text = text[:-1]
    return text.rstrip() + CUT


def font_for(text: str, size_px: int) -> ImageFont.FreeTypeFont:
    """Return a font that has all letters of a text: matplotlib's own, else one of this machine. A lack of one is logged."""
    return _font(_font_file(frozenset(text)), size_px)


@lru_cache(maxsize=32)
def _font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px)


@lru_cache(maxsize=256)
def _font_file(letters: frozenset[str]) -> str:
    """Return the path of a font that has these letters; matplotlib's own if none has all."""
    if not _missing(str(FONT), letters):
        return str(FONT)
    found = next((path for path in _other_fonts() if not _missing(path, letters)), None)
    if found is None:
        _note_missing("".join(sorted(_missing(str(FONT), letters))))
    return found or str(FONT)


@lru_cache(maxsize=256)  # once
def _note_missing(letters: str) -> None:
    log.warning("no font here has the letters %s; install one, such as Noto Sans CJK, to see them", plain(letters))


def _other_fonts() -> Sequence[str]:
    """Return the paths of this machine's upright fonts of text, as matplotlib lists them."""
    listed = font_manager.fontManager.ttflist
    return [one.fname for one in listed if one.style == "normal" and "LastResort" not in one.fname]


def _missing(path: str, letters: frozenset[str]) -> set[str]:
    """Return the letters that a font does not have. A blank needs no form."""
    return {letter for letter in letters if not letter.isspace() and ord(letter) not in _code_points(path)}


@lru_cache(maxsize=512)
def _code_points(path: str) -> frozenset[int]:
    return frozenset(FT2Font(path).get_charmap())
