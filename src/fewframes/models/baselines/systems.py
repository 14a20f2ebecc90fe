"""Describe a system to measure (its network, protocol and published figures), build it and load its weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewframes.errors import MissingDependency
from fewframes.models.files.networks import load_strictly
from fewframes.models.files.tensor_files import read_tensors
from fewframes.models.stam import STAM
from fewframes.sampling import ONE_PASS, Views
from fewframes.video.view import ViewConfig

Input = Literal["clip", "frames", "pathways", "clips"]
"""The input of a network: a clip (B, C, T, H, W); frames (B, T, C, H, W); the slow and the fast pathway of SlowFast, each a
clip; or all clips of a video at once, one after another in time (B, C, V T, H, W)."""
NUM_CLASSES = 400
SLOW_EVERY = 4
"""SlowFast 8x8: the slow pathway has every fourth frame of the fast one."""
FPS = 30
"""Frame rate of the videos for which the strides of the protocols are meant."""
PYTORCHVIDEO, TRANSFORMERS = "pytorchvideo", "transformers"


@dataclass(frozen=True, kw_only=True)
class Published:
    """The published figures of a system; None where nothing was published.

    `top1` is the accuracy on Kinetics-400 in %, `gmacs` is of one view, `params_m` in millions, `videos_s` on one V100, `ucf101`
    is top-1 in %, `charades` is mAP in %, and `source` says where the figures stand.
    """

    top1: float | None = None
    gmacs: float | None = None
    params_m: float | None = None
    videos_s: float | None = None
    ucf101: float | None = None
    charades: float | None = None
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A system to measure, and its protocol."""

    build: Callable[[], nn.Module]
    """A function that builds the network with random weights and 400 classes."""
    frames: int
    """Frames of one clip."""
    view: ViewConfig
    """The way a frame becomes its input, with the mean and the deviation it was trained with."""
    views: Views = ONE_PASS
    """The clips and crops of a video whose scores are averaged."""
    takes: Input = "clip"
    package: str = ""
    """The package that it needs beside this one; empty for none."""
    published: Published = field(default_factory=Published)

    @property
    def frames_read(self) -> int:
        """Return the number of frames that are decoded for one video."""
        return self.views.num_clips * self.frames

    @property
    def size_px(self) -> int:
        """Return the side of the square frames that it takes, in pixels."""
        return self.view.crop_px

    @property
    def frames_a_pass(self) -> int:
        """Return the number of frames in one pass of one view."""
        return self.frames * (self.views.num_clips if self.takes == "clips" else 1)

    @property
    def passes(self) -> int:
        """Return the number of passes of the network for one video. A network that takes all clips at once needs one per crop."""
        return self.views.num_crops if self.takes == "clips" else len(self.views)


class BaselineNetwork(nn.Module):
    """A network behind the input that all systems share: frames (B, T, C, H, W) in 0-1 to logits (B, K)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, takes: Input, view: ViewConfig) -> None:
        super().__init__()
        self.network, self.takes = network, takes
        for module in network.modules():
            if isinstance(
                module, nn.AvgPool3d
            ):  # on a CPU torch has this pooling in float32 only; the rest may run in bfloat16
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
                module.register_forward_hook(lambda _, inputs, pooled: pooled.to(self.mean.dtype))
        self.register_buffer("mean", torch.tensor(view.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(view.std).view(-1, 1, 1), persistent=False)

    def forward(self, pixels_BTCHW: Tensor) -> Tensor:
        normalised_BTCHW = (pixels_BTCHW - self.mean) / self.std
        if self.takes == "frames":
            output = self.network(normalised_BTCHW)
            return output if isinstance(output, Tensor) else output.logits
        clip_BCTHW = normalised_BTCHW.transpose(1, 2)
        if self.takes == "pathways":
            num_frames = clip_BCTHW.shape[2]
            slow = torch.linspace(0, num_frames - 1, num_frames // SLOW_EVERY).long()  # from the first to the last
            return self.network([clip_BCTHW[:, :, slow], clip_BCTHW])
        return self.network(clip_BCTHW)


def build(baseline: Baseline) -> nn.Module:
    """Return the network of a baseline in eval mode. Raises MissingDependency if its package is not installed."""
    if baseline.package and importlib.util.find_spec(baseline.package) is None:
        raise MissingDependency(f"needs {baseline.package}; pip install 'fewframes[baselines]'")
    network = baseline.build()
    return (network if isinstance(network, STAM) else BaselineNetwork(network, baseline.takes, baseline.view)).eval()


def load_weights(network: BaselineNetwork, baseline: Baseline, path: str) -> None:
    """Load published weights, under the names of the baseline's library, into a network that `build` made.

    `path` is a file, or for transformers a folder as `save_pretrained` writes it. WeightsError lists what does not fit.
    """
    if baseline.package == TRANSFORMERS and Path(path).is_dir():
        inner: Any = network.network
        network.network = type(inner).from_pretrained(path).eval()
        return
    load_strictly(network.network, read_tensors(Path(path)), path)
