"""The paper's ablations in which the frame encoder learns: where attention looks, and how much of the network is trained.

    python -m benchmarks.accuracy.ablations_end_to_end ../shared/data \
        --vit ../shared/weights/vit_tiny_patch16_224.fp16.safetensors > benchmarks/accuracy/ablations_end_to_end.json

In a size that two cores can afford: ViT-Ti at 112 px, 8 frames. UT-Interaction, trained on one set (60 clips) and scored on the
other, both ways, by `train` with the settings below: AdamW, 1e-3 for what is new, 1e-4 for the encoder and 0.75 of that for each
layer further down, batches of 8, the drawn views of the package. The layouts that mix frames inside the encoder have no temporal
encoder after it. All rows take the same steps, but the last: what a frozen encoder affords in less time, its embeddings cached.

`value` is the mean over seeds, in percent; `difference` is paired, video by video, with the first row, with a 95 % interval over
sequences, rows of all seeds together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import difference, over_seeds, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.train import TrainOptions, train
from runs.packaged import rows_of

SIZE = {"image_size": 112, "num_frames": 8}
AFTER = {"temporal": "paper", "temporal_depth": 2, "temporal_positions": "waves"}
INSIDE = {"temporal": "mean"}
FIT = TrainConfig(
    min_steps=1, batch_size=8, learning_rate=1e-3, encoder_learning_rate=1e-4, layer_decay=0.75, workers=0
)
LONG = {"batch_size": 32, "epochs": 80, "min_steps": 300}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "temporal transformer after the encoder, all learns": ({"unfreeze": "all"}, {"layout": "factorised", **AFTER}),
    "joint space-time attention (Eq. 5), all learns": ({"unfreeze": "all"}, {"layout": "joint", **INSIDE}),
    "time inside every block, all learns": ({"unfreeze": "all"}, {"layout": "per_block", **INSIDE}),
    "mean of frames, all learns": ({"unfreeze": "all"}, {"layout": "factorised", **INSIDE}),
    "temporal transformer, last two blocks learn": (
        {"unfreeze": "last-2-blocks"},
        {"layout": "factorised", **AFTER},
    ),
    "temporal transformer, frozen encoder": ({"unfreeze": "none"}, {"layout": "factorised", **AFTER}),
    "temporal transformer, frozen encoder, 300 steps of 32": (
        {"unfreeze": "none", **LONG},
        {"layout": "factorised", **AFTER},
    ),
}
WAYS = ("1 -> 2", "2 -> 1")


@dataclass(frozen=True)
class Job:
    """One run: where the videos and weights are, how the variant is trained, and on which set."""

    data: Path
    vit: Path
    cache: Path
    epochs: int
    name: str
    way: str
    seed: int


def run(job: Job) -> tuple[dict[str, float], float]:
    """Which scored videos were right (1) or wrong (0), by path in the data, and the seconds it took."""
    torch.set_num_threads(1)
    folder = job.data / "ut_interaction"
    samples = [
        Sample(
            path=str(folder / row["path"]),
            labels=(row["label"],),
            split="train" if row["set"] == job.way[0] else "test",
        )
        for row in rows_of(folder)
    ]
    training, model = VARIANTS[job.name]
    settings = RunConfig(
        start="vit-ti-16",
        init=str(job.vit),
        model={**SIZE, **model},
        view={"crop_px": 112, "resize_px": 112},
        train=replace(FIT, **{"epochs": job.epochs, "seed": job.seed, **training}),
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        data = VideoSet(tuple(samples), f"UT-Interaction, {job.way}")
        cache = EmbeddingCache(job.cache)
        trained = train(data, Path(output), settings, TrainOptions(cache=cache, device="cpu", overwrite=True))
    evaluation = trained.evaluation
    assert evaluation is not None
    logits_NK, targets_NK = torch.as_tensor(evaluation.logits), torch.as_tensor(evaluation.targets)
    right_N = (logits_NK.argmax(dim=1) == targets_NK.argmax(dim=1)).float()
    names = [str(Path(sample.path).relative_to(folder)) for sample in evaluation.samples]
    return dict(zip(names, right_N.tolist(), strict=True)), time.perf_counter() - began


def right_of(results: dict[Job, tuple[dict[str, float], float]], name: str, videos: list[str]) -> Tensor:
    """(S, B): each video scored by the run that had not learned its set."""
    seeds = sorted({job.seed for job in results})
    merged = [
        {path: value for job, (right, _) in results.items() if (job.name, job.seed) == (name, seed)
         for path, value in right.items()}
        for seed in seeds
    ]  # fmt: skip
    return torch.tensor([[right[path] for path in videos] for right in merged])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vit", type=Path, required=True, help="weights of ViT-Ti under timm's names")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, a thread each")
    options = parser.parse_args()
    rows = rows_of(options.data / "ut_interaction")
    videos, groups = [row["path"] for row in rows], [row["sequence"] for row in rows]
    sets = {way: torch.tensor([row["set"] == way[-1] for row in rows]) for way in WAYS}
    results: dict[Job, tuple[dict[str, float], float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        jobs = [
            Job(options.data, options.vit, Path(cache), options.epochs, name, way, seed)
            for seed in range(options.seeds)
            for way in WAYS
            for name in VARIANTS
        ]
        with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
            for job, result in zip(jobs, pool.map(run, jobs), strict=True):
                results[job] = result
                share = statistics.mean(result[0].values())
                print(f"{job.name}, {job.way}, seed {job.seed}: {share:.3f} in {result[1]:.0f} s", file=sys.stderr)
    first_SB = right_of(results, next(iter(VARIANTS)), videos)
    table: dict[str, dict[str, Any]] = {}
    for name in VARIANTS:
        right_SB = right_of(results, name, videos)
        parts = {"both": right_SB, **{way: right_SB[:, held_B] for way, held_B in sets.items()}}
        table[name] = {part: over_seeds((100 * part_SB.mean(dim=1)).tolist()) for part, part_SB in parts.items()}
        if name != next(iter(VARIANTS)):
            table[name]["difference"] = difference(right_SB, first_SB, groups)
    write_result(
        processes=options.workers,
        seeds=options.seeds,
        model=SIZE,
        train={name: value for name, value in asdict(replace(FIT, epochs=options.epochs)).items() if name != "seed"},
        **{"changed in the last row": LONG},
        top1_percent=table,
    )


if __name__ == "__main__":
    main()
