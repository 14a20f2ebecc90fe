"""Frame stores: how small they are, what answers lose by them, and how fast they are written and read.

    python -m benchmarks.streams.stores DATA > benchmarks/streams/stores.json

Answers. The clips of each set (UT-Interaction, fights, daily movements that are not dark) are laid end to end, 16 frames each as
`predict` takes them, and coded as one store; so every 16 frames there is a cut, and every clip shows an action: harder than real
recordings. Heads are solved from the exact embeddings, five folds of whole groups, as it is and mirrored, and asked about the exact
and the stored embeddings of the clips that they did not learn from. Which clips tip over is chance, so each set is stored five
times, in stores of 64 clips that are drawn anew. `points` is the accuracy from stores minus that from exact embeddings.
`agreement` is the share of clips with the same label. The packaged model learned from clips of UT-Interaction and of the daily
movements, and knows none of the labels of fights, so of it only the agreement is told. Step and form of the store were chosen on
these same sets.

Films. The `test` films of `benchmarks.streams.timeline`, composed of real clips and of background that stands still. The packaged
model's timeline of each, default settings, from the video and from its store at 4 frames/s: frames with the right label and mean
average precision of both (it learned from some of these clips, so they are no measure of the model), and the share of times at
which the same label stands. The size of an hour is that of their stores at 5 frames/s.

Size. Bytes a frame of these stores, and of a made hour at 5 frames/s: the sets' embeddings, end to end.

Speed. Seconds of one thread (process time, three rounds, least and most): coding and decoding an hour at 4 frames/s; the sweep of
it with default settings by the packaged model, from the store; and the read-out alone, for an archive: a window of
4 s every 2 s, by a solved head of 6 labels, from frames in memory and from the store. The hour is made of the sets' real
embeddings, end to end.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.harness import embedded, interleaved, least_median_most, numbered, video_set, write_result
from benchmarks.streams.timeline import (
    RATE,
    THRESHOLD,
    WINDOWS,
    compose,
    painted,
    parts_of,
    scored,
    segments_of,
    spans_by,
)
from fewframes.core.cache import EmbeddingCache
from fewframes.core.settings import cache_dir
from fewframes.inference.detection.windows import score_windows
from fewframes.inference.frame_store.quantise import code_part, decode_part
from fewframes.inference.frame_store.store import StoreInfo, read_frame_store, save_frame_store
from fewframes.inference.frame_store.write import PART_FRAMES, store_key, write_frame_store
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import Timeline, sweep
from fewframes.models.moments import MomentSet, moment_features
from fewframes.models.read_out.solve import cross_entropy, solve_moments
from runs.packaged import DARK, rows_of

FOLDS, ORDERS, ROUNDS = 5, 5, 3
STORED_FRAMES = 64 * 16
MOMENTS: tuple[MomentSet, ...] = ("motion", "slow")
HOUR_S, LIVE_RATE, SIZE_RATE = 3600, 4, 5
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Clips:
    """The embeddings (B, V, T, D), labels (B,) and groups of a set's clips."""

    name: str
    embeddings: Floats
    targets: NDArray[np.int64]
    groups: tuple[str, ...]


def sets_of(data: Path, predictor: Predictor, cache: EmbeddingCache) -> list[Clips]:
    with (data / "fights" / "list.csv").open() as file:
        fights = list(csv.DictReader(file))
    movements = [row for row in rows_of(data / "fir_rgb") if float(row["mean_luma"]) > DARK]
    found = []
    for folder, rows, group in (
        ("ut_interaction", rows_of(data / "ut_interaction"), "sequence"),
        ("fights", fights, "group"),
        ("fir_rgb", movements, "recording"),
    ):
        views = embedded(video_set(data / folder, rows), predictor, cache).numpy()
        targets = numbered([row["label"] for row in rows]).numpy()
        found.append(Clips(folder, views, targets, tuple(row[group] for row in rows)))
    return found


