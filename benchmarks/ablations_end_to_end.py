"""The paper's ablations in which the frame encoder learns: where attention looks, and how much of the network is trained.

    python benchmarks/ablations_end_to_end.py ../shared/data --vit ../shared/weights/vit_tiny_patch16_224.fp16.safetensors \
        > benchmarks/results/ablations_end_to_end.json

In a size that two cores can afford: ViT-Ti at 112 px, 8 frames. UT-Interaction, trained on one set (60 clips) and judged on the
other, both ways, by `train` with the settings below: AdamW, 1e-3 for what is new, 1e-4 for the encoder and 0.75 of that for each
layer further down, batches of 8, the drawn views of the package. The layouts that mix frames inside the encoder have no temporal
encoder after it.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import machine

from fewframes.cache import EmbeddingCache
from fewframes.config import RunConfig, TrainConfig
from fewframes.data import VideoSet
from fewframes.layouts import Sample
from fewframes.metrics import Report
from fewframes.train import Options, train

SIZE = {"image_size": 112, "num_frames": 8}
AFTER = {"temporal": "paper", "temporal_depth": 2, "temporal_positions": "waves"}
INSIDE = {"temporal": "mean"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "temporal transformer after the encoder, all learns": ("all", {"layout": "factorised", **AFTER}),
    "joint space-time attention (Eq. 5), all learns": ("all", {"layout": "joint", **INSIDE}),
    "time inside every block, all learns": ("all", {"layout": "per_block", **INSIDE}),
    "mean of frames, all learns": ("all", {"layout": "factorised", **INSIDE}),
    "temporal transformer, last two blocks learn": ("last-2-blocks", {"layout": "factorised", **AFTER}),
    "temporal transformer, frozen encoder": ("none", {"layout": "factorised", **AFTER}),
}
FIT = TrainConfig(
    epochs=12, min_steps=1, batch_size=8, learning_rate=1e-3, encoder_learning_rate=1e-4, layer_decay=0.75, workers=1
)
FROZEN = replace(FIT, batch_size=32, epochs=80, min_steps=300)


def videos(folder: Path, train_set: str) -> VideoSet:
    with (folder / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    samples = [
        Sample(
            path=str(folder / row["path"]), labels=(row["label"],), split="train" if row["set"] == train_set else "test"
        )
        for row in rows
    ]
    return VideoSet(tuple(samples), f"UT-Interaction, trained on set {train_set}")


def spread(values: list[float]) -> dict[str, float]:
    numbers = {"value": statistics.mean(values), "min": min(values), "max": max(values)}
    return {name: round(number, 1) for name, number in numbers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vit", type=Path, required=True, help="weights of ViT-Ti under timm's names")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--ways", nargs="+", default=["1 -> 2", "2 -> 1"], help="trained on one set, judged on the other"
    )
    parser.add_argument("--epochs", type=int, default=FIT.epochs)
    options = parser.parse_args()
    fit = replace(FIT, epochs=options.epochs)
    results: dict[str, dict[str, Any]] = {
        name: {**{way: [] for way in options.ways}, "seconds": []} for name in VARIANTS
    }
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder) / "cache")
        for seed in range(options.seeds):
            for way in options.ways:
                data = videos(options.data / "ut_interaction", way[0])
                for name, (unfreeze, model) in VARIANTS.items():
                    settings = replace(FROZEN if unfreeze == "none" else fit, seed=seed, unfreeze=unfreeze)
                    run = RunConfig(
                        start="vit-ti-16",
                        init=str(options.vit),
                        model={**SIZE, **model},
                        view={"crop_px": 112, "resize_px": 112},
                        train=settings,
                    )
                    began = time.perf_counter()
                    trained = train(data, Path(folder) / "out", run, Options(cache=cache, device="cpu", overwrite=True))
                    assert trained.evaluation is not None
                    assert isinstance(trained.evaluation.report, Report)
                    results[name][way].append(100 * trained.evaluation.report.top1)
                    results[name]["seconds"].append(time.perf_counter() - began)
                    print(
                        f"seed {seed}, {way}, {name}: {trained.evaluation.report.top1:.3f}", file=sys.stderr, flush=True
                    )
    report = {
        "machine": machine.describe(),
        "command": "python benchmarks/ablations_end_to_end.py DATA --vit WEIGHTS",
        "seeds": options.seeds,
        "train": {name: value for name, value in asdict(fit).items() if name != "seed"},
        "top1_percent": {
            name: {key: spread(values) for key, values in columns.items()} for name, columns in results.items()
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
