"""What a tolerance costs in accuracy and saves in reading, on the order test of the daily movements.

    python -m benchmarks.reading.tolerance ../shared/data --seeds 3 > benchmarks/reading/tolerance.json

132 videos, each also played backwards with its label flipped; recordings in five folds. Each fold trains the network of the preset
`lite0-16` on exact frames (each video as it is and mirrored), and names the left-out videos from frames read with each tolerance.
Reading is counted (pictures decoded, bytes of packets read), and timed in turns (each tolerance once a turn, one thread, 40).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from sklearn.model_selection import GroupKFold

from benchmarks.harness import (
    PACKAGED,
    and_backwards,
    directed_rows,
    directions,
    embedded,
    interleaved,
    least_median_most,
    ratios,
    taught,
    video_set,
    write_result,
)
from fewframes.core.cache import EmbeddingCache
from fewframes.data.layouts import Sample
from fewframes.inference.predictor import load
from fewframes.sampling import Views
from fewframes.training.config import TrainConfig
from fewframes.training.features import VideoFeatures, extract_features
from fewframes.video.source import open_video

TOLERANCES = (0.0, 0.05, 0.1, 0.25, 0.5)
NUM_FRAMES, FOLDS, TURNS, TIMED = 16, 5, 3, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("build/tolerance-cache"))
    options = parser.parse_args()
    rows = directed_rows(options.data)
    data, cache = video_set(options.data / "fir_rgb", rows), EmbeddingCache(options.cache)
    samples = data.samples
    predictor = load("lite0-16", device="cpu", dtype="float32")
    learned_BVTD = and_backwards(embedded(data, predictor, cache))
    frames_by = {}
    for tolerance in TOLERANCES:
        seen = list(extract_features(data, predictor, cache, views=Views(tolerance=tolerance)))
        features = [torch.as_tensor(one.features[0]) for one in seen if isinstance(one, VideoFeatures)]
        frames_by[tolerance] = and_backwards(torch.stack(features))
        print(f"embedded at {tolerance}", file=sys.stderr)
    targets, groups = directions(rows), [row["recording"] for row in rows]
    right: dict[float, list[int]] = {tolerance: [] for tolerance in TOLERANCES}
    for seed in range(options.seeds):
        counts = dict.fromkeys(TOLERANCES, 0)
        for _, held in GroupKFold(FOLDS, shuffle=True, random_state=0).split(rows, groups=groups):
            is_held = torch.zeros(len(rows), dtype=torch.bool)
            is_held[held] = True
            both = is_held.repeat(2)
            model = taught(PACKAGED, learned_BVTD[~both], targets[~both], 2, TrainConfig(seed=seed))
            with torch.inference_mode():
                for tolerance, frames in frames_by.items():
                    counts[tolerance] += int((model.encode_video(frames[both]).logits.argmax(1) == targets[both]).sum())
        for tolerance, count in counts.items():
            right[tolerance].append(count)
        print(f"seed {seed}: {counts}", file=sys.stderr)
    reading = {tolerance: read(samples, tolerance) for tolerance in TOLERANCES}
    seconds = interleaved(
        {str(tolerance): partial(read, samples[:TIMED], tolerance) for tolerance in TOLERANCES}, TURNS, warm_up=False
    )
    write_result(
        protocol=f"order test, {len(targets)} videos, {FOLDS} folds of whole recordings, {options.seeds} seeds",
        epochs=TrainConfig().epochs,
        tolerances={
            str(tolerance): {
                "top1_percent": least_median_most([100 * count / len(targets) for count in right[tolerance]]),
                "pictures_decoded": reading[tolerance][0],
                "bytes_read": reading[tolerance][1],
                "times_faster_than_exact": least_median_most(ratios(seconds["0.0"], seconds[str(tolerance)])),
                "ms_a_video": round(1e3 * statistics.median(seconds[str(tolerance)]) / TIMED, 1),
            }
            for tolerance in TOLERANCES
        },
    )


def read(samples: tuple[Sample, ...], tolerance: float) -> tuple[int, int]:
    """Pictures decoded and bytes read, of all."""
    pictures = num_bytes = 0
    views = Views(tolerance=tolerance)
    for sample in samples:
        with closing(open_video(sample.path, threads=1)) as video:
            times_T = views.times(video.duration_s, NUM_FRAMES)[0]
            reading = video.frames_at(times_T, None, views.tolerance_s(video.duration_s, NUM_FRAMES)).reading
        pictures, num_bytes = pictures + reading.frames_decoded, num_bytes + reading.bytes_read
    return pictures, num_bytes


if __name__ == "__main__":
    main()
