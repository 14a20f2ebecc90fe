"""Learned spans in films of unseen clips, beside windows and beside naming nothing.

    python -m benchmarks.streams.boundaries DATA > benchmarks/streams/boundaries.json

**Movements**: the eleven films of `benchmarks.streams.timeline` (part `test`), composed anew for each seed. A model is trained by
`fewframes.train` with its defaults on the two other thirds, background clips among them, and its detector by
`fewframes.train_boundaries`. **Fights**: the clips of each third of the sources, joined in random order to films of at most 40
clips of 2 s with nothing between them; trained on the two other thirds.

Ways: `learned` is the default of a model with a detector; `windows` that of a model without one; `windows before` has the defaults
of before (4 and 8 s, from 0.8 on); `clip by clip` is the answer of `predict` for each clip of a film by itself, which needs to know
where clips begin; `nothing` names nothing. mAP takes spans of any confidence, frames those from the threshold of the way on. A
frame is right if it has the label of the action that goes on, or none where none goes on.

The form of the network, its steps, and the weights of the evidence were chosen on the films of `dev` of seed 0, with two looks at
`test` of seed 0 (docs/decisions/2026-11-29-boundaries.md). Thresholds come from the training data alone.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import over_seeds, write_result
from benchmarks.streams.timeline import (
    LEAST,
    Segment,
    compose,
    parts_of,
    scored,
    segments_of,
    write_joined,
)
from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.inference.detection.spans import Span
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import THRESHOLD, TimelineConfig, sweep
from fewframes.results import UNKNOWN, background_labels
from fewframes.training.boundaries.train import train_boundaries
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.train import TrainOptions, train

CLIPS_A_FILM = 40
WINDOWS_BEFORE = TimelineConfig(spans="windows", window_s=4.0, lengths=(1, 2), threshold=THRESHOLD)
FOLDS = 3

Film = dict[str, Any]


def model_of(
    segments: Sequence[Segment], folder: Path, cache: EmbeddingCache, seed: int
) -> tuple[Predictor, dict[str, Any]]:
    """A model with a detector, trained on these clips, and what training the detector took."""
    samples = tuple(
        Sample(path=segment.path, labels=(segment.label or "background",), group=segment.group) for segment in segments
    )
    data, run = VideoSet(samples, folder.name), RunConfig(train=TrainConfig(seed=seed))
    if not (folder / "model.safetensors").is_file():
        train(data, folder, run, TrainOptions(cache=cache))
    began, used = time.perf_counter(), time.process_time()
    fitted = train_boundaries(data, folder, run, cache=cache)
    facts = {
        **fitted.fit.to_dict(),
        "threshold": fitted.threshold,
        "interval_s": fitted.interval_s,
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - used, 1),
    }
    print(folder.name, facts, file=sys.stderr)
    return load(folder, device="cpu", dtype="float32"), facts


def figures(predictor: Predictor, films: Sequence[Film], cache: EmbeddingCache) -> dict[str, dict[str, Any]]:
    """The figures of each way, for films whose frames are cached or not."""
    boundaries = predictor.runtime.boundaries
    assert boundaries is not None
    ways = {
        "learned": (TimelineConfig(), boundaries.threshold),
        "windows": (TimelineConfig(spans="windows"), THRESHOLD),
        "windows before": (WINDOWS_BEFORE, THRESHOLD),
    }
    found = {}
    for name, (config, threshold) in ways.items():
        began = time.process_time()
        timelines = [sweep(predictor, film["path"], replace(config, threshold=LEAST), cache=cache) for film in films]
        found[name] = scored([list(timeline.spans) for timeline in timelines], list(films), threshold)
        print(name, found[name], f"{time.process_time() - began:.0f} s", file=sys.stderr)
    found["nothing"] = scored([[] for _ in films], list(films), 1.0)
    found["clip by clip"] = scored([by_clip(predictor, film) for film in films], list(films), 0.0)
    return found


def by_clip(predictor: Predictor, film: Film) -> list[Span]:
    """The answer of `predict` for each clip of a film, action or not, from where it begins to where it ends."""
    nothing = background_labels(predictor.labels)
    spans = []
    for entry in [*film["spans"], *film["background"]]:
        answer = predictor.predict(film["path"], start_s=entry["start_s"], end_s=entry["end_s"] - 1e-3)
        if answer.label != UNKNOWN and answer.label not in nothing:
            spans.append(Span(entry["start_s"], entry["end_s"], answer.label, max(LEAST, answer.top(1)[0].score)))
    return spans


def movements(data: Path, folder: Path, seeds: int, cache: EmbeddingCache) -> dict[str, Any]:
    parts = parts_of(segments_of(data))
    results, trained = [], []
    for seed in range(seeds):
        films = compose(parts["test"], folder / f"test{seed}", seed)
        predictor, facts = model_of(parts["test_taught"], folder / f"movements{seed}", cache, seed)
        results.append(figures(predictor, films, cache))
        trained.append(facts)
    return {"films": 11, "detectors": trained, **summary(results)}


def fights(data: Path, folder: Path, cache: EmbeddingCache) -> dict[str, Any]:
    with (data / "fights" / "list.csv").open(newline="") as file:
        segments = [
            Segment(str(data / "fights" / row["path"]), row["label"], row["group"]) for row in csv.DictReader(file)
        ]
    groups = sorted(
        {segment.group for segment in segments}, key=lambda name: (sum(one.group == name for one in segments), name)
    )
    results, trained, count = [], [], 0
    for fold in range(FOLDS):
        left = set(groups[fold::FOLDS])
        clips = [segment for segment in segments if segment.group in left]
        random.Random(fold).shuffle(clips)
        films = []
        for number in range(0, len(clips), CLIPS_A_FILM):
            path = folder / f"fights{fold}-{number}.mp4"
            films.append({"path": str(path), **write_joined(path, clips[number : number + CLIPS_A_FILM], {"noFight"})})
        count += len(films)
        learned = [segment for segment in segments if segment.group not in left]
        predictor, facts = model_of(learned, folder / f"fights-model{fold}", cache, 0)
        results.append(figures(predictor, films, cache))
        trained.append(facts)
    return {"films": count, "detectors": trained, **summary(results)}


def summary(results: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """The mean of each figure over seeds or thirds, the least and the most."""
    return {
        "ways": {
            way: {
                "mAP_mean": over_seeds([own[way]["mAP_mean"] for own in results]),
                "mAP at 0.7": over_seeds([own[way]["mAP"]["0.7"] for own in results]),
                "frames_right": over_seeds([own[way]["frame_accuracy"] for own in results]),
            }
            for way in results[0]
        },
        "each": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/boundaries"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=["movements", "fights"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    cache = EmbeddingCache(options.folder / "embeddings")
    parts: dict[str, Any] = {}
    if options.only != "fights":
        parts["movements"] = movements(options.data, options.folder, options.seeds, cache)
    if options.only != "movements":
        parts["fights"] = fights(options.data, options.folder, cache)
    write_result(**parts)


if __name__ == "__main__":
    main()
