"""Which way a part of the picture becomes the network's square: cropped, squashed or padded; and how few pixels it may have.

    python -m benchmarks.streams.zone_views ../shared/data > benchmarks/streams/zone_views.json

The clips of `ut_interaction` (120, six actions), 16 frames of each through the packaged frame encoder. A logistic regression learns
the mean and the spread of the embeddings of whole pictures, in the packaged view (`crop`), as models are trained; ten folds, two
sequences left out in each. The clips left out are shown in other ways:

`aspects`: the whole picture as it is (about 1.3 times as wide as high), and as a part of a zone that is twice and three times as
wide as high: the edges of the picture are drawn out to the left or to the right, so that what happens is at one end of the zone.
`sizes`: the whole picture reduced until its short side has so many pixels, then fitted as a zone is.

Each figure is the share of right answers, in percent, with its 95 % interval over the 20 sequences.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import write_result
from fewframes.core.metrics import difference_of
from fewframes.inference.predictor import Predictor, load
from fewframes.sampling import centre_times
from fewframes.video.source import open_video
from fewframes.video.transforms import fit_frame, resized, short_side_size
from fewframes.video.view import ViewConfig
from runs.packaged import rows_of

WAYS = ("crop", "squash", "pad", "grown", "tiles")
ASPECTS = (1.0, 2.0, 3.0)
"""1 stands for the picture as it is."""
SIZES = (12, 16, 24, 32, 48, 64, 96)
FOLDS = 10
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def at_one_end(aspect: float, frame_CHW: Pixels, number: int) -> Pixels:
    """The picture at one end of a part that is `aspect` times as wide as high, its edge drawn out to the other end."""
    height, width = frame_CHW.shape[-2:]
    more = max(0, round(aspect * height) - width) if aspect > 1 else 0
    return np.pad(frame_CHW, ((0, 0), (0, 0), (0, more) if number % 2 == 0 else (more, 0)), mode="edge")


def reduced(short_px: int, frame_CHW: Pixels, _: int) -> Pixels:
    height, width = frame_CHW.shape[-2:]
    return resized(frame_CHW, *short_side_size(height, width, short_px))


def squares_of(frame_CHW: Pixels, view: ViewConfig, way: str) -> list[Pixels]:
    """The squares that a way makes of a part of the picture; all but `tiles` make one."""
    height, width = frame_CHW.shape[-2:]
    squash = replace(view, fit="squash")
    if way == "grown":
        more = max(height, width) - min(height, width)
        around = (more // 2, more - more // 2)
        around_CHW = np.pad(
            frame_CHW, ((0, 0), *((around, (0, 0)) if width > height else ((0, 0), around))), mode="edge"
        )
        return [fit_frame(around_CHW, squash)]
    if way == "tiles":
        short, long = min(height, width), max(height, width)
        number = math.ceil(long / short - 0.25)
        starts = [round(index * (long - short) / max(1, number - 1)) if number > 1 else 0 for index in range(number)]
        if number == 1:
            return [fit_frame(frame_CHW, squash)]
        return [fit_frame(frame_CHW[:, :, start : start + short], squash) for start in starts]
    return [fit_frame(frame_CHW, replace(view, fit=way))]  # type: ignore[arg-type]


def features(predictor: Predictor, frames: list[Pixels], way: str) -> Floats:
    """The mean and the spread of the embeddings of each square (S, 2 D)."""
    squares = [squares_of(frame_CHW, predictor.runtime.view, way) for frame_CHW in frames]
    found = [predictor.runtime.embed_frames(np.stack(own)) for own in zip(*squares, strict=True)]
    return np.stack([np.concatenate([own_TD.mean(axis=0), own_TD.std(axis=0)]) for own_TD in found])


Change = Callable[[Pixels, int], Pixels]


def ways_of(size_way: str) -> dict[str, tuple[str, Change]]:
    """Each way to show a clip, and what becomes of a frame before it. The number of the clip chooses the end of the zone."""
    ways: dict[str, tuple[str, Change]] = {
        f"{way} {aspect:g}": (way, partial(at_one_end, aspect)) for way in WAYS for aspect in ASPECTS
    }
    ways |= {f"{size} px": (size_way, partial(reduced, size)) for size in SIZES}
    return ways


def right_of(
    seen_BF: Floats, shown_BSF: list[Floats], labels: NDArray[Any], folds: NDArray[Any]
) -> NDArray[np.float64]:
    """1 for each clip that is named rightly, by the surest of its squares. The model learned whole pictures of other folds."""
    right = np.zeros(len(labels))
    for fold in range(FOLDS):
        learned = folds != fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        model.fit(seen_BF[learned], labels[learned])
        for number in np.flatnonzero(~learned):
            scores_SK = model.predict_proba(shown_BSF[number])
            right[number] = model.classes_[scores_SK.max(axis=0).argmax()] == labels[number]
    return right


def percent(right: NDArray[np.float64], groups: list[str]) -> dict[str, float]:
    found = difference_of(lambda rows: float(100 * right[rows].mean()), groups, np.random.default_rng(0))
    return {"percent": round(found.value, 1), "low": round(found.low, 1), "high": round(found.high, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fit", choices=WAYS, default="squash", help="the way of zones, for `sizes`")
    arguments = parser.parse_args()
    predictor = load(device="cpu")
    rows = rows_of(arguments.data / "ut_interaction")
    ways = ways_of(arguments.fit)
    shown: dict[str, list[Floats]] = {name: [] for name in ways}
    for number, row in enumerate(rows):
        video = open_video(arguments.data / "ut_interaction" / row["path"])
        frames = list(video.frames_at(centre_times(video.duration_s, predictor.num_frames)).frames)
        video.close()
        for name, (way, change) in ways.items():
            shown[name].append(features(predictor, [change(frame_CHW, number) for frame_CHW in frames], way))
        print(f"{number + 1} of {len(rows)}", file=sys.stderr)
    labels = np.array([row["label"] for row in rows])
    groups = [row["sequence"] for row in rows]
    folds = np.array([(int(sequence) - 1) % FOLDS for sequence in groups])
    seen_BF = np.stack([features_SF[0] for features_SF in shown["crop 1"]])
    found = {
        name: percent(right_of(seen_BF, features_BSF, labels, folds), groups) for name, features_BSF in shown.items()
    }
    write_result(
        clips=len(rows),
        aspects={fit: {f"{aspect:g}": found[f"{fit} {aspect:g}"] for aspect in ASPECTS} for fit in WAYS},
        sizes={f"{size} px": found[f"{size} px"] for size in SIZES},
        size_fit=arguments.fit,
    )


if __name__ == "__main__":
    main()
