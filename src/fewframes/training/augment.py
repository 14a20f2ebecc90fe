"""What training does to videos before the network sees them: one draw for all frames of a video, and mixtures of videos."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fewframes.core.settings import STRICT, Share
from fewframes.data.layouts import Sample
from fewframes.errors import VideoError
from fewframes.video.sampling import centre_times, jittered_times
from fewframes.video.source import open_video
from fewframes.video.transforms import fit_frame
from fewframes.video.view import ViewConfig


def read_drawn(
    sample: Sample, num_frames: int, view: ViewConfig, augment: AugmentConfig, seeds: Sequence[int], *, mirror: bool
) -> Tensor:
    """One video as training sees it, a draw for each seed: (V, T, C, H, W) uint8. It is opened and decoded once.

    Raises VideoError.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = [TrainingView(view, augment, generator, mirror=mirror) for generator in generators]
    with closing(open_video(sample.path, threads=1)) as video:
        try:
            times = [
                jittered_times(video.duration_s, num_frames, generator, start_s=sample.start_s, end_s=sample.end_s)
                if augment.jitter
                else centre_times(video.duration_s, num_frames, start_s=sample.start_s, end_s=sample.end_s)
                for generator in generators
            ]
        except ValueError as error:
            raise VideoError(f"{video.name}: {error}") from None
        if len(drawn) == 1:
            return drawn[0].finish(video.frames_at(times[0], drawn[0].fit_frame).frames)[None]
        longest_px = round(view.resize_px * augment.scale)
        frames = video.frames_at(torch.cat(times), lambda frame_CHW: shrunk(frame_CHW, longest_px)).frames
    parts = frames.split(num_frames)
    return torch.stack(
        [
            one.finish(torch.stack([one.fit_frame(frame) for frame in part]))
            for one, part in zip(drawn, parts, strict=True)
        ]
    )


def shrunk(frame_CHW: Tensor, short_px: int) -> Tensor:
    """The whole frame with its short side no longer than `short_px`."""
    if min(frame_CHW.shape[-2:]) <= short_px:
        return frame_CHW.contiguous()
    from torchvision.transforms import v2  # late: torchvision is slow to import

    smaller_CHW: Tensor = v2.functional.resize(frame_CHW, [short_px], v2.InterpolationMode.BILINEAR, antialias=True)
    return smaller_CHW


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentConfig:
    """How training videos are changed, each draw for all frames of a video alike."""

    views: Annotated[int, Field(ge=0)] = 6
    """With a frozen frame encoder: draws of each video that are embedded and kept, beside the video as it is and mirrored
    (`data.mirror`). An encoder that learns draws anew each time."""
    scale: Annotated[float, Field(ge=1)] = 1.4
    """Short side before the random crop: between the view's `resize_px` and this many times it (the paper: 256 to 320)."""
    jitter: bool = True
    """A random moment in each part of the video instead of its centre."""
    colour: Share = 0.2
    """By how much brightness, contrast and saturation may change."""
    auto: Literal["none", "imagenet", "randaugment"] = "none"
    """AutoAugment's policy for ImageNet, as in the paper, or RandAugment."""
    cutout: Share = 0.0
    """Side of a square that is painted over, as a share of the frame's; the paper has 0.5."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixing pairs of videos and their labels; 0 does not."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of pasting a box of one video into another, labels by area; 0 does not. With both, each has every other batch.
    It takes pictures: with a frozen frame encoder it is refused."""


class TrainingView:
    """One video's draw: where it is cropped, whether it is mirrored, how its colours and shapes change.

    `fit_frame` takes each frame, `finish` all of them together.
    """

    def __init__(self, view: ViewConfig, augment: AugmentConfig, generator: torch.Generator, *, mirror: bool) -> None:
        scale, self._down, self._across, coin = torch.rand(4, generator=generator).tolist()
        self._view, self._augment = view, augment
        self._share = view.crop_px / (view.resize_px * (1 + (augment.scale - 1) * scale))
        self._mirrored = mirror and coin < 0.5
        self._generator = generator

    def fit_frame(self, frame_CHW: Tensor) -> Tensor:
        """The square that is cut from a frame of any size: (C, H, W) uint8 -> (C, crop_px, crop_px) uint8. Views that show
        whole frames (`squash`, `pad`) have nothing to draw."""
        if self._view.fit != "crop":
            return fit_frame(frame_CHW, self._view)
        from torchvision.transforms import v2  # late: torchvision is slow to import

        height, width = frame_CHW.shape[-2:]
        side = max(1, round(min(height, width) * self._share))
        top, left = round(self._down * (height - side)), round(self._across * (width - side))
        size = [self._view.crop_px, self._view.crop_px]
        filter_ = v2.InterpolationMode(self._view.interpolation)
        square_CHW: Tensor = v2.functional.resized_crop(frame_CHW, top, left, side, side, size, filter_, antialias=True)
        return square_CHW

    def finish(self, frames_TCHW: Tensor) -> Tensor:
        """Mirrored, recoloured and partly painted over, all frames alike: (T, C, H, W) uint8 -> the same."""
        if self._mirrored:
            frames_TCHW = frames_TCHW.flip(-1)
        if self._augment.auto != "none" or self._augment.colour:
            frames_TCHW = self._recoloured(frames_TCHW)
        if self._augment.cutout:
            frames_TCHW = self._cutout(frames_TCHW)
        return frames_TCHW

    def _recoloured(self, frames_TCHW: Tensor) -> Tensor:
        from torchvision.transforms import v2  # late, as above

        amount, auto = self._augment.colour, self._augment.auto
        changes = [v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount)] if amount else []
        if auto != "none":
            changes.append(v2.AutoAugment() if auto == "imagenet" else v2.RandAugment())
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self._generator)))
            for change in changes:
                frames_TCHW = change(frames_TCHW)
        return frames_TCHW

    def _cutout(self, frames_TCHW: Tensor) -> Tensor:
        """A square of one colour, its centre anywhere, what reaches over the edge lost (DeVries and Taylor 2017)."""
        size_px = frames_TCHW.shape[-1]
        half_px = round(self._augment.cutout * size_px / 2)
        row, column = torch.randint(size_px, (2,), generator=self._generator).tolist()
        colour_C11 = torch.randint(256, (3, 1, 1), dtype=torch.uint8, generator=self._generator)
        painted_TCHW = frames_TCHW.clone()
        rows, columns = (slice(max(0, at - half_px), at + half_px) for at in (row, column))
        painted_TCHW[..., rows, columns] = colour_C11
        return painted_TCHW


def mixed(inputs: Tensor, targets_BK: Tensor, augment: AugmentConfig) -> tuple[Tensor, Tensor]:
    """A batch and its targets with each video mixed with the one before it, as a whole (mixup) or in a box (cutmix).

    `inputs` are pixels (B, T, C, H, W) or tokens (B, T, D); a box needs pixels. Draws from the global generator.
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
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    return inputs.lerp(inputs.roll(1, 0), 1 - share), targets_BK.lerp(targets_BK.roll(1, 0), 1 - share)


def seed_of(*parts: object) -> int:
    """A seed that these values alone decide, well apart from that of others."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())
