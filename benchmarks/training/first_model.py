"""From a folder of clips to a saved model: the first time, and again from the cached frame embeddings.

    python -m benchmarks.training.first_model ../shared/data > benchmarks/training/first_model.json

100 clips of UT-Interaction's six actions, linked into a folder for each action. The whole `fewframes train` command as a
user runs it, in fresh processes; `first` with an empty cache, `again` with what that left, three times, interleaved.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from benchmarks.harness import interleaved, least_median_most, write_result

NUM_CLIPS, REPEATS = 100, 3


def link_clips(source: Path, target: Path) -> int:
    paths = sorted(source.glob("*/*.avi"), key=lambda path: (path.name, path.parent.name))[:NUM_CLIPS]
    for path in paths:
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        (target / path.parent.name / path.name).symlink_to(path.resolve())
    return len(paths)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work, numbers = Path(folder), count()
        num_clips = link_clips(Path(sys.argv[1]) / "ut_interaction", work / "clips")

        def train(cache: Path) -> None:
            command = ["fewframes", "train", str(work / "clips"), "--output", str(work / "model")]
            subprocess.run([*command, "--cache", str(cache), "--overwrite"], check=True, capture_output=True)

        def cache_of_this_round() -> Path:
            return work / f"cache{next(numbers) // 2}"  # both ways of a round share one

        ways = {name: lambda: train(cache_of_this_round()) for name in ("first", "again")}
        seconds = interleaved(ways, REPEATS, time.perf_counter, warm_up=False)
    write_result(
        clips=num_clips,
        **{"command seconds": {name: least_median_most(values) for name, values in seconds.items()}},
    )


if __name__ == "__main__":
    main()
