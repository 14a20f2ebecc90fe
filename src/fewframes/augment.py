"""What training does to videos before the network sees them: one draw for all frames of a video, and mixtures of videos."""

from __future__ import annotations

import torch
from torch import Tensor

from fewframes.config import AugmentConfig, ViewConfig
from fewframes.transforms import fit_frame


class TrainingView:
    """One video's draw: where it is cropped, whether it is mirrored, how its colours and shapes change.

    `fit_frame` takes each full-size frame as it is decoded, `finish` all of them together.
    """

    def __init__(self, view: ViewConfig, augment: AugmentConfig, generator: torch.Generator, *, mirror: bool) -> None:
        scale, self._down, self._across, coin = torch.rand(4, generator=generator).tolist()
        self._view, self._augment = view, augment
        self._short_px = round(view.resize_px * (1 + (augment.scale - 1) * scale))
        self._mirrored = mirror and coin < 0.5
        self._generator = generator

    def fit_frame(self, frame_CHW: Tensor) -> Tensor:
        """The square that is cut from a frame: (C, H, W) uint8 -> (C, crop_px, crop_px) uint8. Views that show whole frames
        (`squash`, `pad`) have nothing to draw."""
        if self._view.fit != "crop":
            return fit_frame(frame_CHW, self._view)
        from torchvision.transforms import v2  # late: torchvision is slow to import, and frozen encoders do without

        size_px, filter_ = self._view.crop_px, v2.InterpolationMode(self._view.interpolation)
        resized_CHW = v2.functional.resize(frame_CHW, [self._short_px], filter_, antialias=True)
        top = round(self._down * (resized_CHW.shape[-2] - size_px))
        left = round(self._across * (resized_CHW.shape[-1] - size_px))
        return resized_CHW[:, top : top + size_px, left : left + size_px].contiguous()

    def finish(self, frames_TCHW: Tensor) -> Tensor:
        """Mirrored, recoloured and partly painted over, all frames alike: (T, C, H, W) uint8 -> the same."""
        if self._mirrored:
            frames_TCHW = frames_TCHW.flip(-1)
        if self._augment.auto != "none":
            frames_TCHW = self._auto(frames_TCHW)
        if self._augment.cutout:
            frames_TCHW = self._cutout(frames_TCHW)
        return frames_TCHW

    def _auto(self, frames_TCHW: Tensor) -> Tensor:
        from torchvision.transforms import v2  # late, as above

        policy = v2.AutoAugment() if self._augment.auto == "imagenet" else v2.RandAugment()
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self._generator)))
            changed_TCHW: Tensor = policy(frames_TCHW)
        return changed_TCHW

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
