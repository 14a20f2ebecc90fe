"""Augment training videos: random crops, mirroring, colours and cutout, alike for all frames of a video, and mixtures of videos."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from fewframes.data.layouts import Sample
from fewframes.sampling import jittered_times
from fewframes.training.augment_config import AugmentConfig
from fewframes.video.clock import Choose
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import open_video, recorded_frames
from fewframes.video.transforms import fit_frame, resized, short_side_size
from fewframes.video.view import ViewConfig

DRAWING = threading.Lock()
"""Held while the global generator of torch is seeded and drawn from."""


def read_drawn(
    sample: Sample, num_frames: int, view: ViewConfig, augment: AugmentConfig, seeds: Sequence[int], *, mirror: bool
) -> Tensor:
    """Return randomly augmented views of one video, one for each seed: (V, T, C, H, W) uint8. The video is opened and decoded once.

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
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    training_views = [TrainingView(view, augment, generator, mirror=mirror) for generator in generators]
    with closing(open_video(sample.path, threads=1)) as video:
        choices = [_choose(num_frames, augment, generator) for generator in generators]
        # Each view crops at its own place and scale. Whole frames are held until then, no larger than the largest scale needs.
        largest_px = round(view.resize_px * augment.scale)
        frames = recorded_frames(
            video,
            lambda *part: [time_s for choose in choices for time_s in choose(*part)],
            sample.start_s,
            sample.end_s,
            lambda frame_CHW: shrunk(frame_CHW, largest_px),
        ).frames
    parts = np.split(frames, len(seeds))
    return torch.stack(
        [
            training_view.finish(torch.from_numpy(np.stack([training_view.fit_frame(frame) for frame in part])))
            for training_view, part in zip(training_views, parts, strict=True)
        ]
    )


def read_one_drawn(
    sample: Sample, num_frames: int, view: ViewConfig, augment: AugmentConfig, seed: int, *, mirror: bool
) -> Tensor:
    """Return one randomly augmented view of a video: (T, C, H, W) uint8. Frames are cropped as they are decoded.

    It shows what `read_drawn` shows for the seed, but its pixels are resized once, not twice, so they differ a little.
    The arguments and errors are those of `read_drawn`.
    """
    generator = torch.Generator().manual_seed(seed)
    training_view = TrainingView(view, augment, generator, mirror=mirror)
    with closing(open_video(sample.path, threads=1)) as video:
        choose = _choose(num_frames, augment, generator)
        clip = recorded_frames(video, choose, sample.start_s, sample.end_s, training_view.fit_frame)
        return training_view.finish(torch.from_numpy(clip.frames))


def is_mirrored(seed: int) -> bool:
    """Return True if the view of this seed is mirrored wherever mirroring is allowed."""
    coin: float = torch.rand(4, generator=torch.Generator().manual_seed(seed))[3].item()
    return coin < 0.5


def _choose(num_frames: int, augment: AugmentConfig, generator: torch.Generator) -> Choose:
    """Return what chooses the timestamps that a view shows. Random fractions are drawn at once, so that it chooses alike again."""
    fractions_T = _fractions(num_frames, generator) if augment.jitter else [0.5] * num_frames

    def choose(duration_s: float, start_s: float, end_s: float | None) -> list[float]:
        times_T: list[float] = jittered_times(duration_s, fractions_T, start_s=start_s, end_s=end_s).tolist()
        return times_T

    return choose


def _fractions(num_frames: int, generator: torch.Generator) -> list[float]:
    """Return a random fraction of each segment."""
    fractions: list[float] = torch.rand(num_frames, generator=generator, dtype=torch.float64).tolist()
    return fractions


def shrunk(frame_CHW: Pixels, short_px: int) -> Pixels:
    """Return the whole frame, made smaller if its short side is longer than `short_px`."""
    if min(frame_CHW.shape[-2:]) <= short_px:
        return frame_CHW
    return resized(frame_CHW, *short_side_size(frame_CHW.shape[-2], frame_CHW.shape[-1], short_px))


