"""How often does an interval of 95 % hold the truth, and how wide is it?

    python -m benchmarks.accuracy.coverage > benchmarks/accuracy/coverage.json

Data sets are drawn whose true accuracy is known. The chance of a video to be right is drawn for each group from a beta distribution
with a mean of `truth`; `correlation` is that of two videos of a group. Groups have as many videos each as `videos` says, or, in
`unequal`, 5 on average, the largest ten times as many as the smallest. With one video a group all videos are independent.

`covered` is the percentage of data sets whose interval (`fewframes.core.metrics.interval_of`, as every command uses it) holds the
truth (standard error: half a point). `width` is the mean width in points. `least_covered` is the worst setting by the number of
groups, for correlations up to 0.4, and for 0.7, where a group is little more than one video. `all_right` are intervals of data sets
without a mistake. `other_methods` are the figures of what was tried instead, groups of 5 videos: drawing groups anew (`bootstrap`,
the percentiles), and the t distribution over the means of groups.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import write_result
from fewframes.core.metrics import HIGH, Indices, bootstrap, interval_of, t_quantile

GROUPS = (4, 8, 20)
VIDEOS: tuple[int | str, ...] = (1, 5, 20, "unequal")
TRUTHS = (0.6, 0.8, 0.95)
CORRELATIONS, EXTREME = (0.0, 0.1, 0.2, 0.4), 0.7
UNEQUAL_MEAN, UNEQUAL_RATIO = 5, 10.0
OTHERS_SHARE = 5
"""Other methods are tried on one in so many of the data sets."""

Counts = tuple[int, ...]
Method = Callable[[Counts, Counts], tuple[float, float]]
"""The interval of numbers of right videos of each group and of all videos of each group."""


def sizes_of(groups: int, videos: int | str) -> Counts:
    """Return the number of videos of each group."""
    if isinstance(videos, int):
        return (videos,) * groups
    shares = np.geomspace(1, UNEQUAL_RATIO, groups)
    return tuple(np.maximum(1, np.round(shares / shares.mean() * UNEQUAL_MEAN)).astype(int).tolist())


def drawn(sizes: Counts, truth: float, correlation: float, count: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Return the number of right videos (`count`, groups) in each group of data sets."""
    chances = np.full((count, len(sizes)), truth)
    if correlation:
        strength = 1 / correlation - 1
        chances = draw.beta(truth * strength, (1 - truth) * strength, chances.shape)
    return draw.binomial(sizes, chances)


def in_a_row(right: Counts, sizes: Counts) -> tuple[Callable[[Indices], float], list[str]]:
    """Return the accuracy as a function of rows, and the group of each row."""
    pairs = list(zip(right, sizes, strict=True))
    values = np.concatenate([np.arange(size) < number for number, size in pairs]).astype(np.float64)
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    return lambda rows: float(values[rows].mean()), groups


@functools.cache
def chosen(right: Counts, sizes: Counts) -> tuple[float, float]:
    figure, groups = in_a_row(right, sizes)
    found = interval_of(figure, groups, np.random.default_rng(0))
    return found.low, found.high


@functools.cache
def drawn_anew(right: Counts, sizes: Counts) -> tuple[float, float]:
    figure, groups = in_a_row(right, sizes)
    found = bootstrap(figure, groups, np.random.default_rng(0))
    return found.low, found.high


def t_over_groups(right: Counts, sizes: Counts) -> tuple[float, float]:
    means = np.array(right) / np.array(sizes)
    half = t_quantile(HIGH, len(means) - 1) * float(means.std(ddof=1)) / len(means) ** 0.5
    return float(means.mean()) - half, float(means.mean()) + half


def measured(method: Method, sets: NDArray[np.int64], sizes: Counts, truth: float) -> dict[str, float]:
    """Return how often the intervals of these data sets hold the truth, in %, and their mean width in points."""
    if len(set(sizes)) == 1:
        sets = np.sort(sets, axis=1)  # the order of equal groups changes nothing, so fewer sets are different
    found = np.array([method(tuple(right), sizes) for right in sets.tolist()])
    inside = (found[:, 0] <= truth + 1e-12) & (truth - 1e-12 <= found[:, 1])
    widths = np.minimum(1, found[:, 1]) - np.maximum(0, found[:, 0])
    return {"covered": round(100 * float(inside.mean()), 1), "width": round(100 * float(widths.mean()), 1)}


def settings() -> Iterator[tuple[int, int | str, float, float]]:
    """Yield the number of groups, the videos of each, the truth and the correlation of all settings."""
    for groups in GROUPS:
        for videos in VIDEOS:
            for truth in TRUTHS:
                for correlation in (0.0,) if videos == 1 else (*CORRELATIONS, EXTREME):
                    yield groups, videos, truth, correlation


def least(rows: list[dict[str, Any]], groups: int, *, extreme: bool) -> float:
    return min(
        float(row["covered"]) for row in rows if row["groups"] == groups and (row["correlation"] == EXTREME) == extreme
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="data sets of each setting")
    num_draws = parser.parse_args().draws
    began = time.perf_counter()
    rows, others = [], []
    for number, (groups, videos, truth, correlation) in enumerate(settings()):
        sizes = sizes_of(groups, videos)
        sets = drawn(sizes, truth, correlation, num_draws, np.random.default_rng(number))
        plan = {"groups": groups, "videos": videos, "truth": truth, "correlation": correlation}
        rows.append({**plan, **measured(chosen, sets, sizes, truth)})
        if videos == UNEQUAL_MEAN:
            few = sets[: num_draws // OTHERS_SHARE]
            anew, over = (measured(method, few, sizes, truth) for method in (drawn_anew, t_over_groups))
            others.append({**plan, "drawn_anew": anew, "t_over_groups": over})
        print(rows[-1], f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    write_result(
        draws=num_draws,
        least_covered={
            f"{groups} groups": {
                "correlation up to 0.4": least(rows, groups, extreme=False),
                "correlation 0.7": least(rows, groups, extreme=True),
            }
            for groups in GROUPS
        },
        all_right={
            f"{groups} groups of {videos}": [
                round(100 * end, 1) for end in chosen((videos,) * groups, (videos,) * groups)
            ]
            for groups, videos in ((20, 1), (4, 5), (8, 5), (20, 5))
        },
        intervals=rows,
        other_methods=others,
        seconds=round(time.perf_counter() - began),
    )


if __name__ == "__main__":
    main()
