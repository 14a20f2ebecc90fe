"""What a tolerance costs in accuracy and saves in reading, on the order test of the daily movements.

    python benchmarks/tolerance.py ../shared/data --seeds 3 > benchmarks/results/tolerance.json

132 videos, each also played backwards with its label flipped; recordings in five folds. Each fold trains the network of the preset
`lite0-16` on exact frames (each video as it is and mirrored), and names the left-out videos from frames read with each tolerance.
Reading is counted (pictures decoded, bytes of packets read), and timed in turns (each tolerance once a turn, one thread, 40).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import closing
from pathlib import Path

import machine
import torch
from accuracy import DARK, PACKAGED, rows_of
from sklearn.model_selection import GroupKFold

from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.inference.predictor import load
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.sampling import Views
from fewframes.training.config import RunConfig, TrainConfig, changed
from fewframes.training.features import EmbeddedVideos, VideoFeatures, embed_videos, extract_features
from fewframes.training.loop import fit
from fewframes.video.source import open_video

TOLERANCES = (0.0, 0.05, 0.1, 0.25, 0.5)
NUM_FRAMES, FOLDS, TURNS, TIMED = 16, 5, 3, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("build/tolerance-cache"))
    options = parser.parse_args()
    folder = options.data / "fir_rgb"
    rows = [row for row in rows_of(folder) if row["direction"] and float(row["mean_luma"]) > DARK]
    samples = tuple(Sample(path=str(folder / row["path"]), labels=(row["direction"],)) for row in rows)
    data, cache = VideoSet(samples, "daily movements"), EmbeddingCache(options.cache)
    predictor = load("lite0-16", device="cpu", dtype="float32")
    taught = next(
        found for found in embed_videos(data, predictor, cache, mirror=True) if isinstance(found, EmbeddedVideos)
    )
    judged = {}
    for tolerance in TOLERANCES:
        seen = list(extract_features(data, predictor, cache, views=Views(tolerance=tolerance)))
        judged[tolerance] = torch.stack([one.features[0] for one in seen if isinstance(one, VideoFeatures)])
        print(f"embedded at {tolerance}", file=sys.stderr)
    upwards = torch.tensor([int(row["direction"] == "up") for row in rows])
    targets, groups = torch.cat([upwards, 1 - upwards]), [row["recording"] for row in rows]
    right: dict[float, list[int]] = {tolerance: [] for tolerance in TOLERANCES}
    for seed in range(options.seeds):
        counts = dict.fromkeys(TOLERANCES, 0)
        for _, held in GroupKFold(FOLDS, shuffle=True, random_state=0).split(rows, groups=groups):
            is_held = torch.zeros(len(rows), dtype=torch.bool)
            is_held[held] = True
            both = is_held.repeat(2)
            learned = torch.cat([taught.embeddings, taught.embeddings.flip(2)])[~both]
            torch.manual_seed(seed)
            config = PACKAGED.__class__(**{**vars(PACKAGED), "num_classes": 2})
            model = STAM(config, PRESETS["lite0-16"].view, torch.nn.Identity(), learned.shape[-1])
            run = changed(RunConfig(), {"train": {"seed": seed}})
            for _step in fit(model, learned, torch.eye(2)[targets[~both]], run):
                pass
            with torch.inference_mode():
                for tolerance, frames in judged.items():
                    shown = torch.cat([frames, frames.flip(1)])[both]
                    counts[tolerance] += int((model.eval().encode_video(shown).logits.argmax(1) == targets[both]).sum())
        for tolerance, count in counts.items():
            right[tolerance].append(count)
        print(f"seed {seed}: {counts}", file=sys.stderr)
    reading = {tolerance: read(samples, tolerance) for tolerance in TOLERANCES}
    seconds: dict[float, list[float]] = {tolerance: [] for tolerance in TOLERANCES}
    for _ in range(TURNS):
        for tolerance in TOLERANCES:
            began = time.process_time()
            read(samples[:TIMED], tolerance)
            seconds[tolerance].append(time.process_time() - began)
    print(
        json.dumps(
            {
                "command": f"python benchmarks/tolerance.py DATA --seeds {options.seeds}",
                "machine": machine.describe(),
                "protocol": f"order test, {len(targets)} videos, {FOLDS} folds of whole recordings, {options.seeds} seeds",
                "epochs": TrainConfig().epochs,
                "tolerances": {
                    str(tolerance): {
                        "top1_percent": machine.spread([100 * count / len(targets) for count in right[tolerance]]),
                        "pictures_decoded": reading[tolerance][0],
                        "bytes_read": reading[tolerance][1],
                        "times_faster_than_exact": machine.spread(
                            [exact / own for exact, own in zip(seconds[0.0], seconds[tolerance], strict=True)]
                        ),
                        "ms_a_video": round(1e3 * statistics.median(seconds[tolerance]) / TIMED, 1),
                    }
                    for tolerance in TOLERANCES
                },
            },
            indent=1,
        )
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
