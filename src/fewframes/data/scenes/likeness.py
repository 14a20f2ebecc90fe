"""Tell which thumbnails show one scene, from the outlines in them.

A fixed camera sees the same walls and streets in every clip, and people cover little of them. So two thumbnails are of one scene if
the brightness of many neighbouring pixels differs by the same amounts in both. Colours and light do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewframes.video.pictures.display import Pixels
from fewframes.video.transforms import resized

SIZE_PX = 64
"""The height and the width of a thumbnail, whatever the shape of the video."""
DARK = 16
"""The brightness in 0-255 below which a pixel has no outline. Black bars have none, which all videos with bars would share."""
LEAST_CONTRAST = 1.0
"""The root mean square of the differences between neighbouring pixels below which a thumbnail is flat, and like no other."""
STRONGEST = 1.5
"""The largest difference that counts, as a multiple of the root mean square of a thumbnail. Otherwise one long edge that two places
share by chance, such as the side of a door, outweighs the rest."""
LEAST_LIKENESS = 0.15
"""The cosine of the outlines from which two thumbnails are of one scene (docs/decisions/2026-11-28-scenes.md)."""
BLOCK = 512
"""The number of thumbnails that are compared with all before them at a time. It bounds the memory."""


def thumbnail_of(frame_CHW: Pixels) -> Pixels:
    """Return a frame as a grey thumbnail: (C, H, W) uint8 -> (SIZE_PX, SIZE_PX) uint8."""
    small_CHW = resized(frame_CHW, SIZE_PX, SIZE_PX)
    return small_CHW.mean(axis=0).round().astype(np.uint8)


def outlines_of(thumbnails_BHW: Pixels) -> NDArray[np.float32]:
    """Return the outlines (B, P) of thumbnails as vectors of length one; zeros for flat thumbnails."""
    grey_BHW = thumbnails_BHW.astype(np.float32)
    dark_BHW = thumbnails_BHW < DARK
    across_BHW = np.diff(grey_BHW, axis=2) * ~(dark_BHW[:, :, 1:] | dark_BHW[:, :, :-1])
    down_BHW = np.diff(grey_BHW, axis=1) * ~(dark_BHW[:, 1:] | dark_BHW[:, :-1])
    outlines_BP = np.concatenate([part.reshape(len(part), -1) for part in (across_BHW, down_BHW)], axis=1)
    contrast_B1 = np.sqrt(np.square(outlines_BP).mean(axis=1, keepdims=True))
    outlines_BP = np.clip(outlines_BP, -STRONGEST * contrast_B1, STRONGEST * contrast_B1)
    outlines_BP /= np.maximum(np.linalg.norm(outlines_BP, axis=1, keepdims=True), 1e-6)
    vectors_BP: NDArray[np.float32] = outlines_BP * (contrast_B1 >= LEAST_CONTRAST)
    return vectors_BP


def scenes_of(thumbnails_BHW: Pixels, least_likeness: float = LEAST_LIKENESS) -> NDArray[np.intp]:
    """Return the scene (B,) of each thumbnail, as the index of its first thumbnail. Scenes joined by a thumbnail are one scene."""
    scene_B = np.arange(len(thumbnails_BHW))
    for start in range(0, len(thumbnails_BHW), BLOCK):
        block_AP = outlines_of(thumbnails_BHW[start : start + BLOCK])
        end = start + len(block_AP)
        is_like_AB = np.concatenate(
            [
                block_AP @ outlines_of(thumbnails_BHW[other : min(other + BLOCK, end)]).T >= least_likeness
                for other in range(0, end, BLOCK)
            ],
            axis=1,
        )
        for row, is_like_B in enumerate(is_like_AB, start):
            join(scene_B, np.append(np.flatnonzero(is_like_B[:row]), row))
    return scene_B


def join(scene_B: NDArray[np.intp], rows: Sequence[int] | NDArray[np.intp]) -> None:
    """Make one scene, in place, of the scenes that these rows belong to."""
    joined = np.unique(scene_B[rows])
    if len(joined) > 1:
        scene_B[np.isin(scene_B, joined)] = joined[0]
