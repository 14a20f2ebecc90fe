"""How well scores say how often they are right, on videos whose groups training did not see.

    python -m benchmarks.accuracy.calibration DATA --cache FOLDER > benchmarks/accuracy/calibration.json

DATA is the folder of the real sets. Each set is cut into five folds of whole groups, or into its groups if they are fewer. `train`
with its defaults learns from all but one, and the model that it writes is measured on that one. `before` is the same model with its
logits as they were before training divided them. Nothing is chosen on the measured fold. The calibration error is never 0:
`if_perfect` is what chance alone gives so many videos, if each answer is right as often as its score says.

- `packaged`: the videos and the recipe of the packaged model; a group is a sequence or a recording.
- `days`: its five daily movements, filmed on four days; each day is left out in turn, and is a group.
- `fights`: half of the surveillance set, fight or not; a group is a source.
- `solved`: the same with a solved head, for `packaged` and `fights`: each group predicted from all others. Here `before` has the
  scale that solving chose, and each fifth of the groups is divided by what suits the others.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.solved_head import set_of
from benchmarks.harness import write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import interval_of, log_softmax, mean_gap
from fewframes.data.dataset import VideoSet
from fewframes.inference.predictor import load
from fewframes.models.read_out.solve import cross_entropy, solve_moments
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.calibration import (
    EXPECTED_SOLVED,
    LeftOutLogits,
    calibration_folds,
    cross_validated,
    temperature_of,
)
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.features import EmbeddedVideos, embed_videos
from fewframes.training.train import TrainOptions, train
from runs.packaged import FOLDS, folds_of, mean_of, sureness, videos_of

SETS = ("packaged", "days", "fights")


def set_named(data: Path, name: str) -> VideoSet:
    if name == "fights":
        return set_of(data, name)
    videos = videos_of(data)
    if name == "packaged":
        return videos
    # A recording is named after the day and the time at which it began.
    days = [replace(sample, group=sample.group.split("_")[0]) for sample in videos.samples if sample.group]
    movements = [sample for sample in days if sample.group.isdigit()]
    return VideoSet(tuple(movements), "daily movements (5), a day is a group")


def folds(videos: VideoSet) -> Iterator[tuple[VideoSet, list[int]]]:
    """The videos with one fold marked as held out, and which those are."""
    groups = sorted(set(videos.groups()))
    if len(groups) > FOLDS:
        yield from folds_of(videos)
        return
    for group in groups:
        held = [index for index, own in enumerate(videos.groups()) if own == group]
        parts = ("test" if sample.group == group else "train" for sample in videos.samples)
        samples = (replace(sample, split=part) for sample, part in zip(videos.samples, parts, strict=True))
        yield VideoSet(tuple(samples), videos.name), held


def trained(videos: VideoSet, seed: int, cache: EmbeddingCache) -> dict[str, object]:
    """Figures of one seed: each video is predicted by a model that `train` made without its fold."""
    shape = (len(videos.samples), len(videos.labels))
    before_BK, after_BK = np.zeros(shape), np.zeros(shape)
    fits = []
    for number, (fold, held) in enumerate(folds(videos)):
        run = RunConfig(train=TrainConfig(seed=seed))
        with tempfile.TemporaryDirectory() as folder, quiet():
            result = train(fold, folder, run, TrainOptions(cache=cache, device="cpu", dtype="float32", overwrite=True))
        assert not result.failures
        assert result.evaluation is not None
        after_BK[held] = result.evaluation.logits
        before_BK[held] = result.evaluation.logits * result.calibration.temperature
        fits.append(result.calibration.to_dict())
        print(
            f"{videos.name}, seed {seed}, fold {number}: {result.evaluation.report}, {result.calibration}",
            file=sys.stderr,
        )
    return {"folds": fits, **compared(videos, before_BK, after_BK)}


def solved(videos: VideoSet, cache: EmbeddingCache) -> dict[str, object]:
    """Figures of a head that is solved from the views that training draws."""
    predictor = load("lite0-16", device="cpu", dtype="float32", runtime="torch")
    for result in embed_videos(videos, predictor, cache, mirror=True, augment=AugmentConfig()):
        if isinstance(result, EmbeddedVideos):
            views = result
    targets_BK, groups = videos.multi_hot(), tuple(videos.groups())
    _, groups_B = np.unique(groups, return_inverse=True)
    solution = solve_moments(views.embeddings, targets_BK, cross_entropy, groups_B=groups_B)
    order = np.argsort(solution.indices)
    logits_BK = solution.left_out[order, 0]
    folds_B = np.zeros(len(groups), np.int64)
    for number, rows in enumerate(calibration_folds(targets_BK, groups, 5)):
        folds_B[rows] = number
    left_out = LeftOutLogits(logits_BK, targets_BK, groups, folds_B)
    scaled_BK, _ = cross_validated(left_out, "single", EXPECTED_SOLVED)
    return {
        "scale": solution.gain,
        "temperature": round(temperature_of(left_out, "single", EXPECTED_SOLVED), 3),
        **compared(videos, logits_BK, scaled_BK),
    }


def compared(videos: VideoSet, before_BK: np.ndarray, after_BK: np.ndarray) -> dict[str, object]:
    """Figures with the logits as they were and as they are, and the interval over groups of the share of right answers."""
    targets_BK = videos.multi_hot()
    right_B = after_BK.argmax(axis=1) == targets_BK.argmax(axis=1)
    interval = interval_of(lambda rows: float(right_B[rows].mean()), videos.groups(), np.random.default_rng(0))
    return {
        "before": sureness(before_BK, targets_BK),
        "after": sureness(after_BK, targets_BK),
        "calibration_error_points_if_perfect": if_perfect(after_BK),
        "right_percent_over_groups": [round(100 * interval.low, 1), round(100 * interval.high, 1)],
    }


def if_perfect(logits_BK: np.ndarray, draws: int = 1000) -> dict[str, float]:
    """The calibration error that chance alone gives so many videos, if each answer is right as often as its score says."""
    confidence_B = np.exp(log_softmax(logits_BK)).max(axis=1)
    rng = np.random.default_rng(0)
    drawn = rng.random((draws, len(confidence_B))) < confidence_B
    percent = 100 * np.array([mean_gap(confidence_B, right_B, 15) for right_B in drawn])
    least, most = np.quantile(percent, [0.05, 0.95])
    return {"mean": round(float(percent.mean()), 2), "5 %": round(float(least), 2), "95 %": round(float(most), 2)}


@contextmanager
def quiet() -> Iterator[None]:
    """Steps this small are as fast in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """The mean over seeds of each figure."""
    return {name: mean_of([row[name] for row in rows]) for name in ("before", "after")}  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/calibration-cache"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS)
    options = parser.parse_args()
    cache, report = EmbeddingCache(options.cache), {}
    for name in options.only:
        videos = set_named(options.data, name)
        rows = [trained(videos, seed, cache) for seed in range(options.seeds)]
        temperatures = [float(fold["temperature"]) for row in rows for fold in row["folds"]]  # type: ignore[attr-defined]
        report[name] = {
            "videos": len(videos.samples),
            "groups": len(set(videos.groups())),
            "temperatures": {
                "min": min(temperatures),
                "median": statistics.median(temperatures),
                "max": max(temperatures),
            },
            **summary(rows),
            "seeds": rows,
            "solved": solved(videos, cache),
        }
    write_result(
        protocol="five folds of whole groups, train with its defaults on four, measured on the fifth", sets=report
    )


if __name__ == "__main__":
    main()
