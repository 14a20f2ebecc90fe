"""Choose the part of a frame that becomes the network's square, and its size."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Finite, Pixels, Positive

Fit = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ViewConfig:
    """The settings that turn a decoded frame into the network's square input."""

    fit: Fit = "crop"
    """The way to a square. `crop` resizes the short side to `resize_px`, then takes the centre square of `crop_px` (the paper).
    `squash` resizes the whole frame to that square, which changes its proportions. `pad` puts the whole frame inside the square and
    fills the rest with the mean colour."""
    resize_px: Pixels = 256
    """The short side before cropping, in pixels (`crop` only)."""
    crop_px: Pixels = 224
    """The side of the square that goes into the network, in pixels."""
    interpolation: Interpolation = "bicubic"
    """The resampling filter, antialiased."""
    mean: tuple[Finite, Finite, Finite] = (0.5, 0.5, 0.5)
    """The values that are subtracted from the colour channels (R, G, B), on the scale 0-1."""
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    """The values that the colour channels are divided by after the mean is subtracted."""

    @model_validator(mode="after")
    def _fits_together(self) -> ViewConfig:
        if self.fit == "crop" and self.resize_px < self.crop_px:
            raise ValueError(f"resize_px {self.resize_px} is below crop_px {self.crop_px}")
        return self
