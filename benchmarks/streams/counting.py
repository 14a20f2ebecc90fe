"""Counting repetitions in films in which a part of a real or drawn clip is repeated a known number of times.

    python -m benchmarks.streams.counting ../shared/data FOLDER > benchmarks/streams/counting.json

FOLDER takes the films and their cached embeddings. A film repeats 60 to 100 % of a clip 2 to 30 times, in 5 s to 3 min; half of
them there and back. In 70 % the speed changes from repetition to repetition (by 15 %, 0.5 to 2 times the clip's), 40 % have pauses
of up to 5 s, 20 % are of two stretches of two clips. In half of the stretches each repetition looks different: zoomed by up to 6 %
at another place, 8 % darker or lighter, with noise. Every film is encoded anew, as H.264 of CRF 20 to 32.

Clips come from UT-Interaction, the fights (every camera or scene is a group), those daily movements in which something moves, and
drawn figures and shapes (benchmarks/looped.py). Half of the groups are `dev`: constants were chosen there, by hand, on
films like these. (A first look at the signal, on embeddings of clips played in loops, took clips of both halves.) The figures
are those of `test`. Films without repetitions: about a hundred clips of `test` by themselves, pictures held still under noise, and
clips of `test` one after the other (`joined`; a clip of an action may follow another one of it, and that is a repetition).

The baselines: `autocorrelation` takes the lag (0.5 to 20 s) of the highest peak of the autocorrelation of the change from frame to
frame, and divides the length of the video by it, or says 1 if the peak is below a threshold fitted on `dev` films; `always 1`.
Intervals are over groups. `seconds_an_hour` are those of an hour of film with embeddings from the cache, on one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import write_result
from benchmarks.looped import Clip, Film, drawn_clip, read_clip, write, write_loops, write_still
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import difference_of
from fewframes.inference.counting.config import DEFAULTS
from fewframes.inference.counting.count import count_repetitions
from fewframes.inference.counting.counter import RepetitionCounter
from fewframes.inference.detection.windows import score_windows
from fewframes.inference.predictor import Predictor, load
from fewframes.runtime.protocol import Floats
from runs.packaged import DARK, rows_of

SETS = ("ut_interaction", "fir_rgb", "fights", "drawn")
MOVING = frozenset({"walk", "standup", "sitdown", "falling", "active"})
DRAWN_GROUPS = 40
CLIPS, STILLS, JOINED = 100, 15, 6
"""About how many clips, and how many films of the other kinds, show no repetitions."""
Counts = Sequence[tuple[int, int]]


def sources(data: Path) -> list[tuple[str, Path, str, bool]]:
    """Set, path, group, and whether something moves, of every clip."""
    found = [
        ("ut_interaction", data / "ut_interaction" / row["path"], f"ut{row['sequence']}", True)
        for row in rows_of(data / "ut_interaction")
    ]
    found += [
        ("fir_rgb", data / "fir_rgb" / row["path"], f"fr{row['recording']}", row["label"] in MOVING)
        for row in rows_of(data / "fir_rgb")
        if float(row["mean_luma"]) >= DARK
    ]
    lines = (data / "fights" / "list.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    found += [("fights", data / "fights" / path, f"fi{group}", True) for path, _, group in rows]
    return found


def half_of(found: Sequence[tuple[str, Path, str, bool]], part: str) -> list[tuple[str, Path, str, bool]]:
    """The clips of every second group in a drawn order: whole cameras, scenes and recordings are in one part."""
    groups = sorted({group for _, _, group, moves in found if moves})
    order = np.random.default_rng(24).permutation(len(groups))
    dev = {groups[index] for index in order[::2]}
    return [clip for clip in found if (clip[2] in dev) == (part == "dev")]


def films_of(folder: Path, kept: Sequence[tuple[str, Path, str, bool]], part: str, num: int) -> list[tuple[Path, Film]]:
    """Write `num` films of each set, those that are not there yet, and what is in them."""
    films = []
    for number in range(num * len(SETS)):
        rng = np.random.default_rng([24, part == "test", number])
        name = SETS[number % len(SETS)]
        path = folder / f"{part}-{number:03d}-{name}.mp4"
        if name == "drawn":
            first = 2 * (number // len(SETS)) + DRAWN_GROUPS * (part == "test")
            clips = [drawn_clip(first), drawn_clip(first + 1)][:: 1 if number // len(SETS) % 2 else -1]
        else:
            chosen = [clip for clip in kept if clip[0] == name and clip[3]]
            clips = [_clip(chosen[index]) for index in rng.permutation(len(chosen))[:2]]
        films.append((path, write_loops(path, clips[0], clips[1], rng)))
        print(f"{part} {number + 1}/{num * len(SETS)}", file=sys.stderr)
    return films


def _clip(source: tuple[str, Path, str, bool]) -> Clip:
    return read_clip(source[1], source[1].stem, source[2])


# Baselines


def embeddings_of(predictor: Predictor, path: Path, cache: EmbeddingCache) -> Floats:
    """The embeddings (N, D) that counting looks at."""
    chunks: list[Floats] = []
    score_windows(
        predictor,
        str(path),
        lambda windows_WTD: windows_WTD[:, 0, 0],
        window_s=predictor.num_frames / DEFAULTS.rate,
        intervals=[predictor.num_frames],
        cache=cache,
        on_frames=chunks.append,
    )
    return np.concatenate(chunks)


def autocorrelation(embeddings_ND: Floats) -> tuple[float, int]:
    """The highest peak of the autocorrelation of the change from frame to frame, and the repetitions that its lag makes."""
    changes_N = np.linalg.norm(np.diff(embeddings_ND, axis=0), axis=1)
    changes_N = changes_N - changes_N.mean()
    least, most = round(DEFAULTS.shortest_s * DEFAULTS.rate), round(DEFAULTS.longest_s * DEFAULTS.rate)
    lags = range(least, min(most, len(changes_N) // 2) + 1)
    power = float((changes_N**2).mean()) or 1.0
    values = [float((changes_N[lag:] * changes_N[:-lag]).mean()) / power for lag in lags]
    if not values:
        return 0.0, 1
    best = int(np.argmax(values))
    return values[best], round(len(embeddings_ND) / lags[best])


# Figures


def figures(counts: Counts, groups: Sequence[str]) -> dict[str, Any]:
    """Exact and off by one in %, with intervals over groups, and the mean error as a fraction of the true count."""
    errors_B = np.array([abs(found - true) for found, true in counts])
    shares_B = errors_B / np.array([max(1, true) for _, true in counts])
    return {
        "films": len(counts),
        "exact": _share(errors_B == 0, groups),
        "off_by_one": _share(errors_B <= 1, groups),
        "mae": round(float(shares_B.mean()), 3),
    }


def _share(hits_B: Any, groups: Sequence[str]) -> dict[str, float]:
    """A share in % with its 95 % interval over groups."""
    values_B = 100 * hits_B.astype(np.float64)
    interval = difference_of(lambda rows: float(values_B[rows].mean()), groups, np.random.default_rng(0))
    return {"value": round(interval.value, 1), "low": round(interval.low, 1), "high": round(interval.high, 1)}


def measure(
    predictor: Predictor, films: Sequence[tuple[Path, Film]], cache: EmbeddingCache, threshold: float
) -> dict[str, Any]:
    """The counts of each way in the films, by set and together."""
    ways: dict[str, Callable[[Path], int]] = {
        "count": lambda path: count_repetitions(predictor, str(path), cache=cache).count,
        "autocorrelation": lambda path: _above(autocorrelation(embeddings_of(predictor, path, cache)), threshold),
        "always 1": lambda path: 1,
    }
    counts = {name: [(way(path), film.count) for path, film in films] for name, way in ways.items()}
    groups = [film.group for _, film in films]
    names = np.array([path.stem.split("-")[2] for path, _ in films])
    varied = np.array([any(loop.varied for loop in film.loops) for _, film in films])
    parts = {
        "all": np.full(len(films), True),
        "real": names != "drawn",
        **{name: names == name for name in SETS},
        "repetitions look the same": ~varied,
        "repetitions look different": varied,
    }
    return {
        "by part": {
            part: {name: _of(rows, chosen_B, groups) for name, rows in counts.items()}
            for part, chosen_B in parts.items()
        },
        "each": [
            {**film.to_dict(), "set": str(name), "found": found}
            for (_, film), name, (found, _) in zip(films, names, counts["count"], strict=True)
        ],
    }


def _of(rows: Counts, chosen_B: Any, groups: Sequence[str]) -> dict[str, Any]:
    chosen = [int(index) for index in np.flatnonzero(chosen_B)]
    return figures([rows[index] for index in chosen], [groups[index] for index in chosen])


def _above(found: tuple[float, int], threshold: float) -> int:
    return found[1] if found[0] >= threshold else 1


def fitted_threshold(peaks: Sequence[tuple[float, int]], films: Sequence[tuple[Path, Film]]) -> float:
    """The threshold of the autocorrelation with the most exact counts."""
    choices = sorted({peak for peak, _ in peaks} | {0.0})
    return max(
        choices,
        key=lambda least: sum(_above(peak, least) == film.count for peak, (_, film) in zip(peaks, films, strict=True)),
    )


def without_repetitions(
    predictor: Predictor, folder: Path, kept: Sequence[tuple[str, Path, str, bool]], cache: EmbeddingCache
) -> dict[str, Any]:
    """How often 0 or 1 is counted in clips by themselves and in still films, and what is counted in joined clips."""
    found: dict[str, list[int]] = {}
    for name, path, _, moves in kept[:: max(1, len(kept) // CLIPS)]:
        count = count_repetitions(predictor, str(path), cache=cache).count
        found.setdefault(f"{name}{'' if moves else ', resting'}", []).append(count)
    rng = np.random.default_rng(25)
    for number, index in enumerate(rng.permutation(len(kept))[:STILLS]):
        path = folder / f"still-{number:03d}.mp4"
        write_still(path, _clip(kept[index]).pictures[0], rng)
        found.setdefault("still films", []).append(count_repetitions(predictor, str(path), cache=cache).count)
    joined = []
    for number in range(JOINED):
        chosen = [clip for clip in kept if clip[0] == SETS[number % 3] and clip[3]]
        pictures = [picture for index in rng.permutation(len(chosen))[:10] for picture in _clip(chosen[index]).pictures]
        path = folder / f"joined-{number:03d}.mp4"
        write(path, pictures, rng)
        joined.append(count_repetitions(predictor, str(path), cache=cache).count)
    every = [count for counts in found.values() for count in counts]
    return {
        "at_most_1": {name: round(100 * float(np.mean(np.array(counts) <= 1)), 1) for name, counts in found.items()},
        "number": {name: len(counts) for name, counts in found.items()},
        "all": round(100 * float(np.mean(np.array(every) <= 1)), 1),
        "joined, 10 clips each": joined,
    }


def seconds_an_hour(
    predictor: Predictor, films: Sequence[tuple[Path, Film]], cache: EmbeddingCache
) -> dict[str, float]:
    """Seconds for an hour of film from the cache, all of it and the search alone."""
    longest = sorted(films, key=lambda film: -sum(loop.end_s for loop in film[1].loops))[:6]
    seconds = sum(loop.end_s for _, film in longest for loop in film.loops)
    began = time.process_time()
    for path, _ in longest:
        count_repetitions(predictor, str(path), cache=cache)
    whole = time.process_time() - began
    embeddings = [embeddings_of(predictor, path, cache) for path, _ in longest]
    began = time.process_time()
    for embeddings_ND in embeddings:
        RepetitionCounter(DEFAULTS.plan(1 / DEFAULTS.rate)).push(embeddings_ND)
    search = time.process_time() - began
    return {
        "film_s": round(seconds, 1),
        "whole": round(3600 * whole / seconds, 1),
        "search": round(3600 * search / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=12, help="films of each of the four sets in `test`")
    parser.add_argument("--dev-films", type=int, default=4, help="films of each set in `dev`")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    predictor, cache = load(), EmbeddingCache(options.folder / "cache")
    found = sources(options.data)
    dev, kept = half_of(found, "dev"), half_of(found, "test")
    dev_films = films_of(options.folder, dev, "dev", options.dev_films)
    peaks = [autocorrelation(embeddings_of(predictor, path, cache)) for path, _ in dev_films]
    threshold = fitted_threshold(peaks, dev_films)
    films = films_of(options.folder, kept, "test", options.films)
    write_result(
        settings={"rate": DEFAULTS.rate, "least_fit": DEFAULTS.least_fit, "autocorrelation from": round(threshold, 3)},
        groups={"dev": len({clip[2] for clip in dev}), "test": len({clip[2] for clip in kept})},
        dev={"by part": measure(predictor, dev_films, cache, threshold)["by part"]},
        test=measure(predictor, films, cache, threshold),
        without_repetitions=without_repetitions(predictor, options.folder, kept, cache),
        seconds_an_hour=seconds_an_hour(predictor, films, cache),
    )


if __name__ == "__main__":
    main()
