"""Read a video in several views for the solved read-out: as it is, mirrored, and changed at random. Arrays alone.

The random views are of the same kind as those of `training/steps/augment.py`, with the same settings. They are other draws,
made by numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import key_of
from fewframes.data.layouts import Sample
from fewframes.inference.clips import ClipReader, ClipRequest
from fewframes.sampling import ONE_PASS, jittered_times
from fewframes.training.augment_config import AugmentConfig
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import open_video, recorded_frames
from fewframes.video.transforms import fit_frame, resized
from fewframes.video.view import ViewConfig

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]
"""The parts of red, green and blue in the brightness of a pixel (BT.601)."""


def read_as_is(sample: Sample, num_frames: int, view: ViewConfig) -> Pixels:
    """Return the frames that `predict` looks at: (T, C, H, W) uint8. Raises VideoError."""
    request = ClipRequest(ONE_PASS, num_frames, sample.start_s, sample.end_s)
    return ClipReader(view).read(sample.path, request, threads=1).clips[0].frames


def read_drawn(
    sample: Sample, num_frames: int, view: ViewConfig, augment: AugmentConfig, seeds: Sequence[int], *, mirror: bool
) -> Pixels:
    """Return random views of one video, one for each seed: (V, T, C, H, W) uint8. The video is opened and decoded once.

    Args:
        sample: The video, or the part of one.
        num_frames: Frames of each view.
        view: Size and crop that the model expects.
        augment: How strongly frames are changed.
        seeds: Seed of each view. The same seed gives the same view, whatever the others are.
        mirror: Mirror about half of the views.

    Raises:
        VideoError: The video cannot be read, or has no such part.
    """
    draws = [_begun(seed, num_frames, augment) for seed in seeds]

    def choose(duration_s: float, start_s: float, end_s: float | None) -> list[float]:
        times = [jittered_times(duration_s, fractions_T, start_s=start_s, end_s=end_s) for _, fractions_T in draws]
        return [time_s for times_T in times for time_s in times_T.tolist()]

    with closing(open_video(sample.path, threads=1)) as video:
        largest_px = round(view.resize_px * augment.scale)
        frames = recorded_frames(
            video, choose, sample.start_s, sample.end_s, lambda frame_CHW: _shrunk(frame_CHW, largest_px, view)
        ).frames
    return np.stack(
        [
            drawn_view(frames[place * num_frames : (place + 1) * num_frames], view, augment, rng, mirror=mirror)
            for place, (rng, _) in enumerate(draws)
        ]
    )


def view_seed(content: str, number: int) -> int:
    """Return the seed of a random view: of a video's content, and of the view's number from 0."""
    return int(key_of(content, str(number)), 16)


def is_mirrored(seed: int, num_frames: int, augment: AugmentConfig) -> bool:
    """Return True if the view of this seed is mirrored wherever mirroring is allowed."""
    rng, _ = _begun(seed, num_frames, augment)
    *_, coin = rng.random(4).tolist()
    return bool(coin < 0.5)


def _begun(seed: int, num_frames: int, augment: AugmentConfig) -> tuple[np.random.Generator, NDArray[np.float64]]:
    """Return the generator of a view, and its first draw: the part (T,) of each segment after which its frame comes."""
    rng = np.random.default_rng(seed)
    return rng, rng.random(num_frames) if augment.jitter else np.full(num_frames, 0.5)


def drawn_view(
    frames: Sequence[Pixels] | Pixels,
    view: ViewConfig,
    augment: AugmentConfig,
    rng: np.random.Generator,
    *,
    mirror: bool,
) -> Pixels:
    """Return frames (C, H, W) of any size as one random view: (T, C, crop_px, crop_px) uint8. All frames are changed alike.

    Args:
        frames: The frames.
        view: Size and crop that the model expects. Views that show whole frames (`squash`, `pad`) leave no crop to draw.
        augment: How strongly frames are changed.
        rng: Draws the scale and place of the crop, a coin for mirroring, and the colours.
        mirror: Mirror the view if the coin says so.
    """
    scale, down, across, coin = rng.random(4)
    fraction = view.crop_px / (view.resize_px * (1 + (augment.scale - 1) * scale))
    views_TCHW = np.stack([_cropped(frame, view, fraction, down, across) for frame in frames])
    if mirror and coin < 0.5:
        views_TCHW = views_TCHW[..., ::-1]
    return recoloured(views_TCHW, *rng.uniform(1 - augment.colour, 1 + augment.colour, 3).tolist())


def recoloured(frames_TCHW: Pixels, brightness: float, contrast: float, saturation: float) -> Pixels:
    """Return frames (T, C, H, W) uint8 with these three factors applied one after the other; 1 leaves them as they are."""
    pixels_TCHW = np.clip(frames_TCHW * np.float32(brightness), 0, 255)
    mean_T111 = (pixels_TCHW * GREY_WEIGHTS).sum(axis=1).mean(axis=(1, 2))[:, None, None, None]
    pixels_TCHW = np.clip(mean_T111 + np.float32(contrast) * (pixels_TCHW - mean_T111), 0, 255)
    grey_T1HW = (pixels_TCHW * GREY_WEIGHTS).sum(axis=1, keepdims=True)
    pixels_TCHW = np.clip(grey_T1HW + np.float32(saturation) * (pixels_TCHW - grey_T1HW), 0, 255)
    recoloured_TCHW: Pixels = np.rint(pixels_TCHW).astype(np.uint8)
    return recoloured_TCHW


def _cropped(frame_CHW: Pixels, view: ViewConfig, fraction: float, down: float, across: float) -> Pixels:
    """Return a square crop whose side is this fraction of the frame's short side, as the network takes it."""
    size = view.crop_px
    if view.fit != "crop":
        return fit_frame(frame_CHW, view)
    height, width = frame_CHW.shape[-2:]
    side = max(1, round(min(height, width) * fraction))
    top, left = round(down * (height - side)), round(across * (width - side))
    return resized(frame_CHW[:, top : top + side, left : left + side], size, size, view.interpolation)


def _shrunk(frame_CHW: Pixels, short_px: int, view: ViewConfig) -> Pixels:
    """Return the whole frame, made smaller if its short side is longer than the largest crop needs."""
    height, width = frame_CHW.shape[-2:]
    scale = short_px / min(height, width)
    if scale >= 1 or view.fit != "crop":
        return frame_CHW
    return resized(frame_CHW, max(1, round(height * scale)), max(1, round(width * scale)), view.interpolation)
