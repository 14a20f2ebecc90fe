"""What several tokens of each frame are worth, and a recurrence over time instead of attention, with frozen frame encoders.

    python -m benchmarks.accuracy.frame_tokens DATA > benchmarks/accuracy/frame_tokens.json

`--vit WEIGHTS` adds ViT-Ti to Lite0, the packaged encoder. `1` is one token a frame: the pooled features or the class token. A grid
of g x g cells of a middle layer (stage 5 of Lite0, block 8 of ViT-Ti, all channels) is `joined` to that in one vector, or gives
`1+gxg` tokens.

Protocols: `ut`, UT-Interaction, 20 sequences in five folds of whole sequences; `order`, the daily movements with a direction, each
also played backwards with the label flipped, recordings in five folds; `fights`, whole sources in five folds. Each video is learned
as it is and mirrored, and scored as it is. The temporal parts are smaller than the package's, all alike: one layer, 64 wide, motion
tokens of 64, no solved read-out, 120 steps of 16 videos. No setting was chosen on these figures.

`value` is the mean over seeds, in percent; `difference` is paired with the system it is compared with, video by video, with a 95 %
interval over groups, rows of all seeds together. A seed that would end after `--minutes` is not begun; `seeds` says how many there
are. `state kept` is the same recurrent model over all held-out videos of a fold as one stream, in an order drawn anew for each
seed, asked after the last frame of each: what came before is still in its state.

`cost`: processor time of one thread for a window of 16 embeddings, and for one step of a stream; the least of interleaved rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.accuracy.ablations import FOLDS, fold_of
from benchmarks.harness import (
    PACKAGED,
    SHARED,
    and_backwards,
    difference,
    directed_rows,
    directions,
    embedded,
    in_processes,
    interleaved,
    numbered,
    over_seeds,
    taught,
    video_set,
    write_result,
)
from fewframes.core.cache import EmbeddingCache
from fewframes.inference.predictor import Predictor
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.layers import FrameGrid
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.training.config import TrainConfig
from runs.packaged import rows_of

GRIDS = (2, 3)
CHANNELS, POOLED = {"lite0": 112, "vit-ti": 192}, {"lite0": 1280, "vit-ti": 192}
SMALL = replace(
    PACKAGED,
    cells=0,
    moment_head=False,
    temporal_depth=1,
    temporal_width=64,
    temporal_mlp_width=128,
    motion_width=64,
)
SETTINGS = TrainConfig(epochs=1, min_steps=120, batch_size=16)


@dataclass(frozen=True)
class System:
    """A temporal part, the cells that it takes, whether they are tokens, and the system that it is compared with."""

    temporal: str
    cells: int
    tokens: bool
    against: str = ""

    def config(self, channels: int, num_classes: int) -> ModelConfig:
        mean = {"temporal_width": None, "motion_width": 0} if self.temporal == "mean" else {}
        values = {"temporal": self.temporal, "cells": self.cells, "cell_width": channels, "cell_tokens": self.tokens}
        return replace(SMALL, num_classes=num_classes, **values, **mean)  # type: ignore[arg-type]


SYSTEMS = {
    "mean, 1": System("mean", 0, tokens=False),
    "transformer, 1": System("paper", 0, tokens=False, against="mean, 1"),
    "transformer, 2x2 joined": System("paper", 2, tokens=False, against="transformer, 1"),
    "transformer, 3x3 joined": System("paper", 3, tokens=False, against="transformer, 1"),
    "transformer, 1+2x2": System("paper", 2, tokens=True, against="transformer, 2x2 joined"),
    "transformer, 1+3x3": System("paper", 3, tokens=True, against="transformer, 3x3 joined"),
    "recurrent, 1": System("recurrent", 0, tokens=False, against="transformer, 1"),
    "recurrent, 1+2x2": System("recurrent", 2, tokens=True, against="transformer, 1+2x2"),
    "recurrent, 1+3x3": System("recurrent", 3, tokens=True, against="transformer, 1+3x3"),
}
KEPT = ", state kept"


class Grids(nn.Module):
    """Several grids of one layer, so that each frame is encoded once for all of them: (M, C, h, w) -> (M, all widths)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grids = nn.ModuleList(FrameGrid(channels, cells, channels) for cells in GRIDS)
        self.cells, self.width = max(GRIDS), channels * sum(cells**2 for cells in GRIDS)

    def forward(self, features_MCHW: Tensor) -> Tensor:
        return torch.cat([grid(features_MCHW) for grid in self.grids], dim=1)