class TrainingView:
    """A random draw for one video: where it is cropped, if it is mirrored, and how its colours change.

    `fit_frame` is applied to each frame, `finish` to all of them together.
    """

    def __init__(self, view: ViewConfig, augment: AugmentConfig, generator: torch.Generator, *, mirror: bool) -> None:
        scale, self._down, self._across, coin = torch.rand(4, generator=generator).tolist()
        self._view, self._augment = view, augment
        self._crop_fraction = view.crop_px / (view.resize_px * (1 + (augment.scale - 1) * scale))
        self._mirrored = mirror and coin < 0.5
        self._generator = generator

    def fit_frame(self, frame_CHW: Pixels) -> Pixels:
        """Crop a frame of any size and resize the crop: (C, H, W) uint8 -> (C, crop_px, crop_px) uint8.

        Views that show whole frames (`squash`, `pad`) leave nothing to draw.
        """
        if self._view.fit != "crop":
            return fit_frame(frame_CHW, self._view)
        height, width = frame_CHW.shape[-2:]
        side = max(1, round(min(height, width) * self._crop_fraction))
        top, left = round(self._down * (height - side)), round(self._across * (width - side))
        size = self._view.crop_px
        return resized(frame_CHW[:, top : top + side, left : left + side], size, size, self._view.interpolation)

    def finish(self, frames_TCHW: Tensor) -> Tensor:
        """Mirror, recolour and partly paint over all frames alike: (T, C, H, W) uint8 -> the same shape and type."""
        if self._mirrored:
            frames_TCHW = frames_TCHW.flip(-1)
        if self._augment.auto != "none" or self._augment.colour:
            frames_TCHW = self._recoloured(frames_TCHW)
        if self._augment.cutout:
            frames_TCHW = self._cutout(frames_TCHW)
        return frames_TCHW

    def _recoloured(self, frames_TCHW: Tensor) -> Tensor:
        from torchvision.transforms import v2  # late: torchvision is slow to import

        amount, auto = self._augment.colour, self._augment.auto
        changes = [v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount)] if amount else []
        if auto != "none":
            changes.append(v2.AutoAugment() if auto == "imagenet" else v2.RandAugment())
        # torchvision draws from the global generator, which threads that read videos share.
        with DRAWING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self._generator)))
            for change in changes:
                frames_TCHW = change(frames_TCHW)
        return frames_TCHW

    def _cutout(self, frames_TCHW: Tensor) -> Tensor:
        """Paint over a square with one colour. Its centre is anywhere, and it is clipped at the edge (DeVries and Taylor 2017)."""
        size_px = frames_TCHW.shape[-1]
        half_px = round(self._augment.cutout * size_px / 2)
        row, column = torch.randint(size_px, (2,), generator=self._generator).tolist()
        colour_C11 = torch.randint(256, (3, 1, 1), dtype=torch.uint8, generator=self._generator)
        painted_TCHW = frames_TCHW.clone()
        rows, columns = (slice(max(0, at - half_px), at + half_px) for at in (row, column))
        painted_TCHW[..., rows, columns] = colour_C11
        return painted_TCHW


def mixed(inputs: Tensor, targets_BK: Tensor, augment: AugmentConfig) -> tuple[Tensor, Tensor]:
    """Return a batch and its targets with each video mixed with the one before it, as a whole (mixup) or in a box (CutMix).

    The global generator of torch is drawn from.

    Args:
        inputs: Pixels (B, T, C, H, W), or tokens (B, T, D), which CutMix leaves out.
        targets_BK: Targets of the batch.
        augment: Names the alphas.
    """
    use_cutmix = augment.cutmix > 0 and inputs.ndim == 5 and (augment.mixup == 0 or bool(torch.rand(()) < 0.5))
    if use_cutmix:
        from torchvision import tv_tensors  # late, as above
        from torchvision.transforms import v2

        cutmix = v2.CutMix(num_classes=targets_BK.shape[1], alpha=augment.cutmix)
        boxed, boxed_BK = cutmix(tv_tensors.Video(inputs), targets_BK)
        return boxed.as_subclass(Tensor), boxed_BK
    if augment.mixup == 0:
        return inputs, targets_BK
    alpha = torch.tensor(augment.mixup)
    fraction = torch.distributions.Beta(alpha, alpha).sample().item()
    return inputs.lerp(inputs.roll(1, 0), 1 - fraction), targets_BK.lerp(targets_BK.roll(1, 0), 1 - fraction)


def seed_of(*parts: object) -> int:
    """Return a seed that depends on nothing but these values. Even similar values give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())
