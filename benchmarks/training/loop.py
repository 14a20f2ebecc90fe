"""The training loop: what the cache of embeddings is worth, how long it waits for data, and whether its workers grow.

    python -m benchmarks.training.loop ../shared/data > benchmarks/training/loop.json

`head training`: the packaged network's temporal part on cached embeddings, against the same with each video decoded and encoded
anew each time (frame encoder frozen too, two workers), videos/s, interleaved. `waiting`: fraction of the time that the whole
network, learning end to end on two workers' videos, waits for data. `worker memory`: resident memory of the two workers over
10,000 videos of the daily movements, as training reads them.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.harness import VIEW, embedded, least_median_most, ratios, resident_bytes, write_result
from fewframes.data.dataset import read_data
from fewframes.data.layouts import Sample
from fewframes.inference.predictor import load
from fewframes.models.stam import STAM
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.processes import start_processes
from fewframes.training.steps.loader import ExampleOrder, TokenExamples, VideoExamples, read_batches
from fewframes.training.steps.loop import Trainer
from fewframes.training.steps.training_set import TrainingSet, solve, token_examples

NUM_CLIPS, BATCH, TURNS, WORKERS = 96, 8, 3, 2
SOAK_VIDEOS = 10_000
CONFIG = TrainConfig(batch_size=BATCH, min_steps=10_000, epochs=1)


def samples_of(folder: Path) -> tuple[Sample, ...]:
    return read_data(folder).samples


def lesson_of_videos(samples: tuple[Sample, ...], targets: torch.Tensor) -> TrainingSet:
    examples = VideoExamples(samples, 16, VIEW, AugmentConfig(), mirror=True)
    return TrainingSet(examples, targets, [sample.path for sample in samples])


def model_and_tokens(folder: Path, targets: torch.Tensor) -> tuple[STAM, TokenExamples]:
    predictor = load("lite0-16", device="cpu")
    model = load("lite0-16", device="cpu", dtype="float32", runtime="torch").torch.checkpoint.model
    data = replace(read_data(folder), samples=samples_of(folder)[:NUM_CLIPS])
    embeddings = embedded(data, predictor, None)
    solve(model, embeddings, targets, 0)
    return model, token_examples(model, embeddings)


def videos_a_second(trainer: Trainer, num_steps: int, workers: int) -> tuple[float, float]:
    """Videos/s over some steps, the first of which is not counted, and the share of the time that was waited for data."""
    videos, seconds, waited = 0, 0.0, 0.0
    for number, step in zip(range(num_steps + 1), trainer.steps(workers), strict=False):
        if number:
            videos += step.num_videos
            seconds += step.seconds
            waited += step.waited_s
    return videos / seconds, waited / seconds


def speeds(folder: Path) -> dict[str, object]:
    samples = samples_of(folder)[:NUM_CLIPS]
    labels = sorted({sample.labels for sample in samples})
    targets = torch.eye(11)[[labels.index(sample.labels) for sample in samples]]
    model, tokens = model_and_tokens(folder, targets)
    cached: list[float] = []
    anew: list[float] = []
    waiting: list[float] = []
    for _ in range(TURNS):
        run = RunConfig(train=CONFIG)
        names = [sample.path for sample in samples]
        trainer = Trainer(model, TrainingSet(tokens, targets, names), run, start_processes("cpu", CONFIG))
        cached.append(videos_a_second(trainer, 200, 0)[0])
        lesson = lesson_of_videos(samples, targets)
        trainer = Trainer(model, lesson, run, start_processes("cpu", CONFIG), torch.bfloat16)
        anew.append(videos_a_second(trainer, 10, WORKERS)[0])
        whole = RunConfig(train=replace(CONFIG, unfreeze="all"))
        trainer = Trainer(model, lesson, whole, start_processes("cpu", CONFIG), torch.bfloat16)
        waiting.append(videos_a_second(trainer, 8, WORKERS)[1])
    return {
        "head training": {
            "videos/s from the cache": least_median_most(cached),
            "videos/s without it": least_median_most(anew),
            "ratio, turn by turn": least_median_most(ratios(cached, anew)),
        },
        "waiting for data, share of the time, whole network": least_median_most(waiting),
    }


def children_mb() -> list[float]:
    """Resident memory of the worker processes of this one, in MB."""
    sizes = []
    for pid in Path(f"/proc/self/task/{Path('/proc/self').resolve().name}/children").read_text().split():
        command = Path(f"/proc/{pid}/cmdline").read_text()
        if "spawn_main" in command:
            sizes.append(resident_bytes(pid) / 1e6)
    return sizes


def soak(folder: Path) -> dict[str, object]:
    samples = samples_of(folder)
    examples = VideoExamples(samples, 16, VIEW, AugmentConfig(), mirror=True)
    marks: list[dict[str, object]] = []
    num_batches = SOAK_VIDEOS // BATCH
    done = 0
    for number, batch in enumerate(
        read_batches(examples, ExampleOrder(len(samples), BATCH, 0), 0, num_batches, WORKERS), 1
    ):
        done += len(batch.rows)
        if number in (num_batches // 20, num_batches // 4, num_batches // 2, 3 * num_batches // 4, num_batches - 8):
            marks.append({"videos": done, "MB of each worker": [round(size) for size in children_mb()]})
    return {"videos": done, "marks": marks}


def main() -> None:
    data = Path(sys.argv[1])
    speeds_found = speeds(data / "ut_interaction")
    write_result(**speeds_found, **{"worker memory": soak(data / "fir_rgb")})


if __name__ == "__main__":
    main()
