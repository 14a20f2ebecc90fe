"""Name a rectangle of the picture, and cut it out of every frame as a square that the network takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np

from fewframes.errors import ConfigError, VideoError
from fewframes.video.pictures.display import Pixels
from fewframes.video.transforms import fit_frame
from fewframes.video.view import ViewConfig

LEAST_PX = 32
"""The fewest pixels that a zone has along each side. With less, hardly anything is recognised (docs/guide/zones.md)."""
NAME = re.compile(r"[^\W_][\w.-]{0,63}")
"""The names of zones: they become parts of file names, addresses and topics of messages."""


class Rectangle(NamedTuple):
    """A part of a picture in whole pixels: rows `top` to `bottom` and columns `left` to `right`, the ends not included."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def height(self) -> int:
        """Return the number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return self.right - self.left


class Region(Protocol):
    """A part of the picture that is judged by itself."""

    @property
    def name(self) -> str:
        """Return its name in results."""

    @property
    def kind(self) -> Literal["zone", "track"]:
        """Return `zone` for a rectangle that stays, `track` for one that follows a person or a thing."""

    def rectangle(self, time_s: float, height: int, width: int) -> Rectangle:
        """Return its pixels at a time of a picture of this height and width. Raises VideoError where there are too few."""

    def stretches(self, start_s: float, end_s: float) -> list[tuple[float, float]]:
        """Return the parts (start and end in seconds) of a range in which it is there, in the order of time."""

    def key(self) -> Mapping[str, object]:
        """Return plain values that tell it from every other region, under which embeddings are cached. Its name is none of them."""


@dataclass(frozen=True)
class Zone:
    """A named rectangle of the picture, in fractions of its width and height: (0, 0) is the top left, (1, 1) the bottom right.

    Raises ConfigError for a rectangle that is empty or outside of the picture, and for a name with other characters than letters,
    digits, `_`, `-` and `.`.
    """

    name: str
    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"zone {self.name!r}: a name has up to 64 letters, digits, '_', '-' and '.', and begins with a letter or digit"
            )
        ends = ", ".join(f"{value:g}" for value in (self.x0, self.y0, self.x1, self.y1))
        if not all(math.isfinite(value) for value in (self.x0, self.y0, self.x1, self.y1)):
            raise ConfigError(f"zone {self.name}: {ends}: needs numbers")
        if min(self.x0, self.y0) < 0 or max(self.x1, self.y1) > 1:
            raise ConfigError(
                f"zone {self.name}: {ends} lies outside of the picture; x0,y0,x1,y1 are fractions of its width and height, 0 to 1"
            )
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            raise ConfigError(
                f"zone {self.name}: {ends} is empty; x0,y0 is the top left and x1,y1 the bottom right, so x0 < x1 and y0 < y1"
            )

    @classmethod
    def parse(cls, text: str) -> Zone:
        """Return the zone of a text such as `door=0.1,0.2,0.4,0.9`. Raises ConfigError for anything else."""
        name, is_named, ends = text.partition("=")
        try:
            numbers = [float(part) for part in ends.split(",")]
        except ValueError:
            numbers = []
        if not is_named or len(numbers) != 4:
            raise ConfigError(
                f"zone {text!r}: needs NAME=x0,y0,x1,y1 in fractions of the picture, such as door=0.1,0.2,0.4,0.9"
            )
        x0, y0, x1, y1 = numbers
        return cls(name.strip(), x0, y0, x1, y1)

    @property
    def kind(self) -> Literal["zone"]:
        """Return `zone`."""
        return "zone"

    def rectangle(self, time_s: float, height: int, width: int) -> Rectangle:  # noqa: ARG002
        """Return the pixels that lie in the zone by more than half. Raises VideoError if these are too few."""
        found = Rectangle(
            round(self.x0 * width), round(self.y0 * height), round(self.x1 * width), round(self.y1 * height)
        )
        if min(found.width, found.height) < LEAST_PX:
            raise VideoError(
                f"zone {self.name} is {found.width} x {found.height} pixels of a picture of {width} x {height}; it needs at least "
                f"{LEAST_PX} along each side; make it larger"
            )
        return found

    def stretches(self, start_s: float, end_s: float) -> list[tuple[float, float]]:
        """Return the whole range: a zone is always there."""
        return [(start_s, end_s)]

    def key(self) -> Mapping[str, object]:
        return {"zone": [self.x0, self.y0, self.x1, self.y1]}

    def __str__(self) -> str:
        return f"{self.name}={self.x0:g},{self.y0:g},{self.x1:g},{self.y1:g}"


def zones_of(texts: Iterable[str]) -> tuple[Zone, ...]:
    """Return the zones of texts as `Zone.parse` takes them. Raises ConfigError where two have one name."""
    zones = tuple(Zone.parse(text) for text in texts)
    names = [zone.name for zone in zones]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"zone {name!r} is given {names.count(name)} times; give each zone a name of its own")
    return zones


def fit_region(frame_CHW: Pixels, rectangle: Rectangle, view: ViewConfig) -> Pixels:
    """Return a part of a frame as the square that the network takes, the whole of it: (C, H, W) uint8 -> (C, crop_px, crop_px).

    A view that crops would lose the ends of the part, so it is squashed instead (docs/decisions/2026-11-29-zones.md).
    """
    part_CHW = frame_CHW[:, rectangle.top : rectangle.bottom, rectangle.left : rectangle.right]
    return fit_frame(part_CHW, whole_view(view))


def whole_view(view: ViewConfig) -> ViewConfig:
    """Return a view that shows the whole of a part of the picture: that of the model, unless it crops."""
    return replace(view, fit="squash") if view.fit == "crop" else view


def fit_regions(frame_CHW: Pixels, time_s: float, regions: Iterable[Region], view: ViewConfig) -> Pixels:
    """Return the squares of several regions of a frame: (C, H, W) uint8 -> (S, C, crop_px, crop_px)."""
    height, width = frame_CHW.shape[-2:]
    squares = [fit_region(frame_CHW, region.rectangle(time_s, height, width), view) for region in regions]
    stacked_SHWC = np.stack([square_CHW.transpose(1, 2, 0) for square_CHW in squares])
    return stacked_SHWC.transpose(0, 3, 1, 2)