def encoder_of(name: str, vit: Path) -> Predictor:
    """A frame encoder whose embeddings hold the pooled features, then the grids of `GRIDS`."""
    preset = PRESETS["lite0-16" if name == "lite0" else "vit-ti-16"]
    channels = CHANNELS[name]
    config = replace(preset.model, cells=max(GRIDS), cell_width=channels, moment_head=False)
    encoder = start_model(config, preset.view, "lite0-16" if name == "lite0" else str(vit)).frame_encoder
    width = POOLED[name] + Grids(channels).width
    encoder.grid, encoder.width = Grids(channels), width  # type: ignore[assignment]
    labels = tuple(f"class {number}" for number in range(config.num_classes))
    return Predictor(
        Checkpoint(STAM(config, preset.view, encoder, width), preset.view, labels), device="cpu", name=name
    )


def part_of(name: str, frames_BVTD: Tensor, cells: int) -> Tensor:
    """The embeddings with one grid of those that `encoder_of` gives; 0 has none."""
    pooled, channels = POOLED[name], CHANNELS[name]
    widths = [pooled, *(channels * grid**2 for grid in GRIDS)]
    parts = frames_BVTD.split(widths, dim=-1)
    return parts[0] if not cells else torch.cat([parts[0], parts[1 + GRIDS.index(cells)]], dim=-1)


@dataclass(frozen=True, eq=False)
class Task:
    """One encoder under one protocol: its embeddings (B, V, T, D) with all grids, labels and groups."""

    encoder: str
    protocol: str
    embeddings: Tensor
    targets: Tensor
    groups: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.encoder}, {self.protocol}"


def tasks_of(data: Path, encoder: str, predictor: Predictor, cache: EmbeddingCache) -> Iterator[Task]:
    rows = rows_of(data / "ut_interaction")
    views = embedded(video_set(data / "ut_interaction", rows), predictor, cache)
    sequences = tuple(row["sequence"] for row in rows)
    yield Task(encoder, "ut", views, numbered([row["label"] for row in rows]), sequences)
    rows = directed_rows(data)
    views = and_backwards(embedded(video_set(data / "fir_rgb", rows), predictor, cache))
    yield Task(encoder, "order", views, directions(rows), tuple(row["recording"] for row in rows) * 2)
    rows = rows_of(data / "fights", "list.csv")
    views = embedded(video_set(data / "fights", rows), predictor, cache)
    sources = tuple(row["group"] for row in rows)
    yield Task(encoder, "fights", views, numbered([row["label"] for row in rows]), sources)


def run(job: tuple[int, str, int]) -> dict[str, Tensor]:
    """Which rows are right (B,), each scored by a model that saw nothing of its fold; with a state that is kept too."""
    task: Task = SHARED[job[0]]
    system, seed = SYSTEMS[job[1]], job[2]
    config = system.config(CHANNELS[task.encoder], int(task.targets.max()) + 1)
    frames_BVTD = part_of(task.encoder, task.embeddings, system.cells)
    folds_B = fold_of(task.groups)
    right, kept = torch.zeros(len(folds_B)), torch.zeros(len(folds_B))
    for fold in range(FOLDS):
        held_N = (folds_B == fold).nonzero().flatten()
        learned_B = folds_B != fold
        settings = replace(SETTINGS, seed=seed)
        model = taught(config, frames_BVTD[learned_B], task.targets[learned_B], config.num_classes, settings)
        with torch.inference_mode():
            named_N = model.encode_video(frames_BVTD[held_N, 0]).logits.argmax(1)
            right[held_N] = (named_N == task.targets[held_N]).float()
            if system.temporal == "recurrent":
                order_N = held_N[torch.randperm(len(held_N), generator=torch.Generator().manual_seed(seed))]
                stream_1TD = frames_BVTD[order_N, 0].flatten(0, 1)[None]
                num_frames = frames_BVTD.shape[2]
                named_N = model.encode_prefixes(stream_1TD)[0, num_frames - 1 :: num_frames].argmax(1)
                kept[order_N] = (named_N == task.targets[order_N]).float()
    return {job[1]: right} | ({job[1] + KEPT: kept} if system.temporal == "recurrent" else {})