def stored(clips_BTD: Floats, order: NDArray[np.int64]) -> tuple[Floats, float]:
    """The clips as a store has them that codes them in this order, and its bytes a frame."""
    num_frames, width = clips_BTD.shape[1:]
    rows_ND = clips_BTD[order].reshape(-1, width)
    parts = np.array_split(rows_ND, -(-len(rows_ND) // STORED_FRAMES))
    codes = [code_part(part_ND) for part_ND in parts]
    found_ND = np.concatenate(
        [decode_part(code, len(part_ND), width) for code, part_ND in zip(codes, parts, strict=True)]
    )
    found_BTD = np.empty_like(clips_BTD)
    found_BTD[order] = found_ND.reshape(-1, num_frames, width)
    return found_BTD, sum(code.num_bytes for code in codes) / len(rows_ND)


def solved(clips: Clips, moments: MomentSet) -> Callable[[Floats], NDArray[np.float64]]:
    """A function from embeddings (B, T, D) to logits (B, K), each clip by the head that learned without its group."""
    targets_BK = np.eye(clips.targets.max() + 1)[clips.targets]
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    folds = list(splitter.split(clips.groups, clips.targets, clips.groups))
    groups_B = np.unique(clips.groups, return_inverse=True)[1]
    heads = [
        solve_moments(
            clips.embeddings[learned], targets_BK[learned], cross_entropy, groups_B=groups_B[learned], moments=moments
        )
        for learned, _ in folds
    ]

    def logits(clips_BTD: Floats) -> NDArray[np.float64]:
        features_BP, found_BK = moment_features(clips_BTD, moments), np.empty(targets_BK.shape)
        for (_, tested), head in zip(folds, heads, strict=True):
            found_BK[tested] = features_BP[tested] @ head.weight.T + head.bias
        return found_BK

    return logits


def answers(clips: Clips, predictor: Predictor) -> dict[str, Any]:
    """What the answers about a set lose by the store."""
    exact_BTD = np.ascontiguousarray(clips.embeddings[:, 0])
    ways: dict[str, Callable[[Floats], NDArray[Any]]] = {f"solved, {name}": solved(clips, name) for name in MOMENTS}
    ways["packaged"] = lambda clips_BTD: predictor.runtime.encode_windows(clips_BTD).logits
    exact = {name: way(exact_BTD).argmax(axis=1) for name, way in ways.items()}
    points: dict[str, list[float]] = {name: [] for name in ways}
    agreement: dict[str, list[float]] = {name: [] for name in ways}
    sizes = []
    for seed in range(ORDERS):
        found_BTD, num_bytes = stored(exact_BTD, np.random.default_rng(seed).permutation(len(exact_BTD)))
        sizes.append(num_bytes)
        for name, way in ways.items():
            labels = way(found_BTD).argmax(axis=1)
            agreement[name].append(100 * float((labels == exact[name]).mean()))
            gain = (labels == clips.targets).mean() - (exact[name] == clips.targets).mean()
            points[name].append(100 * float(gain))
    print(clips.name, sizes, points, agreement, file=sys.stderr)
    return {
        "clips": len(exact_BTD),
        "bytes_a_frame": spread(sizes),
        **{
            name: {
                **(
                    {}
                    if name == "packaged"
                    else {
                        "exact": round(100 * float((exact[name] == clips.targets).mean()), 1),
                        "points": spread(points[name]),
                    }
                ),
                "agreement": spread(agreement[name]),
            }
            for name in ways
        },
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(float(np.mean(values)), 2), "min": round(min(values), 2), "max": round(max(values), 2)}


def over_sets(found: dict[str, Any]) -> dict[str, float]:
    """The mean points lost of each kind of solved head over all clips."""
    counts = [part["clips"] for part in found.values()]
    return {
        name: round(float(np.average([part[name]["points"]["mean"] for part in found.values()], weights=counts)), 2)
        for name in (f"solved, {moments}" for moments in MOMENTS)
    }


def films(data: Path, folder: Path, predictor: Predictor, cache: EmbeddingCache) -> dict[str, Any]:
    """The packaged model's timelines of composed films, from the videos and from their stores."""
    composed = compose(parts_of(segments_of(data))["test"], folder / "films", seed=0)
    timelines: dict[str, list[Timeline]] = {"video": [], "store": []}
    num_bytes = same = total = 0
    for film in composed:
        stores = {rate: Path(film["path"]).with_suffix(f".{rate}.frames") for rate in (LIVE_RATE, SIZE_RATE)}
        for rate, path in stores.items():
            write_frame_store(predictor, film["path"], path, rate=rate, cache=cache)
        num_bytes += stores[SIZE_RATE].stat().st_size
        video, store = (
            sweep(predictor, film["path"], WINDOWS, cache=cache),
            sweep(predictor, stores[LIVE_RATE], WINDOWS),
        )
        timelines["video"].append(video)
        timelines["store"].append(store)
        count = int(film["duration_s"] * RATE)
        shown = [painted(list(found.spans), count) for found in (video, store)]
        same += sum(one == other for one, other in zip(*shown, strict=True))
        total += count
    length_s = sum(film["duration_s"] for film in composed)
    answers = {
        name: scored([spans_by(WINDOWS, one, predictor, least_known(predictor)) for one in found], composed, THRESHOLD)
        for name, found in timelines.items()
    }
    return {
        "films": len(composed),
        "seconds": round(length_s, 1),
        "megabytes an hour at 5 frames/s": round(num_bytes / length_s * HOUR_S / 1e6, 2),
        "times with the same label": round(100 * same / total, 2),
        **answers,
    }


def least_known(predictor: Predictor) -> float:
    return 0.0 if predictor.unknown_rule is None else predictor.unknown_rule.threshold


def write_hour(path: Path, rows_ND: Floats, rate: int, predictor: Predictor) -> None:
    parts = np.array_split(rows_ND, -(-len(rows_ND) // PART_FRAMES))
    info = StoreInfo(
        source="made",
        content="",
        duration_s=len(rows_ND) / rate,
        rate=float(rate),
        num_frames=len(rows_ND),
        width=rows_ND.shape[1],
        model=predictor.name,
        encoder=store_key(predictor),
        precision=predictor.runtime.precision,
        still=0.0,
    )
    save_frame_store(path, info, [(len(part_ND), code_part(part_ND)) for part_ND in parts], [])


def hour_of(sets: Sequence[Clips], rate: int) -> Floats:
    """An hour of real embeddings, the clips of all sets in random order, then backwards, and so on."""
    clips = np.concatenate([one.embeddings[:, 0] for one in sets])
    draw, rows = np.random.default_rng(0), clips[:0, 0]
    while len(rows) < HOUR_S * rate:
        shuffled = clips[draw.permutation(len(clips))].reshape(-1, clips.shape[-1])
        rows = np.concatenate([rows, shuffled, shuffled[::-1]])
    return np.ascontiguousarray(rows[: HOUR_S * rate])


def speed(sets: Sequence[Clips], predictor: Predictor, folder: Path) -> dict[str, Any]:
    rows_ND = hour_of(sets, LIVE_RATE)
    path = folder / "hour.frames"
    ut = sets[0]
    head = solve_moments(ut.embeddings, np.eye(ut.targets.max() + 1)[ut.targets], cross_entropy, moments="motion")

    def read_out(windows_WTD: Floats) -> Floats:
        return moment_features(windows_WTD, "motion") @ head.weight.T + head.bias

    def from_memory() -> None:
        starts = np.arange(0, len(rows_ND) - 15, 2 * LIVE_RATE)
        for some in np.array_split(starts, 20):
            read_out(rows_ND[some[:, None] + np.arange(16)])

    write_hour(path, rows_ND, LIVE_RATE, predictor)
    took = interleaved(
        {
            "write": lambda: write_hour(path, rows_ND, LIVE_RATE, predictor),
            "read": lambda: read_frame_store(path).embeddings(),
            "sweep": lambda: sweep(predictor, path, WINDOWS),
            "read-out from the store": lambda: score_windows(
                predictor, path, read_out, window_s=4.0, intervals=(2 * LIVE_RATE,)
            ),
            "read-out from frames in memory": from_memory,
        },
        ROUNDS,
    )
    return {
        "seconds of an hour at 4 frames/s": {name: least_median_most(values) for name, values in took.items()},
        "threads": 1,
        "megabytes of the hour": round(path.stat().st_size / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    predictor = load("lite0-16")
    cache = EmbeddingCache(cache_dir() / "embeddings")
    sets = sets_of(arguments.data, predictor, cache)
    found = {clips.name: answers(clips, predictor) for clips in sets}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "hour.frames"
        write_hour(path, hour_of(sets, SIZE_RATE), SIZE_RATE, predictor)
        size = round(path.stat().st_size / 1e6, 2)
        took = speed(sets, predictor, Path(name))
        of_films = films(arguments.data, Path(name), predictor, cache)
    write_result(
        answers=found,
        points_over_sets=over_sets(found),
        megabytes_an_hour_at_5=size,
        films=of_films,
        speed=took,
    )


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "set OMP_NUM_THREADS=1: the speed is that of one thread"
    torch.set_num_threads(1)
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
