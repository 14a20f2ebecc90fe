"""Measure time and memory over the number of frames, for three layouts of attention over time.

This is the paper's argument for the factorised layout: O(T N^2 + T^2) against O((T N)^2) (section 3).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from fewframes.bench.stopwatch import Memory, Runner, in_own_process, significant
from fewframes.core.process import TalkingProgress
from fewframes.core.text import count_of
from fewframes.errors import BenchError, ConfigError, nearest
from fewframes.models.baselines.systems import Baseline, build
from fewframes.models.config import ModelConfig
from fewframes.models.cost import count_cost
from fewframes.models.devices import choose_device
from fewframes.models.files.networks import build_model
from fewframes.models.presets import PRESETS

AttentionLayout = Literal["factorised", "per_block", "joint"]
LAYOUTS: dict[AttentionLayout, str] = {
    "factorised": "each frame, then time (factorised)",
    "per_block": "time inside every block",
    "joint": "joint space-time (Eq. 5)",
}
FRAMES = (4, 8, 16, 32, 64, 128)
LONGEST_S = 60.0
"""Once a pass takes longer than this, its layout is not tried with more frames."""


@dataclass(frozen=True)
class Point:
    """The cost of one layout with one number of frames.

    `gmacs` and `attention_gmacs` are billions of multiply-adds of a video, without and of the products of attention; `seconds` is
    the median of a pass; `memory_bytes` is above an empty process. Both are None where the layout was not run, for the `reason`
    given.
    """

    layout: AttentionLayout
    frames: int
    gmacs: float
    attention_gmacs: float
    seconds: float | None
    memory_bytes: int | None
    reason: str = ""


def scale(
    preset: str = "vit-ti-16",
    *,
    frames: Sequence[int] = FRAMES,
    device: str = "auto",
    seconds: float = 2.0,
    progress: TalkingProgress = lambda stage, done, total, words: None,
) -> list[Point]:
    """Run the ViT of a preset in the three layouts, each in a process of its own and in the precision that is fastest for it.

    Args:
        preset: Name of the preset.
        frames: Numbers of frames.
        device: Name of the device.
        seconds: Approximate seconds of a measurement.
        progress: Called before each measurement.

    Raises ConfigError for an unknown preset and for one without a ViT.
    """
    if preset not in PRESETS:
        raise ConfigError(f"no preset {preset!r}; {nearest(preset, PRESETS)}")
    if PRESETS[preset].model.encoder != "vit":
        raise ConfigError(
            f"{preset!r} has no ViT, so there is only one layout of attention over time; take vit-ti-16 or stam-16"
        )
    chosen = choose_device(device)
    points: list[Point] = []
    for row, layout in enumerate(LAYOUTS):
        reason = ""
        for number, count in enumerate(sorted(frames)):
            done, words = row * len(frames) + number, f"{count_of(count, 'frame')}, {LAYOUTS[layout]}"
            progress("measuring", done, len(LAYOUTS) * len(frames), words)
            config = _config(preset, layout, count)
            gmacs, attention_gmacs = in_own_process(_count, preset, config)
            seconds_taken, memory = None, None
            if not reason:
                try:
                    seconds_taken, memory = in_own_process(_measure, preset, config, str(chosen), seconds)
                except BenchError as error:
                    reason = str(error)
            points.append(Point(layout, count, gmacs, attention_gmacs, seconds_taken, memory, reason))
            if seconds_taken is not None and seconds_taken > LONGEST_S:
                reason = f"not run: {count_of(count, 'frame')} already took {seconds_taken:.0f} s"
    return points


def _config(preset: str, layout: AttentionLayout, frames: int) -> ModelConfig:
    """Return the model of a preset in another layout, for this number of frames."""
    model = PRESETS[preset].model
    if layout == "factorised":
        return replace(model, num_frames=frames)
    # The other layouts attend over time inside the encoder, so nothing but the mean is left for the temporal part.
    return replace(model, num_frames=frames, layout=layout, temporal="mean")


def _count(preset: str, config: ModelConfig) -> tuple[float, float]:
    """Return the multiply-adds of a video in 1e9, without and of the products of attention; nothing is computed."""
    with torch.device("meta"):
        model = build_model(config, PRESETS[preset].view)
    cost = count_cost(model.eval(), config.num_frames, config.image_size)
    return significant(cost.gmacs, 6), significant(cost.attention_gmacs, 6)


def _measure(preset: str, config: ModelConfig, device_name: str, seconds: float) -> tuple[float, int | None]:
    """Return the median seconds of a pass, and the peak of memory above an empty process."""
    device = torch.device(device_name)
    memory = Memory(device)
    view = PRESETS[preset].view
    baseline = Baseline(build=lambda: build_model(config, view), frames=config.num_frames, view=view, takes="frames")
    runner = Runner(build(baseline), baseline, device)
    runner.take(runner.best_mode(seconds / 4, one_view=True))
    runner.seconds_of(1, 0)  # warm-up
    with memory:
        taken = runner.seconds_of(1, seconds)
    return significant(statistics.median(taken)), memory.peak_bytes
