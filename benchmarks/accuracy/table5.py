"""The paper's Table 5 on real videos: systems built for dense clips, scored by many clips and by one view of 16 uniform frames;
and ours, built for uniform frames, the other way round.

    pip install '.[baselines]'
    python -m benchmarks.accuracy.table5 ../shared/data > benchmarks/accuracy/table5.json

Data: UT-Interaction and the daily movements, 335 videos, eleven actions, as `runs/packaged.py` has them; one of five folds of
whole sequences and recordings is scored, the others are learned from.

The baselines are small versions of X3D and SlowFast (pytorchvideo's own builders) at 112 px and start from random weights, for none
that were trained are at hand: they learn from clips of 16 frames, 15 a second, at a random time. Ours starts from ImageNet weights
and learns with the package's settings. So the columns are compared within a row, not the rows with each other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from pytorchvideo.models.slowfast import create_slowfast
from pytorchvideo.models.x3d import create_x3d
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import over_seeds, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.inference.predictor import Predictor
from fewframes.models.baselines.systems import BaselineNetwork
from fewframes.models.cost import count_cost
from fewframes.sampling import Views, centre_times, clip_times
from fewframes.training.config import RunConfig
from fewframes.training.evaluation.evaluate import EvaluateConfig, evaluate
from fewframes.training.steps.optim import warmup_cosine
from fewframes.training.train import TrainOptions, train
from fewframes.video.source import open_video
from fewframes.video.transforms import resized
from fewframes.video.view import ViewConfig
from runs.packaged import folds_of, videos_of

SIDE_PX, CROP_PX, FRAMES, RATE = 128, 112, 16, 15
NUM_CLIPS = 10
CLIP_S = FRAMES / RATE
VIEW = ViewConfig(resize_px=CROP_PX, crop_px=CROP_PX)


def x3d_small(num_classes: int) -> nn.Module:
    network = create_x3d(
        input_clip_length=FRAMES,
        input_crop_size=CROP_PX,
        model_num_class=num_classes,
        depth_factor=1.0,
        head_activation=None,
    )
    return BaselineNetwork(network, "clip", VIEW)


def slowfast_small(num_classes: int) -> nn.Module:
    network = create_slowfast(
        model_depth=18, model_num_class=num_classes, head_pool_kernel_sizes=((4, 4, 4), (16, 4, 4))
    )
    return BaselineNetwork(network, "pathways", VIEW)


BASELINES: dict[str, tuple[Callable[[int], nn.Module], torch.dtype]] = {
    "X3D, small": (x3d_small, torch.float32),  # its depthwise convolutions go backwards faster so
    "SlowFast, small": (slowfast_small, torch.bfloat16),
}


def read_all(path: str) -> Tensor:
    """The whole video at 15 frames a second, squeezed to a square: (F, C, H, W) uint8."""

    with closing(open_video(path, threads=1)) as video:
        times_s = centre_times(video.duration_s, max(2, round(RATE * video.duration_s)))
        return torch.as_tensor(video.frames_at(times_s, lambda frame: resized(frame, SIDE_PX, SIDE_PX)).frames)


def clip_positions(num_frames: int, num_clips: int) -> Tensor:
    """Which frames clips take that lie evenly over the video: (V, T)."""
    times = clip_times(0.0, num_frames / RATE, FRAMES, num_clips=num_clips, clip_s=CLIP_S)
    return torch.as_tensor(times * RATE).long().clamp(max=num_frames - 1)


def uniform(num_frames: int) -> Tensor:
    """Which frames one view over the whole video takes: (1, T)."""
    return torch.as_tensor(centre_times(num_frames / RATE, FRAMES) * RATE).long().clamp(max=num_frames - 1)[None]


def cropped(frames: Tensor, top: int, left: int) -> Tensor:
    return frames[..., top : top + CROP_PX, left : left + CROP_PX]


def learn(
    network: nn.Module, videos: list[Tensor], targets: Tensor, epochs: int, seed: int, dtype: torch.dtype
) -> None:
    """From clips at random times, crops and mirror images: AdamW, warm-up and cosine."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randint, size=(1,), generator=generator)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    batch_size = 16
    num_steps = epochs * -(-len(videos) // batch_size)
    number = 0
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(videos), generator=generator).split(batch_size):
            clips = []
            for row in rows.tolist():
                video_FCHW = videos[row]
                start = int(draw(max(1, len(video_FCHW) - FRAMES + 1)))
                clip = video_FCHW[torch.arange(start, start + FRAMES).clamp(max=len(video_FCHW) - 1)]
                clip = cropped(clip, int(draw(SIDE_PX - CROP_PX + 1)), int(draw(SIDE_PX - CROP_PX + 1)))
                clips.append(clip.flip(-1) if int(draw(2)) else clip)
            for group in optimiser.param_groups:
                group["lr"] = 2e-3 * warmup_cosine(number, num_steps, num_steps // 10)
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                logits_BK = network(torch.stack(clips).float() / 255)
            loss = F.cross_entropy(logits_BK.float(), targets[rows], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            number += 1
    network.eval()


@torch.inference_mode()
def right(network: nn.Module, videos: list[Tensor], targets: Tensor, positions: Callable[[int], Tensor]) -> float:
    """Share of videos that are named right, in %, scores averaged over views."""
    middle, count = (SIDE_PX - CROP_PX) // 2, 0
    for video_FCHW, target in zip(videos, targets.tolist(), strict=True):
        views_VTCHW = cropped(video_FCHW[positions(len(video_FCHW))], middle, middle)
        with torch.autocast("cpu", torch.bfloat16):
            logits_VK = network(views_VTCHW.float() / 255)
        count += int(logits_VK.float().softmax(1).mean(0).argmax()) == target
    return 100 * count / len(videos)


def ours(fold: VideoSet, seed: int, cache: EmbeddingCache) -> tuple[float, float]:
    """The packaged recipe: one pass over uniform frames, and ten clips as the baselines take them."""
    run = RunConfig()
    run = replace(run, train=replace(run.train, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        trained = train(fold, Path(folder) / "out", run, TrainOptions(cache=cache, device="cpu"))
    held = VideoSet(tuple(sample for sample in fold.samples if sample.split == "test"), fold.name)
    predictor = Predictor(trained.checkpoint, device="cpu")
    config = EvaluateConfig(views=Views(num_clips=NUM_CLIPS, num_crops=1, clip_s=CLIP_S), order=False)
    assert trained.evaluation is not None
    one, many = trained.evaluation.report, evaluate(held, predictor, cache, config).report
    return 100 * one.top1, 100 * many.top1  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=Path("build/table5-cache"))
    options = parser.parse_args()
    fold, held = next(folds_of(videos_of(options.data)))
    began = time.perf_counter()
    frames = [read_all(sample.path) for sample in fold.samples]
    targets = torch.tensor(fold.targets())
    learned = [row for row in range(len(frames)) if row not in set(held)]
    print(
        f"{len(learned)} learned from, {len(held)} scored, read in {time.perf_counter() - began:.0f} s", file=sys.stderr
    )
    figures: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, dict[str, float]] = {}
    for seed in range(options.seeds):
        for name, (build, dtype) in BASELINES.items():
            torch.manual_seed(seed)
            network = build(len(fold.labels)).to(memory_format=torch.channels_last_3d)
            cost = count_cost(network.eval(), FRAMES, CROP_PX)
            costs[name] = {"parameters_m": cost.num_parameters / 1e6, "gmacs_a_view": cost.gmacs}
            learn(network, [frames[row] for row in learned], targets[learned], options.epochs, seed, dtype)
            scored = [frames[row] for row in held]
            row = figures.setdefault(name, {"ten clips": [], "one uniform view": []})
            row["ten clips"].append(right(network, scored, targets[held], partial(clip_positions, num_clips=NUM_CLIPS)))
            row["one uniform view"].append(right(network, scored, targets[held], uniform))
            print(f"seed {seed}: {name} {row} {time.perf_counter() - began:.0f} s", file=sys.stderr)
        one, many = ours(fold, seed, EmbeddingCache(options.cache))
        row = figures.setdefault("lite0-16", {"ten clips": [], "one uniform view": []})
        row["ten clips"].append(many)
        row["one uniform view"].append(one)
        print(f"seed {seed}: lite0-16 {row}", file=sys.stderr)
    write_result(
        videos={"learned from": len(learned), "judged": len(held), "data": fold.name},
        protocol=f"{NUM_CLIPS} clips of {FRAMES} frames at {RATE} a second, scores averaged, against {FRAMES} uniform frames",
        costs=costs,
        top1_percent={
            name: {view: over_seeds(values) for view, values in row.items()}
            | {"lost in one uniform view": over_seeds([a - b for a, b in zip(*row.values(), strict=True)])}
            for name, row in figures.items()
        },
    )


if __name__ == "__main__":
    main()
