"""From a folder of clips to a saved model: the first time, and again from the cached frame embeddings.

    python benchmarks/training.py ../shared/data > benchmarks/results/training.json

100 clips of UT-Interaction's six actions, linked into a folder for each action. The whole `fewframes train` command as a
user runs it, in fresh processes; `first` with an empty cache, `again` with what that left, three times by turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

NUM_CLIPS, REPEATS = 100, 3


def link_clips(source: Path, target: Path) -> int:
    paths = sorted(source.glob("*/*.avi"), key=lambda path: (path.name, path.parent.name))[:NUM_CLIPS]
    for path in paths:
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        (target / path.parent.name / path.name).symlink_to(path.resolve())
    return len(paths)


def train_seconds(clips: Path, work: Path, cache: Path) -> float:
    began = time.perf_counter()
    command = ["fewframes", "train", str(clips), "--output", str(work / "model"), "--cache", str(cache), "--overwrite"]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    seconds: dict[str, list[float]] = {"first": [], "again": []}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        num_clips = link_clips(Path(sys.argv[1]) / "ut_interaction", work / "clips")
        for repeat in range(REPEATS):
            for times in seconds.values():
                times.append(train_seconds(work / "clips", work, work / f"cache{repeat}"))
    results = {
        "machine": machine.describe(),
        "clips": num_clips,
        "command seconds": {name: machine.spread(values) for name, values in seconds.items()},
    }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
