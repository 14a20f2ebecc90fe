"""Start-up, and where the time of one video goes: decode, transform, network.

    python -m benchmarks.speed.startup ../shared/data > benchmarks/speed/startup.json

Start-up is the whole command as a newcomer runs it, in fresh processes, warm file cache. The split is over every tenth video
of the two sets, one at a time, after one warm-up, both precisions interleaved.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import fewframes
from benchmarks.harness import ROOT, interleaved, least_median_most, write_result
from fewframes.data.folders import find_videos

EXAMPLE = ROOT / "examples" / "hug.mp4"
REPEATS = 7


def process_seconds(commands: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Wall time of each command in fresh processes."""

    def start(command: list[str]) -> object:
        return subprocess.run(command, check=True, capture_output=True)

    ways = {name: partial(start, command) for name, command in commands.items()}
    seconds = interleaved(ways, REPEATS, time.perf_counter, warm_up=False)
    return {name: least_median_most(values) for name, values in seconds.items()}


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
    return {
        name: {part: least_median_most(seconds) for part, seconds in split.items()} for name, split in parts.items()
    }


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
    return least_median_most(rates)


def main() -> None:
    data = Path(sys.argv[1])
    sets = {name: data / name for name in ("ut_interaction", "fir_rgb")}
    modules = ("torch", "fewframes.inference.predictor", "timm", "torchvision.transforms.v2")
    write_result(
        **{
            "command seconds": process_seconds(
                {
                    "fewframes --help": ["fewframes", "--help"],
                    "fewframes predict examples/hug.mp4": ["fewframes", "predict", str(EXAMPLE)],
                }
            ),
            "import seconds": process_seconds({name: [sys.executable, "-c", f"import {name}"] for name in modules}),
            "seconds of one video": {name: split_seconds(find_videos(folder)[::10]) for name, folder in sets.items()},
            "videos a second, a folder at a time": {name: folder_seconds(folder) for name, folder in sets.items()},
        },
    )


if __name__ == "__main__":
    main()
