"""Settings of the random changes to training videos. This module imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Share


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentConfig:
    """Settings of the random changes to training videos. A draw holds for all frames of a video."""

    views: Annotated[int, Field(ge=0)] = 6
    """Number of augmented views of each video that are embedded and cached, beside the video as it is and mirrored (`data.mirror`).
    It is for a frozen frame encoder; one that learns gets a new draw each time."""
    scale: Annotated[float, Field(ge=1)] = 1.4
    """Largest scale of the short side before the random crop: between 1 and this many times the view's `resize_px` (the paper:
    256 to 320 pixels)."""
    jitter: bool = True
    """Sample each frame at a random time of its segment instead of the centre."""
    colour: Share = 0.2
    """Largest relative change of brightness, contrast and saturation."""
    auto: Literal["none", "imagenet", "randaugment"] = "none"
    """AutoAugment's policy for ImageNet, as in the paper, or RandAugment."""
    cutout: Share = 0.0
    """Side of a square that is painted over, as a fraction of the frame's side; the paper has 0.5."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup, which blends pairs of videos and their labels; 0 switches it off."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of CutMix, which pastes a box of one video into another and mixes labels by area; 0 switches it off. With mixup too,
    each batch takes one of the two at random. It needs frames: with a frozen frame encoder it is refused."""
