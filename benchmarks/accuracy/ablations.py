"""The paper's ablations on real videos, with frozen frame encoders: what a temporal transformer, other encoders, more frames, the
published block and several clips are worth.

    python -m benchmarks.accuracy.ablations ../shared/data --vit ../shared/weights/vit_tiny_patch16_224.fp16.safetensors \
        > benchmarks/accuracy/ablations.json

Protocols: `ut`, UT-Interaction, 20 sequences in five folds of whole sequences; `order`, the daily movements with a direction,
each also played backwards with the label flipped, recordings in five folds. Each video as it is and mirrored, 200 steps of the
package's settings, three seeds. `value` is the mean over seeds, in percent; `difference` is paired with the system it is compared
with, with a 95 % interval over groups (sequences, recordings), rows of all seeds together.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.accuracy.recipe import MEAN, PLAIN
from benchmarks.harness import (
    PACKAGED,
    SHARED,
    and_backwards,
    difference,
    directed_rows,
    directions,
    embedded,
    in_processes,
    numbered,
    over_seeds,
    taught,
    video_set,
    write_result,
)
from fewframes.core.cache import EmbeddingCache
from fewframes.inference.predictor import Predictor, load
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.results import Failure
from fewframes.sampling import Views
from fewframes.training.config import TrainConfig
from fewframes.training.evaluation.scoring import averaged
from fewframes.training.features import extract_features
from runs.packaged import rows_of

FOLDS, SEEDS = 5, 3
POOLED = 1280  # of Lite0's features, before the grid of its middle
TRANSFORMER = replace(PACKAGED, moment_head=False)
SETTINGS = TrainConfig(epochs=25, min_steps=200)
CLIPS = {"5x1": Views(num_clips=5, num_crops=1, clip_s=1.0), "1x1": Views()}


@dataclass(frozen=True, eq=False)
class Task:
    """One system under one protocol: its embeddings (B, V, T, D), labels, groups, and settings."""

    system: str
    protocol: str
    embeddings: Tensor
    targets: Tensor
    groups: tuple[str, ...]
    config: ModelConfig


def encoders(vit: Path) -> dict[str, Predictor]:
    """ViT-Ti with the weights given, Lite0 with and without the grid of its middle."""
    lite = load("lite0-16", device="cpu")
    tiny = PRESETS["vit-ti-16"]
    model = start_model(tiny.model, tiny.view, str(vit))
    labels = tuple(f"class {index}" for index in range(tiny.model.num_classes))
    return {
        "lite0": lite,
        "vit-ti": Predictor(Checkpoint(model, tiny.view, labels), device="cpu", name="vit-ti"),
    }


@dataclass(frozen=True)
class System:
    """What is compared: an encoder, what is trained on its embeddings, how many frames, and of what it is a change."""

    encoder: str
    config: ModelConfig
    against: str = ""
    frames: int = 16
    pooled: bool = False


PLAIN_RELEASE = replace(PLAIN, temporal="release", temporal_dropout=0.1)
SYSTEMS = {
    "lite0, mean": System("lite0", MEAN),
    "lite0, transformer": System("lite0", TRANSFORMER, "lite0, mean"),
    "lite0, paper's plain transformer": System("lite0", PLAIN, "lite0, mean"),
    "vit-ti, mean": System("vit-ti", MEAN),
    "vit-ti, transformer": System("vit-ti", TRANSFORMER, "vit-ti, mean"),
    "vit-ti, paper's plain transformer": System("vit-ti", PLAIN, "vit-ti, mean"),
    "lite0 pooled alone, transformer": System("lite0", TRANSFORMER, "lite0, transformer", pooled=True),
    "lite0, release's plain transformer": System("lite0", PLAIN_RELEASE, "lite0, paper's plain transformer"),
} | {
    f"lite0, transformer, {frames} frames": System("lite0", TRANSFORMER, "lite0, transformer", frames)
    for frames in (4, 8, 32, 64)
}


def tasks_of(data: Path, vit: Path, cache: EmbeddingCache) -> list[Task]:
    predictors = encoders(vit)
    tasks: list[Task] = []
    for protocol, folder, rows, labels, groups in protocols(data):
        for name, system in SYSTEMS.items():
            predictor, data_set = predictors[system.encoder], video_set(folder, rows)
            frames_BVTD = embedded(data_set, predictor, cache, num_frames=system.frames)
            if system.pooled:
                frames_BVTD = frames_BVTD[..., :POOLED]
            if protocol == "order":
                frames_BVTD = and_backwards(frames_BVTD)
            config = replace(system.config, num_frames=system.frames, num_classes=int(labels.max()) + 1)
            tasks.append(Task(name, protocol, frames_BVTD, labels, groups, config))
    return tasks


def protocols(data: Path) -> Iterable[tuple[str, Path, list[dict[str, str]], Tensor, tuple[str, ...]]]:
    rows = rows_of(data / "ut_interaction")
    labels = numbered([row["label"] for row in rows])
    yield "ut", data / "ut_interaction", rows, labels, tuple(row["sequence"] for row in rows)
    rows = directed_rows(data)
    yield "order", data / "fir_rgb", rows, directions(rows), tuple(row["recording"] for row in rows) * 2


def fold_of(groups: tuple[str, ...]) -> Tensor:
    """The fold of each row: whole groups, dealt in turn from the largest."""
    order = sorted(set(groups), key=lambda group: (-groups.count(group), group))
    return torch.tensor([order.index(group) % FOLDS for group in groups])


def run(job: tuple[int, int]) -> Tensor:
    """Which rows are right, each scored by a model that saw nothing of its fold: (B,) of 0 and 1."""
    task, seed = SHARED[job[0]], job[1]
    right_B = torch.zeros(len(task.targets))
    folds_B = fold_of(task.groups)
    for fold in range(FOLDS):
        held_B = folds_B == fold
        model = trained(task, ~held_B, seed)
        with torch.inference_mode():
            named = model.encode_video(task.embeddings[held_B, 0]).logits.argmax(1)
        right_B[held_B] = (named == task.targets[held_B]).float()
    return right_B


def trained(task: Task, rows_B: Tensor, seed: int) -> STAM:
    settings = replace(SETTINGS, seed=seed)
    return taught(task.config, task.embeddings[rows_B], task.targets[rows_B], task.config.num_classes, settings)


def clips_against_one_pass(data: Path, tasks: list[Task]) -> dict[str, dict[str, float]]:
    """UT-Interaction scored in one pass and by five clips of a second, by the same models (three seeds)."""
    task = next(task for task in tasks if task.protocol == "ut" and task.system == "lite0, transformer")
    folder = data / "ut_interaction"
    videos = video_set(folder, rows_of(folder))
    predictor = load("lite0-16", device="cpu")
    seen = {name: list(extract_features(videos, predictor, None, views=views)) for name, views in CLIPS.items()}
    folds_B = fold_of(task.groups)
    shares: dict[str, list[float]] = {name: [] for name in CLIPS}
    for seed in range(SEEDS):
        right = dict.fromkeys(CLIPS, 0)
        for fold in range(FOLDS):
            model = trained(task, folds_B != fold, seed)
            for place in (folds_B == fold).nonzero().flatten().tolist():
                for name, videos_seen in seen.items():
                    one = videos_seen[place]
                    assert not isinstance(one, Failure)
                    with torch.inference_mode():
                        logits_VK = model.encode_video(torch.as_tensor(one.features)).logits.numpy()
                    right[name] += int(averaged(logits_VK, "single").argmax() == task.targets[place])
        for name, count in right.items():
            shares[name].append(100 * count / len(task.targets))
    return {name: over_seeds(values) for name, values in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vit", type=Path, required=True, help="weights of ViT-Ti under timm's names")
    parser.add_argument("--cache", type=Path, default=Path("build/ablations-cache"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    began = time.perf_counter()
    tasks = tasks_of(options.data, options.vit, EmbeddingCache(options.cache))
    jobs = [(number, seed) for seed in range(SEEDS) for number in range(len(tasks))]
    rights = dict(in_processes(run, jobs, tasks, options.cache / "tasks.pt", options.workers))
    results: dict[str, dict[str, object]] = {}
    for number, task in enumerate(tasks):
        right_SB = torch.stack([rights[number, seed] for seed in range(SEEDS)])
        entry: dict[str, object] = dict(over_seeds((100 * right_SB.mean(dim=1)).tolist()))
        other = SYSTEMS[task.system].against
        if other:
            place = next(i for i, o in enumerate(tasks) if o.system == other and o.protocol == task.protocol)
            other_SB = torch.stack([rights[place, seed] for seed in range(SEEDS)])
            entry |= {"against": other, "difference": difference(right_SB, other_SB, task.groups)}
        results.setdefault(task.protocol, {})[task.system] = entry
    write_result(
        protocol="ut: 120 videos, sequences in folds; order: 132 videos forwards and backwards, recordings in folds; "
        "one view of the whole video scored; each video and its mirror image learned",
        train={name: value for name, value in asdict(SETTINGS).items() if name != "seed"},
        processes=options.workers,
        folds=FOLDS,
        seeds=SEEDS,
        top1_percent=results,
        **{"ut, clips": clips_against_one_pass(options.data, tasks)},
        seconds=round(time.perf_counter() - began),
    )


if __name__ == "__main__":
    main()
