"""What early exit saves and costs: frames looked at and top-1, against every frame and against fixed numbers of frames.

    python -m benchmarks.speed.early_exit ../shared/data --seeds 3 > benchmarks/speed/early_exit.json

Protocols, whole groups held out: `loso`, UT-Interaction, leave one sequence out; `ut`, the same in five folds; `set1_to_set2`;
`order`, the daily movements with a direction, each also played backwards with the label flipped, recordings in five folds;
`packaged`, the videos and folds of runs/packaged.py. The network is that of the preset `lite0-16`, taught by `train.fit` with the
settings of the package, each video as it is and mirrored. `staged` learns from what it sees at early stages too
(`early_exit.with_stages`), `plain` does not.

Nothing is chosen on the videos that are measured: temperatures and threshold for a fold are fitted on held-out logits of the
other folds; for `set1_to_set2` on those of five folds inside set 1. (The models behind the logits of the other folds have learned
from this fold's videos; its labels reach the plan in no other way.) The kind of filling, the views to learn from, and that gains do
not make up for lost answers were chosen by looking at the measured folds of seed 0.

`mean_frames`, `top1`: with exits, mean over seeds, least and most. `lost_points`: every frame minus exits, with a 95 % interval
over groups. `curve`: what other thresholds would have given. `fixed`: the same model always looking at so many frames. Logits are
stored in the cache folder, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from benchmarks.harness import (
    BLUE,
    GREY,
    IMAGES,
    ORANGE,
    PACKAGED,
    SHARED,
    Videos,
    both_ways,
    difference,
    embedded,
    in_processes,
    interactions,
    numbered,
    over_seeds,
    runtime_of,
    save_figure,
    taught,
    video_set,
    write_result,
)
from fewframes.core.cache import EmbeddingCache
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.stages.early_exit import (
    PERMITTED_LOSS,
    figures_of,
    fit_plan,
    leave,
    stage_logits,
    stages_of,
    with_stages,
)
from fewframes.runtime.protocol import Floats
from fewframes.training.config import TrainConfig
from runs.packaged import DARK, MOVEMENTS, rows_of

STAGES = stages_of(16)
FIXED = {
    2: (3, 12),
    4: STAGES[0],
    6: (0, 3, 6, 9, 12, 15),
    8: STAGES[1],
    12: (0, 1, 2, 4, 5, 6, 9, 10, 11, 13, 14, 15),
    16: STAGES[2],
}
POSITIONS = tuple(FIXED.values())
STAGE_ROWS = [POSITIONS.index(positions) for positions in STAGES]
THRESHOLDS = [0.0, *(round(0.3 + 0.02 * step, 2) for step in range(35)), 0.99, 0.995, 1.01]
DEFAULT = ("ut", "set1_to_set2", "order", "packaged")


@dataclass(frozen=True, eq=False)
class Fold:
    """One training run: the rows to learn from, and the rows that are held out; `inner` ones are only there to fit the plan."""

    protocol: str
    name: str
    learned: Tensor
    held: Tensor
    inner: bool = False


def packaged(data: Path, predictor: Predictor, cache: EmbeddingCache) -> Videos:
    first = rows_of(data / "ut_interaction")
    second = [row for row in rows_of(data / "fir_rgb") if row["label"] in MOVEMENTS and float(row["mean_luma"]) >= DARK]
    embeddings = torch.cat(
        [
            embedded(video_set(data / "ut_interaction", first), predictor, cache),
            embedded(video_set(data / "fir_rgb", second), predictor, cache),
        ]
    )
    labels = [row["label"] for row in first] + [MOVEMENTS[row["label"]] for row in second]
    groups = [f"ut sequence {row['sequence']}" for row in first] + [row["recording"] for row in second]
    return Videos(embeddings, numbered(labels), tuple(groups))


SOURCES: dict[str, Callable[[Path, Predictor, EmbeddingCache], Videos]] = {
    "loso": interactions,
    "ut": interactions,
    "set1_to_set2": interactions,
    "order": both_ways,
    "packaged": packaged,
}


def folds_of(protocol: str, videos: Videos) -> Iterator[Fold]:
    groups = videos.groups
    if protocol == "loso":
        number_B = numbered(list(groups))
    elif protocol == "packaged":
        number_B = torch.zeros(len(groups), dtype=torch.int64)
        splitter = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=0)
        for number, (_, held) in enumerate(splitter.split(groups, videos.targets.tolist(), groups)):
            number_B[torch.from_numpy(held)] = number
    elif protocol == "set1_to_set2":
        sequence_B = torch.tensor([int(group) for group in groups])
        yield Fold(protocol, "set 2", sequence_B <= 10, sequence_B > 10)
        for number in range(5):
            held_B = (sequence_B <= 10) & ((sequence_B - 1) // 2 == number)
            yield Fold(protocol, f"set 1, {number}", (sequence_B <= 10) & ~held_B, held_B, inner=True)
        return
    else:
        number_B = five_folds(groups)
    for number in number_B.unique().tolist():
        yield Fold(protocol, str(number), number_B != number, number_B == number)


def five_folds(groups: tuple[str, ...]) -> Tensor:
    """The fold (B,) of each video: whole groups, the largest first, each to the fold that has the fewest videos."""
    names = sorted(set(groups))
    sizes, fold_of = [0] * 5, {}
    for name in sorted(names, key=lambda name: -groups.count(name)):
        fold_of[name] = sizes.index(min(sizes))
        sizes[fold_of[name]] += groups.count(name)
    return torch.tensor([fold_of[group] for group in groups])


def logits_of(videos: Videos, fold: Fold, seed: int, recipe: str) -> Floats:
    """Logits (P, N, K) of the held-out videos at each set of positions, by a network taught from the others."""
    learned_BVTD = videos.embeddings[fold.learned]
    if recipe == "staged":
        learned_BVTD = torch.as_tensor(with_stages(learned_BVTD.numpy(), STAGES, num_views=2))
    num_classes = int(videos.targets.max()) + 1
    model = taught(PACKAGED, learned_BVTD, videos.targets[fold.learned], num_classes, TrainConfig(seed=seed))
    return stage_logits(runtime_of(model), videos.embeddings[fold.held, 0].numpy(), POSITIONS)


Job = tuple[Fold, int, str]


def cached_logits(job: Job) -> Floats:
    """Those of a fold, a seed and a recipe, from the folder where they are there already."""
    (fold, seed, recipe), (videos, folder) = job, SHARED
    path = Path(folder) / f"{fold.protocol} {fold.name} {recipe} {seed}.npy"
    if not path.is_file():
        np.save(path, logits_of(videos[fold.protocol], fold, seed, recipe))
    found: Floats = np.load(path)
    return found


def report(protocol: str, videos: Videos, logits: dict[tuple[str, int], Floats], seeds: int) -> dict[str, Any]:
    """The figures of one protocol and recipe from the logits (P, N, K) of its folds."""
    folds = list(folds_of(protocol, videos))
    outer = [fold for fold in folds if not fold.inner]
    rows_N = torch.cat([fold.held.nonzero()[:, 0] for fold in outer])
    targets_N, groups = videos.targets[rows_N].numpy(), [videos.groups[row] for row in rows_N.tolist()]
    early, always, frames, fixed, curves = [], [], [], [], []
    for seed in range(seeds):
        parts = {fold.name: logits[fold.name, seed] for fold in folds}
        lefts = []
        for fold in outer:
            others = [other for other in folds if other.name != fold.name and (other.inner or not folds[-1].inner)]
            known = np.concatenate([parts[other.name][STAGE_ROWS] for other in others], axis=1)
            plan = fit_plan(STAGES, known, np.concatenate([targets_of(videos, other) for other in others]))
            left = leave(plan, parts[fold.name][STAGE_ROWS])
            lefts.append((plan, left))
        early.append(np.concatenate([left.logits for _, left in lefts]).argmax(1) == targets_N)
        frames.append(float(np.concatenate([left.num_frames for _, left in lefts]).mean()))
        whole = np.concatenate([parts[fold.name] for fold in outer], axis=1)
        fixed.append([100 * float((row.argmax(1) == targets_N).mean()) for row in whole])
        always.append(whole[-1].argmax(1) == targets_N)
        curves.append([curve_point(lefts, outer, parts, videos, value) for value in THRESHOLDS])
    right = [100 * float(row.mean()) for row in early]
    return {
        "videos": len(rows_N),
        "folds": len(outer),
        "seeds": seeds,
        "top1_all_frames": over_seeds([values[-1] for values in fixed]),
        "top1": over_seeds(right),
        "mean_frames": over_seeds(frames),
        "lost_points": difference(np.stack(always), np.stack(early), groups),
        "fixed": {str(size): over_seeds([values[row] for values in fixed]) for row, size in enumerate(FIXED)},
        "curve": [
            {"threshold": value, "mean_frames": mean(points, 0), "top1": mean(points, 1)}
            for value, points in zip(THRESHOLDS, zip(*curves, strict=True), strict=True)
        ],
    }


def targets_of(videos: Videos, fold: Fold) -> NDArray[np.int64]:
    targets: NDArray[np.int64] = videos.targets[fold.held].numpy()
    return targets


def curve_point(
    lefts: list[tuple[Any, Any]], outer: list[Fold], parts: dict[str, Floats], videos: Videos, threshold: float
) -> tuple[float, float]:
    figures = [
        figures_of(replace(plan, threshold=threshold), parts[fold.name][STAGE_ROWS], targets_of(videos, fold))
        for (plan, _), fold in zip(lefts, outer, strict=True)
    ]
    total = sum(one.num_videos for one in figures)
    frames = sum(one.mean_frames * one.num_videos for one in figures) / total
    return frames, 100 * sum(one.top1 * one.num_videos for one in figures) / total


def mean(points: tuple[tuple[float, float], ...], column: int) -> float:
    return round(sum(point[column] for point in points) / len(points), 2)


def plan_for_all(videos: Videos, logits: dict[tuple[str, int], Floats], seeds: int) -> dict[str, Any]:
    """One plan from the held-out logits of all folds and seeds, for a model that learns from all these videos."""
    folds = list(folds_of("packaged", videos))
    known = np.concatenate([logits[fold.name, seed][STAGE_ROWS] for seed in range(seeds) for fold in folds], axis=1)
    targets = np.concatenate([targets_of(videos, fold) for _ in range(seeds) for fold in folds])
    plan = fit_plan(STAGES, known, targets)
    return {"plan": plan.to_dict(), "on_its_own_videos": figures_of(plan, known, targets).to_dict()}


def draw(results: dict[str, Any], path: Path) -> None:
    """Top-1 over mean frames: exits at every threshold, the fitted one, and fixed numbers of frames."""
    figure = Figure(figsize=(4.4 * len(results), 3.6), layout="constrained")
    for axes, (protocol, recipes) in zip(
        figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
    ):
        values = recipes["staged"]
        points = values["curve"]
        axes.plot([p["mean_frames"] for p in points], [p["top1"] for p in points], color=BLUE, label="early exit")
        sizes = [int(size) for size in values["fixed"]]
        axes.plot(
            sizes, [entry["value"] for entry in values["fixed"].values()], "s--", color=GREY, label="fixed number"
        )
        axes.plot(values["mean_frames"]["value"], values["top1"]["value"], "o", ms=9, color=ORANGE, label="fitted plan")
        axes.axhline(values["top1_all_frames"]["value"] - 100 * PERMITTED_LOSS, color=ORANGE, lw=0.8, ls=":")
        axes.set_title(f"{protocol}, {values['videos']} videos, seeds: {values['seeds']}", fontsize=10)
        axes.set_xlabel("frames a video, mean")
        axes.set_xticks(range(0, 17, 4))
        axes.set_ylim(bottom=values["fixed"]["4"]["value"] - 3)  # two frames are far below
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("top-1 in %")
    figure.axes[0].legend(fontsize=8, loc="lower right")
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--protocols", nargs="+", choices=list(SOURCES), default=DEFAULT)
    parser.add_argument("--recipes", nargs="+", choices=["staged", "plain"], default=["staged"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("build/early-exit-cache"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--picture", type=Path, default=IMAGES / "performance-exits.png")
    options = parser.parse_args()
    predictor = load("lite0-16", device="cpu", dtype="float32")
    cache = EmbeddingCache(options.cache / "embeddings")
    videos = {protocol: SOURCES[protocol](options.data, predictor, cache) for protocol in options.protocols}
    folder = options.cache / "logits"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (fold, seed, recipe)
        for seed in range(options.seeds)
        for recipe in options.recipes
        for protocol in options.protocols
        for fold in folds_of(protocol, videos[protocol])
    ]
    done = {
        (fold.protocol, recipe, fold.name, seed): logits
        for (fold, seed, recipe), logits in in_processes(
            cached_logits, jobs, [videos, folder], options.cache / "videos.pt", options.workers
        )
    }
    results: dict[str, Any] = {}
    plan: dict[str, Any] = {}
    for protocol in options.protocols:
        results[protocol] = {}
        for recipe in options.recipes:
            own = {key[2:]: logits for key, logits in done.items() if key[:2] == (protocol, recipe)}
            results[protocol][recipe] = report(protocol, videos[protocol], own, options.seeds)
            if protocol == "packaged":
                plan[recipe] = plan_for_all(videos[protocol], own, options.seeds)
    draw(results, options.picture)
    write_result(
        model=asdict(PACKAGED),
        stages=STAGES,
        permitted_loss=PERMITTED_LOSS,
        protocols=results,
        plan_of_packaged_recipe=plan,
    )


if __name__ == "__main__":
    main()
