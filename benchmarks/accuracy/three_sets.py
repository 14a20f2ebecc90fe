"""How often each recipe is right on three sets of real videos, and how that grows with the clips of a class.

    python -m benchmarks.accuracy.three_sets DATA > benchmarks/accuracy/three_sets.json
    python -m benchmarks.accuracy.three_sets --draw

`--systems solved` leaves out what is trained in steps, and takes a minute or two once the videos are embedded. `--draw` saves the
picture and prints the tables of docs/explanation/accuracy.md from the result file.

Systems. Solved in closed form: `slow` and `motion`, the read-outs of those sets of moments (models/moments.py). Trained in steps:
`mean`, the mean of frames with a linear head; `paper, 0.02` and `paper, waves`, the paper's temporal encoder on frame embeddings
as they are, with positions that start as noise of 0.02 or as slow waves; `transformer`, motion tokens and the transformer without
a read-out. Sums: `before`, transformer and the slow read-out; `all`, the preset: transformer and the motion read-out.

Protocols. No group is on both sides.

- `ut`: UT-Interaction, whole sequences in five folds; every system.
- `ut, each sequence`: leave one sequence out (20 folds); solved systems alone, since training in steps 20 times takes long.
- `set 1 -> 2`, `set 2 -> 1`: learn from one set of UT-Interaction, test on the other.
- `fights`: street fights, whole sources in five stratified folds; solved systems over three shuffles, trained ones over the first.
- `daily`: five daily movements in clips that are not dark, leave one day out (4 days).
- `order`: daily movements forwards or backwards, whole recordings in five folds.

Learned from: eight views of each clip (as it is, mirrored, six drawn ones). Tested on: the clip as it is. The spread of the moments
is that of all clips of a set, which needs no label; the read-outs inside `before` and `all` know the training clips alone.
Intervals of 95 % are over sequences, sources and recordings; differences are paired, clip by clip, over the same groups.

Few-shot: so many clips of each class are drawn ten times from the other folds; a class that has fewer gives all. The numbers end
where half of the classes have too few. Mean over the draws, with the interval of 95 % of that mean, and their standard deviation.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.accuracy.recipe import MEAN, PLAIN
from benchmarks.harness import (
    BLUE,
    GREY,
    IMAGES,
    ORANGE,
    PACKAGED,
    SHARED,
    VIEW,
    and_backwards,
    difference,
    directed_rows,
    directions,
    embedded,
    in_processes,
    numbered,
    save_figure,
    taught,
    video_set,
    write_result,
)
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import HIGH, interval_of, t_quantile
from fewframes.inference.predictor import Predictor, load
from fewframes.models.moments import MomentSet
from fewframes.models.read_out.solve import cross_entropy, solve_moments
from fewframes.models.stam import STAM
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import TrainConfig
from fewframes.training.forecast import Curve
from fewframes.training.steps.loop import TRAINED_WEIGHT
from fewframes.training.steps.training_set import solve_moments as fit_moments
from runs.packaged import DARK, MOVEMENTS, rows_of

RESULT = Path(__file__).with_suffix(".json")
FOLDS, SHUFFLES, DRAWS = 5, 3, 10
SHOTS = (1, 2, 4, 5, 8, 16, 32)
TRAINED = {
    "mean": MEAN,
    "paper, 0.02": PLAIN,
    "paper, waves": replace(PLAIN, temporal_positions="waves"),
    "all": PACKAGED,
}
TRAINED_ON = ("ut", "set 1 -> 2", "set 2 -> 1", "fights", "daily", "order")
SYSTEMS = ("mean", "paper, 0.02", "paper, waves", "transformer", "slow", "motion", "before", "all")
WORDS = {
    "mean": "mean of frames, linear head",
    "paper, 0.02": "paper's encoder, positions from 0.02",
    "paper, waves": "paper's encoder, positions from waves",
    "transformer": "motion tokens and transformer",
    "slow": "solved read-out, slow",
    "motion": "solved read-out, motion",
    "before": "transformer and slow read-out (before)",
    "all": "transformer and motion read-out (the preset)",
}
Rights = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Protocol:
    """Embeddings (B, V, T, D), labels and groups of a set, the fold of each video (S, B) in each shuffle, and which are tested."""

    name: str
    embeddings: torch.Tensor
    targets: torch.Tensor
    groups: tuple[str, ...]
    folds: NDArray[np.int64]
    tested: tuple[int, ...]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The videos that are tested."""
        return np.flatnonzero(np.isin(self.folds[0], self.tested))


