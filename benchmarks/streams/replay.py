"""Re-label an archive from cached embeddings with a new model of the same frame encoder: what it takes, and what changes.

    PYTHONPATH=tests python -m benchmarks.streams.replay ../shared/data > benchmarks/streams/replay.json

The archive are the films of `benchmarks.streams.timeline` for measuring (`test`), composed of sequences and recordings on which
neither model was trained. The old model is a solved read-out (`fewframes train --head solved`) of the first third of the clips of
known actions, the new one of the first two thirds, both with the frame encoder of lite0-16.

`timeline` is `fewframes.timeline` with its defaults, film after film, one model: `first` opens each file for its length and reads
it for the key of its content; `recorded` finds both recorded for the state of the file; `both models` is one pass of two. `compare`
is `compare_archives`. `index` is `Index.relabel` into a new index. Each is run in turn, `--rounds` times after one uncounted round,
and has seconds an hour of video (`clock` and `processor`), and `MB_read` by this process an hour of video, embeddings included.
`films_opened` counts the films that anything opened, by inotify.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness import least_median_most, write_result
from benchmarks.streams.timeline import Segment, compose, parts_of, segments_of
from fewframes.core.cache import EmbeddingCache
from fewframes.inference.detection.changes import ArchiveChanges, VideoSpans, compare_archives
from fewframes.inference.heads import load_heads
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import sweep
from fewframes.search.index import Index
from helpers.reads import opened


def trained(name: str, segments: list[Segment], folder: Path) -> Path:
    """A model solved from the clips of known actions among these segments."""
    listed, output = folder / f"{name}.csv", folder / name
    with listed.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group"])
        writer.writerows([segment.path, segment.label, segment.group] for segment in segments if segment.label)
    if not (output / "model.safetensors").is_file():
        options = ["--head", "solved", "--output", str(output), "--cache", str(folder / "embeddings")]
        subprocess.run([sys.executable, "-m", "fewframes.cli", "train", str(listed), *options], check=True)
    return output / "model.safetensors"


def bytes_read() -> int:
    """The bytes that this process has read so far, from files or pipes."""
    return int(Path("/proc/self/io").read_text().split()[1])


def measured(ways: dict[str, Callable[[], object]], rounds: int, films: list[Path], hours: float) -> dict[str, Any]:
    clocks: dict[str, list[float]] = {name: [] for name in ways}
    processors: dict[str, list[float]] = {name: [] for name in ways}
    read: dict[str, int] = {}
    seen: dict[str, int] = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            with ExitStack() as stack:
                watched = [stack.enter_context(opened(film)) for film in films]
                bytes_before, clock, processor = bytes_read(), time.perf_counter(), time.process_time()
                way()
                took = time.perf_counter() - clock, time.process_time() - processor
                read[name] = bytes_read() - bytes_before
            seen[name] = sum(found[0] for found in watched)
            if number:
                clocks[name].append(took[0] / hours)
                processors[name].append(took[1] / hours)
    return {
        name: {
            "clock_s_an_hour": least_median_most(clocks[name]),
            "processor_s_an_hour": least_median_most(processors[name]),
            "MB_read_an_hour": round(read[name] / 1e6 / hours, 1),
            "films_opened": seen[name],
        }
        for name in ways
    }


def changes_of(found: ArchiveChanges) -> dict[str, Any]:
    return {
        "counts": found.counts(),
        "changed_s": round(sum(video.changed_s for video in found.videos), 1),
        "labels": [label.to_dict() for label in found.labels()],
    }


def measure(data: Path, folder: Path, rounds: int) -> dict[str, Any]:
    parts = parts_of(segments_of(data))
    listed = folder / "films" / "films.json"
    written = json.loads(listed.read_text()) if listed.is_file() else compose(parts["test"], listed.parent, seed=0)
    films = [Path(film["path"]) for film in written]
    hours = sum(film["duration_s"] for film in written) / 3600
    files = {"old": trained("old", parts["dev_taught"], folder), "new": trained("new", parts["test_taught"], folder)}
    models = {name: load(file, device="cpu", dtype="float32") for name, file in files.items()}
    heads = load_heads([files["new"], files["old"]], device="cpu", dtype="float32")
    cache = EmbeddingCache(folder / "embeddings")

    def swept(predictor: Predictor) -> dict[str, VideoSpans]:
        return {str(film): VideoSpans.of(sweep(predictor, film, cache=cache)) for film in films}

    began = time.perf_counter()
    num_encoded = sum(sweep(models["old"], film, cache=cache).num_encoded for film in films)
    encoding_s = (time.perf_counter() - began) / hours
    timelines = {name: swept(predictor) for name, predictor in models.items()}

    def without_records() -> None:
        shutil.rmtree(cache.folder / "files", ignore_errors=True)
        swept(models["new"])

    shutil.rmtree(folder / "old index", ignore_errors=True)
    older = Index.open(folder / "old index", models["old"])
    older.add(films, cache=cache)

    def relabel() -> None:
        shutil.rmtree(folder / "new index", ignore_errors=True)
        Index.open(folder / "new index", models["new"]).relabel(older, cache=cache)

    ways: dict[str, Callable[[], object]] = {
        "timeline, first": without_records,
        "timeline, recorded": lambda: swept(models["new"]),
        "timeline, both models": lambda: [heads.timeline(film, cache=cache) for film in films],
        "compare": lambda: compare_archives(timelines["old"], timelines["new"]),
        "index": relabel,
    }
    results = measured(ways, rounds, films, hours)
    between = Index.open(folder / "new index", models["new"]).changes_since(older)
    return {
        "films": len(films),
        "hours": round(hours, 3),
        "clips_of_known_actions": {
            name: sum(bool(segment.label) for segment in parts[f"{part}_taught"])
            for name, part in (("old", "dev"), ("new", "test"))
        },
        **({"encoding_s_an_hour": round(encoding_s, 1)} if num_encoded else {}),
        "ways": results,
        "spans": changes_of(compare_archives(timelines["old"], timelines["new"])),
        "windows of the index": changes_of(between),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/replay"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    write_result(**measure(options.data.resolve(), options.folder.resolve(), options.rounds))


if __name__ == "__main__":
    main()
