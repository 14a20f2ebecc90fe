"""What early exit saves and costs: frames looked at and top-1, against every frame and against fixed numbers of frames.

    python benchmarks/early_exit.py ../shared/data --seeds 3 > benchmarks/results/early_exit.json

Protocols, whole groups held out: `loso`, UT-Interaction, leave one sequence out; `ut`, the same in five folds; `set1_to_set2`;
`order`, the daily movements with a direction, each also played backwards with the label flipped, recordings in five folds;
`packaged`, the videos and folds of runs/packaged.py. The network is that of the preset `lite0-16`, taught by `train.fit` with the
settings of the package, each video as it is and mirrored. `staged` learns from what it sees at early stages too
(`exits.with_stages`), `plain` does not.

Nothing is chosen on the videos that are measured: temperatures and threshold for a fold are fitted on held-out logits of the
other folds; for `set1_to_set2` on those of five folds inside set 1. (The models behind the logits of the other folds have learned
from this fold's videos; its labels reach the plan in no other way.) The kind of filling, the views to learn from, and that gains do
not make up for lost answers were chosen by looking at the measured folds of seed 0.

`mean_frames`, `top1`: with exits, mean over seeds, least and most. `lost_points`: every frame minus exits, with a 95 % interval
over groups. `curve`: what other thresholds would have given. `fixed`: the same model always looking at so many frames. Logits are
kept in the cache folder, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import machine
import torch
from accuracy import DARK, PACKAGED, rows_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from paired import difference, spread
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.inference.early_exit import (
    PERMITTED_LOSS,
    figures_of,
    fit_plan,
    leave,
    stage_logits,
    stages_of,
    with_stages,
)
from fewframes.inference.predictor import Predictor, load
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.features import EmbeddedVideos, embed_videos
from fewframes.training.loop import fit

STAGES = stages_of(16)
FIXED = {
    2: (3, 12),
    4: STAGES[0],
    6: (0, 3, 6, 9, 12, 15),
    8: STAGES[1],
    12: (0, 1, 2, 4, 5, 6, 9, 10, 11, 13, 14, 15),
    16: STAGES[2],
}
PLACES = tuple(FIXED.values())
STAGE_ROWS = [PLACES.index(places) for places in STAGES]
THRESHOLDS = [0.0, *(round(0.3 + 0.02 * step, 2) for step in range(35)), 0.99, 0.995, 1.01]
MOVEMENTS = {"walk": "walk", "standup": "stand up", "sitdown": "sit down", "falling": "fall", "lying": "lie down"}
DEFAULT = ("ut", "set1_to_set2", "order", "packaged")
BLUE, GREY, ORANGE = "#1f5fa8", "#9aa5b1", "#c2410c"


@dataclass(frozen=True, eq=False)
class Videos:
    """Embeddings (B, V, T, D) of a protocol's videos, labels and groups."""

    embeddings: Tensor
    targets: Tensor
    groups: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Fold:
    """One training run: the rows that teach, and the rows that are held out; `inner` ones are only there to fit the plan."""

    protocol: str
    name: str
    taught: Tensor
    held: Tensor
    inner: bool = False


def embedded(folder: Path, rows: list[dict[str, str]], predictor: Predictor, cache: EmbeddingCache) -> Tensor:
    data = VideoSet(tuple(Sample(path=str(folder / row["path"]), labels=(row["label"],)) for row in rows), folder.name)
    for result in embed_videos(data, predictor, cache, mirror=True):
        if isinstance(result, EmbeddedVideos):
            assert not result.failures
            return result.embeddings
    raise AssertionError


def numbered(labels: list[str]) -> Tensor:
    names = sorted(set(labels))
    return torch.tensor([names.index(label) for label in labels])


def interactions(data: Path, predictor: Predictor, cache: EmbeddingCache) -> Videos:
    rows = rows_of(data / "ut_interaction")
    embeddings = embedded(data / "ut_interaction", rows, predictor, cache)
    sequences = tuple(f"{int(row['sequence']):02d}" for row in rows)
    return Videos(embeddings, numbered([row["label"] for row in rows]), sequences)


