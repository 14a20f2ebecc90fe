"""What ten zones of a picture cost beside the whole picture, and how well OpenCV's persons are found and followed.

    python -m benchmarks.streams.zones ../shared/data > benchmarks/streams/zones.json

with OMP_NUM_THREADS=1 and the extra `people`.

`cost`: processor seconds of all threads, ten zones over the whole picture, round by round (three rounds, both ways in turn, no
cache). Ten zones are two rows of five. `timeline` is `sweep_regions` over `sweep`, `predict` is `predict_regions` over `predict`.

- `busy`: a film of 1280 x 720 and 20 s, ten clips of `fights` side by side, played over and over: something moves everywhere.
- `still`: the same picture, in which one clip plays and the others stand still under camera noise of 2 levels.
- `camera`: the first 60 s of the segments of the first recording (by name) of `fir_rgb`, one after the other, with the size that
  they have: a fixed indoor camera in which somebody moves in nearly every segment.

`reused` is the share of frames of zones that showed nothing new, by the gate at this level.

`detector`: `people` on the 120 clips of `ut_interaction`, which show two persons or more, five pictures a second: the share of
pictures with one box and with two or more, and of clips with two tracks or more that are there for half of the clip; and boxes
a picture in 20 clips of `fir_rgb`, a room seen from above, in which nobody stands upright in the picture.
`tracker`: microseconds of an update with ten boxes that walk at random.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import interleaved, least_median_most, ratios, write_result
from benchmarks.speed.still import frames_in, recordings_of, write_film
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.regions.detect import detect_tracks, detector_of
from fewframes.inference.regions.predict import predict_regions
from fewframes.inference.regions.timeline import sweep_regions
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.sampling import steady_times
from fewframes.video.regions.boxes import Box
from fewframes.video.regions.tracker import Detector, Tracker
from fewframes.video.regions.zone import Zone
from fewframes.video.source import open_video
from fewframes.video.transforms import resized
from runs.packaged import rows_of

SECONDS, RATE, WIDTH, HEIGHT = 20, 25, 1280, 720
COLUMNS, ROWS, ROUNDS = 5, 2, 3
LEVELS = (0.0, 2.0)
ROOM_CLIPS, PER_S, CAMERA_S = 20, 5.0, 60
Pixels = NDArray[np.uint8]
ZONES = [
    Zone(f"z{row}{column}", column / COLUMNS, row / ROWS, (column + 1) / COLUMNS, (row + 1) / ROWS)
    for row in range(ROWS)
    for column in range(COLUMNS)
]


def side_by_side(data: Path, *, num_playing: int) -> Iterator[Pixels]:
    """Pictures of ten clips, of which the first so many play; the others stand still under noise."""
    lots = np.random.default_rng(0)
    size = (HEIGHT // ROWS, WIDTH // COLUMNS)
    paths = sorted((data / "fights" / "fight").glob("*.mp4"))[: len(ZONES)]
    clips = [
        [resized(picture.transpose(2, 0, 1), *size).transpose(1, 2, 0) for picture in frames_in(path)] for path in paths
    ]
    for number in range(SECONDS * RATE):
        tiles = []
        for index, clip in enumerate(clips):
            if index < num_playing:
                tiles.append(clip[number % len(clip)])
            else:
                noise = 2 * lots.standard_normal(clip[0].shape, np.float32)
                tiles.append(np.clip(np.round(clip[0] + noise), 0, 255).astype(np.uint8))
        rows = [np.concatenate(tiles[row * COLUMNS : (row + 1) * COLUMNS], axis=1) for row in range(ROWS)]
        yield np.concatenate(rows)


def camera(data: Path) -> Iterator[Pixels]:
    first = next(iter(recordings_of(data).values()))
    return islice((picture for path in first for picture in frames_in(path)), CAMERA_S * RATE)


def cost_of(predictor: Predictor, film: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for level in LEVELS:
        config = TimelineConfig(still=level)
        seconds = interleaved(
            {
                "whole": lambda config=config: sweep(predictor, film, config),  # type: ignore[misc]
                "zones": lambda config=config: sweep_regions(predictor, film, ZONES, config),  # type: ignore[misc]
            },
            ROUNDS,
        )
        lines = sweep_regions(predictor, film, ZONES, config)
        found[f"timeline, still {level:g}"] = {
            **{f"{name}_s": least_median_most(values) for name, values in seconds.items()},
            "ratio": least_median_most(ratios(seconds["zones"], seconds["whole"])),
            "frames": sum(len(line.times_s) for line in lines),
            "reused": round(sum(line.num_reused for line in lines) / sum(len(line.times_s) for line in lines), 3),
        }
    seconds = interleaved(
        {"whole": lambda: predictor.predict(film), "zones": lambda: predict_regions(predictor, film, ZONES)}, ROUNDS
    )
    found["predict"] = {
        **{f"{name}_s": least_median_most(values) for name, values in seconds.items()},
        "ratio": least_median_most(ratios(seconds["zones"], seconds["whole"])),
    }
    return found


def detected(detector: Detector, paths: list[Path]) -> dict[str, Any]:
    """How many boxes pictures have, how many clips have two lasting tracks, and what a picture takes."""
    counts: list[int] = []
    lasting, took_s = 0, 0.0
    for path in paths:
        with closing(open_video(path)) as video:
            duration_s = video.duration_s
            frames = video.frames_at(steady_times(0, duration_s, 1 / PER_S)).frames
        began = time.process_time()
        counts += [len(detector.boxes(frame_CHW.transpose(1, 2, 0), 0.0)) for frame_CHW in frames]
        took_s += time.process_time() - began
        tracks = detect_tracks(detector, path)
        there_s = [sum(end - start for start, end in track.stretches(0, duration_s)) for track in tracks]
        lasting += sum(seconds >= duration_s / 2 for seconds in there_s) >= 2
    return {
        "clips": len(paths),
        "pictures": len(counts),
        "with_a_box": round(float(np.mean(np.array(counts) >= 1)), 3),
        "with_two_or_more": round(float(np.mean(np.array(counts) >= 2)), 3),
        "boxes_a_picture": round(float(np.mean(counts)), 3),
        "clips_with_two_lasting_tracks": round(lasting / len(paths), 3),
        "ms_a_picture": round(1000 * took_s / len(counts), 1),
    }


def update_us(num_boxes: int = 10, num_updates: int = 2000) -> float:
    lots, tracker = np.random.default_rng(0), Tracker()
    corners = lots.uniform(0, 1000, (num_boxes, 2))
    began = time.process_time()
    for number in range(num_updates):
        corners += lots.normal(0, 4, corners.shape)
        tracker.update(0.2 * number, [Box(x, y, x + 60, y + 150) for x, y in corners.tolist()])
    return round(1e6 * (time.process_time() - began) / num_updates, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    predictor = load(device="cpu")
    cost = {}
    with tempfile.TemporaryDirectory() as folder:
        films = {
            "busy": side_by_side(data, num_playing=len(ZONES)),
            "still": side_by_side(data, num_playing=1),
            "camera": camera(data),
        }
        for name, pictures in films.items():
            film = write_film(Path(folder) / f"{name}.mp4", pictures)
            cost[name] = cost_of(predictor, film)
            print(name, cost[name], file=sys.stderr)
    detector = detector_of("people")
    pairs = [data / "ut_interaction" / row["path"] for row in rows_of(data / "ut_interaction")]
    rooms = sorted(data / "fir_rgb" / row["path"] for row in rows_of(data / "fir_rgb"))[:ROOM_CLIPS]
    write_result(
        zones=len(ZONES),
        cost=cost,
        detector={"pairs": detected(detector, pairs), "room_from_above": detected(detector, rooms)},
        tracker={"update_us": update_us(), "boxes": 10},
    )


if __name__ == "__main__":
    main()
