"""The parts of a training on cached embeddings, by how the threads of OpenMP wait: alone, and beside two busy processes.

    python -m benchmarks.training.waiting > benchmarks/training/waiting.json

100 videos of 8 views, 16 frames and 2,288 numbers, drawn at random; the preset `lite0-16` with six actions. Each way is a fresh
process: `busy` is how OpenMP waits by default, `asleep` what the command asks for (OMP_WAIT_POLICY=PASSIVE), `one thread` is
torch with one. Wall-clock seconds, three rounds, interleaved. "alone" is beside whatever else the machine did, see "load".
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.harness import least_median_most, write_result

ROUNDS, NUM_STEPS, BUSY_PROCESSES = 3, 40, 2
WAYS = {"busy": ("ACTIVE", 2), "asleep": ("PASSIVE", 2), "one thread": ("PASSIVE", 1)}
"""The policy of waiting threads and the number of torch's threads, by name."""


def measure(num_threads: int) -> None:
    """Print the seconds of each part as JSON."""
    import torch

    from fewframes.models.files.networks import build_model
    from fewframes.models.presets import PRESETS
    from fewframes.training.config import RunConfig
    from fewframes.training.processes import start_processes
    from fewframes.training.steps.loop import Trainer
    from fewframes.training.steps.training_set import TrainingSet, solve, token_examples

    torch.set_num_threads(num_threads)
    generator = torch.Generator().manual_seed(0)
    preset, run = PRESETS["lite0-16"], RunConfig()
    model = build_model(replace(preset.model, num_classes=6), preset.view)
    embeddings_BVTD = torch.randn(100, 8, 16, 2288, generator=generator)
    targets_BK = torch.nn.functional.one_hot(torch.arange(100) % 6, 6).float()
    marks = [time.perf_counter()]
    solve(model, embeddings_BVTD, targets_BK, 0)
    marks.append(time.perf_counter())
    examples = token_examples(model, embeddings_BVTD)
    marks.append(time.perf_counter())
    names = [str(number) for number in range(100)]
    trainer = Trainer(model, TrainingSet(examples, targets_BK, names), run, start_processes("cpu", run.train))
    marks.append(time.perf_counter())
    for step in trainer.steps():
        if step.number == NUM_STEPS:
            break
    marks.append(time.perf_counter())
    print(json.dumps({"fits": marks[1] - marks[0], "tokens": marks[2] - marks[1], "40 steps": marks[4] - marks[3]}))


def spin() -> None:
    while True:
        pass


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(number)]
    for other in others:
        other.start()
    yield
    for other in others:
        other.kill()


def main() -> None:
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
        return
    seconds: dict[str, dict[str, dict[str, list[float]]]] = {"alone": {}, "beside two busy processes": {}}
    load = os.getloadavg()[0]
    for _ in range(ROUNDS):
        for place, number in zip(seconds, (0, BUSY_PROCESSES), strict=True):
            for way, (policy, threads) in WAYS.items():
                with busy_processes(number):
                    done = subprocess.run(
                        [sys.executable, "-m", "benchmarks.training.waiting", str(threads)],
                        env=os.environ | {"OMP_WAIT_POLICY": policy},
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                parts = json.loads(done.stdout.splitlines()[-1])
                for part, value in (parts | {"all": sum(parts.values())}).items():
                    seconds[place].setdefault(way, {}).setdefault(part, []).append(value)
    write_result(
        load=round(load, 1),
        seconds={
            place: {
                way: {part: least_median_most(values) for part, values in parts.items()} for way, parts in ways.items()
            }
            for place, ways in seconds.items()
        },
        ratios_to_busy={
            place: {
                way: least_median_most(
                    [one / busy for one, busy in zip(ways[way]["all"], ways["busy"]["all"], strict=True)]
                )
                for way in ("asleep", "one thread")
            }
            for place, ways in seconds.items()
        },
    )


if __name__ == "__main__":
    main()