def in_folds(targets: torch.Tensor, groups: Sequence[str], shuffles: int = 1) -> NDArray[np.int64]:
    """The fold (S, B) of each video: whole groups, as even in labels as can be."""
    folds_SB = np.zeros((shuffles, len(groups)), np.int64)
    for shuffle, folds_B in enumerate(folds_SB):
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=shuffle)
        for number, (_, held) in enumerate(splitter.split(groups, targets.numpy(), groups)):
            folds_B[held] = number
    return folds_SB


def protocols_of(data: Path, predictor: Predictor, cache: EmbeddingCache) -> Iterator[Protocol]:
    def read(folder: str, rows: list[dict[str, str]]) -> torch.Tensor:
        return embedded(video_set(data / folder, rows), predictor, cache, augment=AugmentConfig())

    rows = rows_of(data / "ut_interaction")
    views, targets = read("ut_interaction", rows), numbered([row["label"] for row in rows])
    sequences = tuple(row["sequence"] for row in rows)
    each = numbered(sequences).numpy()[None]
    yield Protocol("ut", views, targets, sequences, in_folds(targets, sequences), tuple(range(FOLDS)))
    yield Protocol("ut, each sequence", views, targets, sequences, each, tuple(range(20)))
    sets = numbered([row["set"] for row in rows]).numpy()[None]
    yield Protocol("set 1 -> 2", views, targets, sequences, sets, (1,))
    yield Protocol("set 2 -> 1", views, targets, sequences, sets, (0,))

    rows = rows_of(data / "fights", "list.csv")
    views, targets = read("fights", rows), numbered([row["label"] for row in rows])
    sources = tuple(row["group"] for row in rows)
    yield Protocol("fights", views, targets, sources, in_folds(targets, sources, SHUFFLES), tuple(range(FOLDS)))

    rows = [row for row in rows_of(data / "fir_rgb") if row["label"] in MOVEMENTS and float(row["mean_luma"]) >= DARK]
    views, targets = read("fir_rgb", rows), numbered([row["label"] for row in rows])
    days = numbered([row["day"] for row in rows]).numpy()[None]
    recordings = tuple(row["recording"] for row in rows)
    yield Protocol("daily", views, targets, recordings, days, tuple(range(int(days.max()) + 1)))

    rows = directed_rows(data)
    targets, recordings = directions(rows), tuple(row["recording"] for row in rows) * 2
    views = and_backwards(read("fir_rgb", rows))
    yield Protocol("order", views, targets, recordings, in_folds(targets, recordings), tuple(range(FOLDS)))


# Each recipe on each protocol


def solved_rights(protocol: Protocol, moments: MomentSet) -> Rights:
    """Whether each tested video is right (S, B), predicted from all other folds in closed form."""
    embeddings, targets_BK = protocol.embeddings.numpy(), one_hot(protocol.targets).numpy()
    right_SB = np.zeros(protocol.folds.shape)
    for right_B, folds_B in zip(right_SB, protocol.folds, strict=True):
        solved = solve_moments(embeddings, targets_BK, cross_entropy, groups_B=folds_B, moments=moments)
        right_B[solved.indices] = solved.left_out[:, 0].argmax(axis=1) == targets_BK[solved.indices].argmax(axis=1)
    return right_SB[:, protocol.rows]


def one_hot(targets: torch.Tensor) -> torch.Tensor:
    return torch.eye(int(targets.max()) + 1)[targets]


def train_fold(job: tuple[int, int, int, str]) -> dict[str, Rights]:
    """Whether the videos of a fold are right, by the systems that come from one training in steps."""
    number, fold, seed, name = job
    protocol: Protocol = SHARED[number]
    held = torch.from_numpy(protocol.folds[0] == fold)
    learned_BVTD, targets_B, held_NTD = (
        protocol.embeddings[~held],
        protocol.targets[~held],
        protocol.embeddings[held][:, 0],
    )
    num_classes = int(protocol.targets.max()) + 1
    groups = [protocol.groups[row] for row in np.flatnonzero(~held.numpy())]
    model = taught(TRAINED[name], learned_BVTD, targets_B, num_classes, TrainConfig(seed=seed), groups)
    with torch.inference_mode():
        logits = {name: model.encode_video(held_NTD).logits}
        if model.moment_head is not None:
            config = replace(TRAINED[name], num_classes=num_classes, moments="slow")
            slow = STAM(config, VIEW, torch.nn.Identity(), learned_BVTD.shape[-1])
            fit_moments(slow, learned_BVTD, torch.eye(num_classes)[targets_B], seed, groups)
            assert slow.moment_head is not None
            logits["transformer"] = logits[name] - model.moment_head(held_NTD)
            # The recipe before had both parts with the same weight.
            logits["before"] = logits["transformer"] / TRAINED_WEIGHT + slow.moment_head(held_NTD)
    wanted_N = protocol.targets[held]
    return {system: (found.argmax(1) == wanted_N).numpy().astype(float) for system, found in logits.items()}


