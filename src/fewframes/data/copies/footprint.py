"""Make a small footprint of a video by which its copies are known, whatever their codec, size, frame rate and light.

A footprint is the green channel of frames at fixed steps in time, a few pixels high and wide. Even borders are left out before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewframes.video.pictures.display import Pixels
from fewframes.video.source import OpenVideo

STEP_S = 0.1
"""The time between two frames of a footprint, in seconds. Two footprints are out of step by half of it at most."""
SIDE_PX = 16
"""The height and the width of a frame of a footprint, whatever the shape of the video."""
LEVELS = 256
"""The steps of a footprint's brightness for one step of a picture's. Means over many pixels are that fine, and a camera that sees
nothing move shows no more than that."""
BORDER_FRAMES = 8
"""The number of frames, at equal distances, in which even borders are looked for."""
MOST_BORDER = 0.25
"""The largest fraction of the height or width that a border may have on one side."""
EVEN = 3
"""The largest deviation of the brightness (0-255) in a row of a border, and of the row's mean from that of the outermost row."""
STEP = 10
"""The least change of the brightness, or of its deviation, at the inner edge of a border. Fading pictures have none."""
EDGE_PX = 4
"""The number of rows over which compression may blur that edge."""

Footprint = NDArray[np.uint16]
Box = tuple[int, int, int, int]
"""The left, top, right and bottom of a part of a picture, in pixels."""


def footprint_of(video: OpenVideo, start_s: float, end_s: float) -> Footprint:
    """Return the footprint of a part of a video: (V, T, SIDE_PX, SIDE_PX) uint16, a frame each STEP_S seconds.

    The first view is the whole picture. If it has borders, the second is what lies inside them.

    Args:
        video: The video.
        start_s: The start of the part, in seconds.
        end_s: Its end.

    Raises:
        VideoError: A frame cannot be decoded.
    """
    length_s = end_s - start_s
    spread_T = start_s + (np.arange(BORDER_FRAMES) + 0.5) / BORDER_FRAMES * length_s
    height = 0

    def profile(frame_CHW: Pixels) -> Pixels:
        nonlocal height
        height = height or frame_CHW.shape[1]  # a stream may change its size; then the first counts
        return _profile(frame_CHW)

    profiles = np.asarray(video.frames_at(spread_T, profile).frames)[:, :, 0]
    whole = 0, 0, profiles.shape[-1] - height, height
    boxes = list(dict.fromkeys([whole, _inside(profiles, height)]))

    def shrunk(frame_CHW: Pixels) -> Pixels:
        return np.stack([_shrunk(frame_CHW, box) for box in boxes])

    times_T = start_s + np.arange(max(1, round(length_s / STEP_S))) * STEP_S
    bytes_VT2HW = np.asarray(video.frames_at(times_T, shrunk).frames).swapaxes(0, 1).astype(np.uint16)
    footprint_VTHW: Footprint = bytes_VT2HW[:, :, 0] * LEVELS + bytes_VT2HW[:, :, 1]
    return footprint_VTHW


def _profile(frame_CHW: Pixels) -> Pixels:
    """Return the mean and the deviation of each row, then of each column: (2, 1, H + W)."""
    green_HW = frame_CHW[1].astype(np.float32)
    parts = [(green_HW.mean(axis), green_HW.std(axis)) for axis in (1, 0)]
    return np.concatenate(parts, axis=1).round().astype(np.uint8)[:, None]


def _inside(profiles_T2N: Pixels, height: int) -> Box:
    """Return the part of a picture inside its borders."""
    top, bottom = _without_border(profiles_T2N[:, :, :height])
    left, right = _without_border(profiles_T2N[:, :, height:])
    return left, top, right, bottom


def _without_border(profiles_T2N: Pixels) -> tuple[int, int]:
    """Return the first row inside the borders, and the first beyond."""
    length = profiles_T2N.shape[-1]
    before, after = (_border(profiles_T2N[:, :, ::step].astype(np.int16)) for step in (1, -1))
    return before, length - after


def _border(profiles_T2N: NDArray[np.int16]) -> int:
    """Return the number of even rows at the start of these."""
    means_TN, deviations_TN = profiles_T2N[:, 0], profiles_T2N[:, 1]
    outermost = np.median(means_TN[:, 0])
    even_N = (deviations_TN.max(0) <= EVEN) & (np.abs(means_TN - outermost).max(0) <= EVEN)
    rows = int(np.argmin(even_N))  # 0 too if all are even
    edge_T = np.maximum(np.abs(means_TN - outermost), deviations_TN)[:, rows : rows + EDGE_PX].max(1)
    return rows if rows <= MOST_BORDER * len(even_N) and np.median(edge_T) >= STEP else 0


def _shrunk(frame_CHW: Pixels, box: Box) -> Pixels:
    """Return the brightness of a frame in fine levels, as high and low bytes: (2, SIDE_PX, SIDE_PX)."""
    height, width = frame_CHW.shape[1:]
    fitting = (min(box[0], width - 1), min(box[1], height - 1), min(box[2], width), min(box[3], height))
    green = Image.fromarray(frame_CHW[1].astype(np.float32))
    small_HW = np.asarray(green.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX, box=fitting))
    fine_HW = np.clip(small_HW * LEVELS, 0, 255 * LEVELS).astype(np.uint16)
    return np.stack([fine_HW // LEVELS, fine_HW % LEVELS]).astype(np.uint8)
