"""How often the packaged recipe is right on videos it never saw: UT-Interaction and the order test.

    python benchmarks/accuracy.py ../shared/data --seeds 3 > benchmarks/results/accuracy.json

Protocols (the data's README): `loso`, UT-Interaction, leave one sequence out, 20 folds; `set1_to_set2`, train on the parking
lot, test on the lawn; `set2_to_set1`, the reverse; `order`, the daily movements with a direction, each also played backwards
with the label flipped, leave one recording out.

Each fold trains the network of the preset `lite0-16` from its frozen frame encoder by `train.fit` with the settings of the
package, nothing else, and is scored on the left-out videos as they are (one view). `packaged` is the whole; `transformer`
and `moments` are its two parts by themselves; `mean` is the paper's Table 2 (mean of frame embeddings, linear head); `plain` is
the paper's temporal encoder on frame embeddings as they are, with positions that start at 0.02 (seed 0 alone: it is slow).

Beside each video as it is and mirrored, views of it are drawn (crops, colours, moments): the same for all seeds as in the package,
or with `--own-draws` others for each seed.

Percentages: mean over seeds, least and most; `folds_std` is the standard deviation over folds, of one seed, mean over seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import machine
import torch
from torch import Tensor

from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.inference.predictor import Predictor, load
from fewframes.models.config import ModelConfig
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.training.augment import AugmentConfig
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.features import EmbeddedVideos, embed_videos
from fewframes.training.loop import fit

PACKAGED = PRESETS["lite0-16"].model
MEAN = replace(PACKAGED, temporal="mean", temporal_width=None, motion_width=0, moment_head=False)
PLAIN = replace(PACKAGED, motion_width=0, moment_head=False, temporal_positions="learned")
PLAIN_VIEWS, DRAWN_VIEWS = 2, AugmentConfig().views
DARK = 25  # mean luma below which a video of the daily movements shows nothing


@dataclass(frozen=True)
class Fold:
    """What one training run needs: which embeddings (those of all seeds' views), their targets, and the rows left out."""

    protocol: str
    left_out: str
    embeddings: Tensor
    targets: Tensor
    held: Tensor
    num_classes: int
    own_draws: bool = False


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open() as file:
        return list(csv.DictReader(file))


def embed(
    folder: Path, rows: list[dict[str, str]], predictor: Predictor, cache: EmbeddingCache, num_drawn: int
) -> Tensor:
    data = VideoSet(tuple(Sample(path=str(folder / row["path"]), labels=(row["label"],)) for row in rows), folder.name)
    for result in embed_videos(data, predictor, cache, mirror=True, augment=AugmentConfig(views=num_drawn)):
        if isinstance(result, EmbeddedVideos):
            assert not result.failures
            return result.embeddings
    raise AssertionError


def folds_of(data: Path, predictor: Predictor, cache: EmbeddingCache, num_drawn: int) -> Iterator[Fold]:
    rows = rows_of(data / "ut_interaction")
    embeddings = embed(data / "ut_interaction", rows, predictor, cache, num_drawn)
    labels = sorted({row["label"] for row in rows})
    targets = torch.tensor([labels.index(row["label"]) for row in rows])
    sequences = torch.tensor([int(row["sequence"]) for row in rows])
    for sequence in range(1, 21):
        yield Fold("loso", str(sequence), embeddings, targets, sequences == sequence, len(labels))
    yield Fold("set1_to_set2", "set 2", embeddings, targets, sequences > 10, len(labels))
    yield Fold("set2_to_set1", "set 1", embeddings, targets, sequences <= 10, len(labels))

    rows = [row for row in rows_of(data / "fir_rgb") if row["direction"] and float(row["mean_luma"]) > DARK]
    forwards = embed(data / "fir_rgb", rows, predictor, cache, num_drawn)
    upwards = torch.tensor([int(row["direction"] == "up") for row in rows])
    recordings = [row["recording"] for row in rows] * 2
    # The centres of equal parts are the same moments backwards, so a video played backwards has its embeddings reversed.
    embeddings, targets = torch.cat([forwards, forwards.flip(2)]), torch.cat([upwards, 1 - upwards])
    for recording in sorted(set(recordings)):
        held = torch.tensor([other == recording for other in recordings])
        yield Fold("order", recording, embeddings, targets, held, 2)


def run(fold: Fold, seed: int) -> dict[str, int]:
    """How many left-out videos each system names right."""
    right: dict[str, int] = {}
    targets = fold.targets[fold.held]
    systems = [("packaged", PACKAGED), ("mean", MEAN), *([("plain", PLAIN)] if seed == 0 else [])]
    for name, config in systems:
        model = trained(config, fold, seed)
        heldTD = fold.embeddings[fold.held, 0]
        with torch.inference_mode():
            logits = {name: model.encode_video(heldTD).logits}
            if model.moment_head is not None:
                logits["moments"] = model.moment_head(heldTD)
                logits["transformer"] = logits[name] - logits["moments"]
        right |= {system: int((values.argmax(1) == targets).sum()) for system, values in logits.items()}
    return right


def trained(config: ModelConfig, fold: Fold, seed: int) -> STAM:
    config = replace(config, num_classes=fold.num_classes)
    targets_BK = torch.eye(fold.num_classes)[fold.targets]
    torch.manual_seed(seed)
    model = STAM(config, PRESETS["lite0-16"].view, torch.nn.Identity(), fold.embeddings.shape[-1])
    run = RunConfig(train=TrainConfig(seed=seed))
    first = PLAIN_VIEWS + (seed * DRAWN_VIEWS if fold.own_draws else 0)
    views = [*range(PLAIN_VIEWS), *range(first, first + DRAWN_VIEWS)]
    for _ in fit(model, fold.embeddings[~fold.held][:, views], targets_BK[~fold.held], run):
        pass
    return model.eval()


FOLDS: list[Fold] = []


def start_worker(path: Path) -> None:
    """In each worker; they are not forked, for torch's threads do not survive that."""
    torch.set_num_threads(1)
    FOLDS.extend(torch.load(path, weights_only=False, mmap=True))


def run_numbered(task: tuple[int, int]) -> dict[str, int]:
    return run(FOLDS[task[0]], task[1])


def summary(results: dict[tuple[int, int], dict[str, int]]) -> dict[str, object]:
    shares: dict[str, dict[str, dict[int, list[tuple[int, int]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for (number, seed), right in results.items():
        fold = FOLDS[number]
        for system, count in right.items():
            shares[fold.protocol][system][seed].append((count, int(fold.held.sum())))
    out: dict[str, object] = {}
    for protocol, systems in shares.items():
        out[protocol] = {
            "videos": sum(total for _, total in next(iter(systems["packaged"].values()))),
            "folds": len(next(iter(systems["packaged"].values()))),
        } | {system: spread(list(seeds.values())) for system, seeds in systems.items()}
    return out


def spread(seeds: list[list[tuple[int, int]]]) -> dict[str, float]:
    top1 = [100 * sum(count for count, _ in folds) / sum(total for _, total in folds) for folds in seeds]
    stds = [statistics.pstdev(100 * count / total for count, total in folds) for folds in seeds]
    values = {"mean": statistics.mean(top1), "min": min(top1), "max": max(top1)}
    if len(seeds[0]) > 1:
        values["folds_std"] = statistics.mean(stds)
    return {key: round(value, 2) for key, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--own-draws", action="store_true", help="other drawn views for each seed")
    parser.add_argument("--cache", type=Path, default=Path("build/accuracy-cache"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    predictor = load("lite0-16", device="cpu", dtype="float32")
    num_drawn = options.seeds * DRAWN_VIEWS if options.own_draws else DRAWN_VIEWS
    folds = folds_of(options.data, predictor, EmbeddingCache(options.cache), num_drawn)
    FOLDS.extend(replace(fold, own_draws=options.own_draws) for fold in folds)
    tasks = [(number, seed) for seed in range(options.seeds) for number in range(len(FOLDS))]
    began = time.perf_counter()
    results = {}
    file = options.cache / "folds.pt"
    torch.save(FOLDS, file)  # the folds of one protocol share their embeddings, in the file too
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, spawn, initializer=start_worker, initargs=(file,)) as pool:
        for task, right in zip(tasks, pool.map(run_numbered, tasks), strict=True):
            results[task] = right
            print(f"{len(results)}/{len(tasks)} {time.perf_counter() - began:.0f} s", file=sys.stderr)
    report = {
        "machine": machine.describe(),
        "command": f"python benchmarks/accuracy.py DATA --seeds {options.seeds}"
        + (" --own-draws" if options.own_draws else ""),
        "model": asdict(PACKAGED),
        "train": {key: value for key, value in asdict(TrainConfig()).items() if key != "seed"},
        "top1_percent": summary(results),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