def both_ways(data: Path, predictor: Predictor, cache: EmbeddingCache) -> Videos:
    rows = [row for row in rows_of(data / "fir_rgb") if row["direction"] and float(row["mean_luma"]) > DARK]
    forwards = embedded(data / "fir_rgb", rows, predictor, cache)
    upwards = torch.tensor([int(row["direction"] == "up") for row in rows])
    recordings = tuple(row["recording"] for row in rows)
    return Videos(torch.cat([forwards, forwards.flip(2)]), torch.cat([upwards, 1 - upwards]), recordings * 2)


def packaged(data: Path, predictor: Predictor, cache: EmbeddingCache) -> Videos:
    first = rows_of(data / "ut_interaction")
    second = [row for row in rows_of(data / "fir_rgb") if row["label"] in MOVEMENTS and float(row["mean_luma"]) >= DARK]
    embeddings = torch.cat(
        [
            embedded(data / "ut_interaction", first, predictor, cache),
            embedded(data / "fir_rgb", second, predictor, cache),
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


def logits_of(videos: Videos, fold: Fold, seed: int, recipe: str) -> Tensor:
    """Logits (P, N, K) of the held-out videos at each set of places, by a network taught from the others."""
    num_classes = int(videos.targets.max()) + 1
    targets_BK = torch.eye(num_classes)[videos.targets]
    torch.manual_seed(seed)
    config = replace(PACKAGED, num_classes=num_classes)
    model = STAM(config, PRESETS["lite0-16"].view, torch.nn.Identity(), videos.embeddings.shape[-1])
    taught_BVTD = videos.embeddings[fold.taught]
    if recipe == "staged":
        taught_BVTD = with_stages(taught_BVTD, STAGES, num_views=2)
    for _ in fit(model, taught_BVTD, targets_BK[fold.taught], RunConfig(train=TrainConfig(seed=seed))):
        pass
    with torch.inference_mode():
        return stage_logits(model.eval(), videos.embeddings[fold.held, 0], PLACES)


Job = tuple[Fold, int, str]
VIDEOS: dict[str, Videos] = {}


def start_worker(path: Path) -> None:
    torch.set_num_threads(1)
    VIDEOS.update(torch.load(path, weights_only=False, mmap=True))


def kept_logits(job: Job, folder: Path) -> Tensor:
    fold, seed, recipe = job
    path = folder / f"{fold.protocol} {fold.name} {recipe} {seed}.pt"
    if not path.is_file():
        logits = logits_of(VIDEOS[fold.protocol], fold, seed, recipe)
        torch.save(logits, path)
    return torch.load(path)


def report(protocol: str, videos: Videos, logits: dict[tuple[str, int], Tensor], seeds: int) -> dict[str, Any]:
    """The figures of one protocol and recipe from the logits (P, N, K) of its folds."""
    folds = list(folds_of(protocol, videos))
    outer = [fold for fold in folds if not fold.inner]
    rows_N = torch.cat([fold.held.nonzero()[:, 0] for fold in outer])
    targets_N, groups = videos.targets[rows_N], [videos.groups[row] for row in rows_N.tolist()]
    early, always, frames, fixed, curves = [], [], [], [], []
    for seed in range(seeds):
        parts = {fold.name: logits[fold.name, seed] for fold in folds}
        lefts = []
        for fold in outer:
            others = [other for other in folds if other.name != fold.name and (other.inner or not folds[-1].inner)]
            known = torch.cat([parts[other.name][STAGE_ROWS] for other in others], dim=1)
            plan = fit_plan(STAGES, known, torch.cat([videos.targets[other.held] for other in others]))
            left = leave(plan, parts[fold.name][STAGE_ROWS])
            lefts.append((plan, left))
        early.append((torch.cat([left.logits for _, left in lefts]).argmax(1) == targets_N).double())
        frames.append(float(torch.cat([left.num_frames for _, left in lefts]).double().mean()))
        whole = torch.cat([parts[fold.name] for fold in outer], dim=1)
        fixed.append([100 * float((row.argmax(1) == targets_N).double().mean()) for row in whole])
        always.append((whole[-1].argmax(1) == targets_N).double())
        curves.append([curve_point(lefts, outer, parts, videos, value) for value in THRESHOLDS])
    right = [100 * float(row.mean()) for row in early]
    return {
        "videos": len(rows_N),
        "folds": len(outer),
        "seeds": seeds,
        "top1_all_frames": spread([values[-1] for values in fixed]),
        "top1": spread(right),
        "mean_frames": spread(frames),
        "lost_points": difference(torch.stack(always), torch.stack(early), groups),
        "fixed": {str(size): spread([values[row] for values in fixed]) for row, size in enumerate(FIXED)},
        "curve": [
            {"threshold": value, "mean_frames": mean(points, 0), "top1": mean(points, 1)}
            for value, points in zip(THRESHOLDS, zip(*curves, strict=True), strict=True)
        ],
    }


def curve_point(
    lefts: list[tuple[Any, Any]], outer: list[Fold], parts: dict[str, Tensor], videos: Videos, threshold: float
) -> tuple[float, float]:
    figures = [
        figures_of(replace(plan, threshold=threshold), parts[fold.name][STAGE_ROWS], videos.targets[fold.held])
        for (plan, _), fold in zip(lefts, outer, strict=True)
    ]
    total = sum(one.num_videos for one in figures)
    frames = sum(one.mean_frames * one.num_videos for one in figures) / total
    return frames, 100 * sum(one.top1 * one.num_videos for one in figures) / total


def mean(points: tuple[tuple[float, float], ...], place: int) -> float:
    return round(sum(point[place] for point in points) / len(points), 2)


def plan_for_all(videos: Videos, logits: dict[tuple[str, int], Tensor], seeds: int) -> dict[str, Any]:
    """One plan from the held-out logits of all folds and seeds, for a model that learns from all these videos."""
    folds = list(folds_of("packaged", videos))
    known = torch.cat([logits[fold.name, seed][STAGE_ROWS] for seed in range(seeds) for fold in folds], dim=1)
    targets = torch.cat([videos.targets[fold.held] for _ in range(seeds) for fold in folds])
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
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--protocols", nargs="+", choices=list(SOURCES), default=DEFAULT)
    parser.add_argument("--recipes", nargs="+", choices=["staged", "plain"], default=["staged"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("build/early-exit-cache"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--picture", type=Path, default=machine.ROOT / "docs" / "images" / "performance-exits.png")
    options = parser.parse_args()
    predictor = load("lite0-16", device="cpu", dtype="float32")
    for protocol in options.protocols:
        VIDEOS[protocol] = SOURCES[protocol](options.data, predictor, EmbeddingCache(options.cache / "embeddings"))
    folder = options.cache / "logits"
    folder.mkdir(parents=True, exist_ok=True)
    file = options.cache / "videos.pt"
    torch.save(VIDEOS, file)
    jobs = [
        (fold, seed, recipe)
        for seed in range(options.seeds)
        for recipe in options.recipes
        for protocol in options.protocols
        for fold in folds_of(protocol, VIDEOS[protocol])
    ]
    began, done = time.perf_counter(), {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, spawn, initializer=start_worker, initargs=(file,)) as pool:
        found = pool.map(kept_logits, jobs, [folder] * len(jobs))
        for (fold, seed, recipe), logits in zip(jobs, found, strict=True):
            done[fold.protocol, recipe, fold.name, seed] = logits
            print(f"{len(done)}/{len(jobs)} {time.perf_counter() - began:.0f} s", file=sys.stderr)
    results: dict[str, Any] = {}
    plan: dict[str, Any] = {}
    for protocol in options.protocols:
        results[protocol] = {}
        for recipe in options.recipes:
            own = {key[2:]: logits for key, logits in done.items() if key[:2] == (protocol, recipe)}
            results[protocol][recipe] = report(protocol, VIDEOS[protocol], own, options.seeds)
            if protocol == "packaged":
                plan[recipe] = plan_for_all(VIDEOS[protocol], own, options.seeds)
    draw(results, options.picture)
    command = f"python benchmarks/early_exit.py DATA --seeds {options.seeds} --protocols {' '.join(options.protocols)}"
    print(
        json.dumps(
            {
                "machine": machine.describe(),
                "command": f"{command} --recipes {' '.join(options.recipes)}",
                "model": asdict(PACKAGED),
                "stages": STAGES,
                "permitted_loss": PERMITTED_LOSS,
                "protocols": results,
                "plan_of_packaged_recipe": plan,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
