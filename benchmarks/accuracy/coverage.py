"""How often does an interval of 95 % hold the truth, and how wide is it?

    python -m benchmarks.accuracy.coverage > benchmarks/accuracy/coverage.json

Data sets are drawn whose true accuracy is known. The chance of a video to be right is drawn for each group from a beta distribution
with a mean of `truth`; `correlation` is that of two videos of a group. Groups have as many videos each as `videos` says, or, in
`unequal`, 5 on average, the largest ten times as many as the smallest. With one video a group all videos are independent.

`covered` is the percentage of data sets whose interval (`fewframes.core.metrics.interval_of`, as every command uses it) holds the
truth (standard error: half a point). `width` is the mean width in points. `least_covered` is the worst setting by the number of
groups, for correlations up to 0.4, and for 0.7, where a group is little more than one video. `all_right` are intervals of data sets
without a mistake. `other_methods` are the figures of what was tried instead, groups of 5 videos: the percentiles of groups drawn
anew, and the t distribution over the means of groups.

`differences`: two systems on the same videos (`difference_of`, as benchmarks use it), and groups drawn anew beside it. In each
group the chances that only the first is right, only the second, or both or none, are drawn from a Dirichlet distribution with means
of `first`, `second` and the rest.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import write_result
from fewframes.core.metrics import HIGH, Indices, difference_of, interval_of, t_quantile

GROUPS = (4, 8, 20)
VIDEOS: tuple[int | str, ...] = (1, 5, 20, "unequal")
TRUTHS = (0.6, 0.8, 0.95)
CORRELATIONS, EXTREME = (0.0, 0.1, 0.2, 0.4), 0.7
UNEQUAL_MEAN, UNEQUAL_RATIO = 5, 10.0
DIFFERENCES = ((0.05, 0.05), (0.12, 0.04), (0.3, 0.1))
"""Shares of videos that only the first system has right, and only the second."""
DIFFERENCE_GROUPS, DIFFERENCE_VIDEOS, DIFFERENCE_CORRELATIONS = (8, 20, 41), 6, (0.02, 0.1, 0.3)
OTHERS_SHARE = 5
"""Other methods are tried on one in so many of the data sets."""

Counts = tuple[int, ...]
Figure = Callable[[Indices], float]
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


def in_a_row(right: Counts, sizes: Counts) -> tuple[Figure, list[str]]:
    """Return the accuracy as a function of rows, and the group of each row."""
    pairs = list(zip(right, sizes, strict=True))
    values = np.concatenate([np.arange(size) < number for number, size in pairs]).astype(np.float64)
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    return functools.partial(mean_of, values), groups


@functools.cache
def chosen(right: Counts, sizes: Counts) -> tuple[float, float]:
    figure, groups = in_a_row(right, sizes)
    found = interval_of(figure, groups, np.random.default_rng(0))
    return found.low, found.high


@functools.cache
def drawn_anew(right: Counts, sizes: Counts) -> tuple[float, float]:
    return percentiles(*in_a_row(right, sizes))


def percentiles(figure: Figure, groups: list[str]) -> tuple[float, float]:
    """Return the interval between the percentiles of 1,000 data sets of whole groups drawn with replacement."""
    names, rows_N = np.unique(groups, return_inverse=True)
    rows_of = [np.flatnonzero(rows_N == index) for index in range(len(names))]
    draws = np.random.default_rng(0).integers(len(names), size=(1000, len(names)))
    values = [figure(np.concatenate([rows_of[index] for index in draw])) for draw in draws.tolist()]
    low, high = np.quantile(values, [1 - HIGH, HIGH]).tolist()
    return float(low), float(high)


def t_over_groups(right: Counts, sizes: Counts) -> tuple[float, float]:
    means = np.array(right) / np.array(sizes)
    half = t_quantile(HIGH, len(means) - 1) * float(means.std(ddof=1)) / len(means) ** 0.5
    return float(means.mean()) - half, float(means.mean()) + half


def measured(method: Method, sets: NDArray[np.int64], sizes: Counts, truth: float) -> dict[str, float]:
    """Return how often the intervals of these data sets hold the truth, in %, and their mean width in points."""
    if len(set(sizes)) == 1:
        sets = np.sort(sets, axis=1)  # the order of equal groups changes nothing, so fewer sets are different
    return summary([method(tuple(right), sizes) for right in sets.tolist()], truth, lowest=0)


def summary(intervals: Sequence[tuple[float, float]], truth: float, *, lowest: float) -> dict[str, float]:
    """Return how many of these intervals, cut off at `lowest` and 1, hold the truth, in %, and their mean width in points."""
    found = np.array(intervals)
    inside = (found[:, 0] <= truth + 1e-12) & (truth - 1e-12 <= found[:, 1])
    widths = np.minimum(1, found[:, 1]) - np.maximum(lowest, found[:, 0])
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


def differences(count: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of intervals of differences between two systems."""
    plans = itertools.product(DIFFERENCE_GROUPS, DIFFERENCES, DIFFERENCE_CORRELATIONS)
    for number, (num_groups, (first, second), correlation) in enumerate(plans):
        draw = np.random.default_rng(number)
        shares = np.array([first, second, 1 - first - second])
        groups = [str(row // DIFFERENCE_VIDEOS) for row in range(num_groups * DIFFERENCE_VIDEOS)]
        ours, anew = [], []
        for _ in range(count):
            chances = draw.dirichlet(shares * (1 / correlation - 1), num_groups)
            gains = np.concatenate(
                [np.repeat([1, -1, 0], counts) for counts in draw.multinomial(DIFFERENCE_VIDEOS, chances).tolist()]
            ).astype(np.float64)
            figure = functools.partial(mean_of, gains)
            found = difference_of(figure, groups, np.random.default_rng(0))
            ours.append((found.low, found.high))
            if len(ours) % OTHERS_SHARE == 0:
                anew.append(percentiles(figure, groups))
        yield {
            "groups": num_groups,
            "first": first,
            "second": second,
            "correlation": correlation,
            **summary(ours, first - second, lowest=-1),
            "drawn_anew": summary(anew, first - second, lowest=-1),
        }


def mean_of(values: NDArray[np.float64], rows: Indices) -> float:
    return float(values[rows].mean())


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
        differences=list(differences(num_draws)),
        seconds=round(time.perf_counter() - began),
    )


if __name__ == "__main__":
    main()
