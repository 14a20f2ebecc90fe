"""The paper's ablations on real videos, with frozen frame encoders: what a temporal transformer, other encoders, more frames, the
published block and several clips are worth.

    python benchmarks/ablations.py ../shared/data --vit ../shared/weights/vit_tiny_patch16_224.fp16.safetensors \
        > benchmarks/results/ablations.json

Protocols: `ut`, UT-Interaction, 20 sequences in five folds of whole sequences; `order`, the daily movements with a direction,
each also played backwards with the label flipped, recordings in five folds. Each video as it is and mirrored, 200 steps of the
package's settings, three seeds. `value` is the mean over seeds, in percent; `difference` is paired with the system it is compared
with, with a 95 % interval over groups (sequences, recordings) drawn anew, rows of all seeds together.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import machine
import torch
from accuracy import DARK, MEAN, PACKAGED, PLAIN, rows_of
from paired import difference, spread
from torch import Tensor

from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.inference.predictor import Predictor, load
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.presets import LITE_VIEW, PRESETS
from fewframes.models.stam import STAM
from fewframes.results import Failure
from fewframes.sampling import Views
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.evaluation.scoring import averaged
from fewframes.training.features import EmbeddedVideos, embed_videos, extract_features
from fewframes.training.loop import fit

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


def embedded(
    folder: Path, rows: list[dict[str, str]], predictor: Predictor, cache: EmbeddingCache, frames: int
) -> Tensor:
    data = VideoSet(tuple(Sample(path=str(folder / row["path"]), labels=(row["label"],)) for row in rows), folder.name)
    for result in embed_videos(data, predictor, cache, mirror=True, num_frames=frames):
        if isinstance(result, EmbeddedVideos):
            assert not result.failures
            print(f"{folder.name}: {frames} frames of {predictor.name}", file=sys.stderr)
            return result.embeddings
    raise AssertionError


def encoders(vit: Path) -> dict[str, Predictor]:
    """ViT-Ti with the weights given, Lite0 with and without the grid of its middle."""
    lite = load("lite0-16", device="cpu")
    tiny = PRESETS["vit-ti-16"]
    model = start_model(tiny.model, tiny.view, str(vit))
    labels = tuple(f"class {index}" for index in range(tiny.model.num_classes))
    return {"lite0": lite, "vit-ti": Predictor(Checkpoint(model, tiny.view, labels), device="cpu", name="vit-ti")}


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
            frames_BVTD = embedded(folder, rows, predictors[system.encoder], cache, system.frames)
            if system.pooled:
                frames_BVTD = frames_BVTD[..., :POOLED]
            if protocol == "order":  # centres of equal parts are the same moments backwards
                frames_BVTD = torch.cat([frames_BVTD, frames_BVTD.flip(2)])
            config = replace(system.config, num_frames=system.frames, num_classes=int(labels.max()) + 1)
            tasks.append(Task(name, protocol, frames_BVTD, labels, groups, config))
    return tasks


def protocols(data: Path) -> Iterable[tuple[str, Path, list[dict[str, str]], Tensor, tuple[str, ...]]]:
    folder = data / "ut_interaction"
    rows = rows_of(folder)
    names = sorted({row["label"] for row in rows})
    yield (
        "ut",
        folder,
        rows,
        torch.tensor([names.index(row["label"]) for row in rows]),
        tuple(r["sequence"] for r in rows),
    )
    folder = data / "fir_rgb"
    rows = [row for row in rows_of(folder) if row["direction"] and float(row["mean_luma"]) > DARK]
    up = torch.tensor([int(row["direction"] == "up") for row in rows])
    yield "order", folder, rows, torch.cat([up, 1 - up]), tuple(row["recording"] for row in rows) * 2


def fold_of(groups: tuple[str, ...]) -> Tensor:
    """The fold of each row: whole groups, dealt in turn from the largest."""
    order = sorted(set(groups), key=lambda group: (-groups.count(group), group))
    return torch.tensor([order.index(group) % FOLDS for group in groups])


TASKS: list[Task] = []


def start_worker(path: Path) -> None:
    torch.set_num_threads(1)
    TASKS.extend(torch.load(path, weights_only=False, mmap=True))


def run(number: int, seed: int) -> Tensor:
    """Which rows are right, each judged by a model that saw nothing of its fold: (B,) of 0 and 1."""
    task = TASKS[number]
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
    torch.manual_seed(seed)
    model = STAM(task.config, LITE_VIEW, torch.nn.Identity(), task.embeddings.shape[-1])
    targets_BK = torch.eye(task.config.num_classes)[task.targets[rows_B]]
    for _ in fit(model, task.embeddings[rows_B], targets_BK, RunConfig(train=replace(SETTINGS, seed=seed))):
        pass
    return model


def clips_against_one_pass(data: Path, tasks: list[Task]) -> dict[str, dict[str, float]]:
    """UT-Interaction judged in one pass and by five clips of a second, by the same models (three seeds)."""
    task = next(task for task in tasks if task.protocol == "ut" and task.system == "lite0, transformer")
    folder = data / "ut_interaction"
    rows = rows_of(folder)
    videos = VideoSet(tuple(Sample(path=str(folder / row["path"]), labels=(row["label"],)) for row in rows), "ut")
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
                        logits = averaged(model.encode_video(one.features).logits, "single")
                    right[name] += int(logits.argmax() == task.targets[place])
        for name, count in right.items():
            shares[name].append(100 * count / len(task.targets))
    return {name: spread(values) for name, values in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vit", type=Path, required=True, help="weights of ViT-Ti under timm's names")
    parser.add_argument("--cache", type=Path, default=Path("build/ablations-cache"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    began = time.perf_counter()
    TASKS.extend(tasks_of(options.data, options.vit, EmbeddingCache(options.cache)))
    torch.save(TASKS, options.cache / "tasks.pt")
    pairs = [(number, seed) for seed in range(SEEDS) for number in range(len(TASKS))]
    rights: dict[tuple[int, int], Tensor] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, spawn, start_worker, (options.cache / "tasks.pt",)) as pool:
        for pair, right_B in zip(pairs, pool.map(run, *zip(*pairs, strict=True)), strict=True):
            rights[pair] = right_B
            print(f"{len(rights)}/{len(pairs)} {time.perf_counter() - began:.0f} s", file=sys.stderr)
    results: dict[str, dict[str, object]] = {}
    for number, task in enumerate(TASKS):
        right_SB = torch.stack([rights[number, seed] for seed in range(SEEDS)])
        entry: dict[str, object] = dict(spread((100 * right_SB.mean(dim=1)).tolist()))
        other = SYSTEMS[task.system].against
        if other:
            place = next(i for i, o in enumerate(TASKS) if o.system == other and o.protocol == task.protocol)
            other_SB = torch.stack([rights[place, seed] for seed in range(SEEDS)])
            entry |= {"against": other, "difference": difference(right_SB, other_SB, task.groups)}
        results.setdefault(task.protocol, {})[task.system] = entry
    report = {
        "machine": machine.describe(),
        "command": "python benchmarks/ablations.py DATA --vit WEIGHTS",
        "protocol": "ut: 120 videos, sequences in folds; order: 132 videos forwards and backwards, recordings in folds; "
        "one view of the whole video judged; each video and its mirror image learned",
        "train": {name: value for name, value in asdict(SETTINGS).items() if name != "seed"},
        "processes": options.workers,
        "folds": FOLDS,
        "seeds": SEEDS,
        "top1_percent": results,
        "ut, clips": clips_against_one_pass(options.data, TASKS),
        "seconds": round(time.perf_counter() - began),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
