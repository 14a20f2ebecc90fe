"""How often the packaged recipe is right on videos it never saw: UT-Interaction and the order test.

    python -m benchmarks.accuracy.recipe ../shared/data --seeds 3 > benchmarks/accuracy/recipe.json

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
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import (
    PACKAGED,
    SHARED,
    and_backwards,
    directed_rows,
    directions,
    embedded,
    in_processes,
    numbered,
    taught,
    video_set,
    write_result,
)
from fewframes.core.cache import EmbeddingCache
from fewframes.inference.predictor import Predictor, load
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import TrainConfig
from runs.packaged import rows_of

MEAN = replace(PACKAGED, temporal="mean", temporal_width=None, motion_width=0, moment_head=False)
PLAIN = replace(PACKAGED, motion_width=0, moment_head=False, temporal_positions="learned")
PLAIN_VIEWS, DRAWN_VIEWS = 2, AugmentConfig().views


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


def folds_of(data: Path, predictor: Predictor, cache: EmbeddingCache, num_drawn: int) -> Iterator[Fold]:
    rows, augment = rows_of(data / "ut_interaction"), AugmentConfig(views=num_drawn)
    embeddings = embedded(video_set(data / "ut_interaction", rows), predictor, cache, augment=augment)
    targets = numbered([row["label"] for row in rows])
    num_classes = int(targets.max()) + 1
    sequences = torch.tensor([int(row["sequence"]) for row in rows])
    for sequence in range(1, 21):
        yield Fold("loso", str(sequence), embeddings, targets, sequences == sequence, num_classes)
    yield Fold("set1_to_set2", "set 2", embeddings, targets, sequences > 10, num_classes)
    yield Fold("set2_to_set1", "set 1", embeddings, targets, sequences <= 10, num_classes)

    rows = directed_rows(data)
    forwards = embedded(video_set(data / "fir_rgb", rows), predictor, cache, augment=augment)
    embeddings, targets = and_backwards(forwards), directions(rows)
    recordings = [row["recording"] for row in rows] * 2
    for recording in sorted(set(recordings)):
        held = torch.tensor([other == recording for other in recordings])
        yield Fold("order", recording, embeddings, targets, held, 2)


def run(task: tuple[int, int]) -> dict[str, int]:
    """How many left-out videos each system names right, of a fold and a seed."""
    fold, seed = SHARED[task[0]], task[1]
    right: dict[str, int] = {}
    held_NTD, targets_N = fold.embeddings[fold.held, 0], fold.targets[fold.held]
    first = PLAIN_VIEWS + (seed * DRAWN_VIEWS if fold.own_draws else 0)
    views = [*range(PLAIN_VIEWS), *range(first, first + DRAWN_VIEWS)]
    learned_BVTD, learned_B = fold.embeddings[~fold.held][:, views], fold.targets[~fold.held]
    systems = [("packaged", PACKAGED), ("mean", MEAN), *([("plain", PLAIN)] if seed == 0 else [])]
    for name, config in systems:
        model = taught(config, learned_BVTD, learned_B, fold.num_classes, TrainConfig(seed=seed))
        with torch.inference_mode():
            logits = {name: model.encode_video(held_NTD).logits}
            if model.moment_head is not None:
                logits["moments"] = model.moment_head(held_NTD)
                logits["transformer"] = logits[name] - logits["moments"]
        right |= {system: int((values.argmax(1) == targets_N).sum()) for system, values in logits.items()}
    return right


def summary(folds: list[Fold], results: dict[tuple[int, int], dict[str, int]]) -> dict[str, object]:
    shares: dict[str, dict[str, dict[int, list[tuple[int, int]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for (number, seed), right in results.items():
        fold = folds[number]
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
    folds = list(folds_of(options.data, predictor, EmbeddingCache(options.cache), num_drawn))
    folds = [replace(fold, own_draws=options.own_draws) for fold in folds]
    tasks = [(number, seed) for seed in range(options.seeds) for number in range(len(folds))]
    file = options.cache / "folds.pt"  # the folds of one protocol share their embeddings, in the file too
    results = dict(in_processes(run, tasks, folds, file, options.workers))
    write_result(
        model=asdict(PACKAGED),
        train={key: value for key, value in asdict(TrainConfig()).items() if key != "seed"},
        top1_percent=summary(folds, results),
    )


if __name__ == "__main__":
    main()
