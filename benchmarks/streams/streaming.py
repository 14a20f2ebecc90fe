"""Streams: what an answer costs, a live run at real speed, and the causal temporal encoder beside the windowed one.

    python -m benchmarks.streams.streaming ../shared/data --parts cost accuracy live

Each part writes its own entry of benchmarks/streams/streaming.json and leaves the others.

`cost`: one frame's pass of the frame encoder (A), an answer of a stream, that is this pass and the temporal half over the ring of
16 embeddings (B), and the 16 frames anew (C), interleaved, in one process on one thread. Ratios are of one round each;
processor time counts, for others use the machine too. `lite0-16` has its packaged weights, `stam-16` random ones.

`live`: clips of UT-Interaction joined and encoded anew (H.264, 25 frames a second, a key frame each second), played at their own
speed through `Predictor.stream(live=True)`, which drops what it cannot keep up with. Latency is from the time a picture is due to
the answer that it is the newest of. Memory is the process's resident set, sampled each `every_s`.

`accuracy`: UT-Interaction and the order test (docs/decisions) in five folds, whole groups held out, each video as it is and
mirrored, `training.steps.loop.fit` with the package's settings: the preset `lite0-16`, and the same with `temporal="causal"`.
`first n`: the causal answer after the first n of 16 frames; the windowed one has none. Both have the read-out of moments; `without
moments` is the temporal encoder alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import (
    PACKAGED,
    Videos,
    both_ways,
    command,
    describe,
    difference,
    interactions,
    interleaved,
    least_median_most,
    over_seeds,
    ratios,
    resident_bytes,
    taught,
    video_writer,
)
from benchmarks.speed.early_exit import folds_of
from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import keep_memory
from fewframes.inference.live.model import EmbeddingRing
from fewframes.inference.predictor import Predictor, load
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.runtime.protocol import Floats
from fewframes.training.config import TrainConfig
from fewframes.video.live_settings import StreamConfig
from runs.packaged import rows_of

RESULTS = Path(__file__).with_suffix(".json")
FIRST = (4, 8, 12)
ROUNDS = {"lite0-16": 60, "stam-16": 8}
CAUSAL = replace(PACKAGED, temporal="causal")


def cost() -> dict[str, Any]:
    torch.set_num_threads(1)
    random = PRESETS["stam-16"]
    labels = tuple(f"action {number}" for number in range(random.model.num_classes))
    stam = Checkpoint(build_model(random.model, random.view), random.view, labels)
    networks = {
        "lite0-16": load("lite0-16", device="cpu", dtype="float32", runtime="torch"),
        "stam-16": Predictor(stam, device="cpu", dtype="float32"),
    }
    return {name: cost_of(network, ROUNDS[name]) for name, network in networks.items()}


def cost_of(network: Predictor, rounds: int) -> dict[str, Any]:
    runtime = network.torch
    size, num_frames = runtime.view.crop_px, runtime.num_frames
    frames_TCHW = np.random.default_rng(0).integers(0, 256, (num_frames, 3, size, size), dtype=np.uint8)
    ring = EmbeddingRing(num_frames, runtime.motion_cache)
    for index, embedding_D in enumerate(runtime.embed_frames(frames_TCHW)):
        ring.push(index, embedding_D)

    def one() -> Floats:
        return runtime.embed_frames(frames_TCHW[:1])

    def answer() -> Floats:
        ring.push(ring.index + 1, one()[0])
        if ring.cached_T2W is None:
            return runtime.encode_windows(ring.embeddings_TD[None]).logits
        return runtime.encode_cached(ring.embeddings_TD[None], ring.cached_T2W[None]).logits

    def anew() -> Floats:
        return runtime.encode_windows(runtime.embed_frames(frames_TCHW)[None]).logits

    ways: dict[str, Callable[[], Floats]] = {"one frame": one, "answer": answer, "anew": anew}
    taken = interleaved(ways, rounds)
    return {
        "rounds": rounds,
        "processor ms": {name: least_median_most([1e3 * value for value in values]) for name, values in taken.items()},
        "answer over one frame": quartiles(ratios(taken["answer"], taken["one frame"])),
        "anew over one frame": quartiles(ratios(taken["anew"], taken["one frame"])),
    }


def quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "quarter": round(low, 3), "three quarters": round(high, 3)}


def joined_clips(data: Path, path: Path, seconds: float) -> None:
    """Clips one after the other as one video, until it is as long."""
    rows = rows_of(data / "ut_interaction")
    size = (320, 240)
    number = 0
    with video_writer(path, size, 25, 25, {"preset": "veryfast", "crf": "23"}) as add:
        for row in itertools.cycle(rows):
            with av.open(str(data / "ut_interaction" / row["path"])) as clip:
                for frame in clip.decode(video=0):
                    add(frame.reformat(*size, format="yuv420p"))
                    number += 1
            if number >= 25 * seconds:
                return


def live(data: Path, seconds: float, every_s: float, config: StreamConfig) -> dict[str, Any]:
    network = load("lite0-16", device="cpu", dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "joined.mp4"
        joined_clips(data, path, seconds)
        stream = network.stream(str(path), config)
        memory: list[float] = []
        changes, label, cpu = 0, None, time.process_time()
        for answer in stream:
            changes += answer.label != label
            label = answer.label
            if answer.end_s >= len(memory) * every_s:
                memory.append(round(resident_bytes() / 1e6, 1))
                print(f"{answer.end_s:.0f} s: {memory[-1]:.0f} MB, {stream.summary()}", file=sys.stderr)
        summary = asdict(stream.summary())
    return {
        "what": "clips of UT-Interaction joined, 320x240 px, 25 frames a second, Predictor.stream with this config",
        "config": asdict(config),
        "frames looked at a second": round(network.num_frames / config.window_s, 2),
        "predictions a second": round(summary["num_predictions"] / summary["seconds"], 3),
        "processor seconds a second": round((time.process_time() - cpu) / summary["seconds"], 3),
        "summary": {
            key: round(value, 4) if isinstance(value, float) else value for key, value in summary.items() if value != {}
        },
        "label changes": changes,
        "resident MB": {"every_s": every_s, "values": memory, "peak": round(peak_mb(), 1)},
        "load average over 15 minutes": round(os.getloadavg()[2], 1),
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts KiB


def accuracy(data: Path, seeds: int, cache: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    network = load("lite0-16", device="cpu", dtype="float32")
    store = EmbeddingCache(cache)
    sources = {"ut": interactions(data, network, store), "order": both_ways(data, network, store)}
    return {protocol: accuracy_of(protocol, videos, seeds) for protocol, videos in sources.items()}


def accuracy_of(protocol: str, videos: Videos, seeds: int) -> dict[str, Any]:
    right: dict[str, list[Tensor]] = {}
    folds, num_classes = list(folds_of(protocol, videos)), int(videos.targets.max()) + 1
    rows_N = torch.cat([fold.held.nonzero()[:, 0] for fold in folds])
    for seed in range(seeds):
        parts: dict[str, list[Tensor]] = {}
        for fold in folds:
            learned_BVTD, learned_B = videos.embeddings[fold.learned], videos.targets[fold.learned]
            for name, config in (("windowed", PACKAGED), ("causal", CAUSAL)):
                model = taught(config, learned_BVTD, learned_B, num_classes, TrainConfig(seed=seed))
                for what, logits_NK in answers(model, videos.embeddings[fold.held, 0]).items():
                    hit_N = (logits_NK.argmax(1) == videos.targets[fold.held]).double()
                    parts.setdefault(f"{name}{what}", []).append(hit_N)
            print(
                protocol,
                seed,
                fold.name,
                {key: float(torch.cat(value).mean()) for key, value in parts.items()},
                file=sys.stderr,
            )
        for key, values in parts.items():
            right.setdefault(key, []).append(torch.cat(values))
    groups = [videos.groups[row] for row in rows_N.tolist()]
    return {
        "videos": len(rows_N),
        "folds": len(folds),
        "seeds": seeds,
        "top1": {key: over_seeds([100 * float(row.mean()) for row in values]) for key, values in right.items()},
        "windowed minus causal": difference(torch.stack(right["windowed"]), torch.stack(right["causal"]), groups),
    }


@torch.inference_mode()
def answers(model: STAM, frames_NTD: Tensor) -> dict[str, Tensor]:
    logits_NK = model.encode_video(frames_NTD).logits
    assert model.moment_head is not None
    found = {"": logits_NK, ", without moments": logits_NK - model.moment_head(frames_NTD)}
    if model.config.temporal == "causal":
        logits_NTK = model.encode_prefixes(frames_NTD)
        found |= {f", first {count}": logits_NTK[:, count - 1] for count in FIRST}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--parts", nargs="+", choices=["cost", "accuracy", "live"], default=["cost", "accuracy", "live"]
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--every-s", type=float, default=30.0)
    parser.add_argument("--cache", type=Path, default=Path("build/early-exit-cache/embeddings"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    keep_memory()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "cost": cost,
        "accuracy": lambda: accuracy(options.data, options.seeds, options.cache),
        "live": lambda: live(
            options.data, options.seconds, options.every_s, StreamConfig(live=True, max_latency_s=1.0)
        ),
    }
    for part in options.parts:
        result = parts[part]()
        report = json.loads(options.output.read_text()) if options.output.is_file() else {}
        report[part] = {
            "machine": describe(),
            "command": command(),
            "load average over 5 minutes": round(os.getloadavg()[1], 1),
            **result,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
