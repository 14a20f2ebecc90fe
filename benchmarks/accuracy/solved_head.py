"""How often a solved read-out is right on groups that it never saw, and how much processor time it takes.

    python -m benchmarks.accuracy.solved_head DATA --output benchmarks/accuracy/solved_head.json

DATA is the folder of the real sets (its README has their origin). `--only` measures some sets and keeps the other rows of the file.

Each set is solved from all its videos, in the views of the package's defaults (as it is, mirrored, six random ones). Every group is
predicted from all other groups, in one view (the video as it is). Two splits of UT-Interaction hold out a whole set instead.

- `ut`: UT-Interaction, six actions, a group is a sequence (20).
- `set1_to_set2`, `set2_to_set1`: solved from the parking lot, tested on the lawn, and the reverse.
- `ut_training_views`: as `ut`, from the random views that training in steps draws, so that the two read-outs see the same.
- `order`: daily movements with a direction, each also played backwards with the label flipped; a group is a recording.
- `daily`: all daily movements that are not dark, nine actions; a group is a recording.
- `fights`: half of the surveillance set, fight or not; a group is a source.

Seconds are of the processor, all threads together: `embedding` from scratch, `cached` the same again with the embeddings in the
cache (reading, solving, measuring, writing), `solving` the part of it that solves and measures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.harness import command, describe
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import Report
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.runtime.protocol import DtypeName
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig
from fewframes.training.features import EmbeddedVideos
from fewframes.training.solved.features import embed_views
from fewframes.training.solved.figures import HeadFigures
from fewframes.training.solved.model import SolvedStart
from fewframes.training.solved.run import SolveOptions, solve_and_measure, train_solved
from runs.packaged import DARK, rows_of

SETS = ("ut", "ut_training_views", "set1_to_set2", "set2_to_set1", "order", "daily", "fights")


def video_set(folder: Path, rows: list[dict[str, str]], group: str, name: str) -> VideoSet:
    samples = (Sample(path=str(folder / row["path"]), labels=(row["label"],), group=row[group]) for row in rows)
    return VideoSet(tuple(samples), name)


def set_of(data: Path, name: str) -> VideoSet:
    if name == "fights":
        return video_set(data / "fights", rows_of(data / "fights", "list.csv"), "group", name)
    if name in ("daily", "order"):
        rows = [row for row in rows_of(data / "fir_rgb") if float(row["mean_luma"]) > DARK]
        if name == "order":
            rows = [{**row, "label": row["direction"]} for row in rows if row["direction"]]
        return video_set(data / "fir_rgb", rows, "recording", name)
    rows = rows_of(data / "ut_interaction")
    everything = video_set(data / "ut_interaction", rows, "sequence", name)
    if name.startswith("ut"):
        return everything
    tested = name[-1]
    parts = ("test" if row["set"] == tested else "train" for row in rows)
    return replace(
        everything,
        samples=tuple(replace(sample, split=part) for sample, part in zip(everything.samples, parts, strict=True)),
    )


def measured(data: VideoSet, cache: EmbeddingCache, dtype: DtypeName) -> dict[str, object]:
    """A run from scratch as far as the cache does not hold it, and the same again."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as out:
        options = SolveOptions(cache=cache, device="cpu", dtype=dtype, overwrite=True)
        with timed(seconds, "from scratch"):
            first = train_solved(data, out, RunConfig(), options)
        with timed(seconds, "cached"):
            solved = train_solved(data, out, RunConfig(), options)
    assert not solved.failures
    if first.num_cached:
        del seconds["from scratch"]  # not all of it was computed
    return row_of(solved.held_out or solved.left_out, seconds, dtype)


def order(data: VideoSet, cache: EmbeddingCache, dtype: DtypeName) -> dict[str, object]:
    """The centres of equal parts are the same backwards, so a video played backwards has its embeddings reversed."""
    seconds: dict[str, float] = {}
    start = SolvedStart(RunConfig(), data.labels, "single", "cpu", dtype)
    with timed(seconds, "from scratch"):
        views = embed_views(data, start, cache, lambda *_: None, mirror=True, augment=AugmentConfig())
    if views.num_cached:
        del seconds["from scratch"]
    assert not views.failures
    flipped = {label: (other,) for label, other in zip(data.labels, data.labels[::-1], strict=True)}
    backwards = tuple(replace(sample, labels=flipped[sample.labels[0]]) for sample in data.samples)
    both = replace(data, samples=(*data.samples, *backwards))
    twice = EmbeddedVideos(
        np.concatenate([views.embeddings, views.embeddings[:, :, ::-1]]), np.arange(len(both.samples)), (), 0
    )
    with timed(seconds, "solving"):
        _, _, figures = solve_and_measure(both, both.labels, twice)
    return row_of(figures, seconds, dtype)


def training_views(data: VideoSet, cache: EmbeddingCache, dtype: DtypeName) -> dict[str, object]:
    from fewframes.inference.predictor import load
    from fewframes.training.features import EmbeddedVideos, embed_videos

    seconds: dict[str, float] = {}
    predictor = load("lite0-16", device="cpu", dtype="float32")
    for result in embed_videos(data, predictor, cache, mirror=True, augment=AugmentConfig()):
        if isinstance(result, EmbeddedVideos):
            assert not result.failures
            views = EmbeddedVideos(np.asarray(result.embeddings), np.asarray(result.indices), (), 0)
    with timed(seconds, "solving"):
        _, _, figures = solve_and_measure(data, data.labels, views)
    return row_of(figures, seconds, dtype)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    seconds[name] = round(time.process_time() - began, 1)


def row_of(figures: HeadFigures, seconds: dict[str, float], dtype: DtypeName) -> dict[str, object]:
    report, interval = figures.report, figures.interval
    assert isinstance(report, Report)
    return {
        "protocol": figures.protocol,
        "videos": report.num_videos,
        "groups": interval.num_groups,
        "top1_percent": round(100 * report.top1, 2),
        "interval_percent": [round(100 * interval.low, 2), round(100 * interval.high, 2)],
        "mean_over_actions_percent": round(100 * report.mean_class, 2),
        "confusion": {"labels": report.labels, "counts": report.confusion.tolist()},
        "processor_seconds": seconds,
        "precision": dtype,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS)
    parser.add_argument(
        "--dtype", choices=get_args(DtypeName), default="float32", help="precision of the frame encoder"
    )
    parser.add_argument("--cache", type=Path, default=Path("build/solved-cache"))
    options = parser.parse_args()
    report = json.loads(options.output.read_text()) if options.output.is_file() else {"sets": {}}
    report |= {"machine": describe(), "command": command()}
    for name in options.only:
        data = replace(set_of(options.data, name), name=name)
        measure = {"order": order, "ut_training_views": training_views}.get(name, measured)
        report["sets"][name] = measure(data, EmbeddingCache(options.cache), options.dtype)
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps({key: value for key, value in report["sets"][name].items() if key != "confusion"}))


if __name__ == "__main__":
    main()
