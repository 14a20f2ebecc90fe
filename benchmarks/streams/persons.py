"""What it costs to judge each person of a stream, beside the stream of the whole picture, and what drawing it costs.

    python -m benchmarks.streams.persons ../shared/data > benchmarks/streams/persons.json

with OMP_NUM_THREADS=1 and the extra `people`. Processor seconds of all threads over those of the stream without, round by round
(three rounds, both ways in turn). All answer for each of five frames looked at a second.

- `pair`: the first six clips of `ut_interaction`, two persons or more, one after the other at 640 x 400: OpenCV's `people`, which
  looks at five pictures a second (`people`) or at two (`people, 2 a second`).
- `ten`: a film of 1280 x 720 and 20 s, ten clips of `fights` side by side: boxes around ten, or two, of them by a detector that
  takes no time, so that what is left is to follow, cut out and judge persons.
- `draw` is the stream of the whole picture with `--draw`.

`detector` is the share of its seconds in those of the stream, by the clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import interleaved, least_median_most, ratios, write_result
from benchmarks.speed.still import frames_in, write_film
from benchmarks.streams.zones import COLUMNS, HEIGHT, ROWS, WIDTH, side_by_side
from fewframes.cli.draw import StreamDrawing
from fewframes.inference.live.results import StreamSummary
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.stream import Stream
from fewframes.video.live_settings import StreamConfig
from fewframes.video.regions.boxes import Box
from fewframes.video.transforms import resized
from fewframes.viz.overlay_video import GrowingVideo
from runs.packaged import rows_of

CLIPS, PAIR_SIZE, ROUNDS = 6, (400, 640), 3
WHOLE = StreamConfig()
PAIR = {
    "people": StreamConfig(detector="people"),
    "people, 2 a second": StreamConfig(detector="people", detections_per_s=2),
}
TEN = {
    "two": StreamConfig(detector="benchmarks.streams.persons:two"),
    "ten": StreamConfig(detector="benchmarks.streams.persons:ten"),
}


class Fixed:
    """A detector that finds the first tiles of the film, each a little smaller than it is."""

    def __init__(self, count: int) -> None:
        columns = [round(edge) for edge in np.linspace(0, WIDTH, COLUMNS + 1)]
        rows = [round(edge) for edge in np.linspace(0, HEIGHT, ROWS + 1)]
        tiles = [(x0, y0, x1, y1) for y0, y1 in pairwise(rows) for x0, x1 in pairwise(columns)]
        self._boxes = [Box(x0 + 40, y0 + 40, x1 - 40, y1 - 40) for x0, y0, x1, y1 in tiles[:count]]

    def boxes(self, picture_HWC: NDArray[np.uint8], time_s: float) -> Sequence[Box]:  # noqa: ARG002
        return self._boxes


def two() -> Fixed:
    return Fixed(2)


def ten() -> Fixed:
    return Fixed(10)


def pairs(data: Path) -> Iterator[NDArray[np.uint8]]:
    paths = sorted(data / "ut_interaction" / row["path"] for row in rows_of(data / "ut_interaction"))[:CLIPS]
    for path in paths:
        for picture in frames_in(path):
            yield resized(picture.transpose(2, 0, 1), *PAIR_SIZE).transpose(1, 2, 0)


def watched(predictor: Predictor, film: Path, config: StreamConfig) -> StreamSummary:
    with predictor.stream(str(film), config) as stream:
        for _ in stream:
            pass
    return stream.summary()


def drawn(predictor: Predictor, film: Path, target: Path) -> None:
    video = GrowingVideo(target, print)
    with Stream(predictor, str(film), WHOLE, {}, None, StreamDrawing(video, WHOLE)) as stream:
        for _ in stream:
            pass
    video.close()


def cost_of(predictor: Predictor, film: Path, configs: dict[str, StreamConfig]) -> dict[str, Any]:
    target = film.with_name("drawn.mp4")
    ways = {name: lambda config=config: watched(predictor, film, config) for name, config in configs.items()}
    seconds = interleaved(
        {
            "whole": lambda: watched(predictor, film, WHOLE),
            **ways,
            "draw": lambda: drawn(predictor, film, target),
        },
        ROUNDS,
    )
    found: dict[str, Any] = {"whole_s": least_median_most(seconds["whole"])}
    for name in (*configs, "draw"):
        found[name] = {"ratio": least_median_most(ratios(seconds[name], seconds["whole"]))}
    for name, config in {"whole": WHOLE, **configs}.items():
        summary = watched(predictor, film, config)
        found.setdefault(name, {}).update(
            frames=summary.num_moments,
            encoded=summary.num_encoded,
            answers=summary.num_predictions,
            persons=summary.num_persons,
            detections=summary.num_detections,
            detector=round(summary.detect_s / summary.seconds, 3),
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    predictor = load(device="cpu")
    cost = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, pictures, configs in (
            ("pair", pairs(data), PAIR),
            ("ten", side_by_side(data, num_playing=COLUMNS * ROWS), TEN),
        ):
            film = write_film(Path(folder) / f"{name}.mp4", pictures)
            cost[name] = cost_of(predictor, film, configs)
            print(name, cost[name], file=sys.stderr)
    write_result(cost=cost)


if __name__ == "__main__":
    main()
