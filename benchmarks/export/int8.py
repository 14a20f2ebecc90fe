"""Does a head that is solved anew on int8 embeddings win back what an int8 frame encoder loses?

    python -m benchmarks.export.int8 ../shared/data > benchmarks/export/int8.json

The frame encoder of `lite0-16` (ImageNet weights, which saw none of these videos) is exported in float32 and in int8, and runs in
ONNX Runtime. A head is solved in closed form, as `fewframes train --head solved` does it, in four views of each video: as it is,
mirrored, two random ones. It is scored on the videos that were left out, in one view (the video as it is):

- `float32`: float32 embeddings, head solved on float32 embeddings;
- `int8, float32 head`: int8 embeddings, the same head (what `fewframes export --dtype int8` alone gives);
- `int8, own head`: int8 embeddings, head solved on int8 embeddings.

UT-Interaction, each of 20 sequences left out. Int8 is calibrated with eight videos of the other set only: for sequences of set 1
(1-10) with videos of set 2 (11-20), and the reverse. So no video that is scored was calibrated with, and the head of a fold is
solved from the same int8 encoder that it is scored with. `set1_to_set2` and `set2_to_set1` solve from one set, which also
calibrates, and are scored on the other.

Intervals are of 95 % over groups; those of differences by drawing groups with replacement. `points` are of top-1, `loss` is the
cross entropy in nats. `embedding_error` is the norm of the difference of frame embeddings over their norm, by video as it is.
Processor milliseconds of a frame: 16 frames, four at once, in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import interleaved, least_median_most, ratios, write_result
from fewframes.core.cache import EmbeddingCache, key_of
from fewframes.core.metrics import difference_of, interval_of
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.export.exporter import export
from fewframes.inference.predictor import Predictor, load
from fewframes.models.moments import moment_features
from fewframes.models.read_out.solve import cross_entropy, solve_moments
from fewframes.runtime.graph_runtime import GraphRuntime
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.solved.features import embed_views
from fewframes.training.solved.run import targets_of
from runs.packaged import rows_of

DRAWN, NUM_CALIBRATION, TURNS = 2, 8, 7
WAYS = {
    "float32": ("float32", "float32"),
    "int8, float32 head": ("float32", "int8"),
    "int8, own head": ("int8", "int8"),
}
"""The embeddings that the head of each way is solved on, and those that it is scored on."""
Floats = NDArray[np.float32]


class Encoders:
    """Several frame encoders side by side: their embeddings of a frame, one after the other, so that each video is read once."""

    def __init__(self, runtimes: Sequence[GraphRuntime]) -> None:
        self.runtimes = runtimes
        self.view, self.num_frames = runtimes[0].view, runtimes[0].num_frames

    def encoder_key(self) -> str:
        return key_of(*(runtime.encoder_key() for runtime in self.runtimes))

    def embed_frames(self, frames_TCHW: NDArray[np.uint8]) -> Floats:
        return np.concatenate([runtime.embed_frames(frames_TCHW) for runtime in self.runtimes], axis=1)


@dataclass(frozen=True, eq=False)
class Part:
    """Groups that are left out in turn, and the embeddings (B, V, T, D) of all videos for that: float32, and the int8 encoder
    that was calibrated with other groups."""

    embeddings: dict[str, Floats]
    left_out: tuple[tuple[str, ...], ...]
    solved_from: frozenset[str]


def exported(predictor: Predictor, path: Path, calibration: Sequence[Sample]) -> Path:
    """The model in int8, calibrated with these videos; in float32 if there are none. A file that is there stays."""
    if not path.is_file():
        clips = [predictor.read_clip(sample.path) for sample in calibration]
        done = export(predictor, path, precision="int8" if calibration else "float32", calibrate=clips)
        print(path.name, done.agreement, file=sys.stderr)
    return path


def spread(samples: Sequence[Sample]) -> list[Sample]:
    """Eight videos, evenly spread over their labels and groups."""
    rows = np.linspace(0, len(samples) - 1, NUM_CALIBRATION).round().astype(int)
    return [samples[row] for row in rows]


def embedded(data: VideoSet, files: Sequence[Path], cache: EmbeddingCache) -> list[Floats]:
    """The embeddings (B, V, T, D) of each of these files."""
    encoders = Encoders([GraphRuntime(path) for path in files])

    def progress(stage: str, done: int, total: int, _: str) -> None:
        if done % 10 == 0:
            print(f"{data.name}: {stage} {done}/{total}", file=sys.stderr, flush=True)

    views = embed_views(data, encoders, cache, progress, mirror=True, augment=AugmentConfig(views=DRAWN))
    assert not views.failures
    return np.split(views.embeddings, len(files), axis=-1)


def logits_of(part: Part, data: VideoSet, held: Sequence[str]) -> dict[str, tuple[NDArray[np.intp], Floats]]:
    """The rows of the videos in these groups, and their logits by each way."""
    targets_BK, groups = targets_of(data, data.labels), np.array(data.groups())
    test = np.flatnonzero(np.isin(groups, held))
    train = np.flatnonzero(~np.isin(groups, held) & np.isin(groups, list(part.solved_from)))
    _, numbers = np.unique(groups[train], return_inverse=True)
    heads = {
        name: solve_moments(embeddings[train], targets_BK[train], cross_entropy, groups_B=numbers)
        for name, embeddings in part.embeddings.items()
    }
    return {
        way: (
            test,
            moment_features(part.embeddings[scored][test, 0]) @ heads[solved].weight.T + heads[solved].bias,
        )
        for way, (solved, scored) in WAYS.items()
    }


def measured(data: VideoSet, parts: Sequence[Part]) -> dict[str, object]:
    """Top-1 of each way over all parts with its interval, and the differences between ways."""
    targets_BK = targets_of(data, data.labels)
    logits = {way: np.full(targets_BK.shape, np.nan, np.float32) for way in WAYS}
    for part in parts:
        for held in part.left_out:
            for way, (rows, found) in logits_of(part, data, held).items():
                logits[way][rows] = found
    scored = np.flatnonzero(np.isfinite(logits["float32"][:, 0]))
    groups = [data.groups()[row] for row in scored]
    named = {way: found[scored].argmax(axis=1) for way, found in logits.items()}
    right = {way: (names == targets_BK[scored].argmax(axis=1)).astype(float) for way, names in named.items()}
    losses = {
        way: np.array([cross_entropy(found[[row]], targets_BK[[row]]) for row in scored])
        for way, found in logits.items()
    }
    return {
        "videos": len(scored),
        "groups": len(set(groups)),
        **{
            way: {"right": int(ones.sum()), **top1(ones, groups), "loss": round(float(losses[way].mean()), 4)}
            for way, ones in right.items()
        },
        "same action as float32": {
            way: int((names == named["float32"]).sum()) for way, names in named.items() if way != "float32"
        },
        "differences": {
            f"{first} - {second}": {
                "points": gain(100 * (right[first] - right[second]), groups),
                "loss": gain(losses[first] - losses[second], groups),
            }
            for first, second in (
                ("int8, float32 head", "float32"),
                ("int8, own head", "float32"),
                ("int8, own head", "int8, float32 head"),
            )
        },
    }


def top1(right: NDArray[Any], groups: Sequence[str]) -> dict[str, object]:
    interval = interval_of(lambda rows: float(right[rows].mean()), groups, np.random.default_rng(0))
    return {
        "top1_percent": round(100 * interval.value, 1),
        "interval_percent": [round(100 * interval.low, 1), round(100 * interval.high, 1)],
    }


def gain(gains: NDArray[Any], groups: Sequence[str]) -> dict[str, float]:
    interval = difference_of(lambda rows: float(gains[rows].mean()), groups, np.random.default_rng(0))
    return {"mean": round(interval.value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


def errors(live: Floats, found: Floats) -> dict[str, float]:
    """Relative error of the frame embeddings of each video as it is."""
    differences = np.linalg.norm((found - live)[:, 0], axis=(1, 2)) / np.linalg.norm(live[:, 0], axis=(1, 2))
    return least_median_most(differences.tolist())


def seconds(files: dict[str, Path], frames_TCHW: NDArray[np.uint8]) -> dict[str, object]:
    """Processor milliseconds of a frame, and how many times as fast as float32."""
    found: dict[str, object] = {}
    for threads in (1, 2):
        ways: dict[str, Callable[[], object]] = {}
        for name, path in files.items():
            runtime = GraphRuntime(path, threads=threads)
            ways[name] = lambda runtime=runtime: runtime.embed_frames(frames_TCHW)  # type: ignore[misc]
        spent = interleaved(ways, TURNS)
        plain = spent["float32"]
        found[f"{threads} threads"] = {
            name: {
                "ms a frame": least_median_most([1000 * value / len(frames_TCHW) for value in values]),
                "times as fast as float32": least_median_most(ratios(plain, values)),
            }
            for name, values in spent.items()
        }
    return found


def interactions(predictor: Predictor, data: Path, folder: Path, cache: EmbeddingCache) -> dict[str, object]:
    rows = rows_of(data / "ut_interaction")
    videos = VideoSet(
        tuple(
            Sample(
                path=str(data / "ut_interaction" / row["path"]),
                labels=(row["label"],),
                group=f"{int(row['sequence']):02d}",
            )
            for row in rows
        ),
        "ut_interaction",
    )
    sets = [
        [group for group in sorted(set(videos.groups())) if (int(group) > 10) == second] for second in (False, True)
    ]
    files = {"float32": exported(predictor, folder / "ut-float32.onnx", [])}
    for number, own in enumerate(sets, 1):
        samples = [sample for sample in videos.samples if sample.group in own]
        files[f"int8 of set {number}"] = exported(predictor, folder / f"ut-int8-set{number}.onnx", spread(samples))
    plain, *coarse = embedded(videos, list(files.values()), cache)
    everything = frozenset(videos.groups())
    parts = [
        Part({"float32": plain, "int8": coarse[other]}, tuple((group,) for group in sets[1 - other]), everything)
        for other in (0, 1)
    ]
    across = [
        Part({"float32": plain, "int8": coarse[other]}, (tuple(sets[1 - other]),), frozenset(sets[other]))
        for other in (0, 1)
    ]
    clip = predictor.read_clip(videos.samples[0].path)
    others = {
        name: np.flatnonzero(np.isin(np.array(videos.groups()), sets[1 - number]))
        for number, name in enumerate(list(files)[1:])
    }
    return {
        "leave one sequence out": measured(videos, parts),
        "set1_to_set2": measured(videos, across[:1]),
        "set2_to_set1": measured(videos, across[1:]),
        "embedding_error, videos of the other set": {
            name: errors(plain[held], found[held]) for (name, held), found in zip(others.items(), coarse, strict=True)
        },
        "processor": seconds(files, clip.frames),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/int8"))
    options = parser.parse_args()
    predictor = load("lite0-16", device="cpu", dtype="float32", runtime="torch")
    cache = EmbeddingCache(options.folder / "cache")
    write_result(
        versions={name: version(name) for name in ("onnx", "onnxruntime")},
        **interactions(predictor, options.data, options.folder, cache),
    )


if __name__ == "__main__":
    main()
