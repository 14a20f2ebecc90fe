"""Learned spans in a stream, beside those of a timeline of the whole film, and how late they are told.

    python -m benchmarks.streams.live_spans DATA > benchmarks/streams/live_spans.json

The films are those of `benchmarks.streams.boundaries` (movements, three seeds), and so are the models. Frames come one after the
other, as a stream gives them, in windows of the model's clip length (`same`) and of the 3.2 s that `stream` begins with (`usual`).

`timeline` counts the spans of the whole film above the threshold. `stream` counts the actions that were told as ended. F1 is at an
overlap (tIoU) of 0.5. `start_late_s` and `end_late_s` are the seconds from the true start, or end, of an action until it was told,
for the true actions that a told one overlaps by 0.5: median, and 90 % are told within the second figure. `withdrawn` counts actions
that were told as begun and given up, per hundred that were told.

The numbers of looks and of frames in `inference/live/spans.py` were chosen on the films of `dev` of seed 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import over_seeds, write_result
from benchmarks.streams.boundaries import Film, model_of
from benchmarks.streams.timeline import RATE, Segment, compose, painted, parts_of, segments_of
from fewframes.core.cache import EmbeddingCache
from fewframes.inference.detection.spans import Span, overlap
from fewframes.inference.detection.windows import frame_rows
from fewframes.inference.live.spans import LiveSpan, LiveSpans, spans_of
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import sweep
from fewframes.video.live_settings import StreamConfig

TIOU = 0.5


def detecting(segments: Sequence[Segment], folder: Path, cache: EmbeddingCache, seed: int) -> Predictor:
    """The model of `benchmarks.streams.boundaries`; the one in the folder, if it is complete."""
    if (folder / "model.safetensors").is_file():
        found = load(folder, device="cpu", dtype="float32")
        if found.runtime.boundaries is not None:
            return found
    return model_of(segments, folder, cache, seed)[0]


def matches(found: Sequence[Span], true: Sequence[Span], tiou: float = TIOU) -> list[tuple[int, int]]:
    """Pairs (found, true) of one label that overlap enough, each used once, the surest first."""
    pairs, taken = [], set()
    for index in sorted(range(len(found)), key=lambda index: -found[index].confidence):
        free = [
            (overlap(found[index], span), number)
            for number, span in enumerate(true)
            if number not in taken and span.label == found[index].label
        ]
        best, number = max(free, default=(0.0, 0))
        if best >= tiou:
            taken.add(number)
            pairs.append((index, number))
    return pairs


def streamed(predictor: Predictor, film: Film, window_s: float, cache: EmbeddingCache) -> list[tuple[float, LiveSpan]]:
    """What is told of a film, each with the time at which it is told."""
    boundaries = predictor.runtime.boundaries
    assert boundaries is not None
    read = frame_rows(predictor, film["path"], window_s / predictor.num_frames, cache=cache)
    live = LiveSpans(predictor.runtime, boundaries, read.interval_s)
    told = []
    for index, embedding_D in enumerate(read.embeddings):
        time_s = (index + 0.5) * read.interval_s
        told += [(time_s + read.interval_s / 2, span) for span in live.push(index, embedding_D, time_s)]
    return told + [(film["duration_s"], span) for span in live.restart()]


def figures(predictor: Predictor, films: Sequence[Film], cache: EmbeddingCache) -> dict[str, dict[str, Any]]:
    boundaries = predictor.runtime.boundaries
    assert boundaries is not None
    true = [[Span(entry["start_s"], entry["end_s"], entry["label"]) for entry in film["spans"]] for film in films]
    whole = [list(sweep(predictor, film["path"], cache=cache).spans) for film in films]
    found = {"timeline": counted(whole, true, films)}
    windows_s = {"same": predictor.num_frames * boundaries.interval_s, "usual": StreamConfig().window_s}
    for name, window_s in windows_s.items():
        for film in films:  # embeddings are cached before the time is taken
            frame_rows(predictor, film["path"], window_s / predictor.num_frames, cache=cache)
        began = time.process_time()
        told = [streamed(predictor, film, window_s, cache) for film in films]
        seconds = time.process_time() - began
        spans = [spans_of([span for _, span in own]) for own in told]
        found[f"stream, {name}"] = {
            **counted(spans, true, films),
            **delays(told, spans, true),
            "percent_of_a_core": round(100 * seconds / sum(film["duration_s"] for film in films), 2),
        }
    print(found, file=sys.stderr)
    return found


def counted(found: Sequence[list[Span]], true: Sequence[list[Span]], films: Sequence[Film]) -> dict[str, Any]:
    """F1, and the part of the time that has the right label or rightly none."""
    hits = sum(len(matches(spans, actions)) for spans, actions in zip(found, true, strict=True))
    right = total = 0
    for spans, actions, film in zip(found, true, films, strict=True):
        count = int(film["duration_s"] * RATE)
        sure = sorted(spans, key=lambda span: span.confidence)
        right += sum(a == b for a, b in zip(painted(sure, count), painted(actions, count), strict=True))
        total += count
    return {
        "f1": round(200 * hits / max(1, sum(map(len, found)) + sum(map(len, true))), 1),
        "frames_right": round(100 * right / total, 1),
        "spans": sum(map(len, found)),
    }


def delays(
    told: Sequence[list[tuple[float, LiveSpan]]], spans: Sequence[list[Span]], true: Sequence[list[Span]]
) -> dict[str, Any]:
    starts, ends, withdrawn, begun = [], [], 0, 0
    for own, found, actions in zip(told, spans, true, strict=True):
        numbers = [span.number for _, span in own if span.state == "ended"]
        at = {(span.number, span.state): time_s for time_s, span in own}
        withdrawn += sum(span.state == "withdrawn" for _, span in own)
        begun += sum(span.state == "started" for _, span in own)
        for index, number in matches(found, actions):
            starts.append(at[numbers[index], "started"] - actions[number].start_s)
            ends.append(at[numbers[index], "ended"] - actions[number].end_s)
    return {
        "start_late_s": [round(float(np.quantile(starts, q)), 2) for q in (0.5, 0.9)],
        "end_late_s": [round(float(np.quantile(ends, q)), 2) for q in (0.5, 0.9)],
        "withdrawn": round(100 * withdrawn / max(1, begun), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/boundaries"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", choices=["dev", "test"], default="test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    cache = EmbeddingCache(options.folder / "embeddings")
    parts, results = parts_of(segments_of(options.data)), []
    for seed in range(options.seeds):
        films = compose(parts[options.part], options.folder / f"{options.part}{seed}", seed)
        name = f"movements{seed}" if options.part == "test" else f"movements-dev{seed}"
        predictor = detecting(parts[f"{options.part}_taught"], options.folder / name, cache, seed)
        results.append(figures(predictor, films, cache))
    write_result(
        part=options.part,
        films=len(films),
        ways={
            way: {
                key: over_seeds([own[way][key] for own in results])
                for key in ("f1", "frames_right", "withdrawn", "percent_of_a_core")
                if key in results[0][way]
            }
            for way in results[0]
        },
        each=results,
    )


if __name__ == "__main__":
    main()
