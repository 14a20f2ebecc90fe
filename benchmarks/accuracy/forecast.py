"""How far the forecast of `train`, for twice the clips, is from what twice the clips bring.

    python -m benchmarks.accuracy.forecast DATA > benchmarks/accuracy/forecast.json

Half, or a third, of the clips of each label are drawn ten times from each set. The forecast is made from these clips alone. Then as
many further clips of each label are drawn, and twice the clips are learned from. Groups (sequences, sources, recordings) are left
out one by one, and what was gained is measured in three ways:

- `gain of this draw`: on all clips of the set, from this draw's clips and from twice as many. It depends on which clips were drawn.
- `mean gain`: the mean of that over the ten draws, which is what twice the clips bring before anybody knows which clips they are.
- `as a user sees it`: the accuracy that twice the clips have on themselves, less that of the first ones on themselves. Few clips
  measure their own accuracy badly, so no forecast can come near this.

The naive forecast is that nothing is gained; `mean gain` as a forecast is the best that is possible for unknown clips. A trial is
near if it is within 2 points. The parts of the clips, the power law and the range were chosen with the halves and thirds of
UT-Interaction and the fights in view, as they are here; the daily movements were not looked at before.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.three_sets import DRAWS, Protocol, protocols_of
from benchmarks.harness import numbered, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.inference.predictor import load
from fewframes.models.moments import SOLVED_MOMENTS
from fewframes.training.forecast import NUM_VIEWS, Curve, forecast_twice

SHARES = {"half": 1 / 2, "a third": 1 / 3}
NEAR = 2.0
SETS = ("ut", "fights", "daily")
Rows = NDArray[np.int64]


def trials(protocol: Protocol, share: float) -> dict[str, NDArray[np.float64]]:
    """For each draw the forecast, its range, the three kinds of gain, all in points, and the seconds that the forecast took."""
    views, label_B = protocol.embeddings[:, :NUM_VIEWS].numpy(), protocol.targets.numpy()
    group_B = numbered(protocol.groups).numpy()
    targets_BK = np.eye(int(label_B.max()) + 1)[label_B]
    curve = Curve(views, label_B, group_B, SOLVED_MOMENTS)
    each = [np.flatnonzero(group_B == group) for group in np.unique(group_B)]
    rows = []
    for draw in range(DRAWS):
        first, twice = drawn(label_B, share, np.random.default_rng(draw))
        began = time.process_time()
        found = forecast_twice(views[first], targets_BK[first], group_B[first].astype(str).tolist(), seed=draw)
        seconds = time.process_time() - began
        assert not found.missing, found.missing
        before_B, after_B = curve.right(first, each), curve.right(twice, each)
        seen = after_B[twice].mean() - before_B[first].mean()
        rows.append([found.more, found.low, found.high, after_B.mean() - before_B.mean(), seen, seconds / 100])
    names = ("forecast", "low", "high", "gain of this draw", "as a user sees it", "seconds")
    return dict(zip(names, 100 * np.array(rows).T, strict=True)) | {"clips": np.array([len(first)])}


def drawn(label_B: Rows, share: float, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """A part of the clips of each label, and the same with as many others."""
    first, twice = [], []
    for label in np.unique(label_B):
        rows = generator.permutation(np.flatnonzero(label_B == label))
        count = max(1, round(share * len(rows)))
        first.append(rows[:count])
        twice.append(rows[: 2 * count])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(twice))


def figures(found: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, object]:
    """How far the forecasts, and the naive ones, are from each kind of gain, over all trials of some sets and shares."""
    forecast = joined(found, "forecast")
    gains = {
        "gain of this draw": joined(found, "gain of this draw"),
        "mean gain": np.concatenate([np.full(DRAWS, one["gain of this draw"].mean()) for one in found]),
        "as a user sees it": joined(found, "as a user sees it"),
    }
    low, high = joined(found, "low"), joined(found, "high")
    this = gains["gain of this draw"]
    return {
        "trials": len(forecast),
        "mean forecast": round(float(forecast.mean()), 2),
        "mean gain": round(float(this.mean()), 2),
        "standard deviation of the gain over draws": round(
            float(np.mean([one["gain of this draw"].std(ddof=1) for one in found])), 2
        ),
        "range holds the gain of this draw, percent": round(100 * float(((low <= this) & (this <= high)).mean()), 1),
        "mean width of the range": round(float((high - low).mean()), 1),
        **{
            f"against: {name}": {
                "forecast": distance(forecast - gain),
                "no gain": distance(-gain),
                # The best that is possible without knowing which clips were drawn.
                "mean gain": distance(gains["mean gain"] - gain),
            }
            for name, gain in gains.items()
        },
    }


def joined(found: Sequence[dict[str, NDArray[np.float64]]], name: str) -> NDArray[np.float64]:
    return np.concatenate([one[name] for one in found])


def distance(errors: NDArray[np.float64]) -> dict[str, float]:
    return {
        "within 2 points, percent": round(100 * float((np.abs(errors) <= NEAR).mean()), 1),
        "mean absolute error": round(float(np.abs(errors).mean()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/accuracy-cache"))
    options = parser.parse_args()
    predictor = load("lite0-16", device="cpu", dtype="float32")
    protocols = itertools.takewhile(
        lambda protocol: protocol.name != "order", protocols_of(options.data, predictor, EmbeddingCache(options.cache))
    )
    found = {
        f"{protocol.name}, {words} of the clips": trials(protocol, share)
        for protocol in protocols
        if protocol.name in SETS
        for words, share in SHARES.items()
    }
    write_result(
        all_trials=figures(list(found.values())),
        sets={
            name: {"clips": int(one["clips"][0]), **figures([one]), "seconds": round(float(one["seconds"].mean()), 2)}
            for name, one in found.items()
        },
    )


if __name__ == "__main__":
    main()