def trained_rights(
    protocols: Sequence[Protocol], trained_on: Sequence[str], seeds: int, file: Path, workers: int
) -> list[dict[str, Rights]]:
    """For each protocol, whether each tested video is right (seeds, B), by each trained system; nothing where none is."""
    jobs = [
        (number, fold, seed, name)
        for number, protocol in enumerate(protocols)
        for fold in (protocol.tested if protocol.name in trained_on else ())
        for seed in range(seeds)
        for name in TRAINED
    ]
    everything: list[dict[str, Rights]] = [{} for _ in protocols]
    for (number, fold, seed, _), found in in_processes(train_fold, jobs, protocols, file, workers):
        for system, right_N in found.items():
            right_SB = everything[number].setdefault(system, np.zeros((seeds, len(protocols[number].targets))))
            right_SB[seed, protocols[number].folds[0] == fold] = right_N
    return [
        {system: right_SB[:, protocol.rows] for system, right_SB in found.items()}
        for protocol, found in zip(protocols, everything, strict=True)
    ]


def table_of(protocol: Protocol, rights: Mapping[str, Rights]) -> dict[str, object]:
    """Each system's accuracy with its interval over groups, and its paired difference from the recipe of before."""
    groups = [protocol.groups[row] for row in protocol.rows.tolist()]
    against = "before" if "before" in rights else "slow"
    systems = {}
    for name in (name for name in SYSTEMS if name in rights):
        mean_B = rights[name].mean(axis=0)
        found = interval_of(mean_over(mean_B), groups, np.random.default_rng(0))
        # Trained systems have seen the first shuffle alone, so read-outs are compared with them on that.
        compared = rights[name][:1] if name in get_args(MomentSet) and against == "before" else rights[name]
        systems[name] = {
            **{
                key: round(100 * value, 2)
                for key, value in (("value", found.value), ("low", found.low), ("high", found.high))
            },
            **({} if name == against else {"difference": difference_to(compared, rights[against], groups)}),
        }
    return {
        "videos": len(groups),
        "groups": len(set(groups)),
        "folds": len(protocol.tested),
        "shuffles of solved systems": len(protocol.folds),
        "differences against": against,
        "systems": systems,
    }


def mean_over(right_B: Rights) -> Callable[[NDArray[np.int64]], float]:
    return lambda rows: float(right_B[rows].mean())


def difference_to(first_SB: Rights, second_SB: Rights, groups: Sequence[str]) -> dict[str, float]:
    return difference(first_SB.mean(axis=0)[None], second_SB.mean(axis=0)[None], groups)


# Few clips of each class


def few_shot(protocol: Protocol) -> dict[str, object]:
    """Top-1 in % from 1, 2, 4 ... clips of each class, mean over draws and its interval; the other folds are learned from."""
    label_B, folds_B = protocol.targets.numpy(), protocol.folds[0]
    folds = [np.flatnonzero(folds_B == fold) for fold in protocol.tested]
    counts_FK = np.array([np.bincount(np.delete(label_B, fold)) for fold in folds])
    most = int(np.median(counts_FK, axis=1).min())
    result: dict[str, object] = {}
    for moments in get_args(MomentSet):
        curve = Curve(protocol.embeddings.numpy(), label_B, numbered(protocol.groups).numpy(), moments)
        points: dict[str, dict[str, float]] = {}
        for shots in (shots for shots in SHOTS if shots <= most):
            percents = []
            for draw in range(DRAWS):
                generator = np.random.default_rng(draw)  # the same clips for both read-outs
                right_B = np.zeros(len(label_B))
                for fold in folds:
                    rest = np.setdiff1d(np.arange(len(label_B)), fold)
                    drawn = [
                        generator.permutation(rest[label_B[rest] == label])[:shots] for label in np.unique(label_B)
                    ]
                    right_B += curve.right(np.sort(np.concatenate(drawn)), [fold])
                percents.append(100 * float(right_B.mean()))
            points[str(shots)] = over_draws(percents)
        result[moments] = points
    return {"least clips of a class to learn from": int(counts_FK.min()), **result}