def entry_of(name: str, rights: dict[str, Tensor], groups: tuple[str, ...]) -> dict[str, object]:
    """The figures of a system, from which rows are right (seeds, B) by each."""
    other = name.removesuffix(KEPT) if name.endswith(KEPT) else SYSTEMS[name].against
    entry: dict[str, object] = dict(over_seeds((100 * rights[name].mean(dim=1)).tolist()))
    if other:
        entry |= {"against": other, "difference": difference(rights[name], rights[other], groups)}
    return entry


def costs() -> dict[str, dict[str, float]]:
    """For Lite0: numbers and bytes of a frame in the cache, and milliseconds of a window and of a step."""
    torch.set_num_threads(1)
    models, rows = {}, {}
    for name, system in SYSTEMS.items():
        width = POOLED["lite0"] + CHANNELS["lite0"] * system.cells**2
        torch.manual_seed(0)
        config = system.config(CHANNELS["lite0"], 6)
        models[name] = STAM(config, PRESETS["lite0-16"].view, nn.Identity(), width).eval()
        rows[name] = torch.randn(1, config.num_frames, width)

    def window(name: str) -> None:
        with torch.inference_mode():
            models[name].encode_video(rows[name])

    def step(name: str) -> None:
        with torch.inference_mode():
            models[name].step_video(rows[name][:, 0], states[name])

    recurrent = [name for name, system in SYSTEMS.items() if system.temporal == "recurrent"]
    states = {name: models[name].step_video(rows[name][:, 0])[1] for name in recurrent}
    ways = {name: lambda name=name: window(name) for name in models}
    ways |= {f"{name} step": lambda name=name: step(name) for name in recurrent}
    seconds = interleaved(ways, rounds=30)
    return {
        name: {
            "tokens a frame": models[name].temporal_encoder.num_tokens,
            "numbers a frame": rows[name].shape[-1],
            "cached bytes a frame": rows[name].shape[-1] * 4,
            "window ms": round(1e3 * min(seconds[name]), 2),
            **({"step ms": round(1e3 * min(seconds[f"{name} step"]), 2)} if name in recurrent else {}),
        }
        for name in models
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vit", type=Path, help="weights of ViT-Ti under timm's names")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--cache", type=Path, default=Path("build/frame-tokens-cache"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    cache = EmbeddingCache(options.cache)
    names = ["lite0"] if options.vit is None else ["lite0", "vit-ti"]
    tasks = [task for name in names for task in tasks_of(options.data, name, encoder_of(name, options.vit), cache)]
    began = time.perf_counter()
    rights: list[dict[str, list[Tensor]]] = [{} for _ in tasks]
    num_seeds = 0
    for seed in range(options.seeds):
        if seed and (time.perf_counter() - began) * (seed + 1) / seed > 60 * options.minutes:
            print(f"no time for seed {seed}", file=sys.stderr)
            break
        jobs = [(number, system, seed) for number in range(len(tasks)) for system in SYSTEMS]
        for job, found in in_processes(run, jobs, tasks, options.cache / "tasks.pt", options.workers):
            for name, right_B in found.items():
                rights[job[0]].setdefault(name, []).append(right_B)
        num_seeds = seed + 1
    stacked = [{name: torch.stack(found) for name, found in each.items()} for each in rights]
    write_result(
        temporal=asdict(SMALL),
        train={name: value for name, value in asdict(SETTINGS).items() if name != "seed"},
        folds=FOLDS,
        seeds=num_seeds,
        top1_percent={
            task.name: {name: entry_of(name, found, task.groups) for name in found}
            for task, found in zip(tasks, stacked, strict=True)
        },
        cost=costs(),
        seconds=round(time.perf_counter() - began),
    )


if __name__ == "__main__":
    main()
