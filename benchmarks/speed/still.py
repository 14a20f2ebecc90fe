"""Time of a timeline of a fixed camera with the gate for frames that show nothing new, against the exact gate.

    python -m benchmarks.speed.still ../shared/data > benchmarks/speed/still.json

Made films: the middle frame of a surveillance clip of `fights`, held still for two minutes under camera noise of 2 and of 4 levels
(Gaussian; each picture has one of 32 fields of noise, shifted at random), coded by x264 with its defaults at 25 frames a second.
Busy films: the segments of each of the first ten recordings (by name) of `fir_rgb` (a fixed indoor camera, somebody moves in nearly
every segment), one after the other, coded in the same way.

`levels`: for each level the share of frames reused, the share of the shortest windows whose likeliest label is that of the exact
gate, and the largest difference of logits. Recordings at even places (by name) are for choosing, the others for measuring;
`recommended` is the largest level with at least 99 % equal labels on the recordings for choosing. `equal_shown_share` compares what
people see: the share of timestamps at which the same labels have spans, with the usual threshold and rejection, and at which both
or neither call it `unknown`. `spans` counts those of the exact gate and those of this level.

`other_draw`: the same still picture with the noise of another seed. Both films exactly, compared with each other in the same way.
`frozen` takes the gate apart: the likeliest label of windows in which one exactly embedded frame fills all places, as a gate leaves
them. How often two such windows with different noise agree, two windows as they are, and one of each (all pairs, by shares).

`timing`: processor seconds of `sweep` in all threads, no cache, both ways in turn in each of three rounds, and exact over gated by
round. `streams`: seconds of film over processor seconds of `Predictor.stream` at its usual settings (four frames a second), gated
at the recommended level: how many such cameras one core follows. The stream reads a file, and decodes every
picture as it does for a camera.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import interleaved, least_median_most, ratios, write_result
from fewframes.inference.detection.windows import score_windows
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import WINDOW_S, Timeline, TimelineConfig, sweep
from fewframes.video.live_settings import StreamConfig

LEVELS = (1.0, 2.0, 3.0, 4.0, 6.0)
STILL_S, RATE, RECORDINGS = 120, 25, 10
CLIP = "fights/fight/fi018.mp4"
EQUAL = 0.99
Pixels = NDArray[np.uint8]


def frames_in(path: Path) -> list[Pixels]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False) for frame in file.decode(video=0)]


def held_still(picture: Pixels, noise: float, seed: int = 0) -> Iterator[Pixels]:
    lots = np.random.default_rng(seed)
    fields = lots.standard_normal((32, picture.size), np.float32) * np.float32(noise)
    for _ in range(STILL_S * RATE):
        field = np.roll(fields[int(lots.integers(len(fields)))], int(lots.integers(picture.size)))
        noisy = picture + field.reshape(picture.shape)
        yield np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def write_film(path: Path, pictures: Iterator[Pixels]) -> Path:
    with av.open(str(path), "w") as out:
        stream = None
        for number, picture in enumerate(pictures):
            even = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
            if stream is None:
                stream = out.add_stream("libx264", rate=RATE, width=even.shape[1], height=even.shape[0])
                stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        assert stream is not None, "a film has pictures"
        out.mux(stream.encode())
    return path


def recordings_of(data: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    with (data / "fir_rgb" / "manifest.csv").open(encoding="utf-8") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: Path(row["path"]).name):
            found.setdefault(row["recording"], []).append(data / "fir_rgb" / row["path"])
    return dict(sorted(found.items())[:RECORDINGS])


def timeline_at(predictor: Predictor, film: Path, level: float) -> Timeline:
    return sweep(predictor, film, TimelineConfig(still=level))


def counts_of(exact: Timeline, gated: Timeline) -> dict[str, float]:
    a_WK, b_WK = exact.windows[0].logits, gated.windows[0].logits
    return {
        "frames": len(gated.times_s),
        "reused": gated.num_reused,
        "windows": len(a_WK),
        "equal": int((a_WK.argmax(axis=1) == b_WK.argmax(axis=1)).sum()),
        "logits": float(np.abs(a_WK - b_WK).max()),
        "shown": sum(a == b for a, b in zip(shown_at(exact), shown_at(gated), strict=True)),
        "spans": len(exact.spans),
        "gated_spans": len(gated.spans),
    }


def shown_at(timeline: Timeline) -> list[tuple[frozenset[str], bool]]:
    """The labels that have spans at each timestamp, and whether it is called unknown."""
    known_N = np.ones(len(timeline.times_s)) if timeline.known is None else timeline.known
    least = timeline.unknown_below or 0.0
    return [
        (frozenset(span.label for span in timeline.spans if span.start_s <= time_s < span.end_s), known < least)
        for time_s, known in zip(timeline.times_s.tolist(), known_N.tolist(), strict=True)
    ]


def frozen_of(predictor: Predictor, film: Path) -> dict[str, float]:
    """How often two windows agree in their likeliest label: both frozen, both as they are, one of each."""
    num_frames = predictor.num_frames
    found = score_windows(predictor, film, lambda windows_WTD: windows_WTD[:, 0], window_s=WINDOW_S, intervals=[1])
    frozen_WTD = np.repeat(found.windows[0][2][:, None], num_frames, axis=1)
    rows = predictor.runtime.encode_windows(frozen_WTD).logits, timeline_at(predictor, film, 0.0).windows[0].logits
    frozen_K, plain_K = (np.bincount(row.argmax(axis=1), minlength=row.shape[1]) / len(row) for row in rows)
    return {
        "both_frozen": round(float(frozen_K @ frozen_K), 3),
        "both_as_they_are": round(float(plain_K @ plain_K), 3),
        "one_of_each": round(float(frozen_K @ plain_K), 3),
    }


def shares_of(counts: list[dict[str, float]]) -> dict[str, Any]:
    total = {name: sum(row[name] for row in counts) for name in counts[0] if name != "logits"}
    return {
        "reused_share": round(total["reused"] / total["frames"], 4),
        "equal_label_share": round(total["equal"] / total["windows"], 4),
        "equal_shown_share": round(total["shown"] / total["frames"], 4),
        "spans": [total["spans"], total["gated_spans"]],
        "largest_logit_difference": round(max(row["logits"] for row in counts), 3),
    }


def levels_of(predictor: Predictor, films: list[Path]) -> dict[str, dict[str, Any]]:
    """The shares over all frames and windows of these films, for each level."""
    rows: dict[float, list[dict[str, float]]] = {level: [] for level in LEVELS}
    for film in films:
        exact = timeline_at(predictor, film, 0.0)
        for level in LEVELS:
            rows[level].append(counts_of(exact, timeline_at(predictor, film, level)))
        print(film.name, file=sys.stderr)
    return {f"{level:g}": shares_of(counts) for level, counts in rows.items()}


def cameras_a_core(predictor: Predictor, films: list[Path], level: float) -> dict[str, float]:
    """Seconds of film over processor seconds of streams, and the share of frames that were reused."""
    film_s, reused, frames, began = 0.0, 0, 0, time.process_time()
    for film in films:
        stream = predictor.stream(str(film), StreamConfig(still=level))
        film_s += [answer.end_s for answer in stream][-1]
        summary = stream.summary()
        reused, frames = reused + summary.num_reused, frames + summary.num_reused + summary.num_encoded
    return {
        "cameras_a_core": round(film_s / (time.process_time() - began), 1),
        "reused_share": round(reused / frames, 4),
    }


def timing(predictor: Predictor, films: list[Path], level: float) -> dict[str, Any]:
    def all_at(way: float) -> None:
        for film in films:
            timeline_at(predictor, film, way)

    seconds = interleaved({"exact": lambda: all_at(0.0), "gated": lambda: all_at(level)}, 3, warm_up=False)
    return {
        **{name: least_median_most(values) for name, values in seconds.items()},
        "exact_over_gated": least_median_most(ratios(seconds["exact"], seconds["gated"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    predictor = load("lite0-16", device="cpu", dtype="float32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = frames_in(data / CLIP)
        picture = pictures[len(pictures) // 2]
        noisy = {
            f"still, noise {noise:g}": [write_film(folder / f"still{noise:g}.mp4", held_still(picture, noise))]
            for noise in (2.0, 4.0)
        }
        busy = [
            write_film(folder / f"{recording}.mp4", (frame for path in paths for frame in frames_in(path)))
            for recording, paths in recordings_of(data).items()
        ]
        other = {
            f"still, noise {noise:g}": write_film(folder / f"other{noise:g}.mp4", held_still(picture, noise, seed=1))
            for noise in (2.0, 4.0)
        }
        draws = {
            name: shares_of([counts_of(timeline_at(predictor, one, 0.0), timeline_at(predictor, other[name], 0.0))])
            for name, (one,) in noisy.items()
        }
        films = {**noisy, "busy, for choosing": busy[::2], "busy, for measuring": busy[1::2]}
        levels = {name: levels_of(predictor, paths) for name, paths in films.items()}
        good = [at for at, found in levels["busy, for choosing"].items() if found["equal_label_share"] >= EQUAL]
        recommended = max(map(float, good), default=0.0)
        timed = [*noisy, "busy, for measuring"]
        write_result(
            picture_of_still_films=list(picture.shape[:2]),
            still_s=STILL_S,
            recordings=len(busy),
            levels=levels,
            recommended=recommended,
            other_draw=draws,
            frozen={name: frozen_of(predictor, one) for name, (one,) in noisy.items()},
            timing={name: timing(predictor, films[name], recommended) for name in timed if recommended},
            streams={
                name: {f"{level:g}": cameras_a_core(predictor, films[name], level) for level in (0.0, recommended)}
                for name in timed
            },
        )


if __name__ == "__main__":
    main()
