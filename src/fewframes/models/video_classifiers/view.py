"""The view of a video classifier: its processor's size, crop, filter and normalisation as our settings, checked on a probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.settings import settings_from
from fewframes.errors import WeightsError
from fewframes.video.view import ViewConfig

FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that we have."""
LEVELS = np.array([0, 85, 170, 255], np.uint8)
"""The levels of the probe: frames of one colour, in which each channel has another level."""
TOLERANCE = 1e-4
"""The largest difference between normalised pixels of the processor and ours."""


def view_of(processor: Any, name: str) -> ViewConfig:
    """Return the view that does what a processor of transformers does to each frame.

    Args:
        processor: The video processor or image processor.
        name: The model, for errors.

    Raises:
        WeightsError: It does something that no view of ours does, such as frames that are not square.
    """
    shape = _square(processor, name)
    number = int(processor.resample)
    if number not in FILTERS:
        raise WeightsError(f"{name}: resizes with filter {number} of Pillow; there are {', '.join(FILTERS.values())}")
    low_C, high_C = _normalised_ends(processor, shape["crop_px"], name)
    # pixel p in 0-1 becomes (p - mean) / std; p = 0 gives `low`, p = 1 gives `high`
    std_C = 1 / (high_C - low_C)
    scale = {"mean": tuple(np.round(-low_C * std_C, 6).tolist()), "std": tuple(np.round(std_C, 6).tolist())}
    return settings_from(ViewConfig, {**shape, **scale, "interpolation": FILTERS[number]}, name)


def _square(processor: Any, name: str) -> dict[str, Any]:
    """Return the fields of `ViewConfig` for the way to a square. Raises WeightsError if there is no such way."""
    size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
    short, height, width = (_side(size, key) for key in ("shortest_edge", "height", "width"))
    crop_height, crop_width = _side(crop, "height"), _side(crop, "width")
    if processor.do_resize and short and crop_height and crop_height == crop_width:
        return {"fit": "crop", "resize_px": max(short, crop_height), "crop_px": crop_height}
    if (
        processor.do_resize
        and height
        and height == width
        and crop_height in (None, height)
        and crop_width == crop_height
    ):
        return {"fit": "squash", "crop_px": height}
    raise WeightsError(
        f"{name}: its processor makes no square of fixed size (size {size}, crop {crop}, resize {bool(processor.do_resize)}); "
        "it cannot be run here"
    )


def _side(size: Any, key: str) -> int | None:
    """Return a side of a processor's size, which is a dict or an object, if it has that."""
    value = size.get(key) if isinstance(size, Mapping) else getattr(size, key, None)
    return None if value is None else int(value)


def _normalised_ends(processor: Any, side: int, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the processor makes of the levels 0 and 255 in each channel (C,). Raises WeightsError for more than a line."""
    levels_TC = np.stack([np.roll(LEVELS, shift)[:3] for shift in range(len(LEVELS))])
    frames = [np.broadcast_to(levels_C, (side, side, 3)).copy() for levels_C in levels_TC]
    found_TCHW = pixels_by(processor, frames)
    if found_TCHW.shape != (len(frames), 3, side, side):
        raise WeightsError(
            f"{name}: its processor makes {found_TCHW.shape} of {len(frames)} frames; it cannot be run here"
        )
    means_TC = found_TCHW.mean(axis=(2, 3), dtype=np.float64)
    low_C, high_C = (
        np.array([means_TC[levels_TC[:, channel] == level, channel][0] for channel in range(3)]) for level in (0, 255)
    )
    line_TC = low_C + (high_C - low_C) * levels_TC / 255
    if not (high_C > low_C).all() or np.abs(found_TCHW - line_TC[:, :, None, None]).max() > TOLERANCE:
        raise WeightsError(f"{name}: its processor does more than resize, crop and normalise; it cannot be run here")
    return low_C, high_C


def pixels_by(processor: Any, frames: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return what a processor makes of the frames (H, W, C) uint8 of one video: (T, C, H, W) float32. All frames are kept."""
    options = {"do_sample_frames": False} if hasattr(processor, "do_sample_frames") else {}
    batch = processor(frames, return_tensors="pt", **options)
    key = "pixel_values" if "pixel_values" in batch else "pixel_values_videos"
    pixels_TCHW: NDArray[np.float32] = batch[key][0].float().numpy()
    return pixels_TCHW
