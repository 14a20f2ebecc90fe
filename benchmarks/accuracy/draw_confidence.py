"""The pictures of docs/guide/confidence.md: how far scores can be trusted, and what leaving doubtful answers out is worth.

    python runs/packaged.py DATA --output FOLDER --measure-only
    python -m benchmarks.accuracy.draw_confidence DATA --held-out FOLDER > benchmarks/accuracy/confidence.json
    python -m benchmarks.accuracy.draw_confidence

The first command scores each video by three models (one for each seed) that never saw its group. The second one divides these
logits by the temperature that suits the other folds, judges each video by a judge fitted to the other folds, and judges the
street fights of DATA, an unknown action at unknown places, by the judges of all folds in turn. The third one draws from the file.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.accuracy.unknowns import auroc, embedded
from benchmarks.harness import BLUE, GREY, IMAGES, ORANGE, save_figure, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import log_softmax, reliability
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.models.rejection.fitting import fit_rejection
from fewframes.training.calibration import LeftOutLogits, cross_validated
from runs.packaged import FOLDS, SEEDS, folds_of, rows_of, sureness, videos_of

FILE = Path(__file__).with_name("confidence.json")
SMALLEST = 5e-7  # scores are written with six digits
Floats = NDArray[np.floating[Any]]


def scores_of(videos: VideoSet, folder: Path) -> Floats:
    """The logarithms of the scores (B, K) of each video, by the models of one seed."""
    scores_BK = np.full((len(videos.samples), len(videos.labels)), np.nan)
    rows = {sample.path: row for row, sample in enumerate(videos.samples)}
    for fold in range(FOLDS):
        path = Path(f"{folder}-fold{fold}") / "predictions.csv"
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                scores_BK[rows[row["source"]]] = [float(row[label]) for label in videos.labels]
    assert np.isfinite(scores_BK).all(), f"{folder}: not every video was scored"
    return np.log(np.maximum(SMALLEST, scores_BK))


def reliable(logits_NK: Floats, targets_NK: Floats) -> dict[str, object]:
    """For each tenth of the scores: the mean score, how often the answer is right, and how many answers there are."""
    right_N = logits_NK.argmax(axis=1) == targets_NK.argmax(axis=1)
    bins = [
        {"score": round(part.confidence, 4), "right": round(part.right, 4), "answers": part.num_videos}
        for part in reliability(np.exp(log_softmax(logits_NK).max(axis=1)), right_N)
    ]
    return {"figures": sureness(logits_NK, targets_NK), "bins": bins}


def rejected(order_N: Floats, right_N: NDArray[np.bool_]) -> list[list[float]]:
    """Pairs of share answered and share right of these, from all answers to the fifth with the highest numbers."""
    sorted_N = right_N[np.argsort(-order_N, kind="stable")]
    counts = [round(len(right_N) * percent / 100) for percent in range(100, 18, -2)]
    return [[round(count / len(right_N), 4), round(float(sorted_N[:count].mean()), 4)] for count in counts]


def histogram(known_N: Floats) -> list[int]:
    return [int(count) for count in np.histogram(known_N, bins=20, range=(0, 1))[0]]


def measured(data: Path, folder: Path, cache: EmbeddingCache) -> dict[str, object]:
    videos = videos_of(data)
    targets_BK = videos.multi_hot().astype(np.float64)
    rows = rows_of(data / "fights", "list.csv")
    samples = (Sample(path=str(data / "fights" / row["path"]), labels=("fight",), group=row["group"]) for row in rows)
    own, fights = embedded(videos, cache), embedded(VideoSet(tuple(samples), "fights"), cache)
    folds_B, known_B, answered_B = (np.zeros(len(own.labels)) for _ in range(3))
    strangers, passed = [], []
    for number, (_, held) in enumerate(folds_of(videos)):
        held_B = np.isin(np.arange(len(folds_B)), held)
        part = own.part(~held_B)
        judge = fit_rejection(part.embeddings, targets_BK[~held_B], list(part.groups))
        assert judge is not None
        folds_B[held_B], known_B[held_B] = number, judge.judge(own.embeddings[held_B, 0]).known
        answered_B[held_B] = known_B[held_B] >= judge.threshold()
        strangers.append(judge.judge(fights.embeddings[:, 0]).known)
        passed.append(strangers[-1] >= judge.threshold())
        print(f"fold {number}", file=sys.stderr, flush=True)
    logits_SBK = np.stack([scores_of(videos, folder / f"seed{seed}") for seed in range(SEEDS)])
    before_NK, targets_NK = logits_SBK.reshape(-1, len(videos.labels)), np.tile(targets_BK, (SEEDS, 1))
    left_out = LeftOutLogits(before_NK, targets_NK, tuple(videos.groups()) * SEEDS, np.tile(folds_B, SEEDS).astype(int))
    after_NK, _ = cross_validated(left_out, "single")
    right_N, known_N = before_NK.argmax(axis=1) == targets_NK.argmax(axis=1), np.tile(known_B, SEEDS)
    answered_N = np.tile(answered_B, SEEDS) > 0
    sure_N = log_softmax(after_NK).max(axis=1)
    return {
        "videos": len(folds_B),
        "reliability": {"before": reliable(before_NK, targets_NK), "after": reliable(after_NK, targets_NK)},
        "rejection": {"score": rejected(sure_N, right_N), "known": rejected(known_N, right_N)},
        "at the threshold": {
            "answered": round(float(answered_N.mean()), 4),
            "of these right": round(float(right_N[answered_N].mean()), 4),
            "right of all": round(float(right_N.mean()), 4),
            "right answers lost": round(float((~answered_N)[right_N].mean()), 4),
            "wrong answers avoided": round(float((~answered_N)[~right_N].mean()), 4),
            "street fights answered": round(float(np.mean(passed)), 4),
        },
        "known": {
            "held-out videos": histogram(known_B),
            "street fights": histogram(np.concatenate(strangers)),
            "auroc": round(100 * auroc(known_B, np.concatenate(strangers)), 1),
        },
    }


def draw_reliability(found: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(9.4, 4.4), layout="constrained")
    for axes, name, colour in zip(figure.subplots(1, 2, sharey=True), found, (ORANGE, BLUE), strict=True):
        bins, figures = found[name]["bins"], found[name]["figures"]
        most = max(row["answers"] for row in bins)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="right as often as the score says")
        axes.plot([row["score"] for row in bins], [row["right"] for row in bins], color=colour, linewidth=1)
        for row in bins:
            size = 20 + 380 * row["answers"] / most
            axes.scatter(row["score"], row["right"], s=size, color=colour, alpha=0.75, zorder=3)
            place = {"xytext": (9, -13), "textcoords": "offset points", "fontsize": 8, "color": "#444444"}
            axes.annotate(str(row["answers"]), (row["score"], row["right"]), **place)
        axes.set(xlim=(0, 1.04), ylim=(0, 1.04), xlabel="score of the answer")
        axes.set_title(f"{name} calibration: error {figures['calibration_error_points']:.1f} points", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper left")
        if name == "before":
            axes.set_ylabel("share of right answers")
    save_figure(figure, path)


def draw_rejection(found: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(9.4, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = {"score": "most doubtful by score left out", "known": "least known left out"}
    for name, colour in zip(names, (BLUE, ORANGE), strict=True):
        points = found["rejection"][name]
        left.plot([100 * x for x, _ in points], [100 * y for _, y in points], color=colour, label=names[name])
    point = found["at the threshold"]
    left.scatter(
        100 * point["answered"], 100 * point["of these right"], color="black", zorder=3, label="--unknown auto"
    )
    left.invert_xaxis()
    left.set(xlabel="answered, % of videos", ylabel="of these right, %", title="Held-out videos of its own actions")
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    edges: Sequence[float] = [number / 20 for number in range(20)]
    for (name, colour), shift in zip(
        {"held-out videos": BLUE, "street fights": ORANGE}.items(), (0, 0.022), strict=True
    ):
        counts = np.array(found["known"][name], float)
        right.bar(np.array(edges) + 0.014 + shift, 100 * counts / counts.sum(), width=0.021, color=colour, label=name)
    right.set(xlabel="known: how likely it is one of the actions", ylabel="% of videos", xlim=(0, 1.01))
    right.set_title(f"Its own actions and strangers: AUROC {found['known']['auroc']:.0f}")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="measure instead of drawing")
    parser.add_argument("--held-out", type=Path, default=Path("build/packaged"))
    parser.add_argument("--cache", type=Path, default=Path("build/unknowns-cache"))
    options = parser.parse_args()
    if options.data is not None:
        write_result(**measured(options.data, options.held_out, EmbeddingCache(options.cache)))
        return
    found = json.loads(FILE.read_text(encoding="utf-8"))
    draw_reliability(found["reliability"], IMAGES / "confidence-reliability.png")
    draw_rejection(found, IMAGES / "confidence-rejection.png")


if __name__ == "__main__":
    main()
