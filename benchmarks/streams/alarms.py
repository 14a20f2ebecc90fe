"""Is a promised rate of false alarms kept: on held-out footage, and in simulations whose rates are known?

    python -m benchmarks.streams.alarms ../shared/data > benchmarks/streams/alarms.json

`footage`: the actions are the six interactions of UT-Interaction, two people together, by a solved head (all 120 clips, views as
they are and mirrored). The uneventful footage are the 21 recordings of the daily movements, one person in a room: half an hour. The
segments of a recording are joined in their order, with cuts where something lies between them. Ten times the recordings are divided
by lot: thresholds come from one half, and alarms are raised in the other. `inside` is the number of splits whose alarms lie in the
interval of 95 % that the promise gives for so many hours. The splits share recordings, so they are not independent.
`clips_above_threshold` is the fraction of the clips of interactions, each sequence left out, that score above the thresholds.
`streamed` compares the alarms of eight recordings with those of real streams of the same files, which raise none for answers that
are unknown, and with streams that never say `unknown`. `elsewhere` are the alarms that the threshold of all recordings raises in
street footage without fights (75 clips of 2 s, joined): another place, promised nothing.

`simulation`: happenings with scores drawn uniformly. `mean_per_day` is the true rate above the chosen threshold, in the mean over
draws; `inside` the fraction of draws whose new footage has a number of alarms within the promise's interval; `above_most` the
fraction whose true rate is above `most_per_day` (promised: 5 % at most), of draws that are not `refused` because of clumps. Kinds:
`independent` (a Poisson process), `daily` (all by day, nothing at night, whole days), `clumps` (three at once, a minute apart), and
`bad days`, where the assumption is broken: the rate of each day is drawn from an exponential distribution.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import video_writer, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.samples import Sample
from fewframes.errors import ConfigError
from fewframes.inference.alarms import AlarmRaiser
from fewframes.inference.footage import Background, find_footage, promise_alarms, read_footage
from fewframes.inference.live.model import Smoother
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.promise import (
    HOURS_A_DAY,
    AlarmPromise,
    AlarmThreshold,
    Exceedances,
    choose_threshold,
    num_blocks_of,
)
from fewframes.runtime.protocol import scores_of
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig
from fewframes.training.solved.run import SolveOptions, train_solved
from fewframes.video.live_settings import StreamConfig
from fewframes.video.source import open_video
from runs.packaged import rows_of

FPS, SIZE = 25, (214, 160)
CONFIG = StreamConfig()
RATES = (300.0, 1000.0)
"""Alarms a day that are asked of a quarter of an hour: two or three, and ten."""
HAPPENINGS_PER_HOUR, GAP_S, LOWEST = 6.0, 30.0, 0.5
NUM_DRAWS = 500
KINDS = ("independent", "daily", "clumps", "bad days")
PLANS = ((24.0, 1.0), (72.0, 1.0), (168.0, 1.0), (72.0, 10.0), (168.0, 10.0))
"""Hours of footage, and alarms a day that are asked for. As many hours are new."""


# Real footage


def interactions(data: Path, folder: Path, cache: EmbeddingCache) -> NDArray[np.float32]:
    """Train a solved head for the six interactions into a folder. Return the scores of each clip, its sequence left out."""
    rows = rows_of(data / "ut_interaction")
    samples = tuple(
        Sample(path=str(data / "ut_interaction" / row["path"]), labels=(row["label"],), group=row["sequence"])
        for row in rows
    )
    run = RunConfig(augment=AugmentConfig(views=0))
    options = SolveOptions(cache=cache, dtype="float32")
    return train_solved(VideoSet(samples, "ut_interaction"), folder, run, options).left_out.scores


def join(segments: Sequence[Path], path: Path) -> None:
    """Write the frames of these videos one after the other, 25 a second."""
    with video_writer(path, SIZE, FPS, 100, {"preset": "ultrafast", "crf": "18"}) as add:
        for segment in segments:
            with closing(open_video(segment, threads=1)) as video:
                times_s = (np.arange(max(1, int(video.duration_s * FPS))) + 0.5) / FPS
                frames_TCHW = video.frames_at(times_s).frames
            for frame_CHW in frames_TCHW:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_CHW.transpose(1, 2, 0)), format="rgb24")
                add(frame.reformat(*SIZE))


def joined_recordings(data: Path, folder: Path) -> list[Path]:
    """Write each recording of the daily movements as one video."""
    rows = rows_of(data / "fir_rgb")
    paths = []
    for recording in sorted({row["recording"] for row in rows}):
        own = sorted((row["path"] for row in rows if row["recording"] == recording), key=lambda path: Path(path).name)
        paths.append(folder / f"{recording}.mp4")
        join([data / "fir_rgb" / path for path in own], paths[-1])
    return paths


def alarms_in(background: Background, promise: AlarmPromise, predictor: Predictor) -> int:
    """Return the number of alarms that streams of this footage raise."""
    count = 0
    for stretch in background.stretches:
        raiser = AlarmRaiser(promise, predictor.labels, predictor.runtime.task)
        smoother = Smoother(CONFIG.smooth_s, CONFIG.enter, CONFIG.leave)
        scores_NK = scores_of(stretch.logits, predictor.runtime.task)
        for scores_K, time_s in zip(scores_NK, stretch.ends_s.tolist(), strict=True):
            raiser.step(smoother.step(scores_K, time_s), time_s)
        count += raiser.count
    return count


def together(parts: Sequence[Background]) -> Background:
    """Return the footage of several videos as one."""
    return Background(
        embeddings=parts[0].embeddings[:0],
        groups=(),
        hours=sum(part.hours for part in parts),
        num_videos=len(parts),
        failures=(),
        stretches=tuple(stretch for part in parts for stretch in part.stretches),
    )


def promised(background: Background, predictor: Predictor, rate: float) -> AlarmPromise:
    return promise_alarms(background, predictor.labels, predictor.runtime.task, CONFIG, rate)


def split_once(read: Sequence[Background], predictor: Predictor, rate: float, seed: int) -> dict[str, Any]:
    """Divide the recordings by lot, choose a threshold on one half, and count the alarms of the other."""
    order = np.random.default_rng(seed).permutation(len(read))
    half = len(read) // 2
    chosen, held = (together([read[index] for index in part]) for part in (order[:half], order[half:]))
    promise = promised(chosen, predictor, rate)
    low, high = promise.new_alarms(held.hours)
    alarms = alarms_in(held, promise, predictor)
    return {
        "seed": seed,
        "hours": round(promise.hours, 4),
        "held_out_hours": round(held.hours, 4),
        "threshold": round(promise.overall.threshold, 6),
        "alarms": promise.overall.alarms,
        "clumping": round(promise.overall.clumping, 2),
        "promised_per_day": round(promise.overall.promised, 1),
        "most_per_day": round(promise.overall.most_per_day, 1),
        "held_out_alarms": alarms,
        "per_day": round(alarms * HOURS_A_DAY / held.hours, 1),
        "interval": [low, high],
        "inside": low <= alarms <= high,
    }


def footage_part(data: Path, num_splits: int, cache: EmbeddingCache) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scores_NK = interactions(data, folder / "model", cache)
        predictor = load(folder / "model", dtype="float32")
        paths = joined_recordings(data, folder)
        print("recordings joined", file=sys.stderr)
        began = time.perf_counter()
        read = [read_footage(predictor, find_footage([path], CONFIG.window_s), CONFIG, cache=cache) for path in paths]
        reading_s = time.perf_counter() - began
        print("recordings read", file=sys.stderr)
        whole = together(read)
        result: dict[str, Any] = {
            "hours": round(whole.hours, 4),
            "recordings": len(read),
            "reading_s": round(reading_s),
        }
        for rate in RATES:
            splits = [split_once(read, predictor, rate, seed) for seed in range(num_splits)]
            result[f"{rate:g} a day"] = {
                "inside": sum(split["inside"] for split in splits),
                "splits": num_splits,
                "mean_per_day": round(float(np.mean([split["per_day"] for split in splits])), 1),
                "clips_above_threshold": round(
                    float(np.mean([(scores_NK.max(axis=1) > split["threshold"]).mean() for split in splits])), 3
                ),
                "each": splits,
            }
        promise = promised(whole, predictor, RATES[1])
        result["words"] = promise.lines()
        result["streamed"] = streamed(folder / "model", paths[:8], read[:8], predictor, promise)
        result["elsewhere"] = elsewhere(data, folder, predictor, promise)
        return result


def streamed(
    folder: Path, paths: Sequence[Path], read: Sequence[Background], predictor: Predictor, promise: AlarmPromise
) -> dict[str, list[int]]:
    """Return the alarms of real streams of some recordings, and those that are counted here."""
    never_unknown = load(folder, dtype="float32", unknown="off")
    raised: dict[str, list[int]] = {"streams": [], "streams_never_unknown": []}
    for path in paths:
        for (name, counts), model in zip(raised.items(), (predictor, never_unknown), strict=True):
            stream = model.stream(str(path), CONFIG, promise=promise)
            for _ in stream:
                pass
            counts.append(int(stream.summary().num_alarms or 0))
            print(f"{path.name}: {name}", file=sys.stderr)
    return {**raised, "counted": [alarms_in(background, promise, predictor) for background in read]}


def elsewhere(data: Path, folder: Path, predictor: Predictor, promise: AlarmPromise) -> dict[str, Any]:
    """Return the alarms in another place, which nothing was promised of."""
    path = folder / "street.mp4"
    join(sorted((data / "fights" / "noFight").iterdir()), path)
    street = read_footage(predictor, find_footage([path], CONFIG.window_s), CONFIG)
    alarms = alarms_in(street, promise, predictor)
    return {
        "hours": round(street.hours, 4),
        "alarms": alarms,
        "per_day": round(alarms * HOURS_A_DAY / street.hours, 1),
        "asked_per_day": promise.alarms_per_day,
        "interval": list(promise.new_alarms(street.hours)),
    }


# Known rates


@dataclass(frozen=True, eq=False)
class Happenings:
    """Happenings of made footage: their times in seconds and their scores."""

    times_s: NDArray[np.float64]
    scores: NDArray[np.float64]


def happenings(kind: str, hours: float, draw: np.random.Generator) -> Happenings:
    """Draw the happenings of footage of so many hours."""
    num_days = max(1, round(hours / HOURS_A_DAY))
    of_day = draw.exponential(1.0, num_days) if kind == "bad days" else np.ones(num_days)
    size = 3 if kind == "clumps" else 1
    times, scores = [], []
    for day, factor in enumerate(of_day.tolist()):
        count = draw.poisson(HAPPENINGS_PER_HOUR * hours / num_days * factor / size)
        first, last = (8.0, 18.0) if kind == "daily" else (0.0, HOURS_A_DAY)
        starts_s = 3600 * (day * HOURS_A_DAY + draw.uniform(first, last, count))
        times.append((starts_s[:, None] + 60.0 * np.arange(size)).ravel())
        scores.append(np.repeat(draw.uniform(LOWEST, 1, count), size))
    times_s = np.minimum(np.concatenate(times), 3600 * hours - 1e-3)
    return Happenings(times_s, np.concatenate(scores))


def chosen_on(found: Happenings, hours: float, rate: float) -> AlarmThreshold:
    num_blocks = num_blocks_of(hours)
    blocks = (found.times_s / (3600 * hours) * num_blocks).astype(np.int64)
    return choose_threshold(
        Exceedances(found.scores, np.zeros(len(blocks), np.int64), found.times_s, blocks),
        hours=hours,
        num_blocks=num_blocks,
        alarms_per_day=rate,
        gap_s=GAP_S,
        lowest=LOWEST,
    )


def simulate(kind: str, hours: float, rate: float) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    true_per_day, inside, above, refused = [], 0, 0, 0
    for _ in range(NUM_DRAWS):
        made = happenings(kind, hours, draw)
        try:
            found = chosen_on(made, hours, rate)
        except ConfigError:
            refused += 1
            continue
        share = (1 - found.threshold) / (1 - LOWEST)
        true_per_day.append(HAPPENINGS_PER_HOUR * HOURS_A_DAY * share)
        new = happenings(kind, hours, draw)
        times_s = np.sort(new.times_s[new.scores > found.threshold])
        alarms = int((np.diff(times_s) > GAP_S).sum()) + bool(len(times_s))
        low, high = found.new_alarms(hours, hours)
        inside += low <= alarms <= high
        above += true_per_day[-1] > found.most_per_day
    plan = {"kind": kind, "hours": hours, "asked_per_day": rate, "refused": round(refused / NUM_DRAWS, 3)}
    if not (kept := len(true_per_day)):
        return plan
    return {
        **plan,
        "mean_per_day": round(float(np.mean(true_per_day)), 3),
        "standard_error": round(float(np.std(true_per_day) / np.sqrt(kept)), 3),
        "inside": round(inside / kept, 3),
        "above_most": round(above / kept, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/fewframes-alarms"))
    given = parser.parse_args()
    began = time.perf_counter()
    simulation = [simulate(kind, hours, rate) for kind in KINDS for hours, rate in PLANS]
    print(f"simulated, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    footage = footage_part(given.data, given.splits, EmbeddingCache(given.cache))
    write_result(
        settings={"draws": NUM_DRAWS, "happenings_per_hour": HAPPENINGS_PER_HOUR, "gap_s": GAP_S},
        footage=footage,
        simulation=simulation,
        seconds=round(time.perf_counter() - began),
    )


if __name__ == "__main__":
    main()
