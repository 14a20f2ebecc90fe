"""Start-up, and where the time of one video goes: decode, transform, network.

    python benchmarks/speed.py ../shared/data > benchmarks/results/speed.json

Start-up is the whole command as a newcomer runs it, in fresh processes, warm file cache. The split is over every tenth video
of the two sets, one at a time, after one warm-up, in both precisions by turns (A B A B).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import machine

import fewframes
from fewframes.data.folders import find_videos

EXAMPLE = machine.ROOT / "examples" / "hug.mp4"
REPEATS = 7


def command_seconds(*arguments: str) -> dict[str, float]:
    """Wall time of a fewframes command in a fresh process."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run(["fewframes", *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return machine.spread(seconds)


def import_seconds(statement: str) -> dict[str, float]:
    """Wall time of a fresh Python that runs one statement."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return machine.spread(seconds)


def split_seconds(paths: list[str]) -> dict[str, object]:
    """Seconds for each video and part of the work, by precision."""
    predictors = {name: fewframes.load(dtype=name) for name in ("float32", "bfloat16")}
    parts: dict[str, dict[str, list[float]]] = {
        name: {"decode": [], "transform": [], "network": []} for name in predictors
    }
    for predictor in predictors.values():
        predictor.predict(paths[0])
    for path in paths:
        for name, predictor in predictors.items():
            timing = predictor.predict(path).timing
            parts[name]["decode"].append(timing.decode_s)
            parts[name]["transform"].append(timing.transform_s)
            parts[name]["network"].append(timing.network_s)
    return {name: {part: machine.spread(seconds) for part, seconds in split.items()} for name, split in parts.items()}


def folder_seconds(folder: Path) -> dict[str, float]:
    """`predict_many` over a folder, decoding ahead: videos a second."""
    predictor = fewframes.load()
    paths = find_videos(folder)
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in predictor.predict_many(paths):
            pass
        rates.append(len(paths) / (time.perf_counter() - began))
    return machine.spread(rates)


def main() -> None:
    data = Path(sys.argv[1])
    sets = {name: data / name for name in ("ut_interaction", "fir_rgb")}
    results = {
        "machine": machine.describe(),
        "command seconds": {
            "fewframes --help": command_seconds("--help"),
            "fewframes predict examples/hug.mp4": command_seconds("predict", str(EXAMPLE)),
        },
        "import seconds": {
            name: import_seconds(f"import {name}")
            for name in ("torch", "fewframes.inference.predictor", "timm", "torchvision.transforms.v2")
        },
        "seconds of one video": {name: split_seconds(find_videos(folder)[::10]) for name, folder in sets.items()},
        "videos a second, a folder at a time": {name: folder_seconds(folder) for name, folder in sets.items()},
    }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
