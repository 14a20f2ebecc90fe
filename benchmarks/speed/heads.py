"""Processor time of one, two, ten and a hundred models over the packaged frame encoder, answered in one pass.

    fewframes train ../shared/data/fights/list.csv --head solved -o FOLDER
    python -m benchmarks.speed.heads ../shared/data FOLDER > benchmarks/speed/heads.json

The models are copies of one file, each opened by itself: `solved` is the solved model of FOLDER (two actions, with its judge of
unknown videos), `unjudged` the same without its judge, and `transformer` the packaged model (a small transformer, a solved
read-out, eleven actions and a judge).

`predict`: processor seconds of `predict_many` on the first ten videos (by name) of `ut_interaction`. `timeline`: of a film of the
recordings of `fir_rgb`, half a minute long, no cache. `stream`: of the same film, with an answer for each frame (0.2 s), and
`stream_every_second` with one answer a second. Each is given as a ratio to the same models' first alone, by `fewframes.load`. All
counts take their turn in each round, in one process; `seconds` are those of one model alone.

`load` has the seconds of the processor to open a hundred models, and the resident megabytes that they add to those of one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import interleaved, least_median_most, ratios, resident_bytes, write_result
from benchmarks.speed.still import frames_in, recordings_of, write_film
from fewframes.inference.heads import Heads, load_heads
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import sweep
from fewframes.models.files.model_file import ModelFile, read_model_file, write_model_file
from fewframes.models.files.names import find_model
from fewframes.video.live_settings import StreamConfig

COUNTS, ROUNDS, FILM_S, RATE, NUM_VIDEOS = (2, 10, 100), 3, 30, 25, 10


def kinds_of(solved: ModelFile) -> dict[str, ModelFile]:
    return {
        "unjudged": replace(solved, rejection=None),
        "solved": solved,
        "transformer": read_model_file(find_model("lite0-16")),
    }


def copies(file: ModelFile, folder: Path, most: int) -> list[str]:
    """Names of one file under many names. Each is read by itself."""
    folder.mkdir()
    write_model_file(folder / "000.safetensors", file)
    for number in range(1, most):
        os.link(folder / "000.safetensors", folder / f"{number:03d}.safetensors")
    return [str(folder / f"{number:03d}.safetensors") for number in range(most)]


def verbs_of(model: Predictor | Heads, videos: list[Path], film: Path) -> dict[str, Callable[[], object]]:
    timeline: Callable[..., object] = partial(sweep, model) if isinstance(model, Predictor) else model.timeline
    return {
        "predict": lambda: list(model.predict_many(videos)),
        "timeline": lambda: timeline(film),
        "stream": lambda: list(model.stream(str(film))),
        "stream_every_second": lambda: list(model.stream(str(film), StreamConfig(every_s=1.0))),
    }


def measured(file: ModelFile, videos: list[Path], film: Path, folder: Path, rounds: int) -> dict[str, Any]:
    names = copies(file, folder, max(COUNTS))
    alone = load(names[0])
    alone.predict(videos[0])
    before, began = resident_bytes(), time.process_time()
    hundred = load_heads(names)
    loading = {
        "seconds": round(time.process_time() - began, 2),
        "added_mb": round((resident_bytes() - before) / 1e6, 1),
    }
    models: dict[int, Predictor | Heads] = {1: alone, **{count: load_heads(names[:count]) for count in COUNTS[:-1]}}
    models[COUNTS[-1]] = hundred
    found: dict[str, Any] = {"load": loading}
    for verb in verbs_of(alone, videos, film):
        ways = {str(count): verbs_of(model, videos, film)[verb] for count, model in models.items()}
        seconds = interleaved(ways, rounds)
        print(verb, {count: min(own) for count, own in seconds.items()}, file=sys.stderr)
        found[verb] = {
            "seconds": least_median_most(seconds["1"]),
            "ratios": {str(count): least_median_most(ratios(seconds[str(count)], seconds["1"])) for count in COUNTS},
        }
    return found


def film_of(data: Path, folder: Path) -> Path:
    pictures = (picture for clips in recordings_of(data).values() for clip in clips for picture in frames_in(clip))
    first = next(pictures)
    same = (picture for picture in pictures if picture.shape == first.shape)
    return write_film(folder / "film.mp4", (picture for picture, _ in zip(same, range(FILM_S * RATE), strict=False)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("solved", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    videos = sorted((given.data / "ut_interaction").rglob("*.avi"))[:NUM_VIDEOS]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        film = film_of(given.data, folder)
        kinds = kinds_of(read_model_file(find_model(str(given.solved))))
        results = {name: measured(file, videos, film, folder / name, given.rounds) for name, file in kinds.items()}
    write_result(heads=results)


if __name__ == "__main__":
    main()