def over_draws(percents: Sequence[float]) -> dict[str, float]:
    mean, std = statistics.mean(percents), statistics.stdev(percents)
    half = t_quantile(HIGH, len(percents) - 1) * std / len(percents) ** 0.5
    numbers = {"value": mean, "low": mean - half, "high": mean + half, "std": std}
    return {name: round(number, 2) for name, number in numbers.items()}


# The page's picture and tables


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy over the clips of a class, a panel for each set."""
    sets = result["few_shot_percent"]
    figure = Figure(figsize=(3.9 * len(sets), 3.6), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
    titles = {"ut": "UT-Interaction, 6 classes", "fights": "fights, 2 classes", "daily": "daily movements, 5 classes"}
    for axes, (name, found) in zip(panels, sets.items(), strict=True):
        for moments, colour in (("motion", BLUE), ("slow", ORANGE)):
            points = {int(shots): entry for shots, entry in found[moments].items()}
            low = [entry["value"] - entry["low"] for entry in points.values()]
            high = [entry["high"] - entry["value"] for entry in points.values()]
            values = [entry["value"] for entry in points.values()]
            axes.errorbar(list(points), values, yerr=[low, high], marker="o", color=colour, label=moments, capsize=3)
            everything = result["table"][name]["systems"][moments]["value"]
            axes.axhline(everything, color=colour, linestyle=":", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(points), [str(shots) for shots in points])
        axes.set_title(titles[name], fontsize=10)
        axes.set_xlabel("clips of each class")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("top-1 in %, left-out groups")
    panels[0].axhline(np.nan, color=GREY, linestyle=":", label="all clips of the other folds")
    panels[0].legend(fontsize=8)
    save_figure(figure, path)


def tables(result: Mapping[str, Any]) -> Iterator[str]:
    """The tables of the page, line by line, in Markdown."""
    table = result["table"]
    yield f"| top-1 in % (interval) | {' | '.join(table)} |"
    yield "|---" * (len(table) + 1) + "|"
    for system in SYSTEMS:
        cells = [cell(found["systems"].get(system), found["differences against"]) for found in table.values()]
        if any(cell != "-" for cell in cells):
            yield f"| {WORDS[system]} | {' | '.join(cells)} |"
    yield ""
    yield f"| top-1 in % from N clips of each class | {' | '.join(str(shots) for shots in SHOTS)} |"
    yield "|---" * (len(SHOTS) + 1) + "|"
    for name, found in result["few_shot_percent"].items():
        for moments in get_args(MomentSet):
            points = [found[moments].get(str(shots)) for shots in SHOTS]
            cells = ["-" if p is None else f"{p['value']:.1f} ({p['low']:.1f}-{p['high']:.1f})" for p in points]
            yield f"| {name}, {moments} | {' | '.join(cells)} |"


def cell(found: Mapping[str, Any] | None, against: str) -> str:
    if found is None:
        return "-"
    words = f"{found['value']:.1f} ({found['low']:.1f}-{found['high']:.1f})"
    gain = found.get("difference")
    return (
        words
        if gain is None
        else f"{words}; {gain['points']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f}) against {against}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--systems", choices=("solved", "all"), default="all")
    parser.add_argument(
        "--trained-on", nargs="+", choices=TRAINED_ON, default=TRAINED_ON, help="protocols of those systems"
    )
    parser.add_argument("--seeds", type=int, default=1, help="of systems that are trained in steps")
    parser.add_argument("--cache", type=Path, default=Path("build/accuracy-cache"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--draw", action="store_true", help="the picture and the tables of the result file; nothing is measured"
    )
    options = parser.parse_args()
    if options.draw:
        result = json.loads(RESULT.read_text())
        draw(result, IMAGES / "accuracy-few-shot.png")
        print("\n".join(tables(result)))
        return
    predictor = load("lite0-16", device="cpu", dtype="float32")
    protocols = list(protocols_of(options.data, predictor, EmbeddingCache(options.cache)))
    rights = [{moments: solved_rights(protocol, moments) for moments in get_args(MomentSet)} for protocol in protocols]
    if options.systems == "all":
        file = Path("build/three-sets.pt")
        found = trained_rights(protocols, options.trained_on, options.seeds, file, options.workers)
        rights = [one | other for one, other in zip(rights, found, strict=True)]
    write_result(
        model=asdict(PACKAGED),
        seeds=options.seeds if options.systems == "all" else 0,
        table={protocol.name: table_of(protocol, found) for protocol, found in zip(protocols, rights, strict=True)},
        few_shot_percent={
            protocol.name: few_shot(protocol) for protocol in protocols if protocol.name in ("ut", "fights", "daily")
        },
    )


if __name__ == "__main__":
    main()
