"""Cameras that one core follows in one process, and memory over the hours.

    python -m benchmarks.streams.many_sources DATA > benchmarks/streams/many_sources.json

720p films at 25 frames a second, coded by x264 with its defaults. `busy`: recordings of `fir_rgb` (a fixed indoor camera, somebody
moves), one after the other, scaled to 1280x720. `still`: the middle frame of a surveillance clip, scaled, held under camera noise
of 2 levels. Each source answers five times a second over 3.2 s.

`cameras_a_core`: seconds of film of all sources over processor seconds of all threads, as fast as it goes, nothing dropped; the
least, median and most of three interleaved rounds. `decoding` reads the same films by the same readers, and throws the pictures
away after they were made as large as the network takes them. `with_gate` has `--still 2`. `alone` is one source at a time by
`Predictor.stream`.

`memory`: twenty sources of the network, each a server on this machine that closes the connection after each half minute of film, so
that everything is opened again and again; resident memory of the process at ten equal times. The film comes as fast as it is taken,
not at its own speed.
"""

from __future__ import annotations

import argparse
import http.server
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import interleaved, least_median_most, resident_bytes, write_result
from benchmarks.speed.still import CLIP, Pixels, frames_in, held_still, recordings_of, write_film
from fewframes.inference.live.streams import Streams, WatchedSource
from fewframes.inference.predictor import Predictor, load
from fewframes.video.live import POLL_S, LiveReader
from fewframes.video.live_settings import StreamConfig
from fewframes.video.transforms import fit_frame

WIDTH, HEIGHT, LEVEL, NUM_MEMORY = 1280, 720, 2.0, 20
SIZES = (1, 4, 10)
CONFIG = StreamConfig()


def scaled(picture: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


def films(data: Path, folder: Path, seconds: int) -> list[Path]:
    """A busy film, a still one, and the still one as a network gives it."""
    paths = [folder / "busy.mp4", folder / "still.mp4", folder / "still.ts"]
    for path in paths:
        if not path.exists():
            pictures = moving(data) if path.stem == "busy" else standing(data)
            write_film(path, islice(pictures, 25 * seconds))
    return paths


def standing(data: Path) -> Iterator[Pixels]:
    pictures = frames_in(data / CLIP)
    return held_still(scaled(pictures[len(pictures) // 2]), 2.0)


def moving(data: Path) -> Iterator[Pixels]:
    for paths in recordings_of(data).values():
        for path in paths:
            yield from map(scaled, frames_in(path))


def together(predictor: Predictor, path: Path, count: int, config: StreamConfig) -> None:
    sources = [WatchedSource(name=str(number), source=str(path), config=config) for number in range(count)]
    with Streams(predictor, sources) as streams:
        for _ in streams:
            pass


def alone(predictor: Predictor, path: Path) -> None:
    for _ in predictor.stream(str(path), CONFIG):
        pass


def decoding(predictor: Predictor, path: Path) -> None:
    view, interval_s = predictor.runtime.view, CONFIG.window_s / predictor.num_frames
    reader = LiveReader(str(path), CONFIG, interval_s, lambda frame_CHW: fit_frame(frame_CHW, view))
    while reader.take(1, POLL_S) is not None:
        pass


def cameras(predictor: Predictor, path: Path, seconds: int) -> dict[str, Any]:
    most, gated = SIZES[-1], replace(CONFIG, still=LEVEL)
    ways: dict[str, Callable[[], object]] = {
        "alone": lambda: alone(predictor, path),
        **{f"{count} together": partial(together, predictor, path, count, CONFIG) for count in SIZES},
        f"{most} together, with_gate": lambda: together(predictor, path, most, gated),
        "decoding": lambda: decoding(predictor, path),
    }
    counts = [1, *SIZES, most, 1]
    found = {
        name: least_median_most([count * seconds / used for used in own])
        for count, (name, own) in zip(counts, interleaved(ways, 3).items(), strict=True)
    }
    print(path.stem, found, file=sys.stderr)
    return found


@contextmanager
def served(content: bytes) -> Iterator[str]:
    """A server that gives the film to everybody who asks, and then closes the connection."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live.ts"
    finally:
        server.shutdown()
        server.server_close()


def memory(predictor: Predictor, path: Path, minutes: float) -> dict[str, Any]:
    config = replace(CONFIG, still=LEVEL, reconnects=None, drop="newest")
    with served(path.read_bytes()) as url:
        sources = [WatchedSource(name=str(number), source=url, config=config) for number in range(NUM_MEMORY)]
        streams = Streams(predictor, sources)
        marks: list[float] = []
        threads: list[int] = []
        began = time.monotonic()
        for _ in streams:
            due = began + 60 * minutes * (len(marks) + 1) / 10
            if time.monotonic() >= due:
                marks.append(round(resident_bytes() / 1e6, 1))
                threads.append(threading.active_count())
                print(marks[-1], threads[-1], file=sys.stderr)
            if len(marks) == 10:
                break
        summary = streams.summary()
        streams.close()
    return {
        "sources": NUM_MEMORY,
        "minutes": minutes,
        "resident_mb": marks,
        "threads": threads,
        "reconnections": sum(own.num_reconnects for own in summary.values()),
        "pictures": sum(own.num_pictures for own in summary.values()),
        "hours_of_film": round(sum(own.num_pictures for own in summary.values()) / 25 / 3600, 2),
        "answers": sum(own.num_predictions for own in summary.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/many_sources"))
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    predictor = load(device="cpu", dtype="float32")
    busy, still, stream = films(options.data, options.folder, options.seconds)
    found = {path.stem: cameras(predictor, path, options.seconds) for path in (busy, still)}
    write_result(seconds=options.seconds, cameras_a_core=found, memory=memory(predictor, stream, options.minutes))


if __name__ == "__main__":
    main()
