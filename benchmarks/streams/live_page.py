"""The live page: what it costs a stream, while nobody looks and while a browser does.

    python -m benchmarks.streams.live_page ../shared/data > benchmarks/streams/live_page.json

The stream: the minute of `recording`, with lite0-16, five frames and five answers a second of it, read as fast as it goes. In turn,
in one process: without a page, with a page at which nobody looks, and with one that another process looks at. That process asks
for what is new and for a still as often for each answer as a browser does in a minute at its own speed: once in five answers, and
once in ten. Processor time of the stream's process counts, that of all its threads, for others use the machine too.

`one answer`: the answers of the minute handed to a watch whose rules make no event, directly and through the page's board.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import fewframes
from benchmarks.harness import interleaved, least_median_most, ratios, write_result
from benchmarks.streams.recording import write_minute
from fewframes.inference.live.results import StreamPrediction
from fewframes.inference.predictor import Predictor
from fewframes.serve.live.app import PageConfig, create_app
from fewframes.serve.live.board import Board
from fewframes.serve.server import listen, running
from fewframes.video.live_settings import StreamConfig
from fewframes.watch.settings import watch_of
from fewframes.watch.watch import Watch

ROUNDS = 5
CONFIG = StreamConfig(window_s=3.2)
LOOKING = """
import json, sys, time, urllib.parse, urllib.request
address, source, every_s = sys.argv[1], urllib.parse.quote(sys.argv[2]), float(sys.argv[3])
run, numbers = "", (0, 0)
for number in range(10**9):
    began = time.monotonic()
    ask = f"{address}/api/live?run={run}&sources={numbers[0]}&events={numbers[1]}"
    told = json.load(urllib.request.urlopen(ask))
    run, numbers = told["run"], (told["sources"]["number"], told["events"]["number"])
    if number % 2:
        try:
            urllib.request.urlopen(f"{address}/api/still?source={source}&zone=").read()
        except urllib.error.HTTPError:
            pass  # before the first picture
    if number == 0:
        print("looking", flush=True)
    time.sleep(max(0.0, every_s - (time.monotonic() - began)))
"""


def unwatched() -> Watch:
    return Watch(watch_of({"rules": [{"enter": 1.0, "leave": 0.5}]}, "bench"), tell=lambda words: None)


def streamed(predictor: Predictor, minute: Path, board: Board | None, answers: list[StreamPrediction]) -> None:
    """Stream the minute, with a page or without one. `answers` gets its answers."""
    with predictor.stream(str(minute), CONFIG) as stream:
        if board is not None:
            board.follow(stream)
        for answer in stream:
            answers.append(answer)
            if board is not None:
                board.step(stream.source, answer)


@contextmanager
def paged(predictor: Predictor, minute: Path, every_s: float = 0.0) -> Iterator[Board]:
    """A page, at which another process looks in this interval, if that is not 0."""
    board = Board()
    with closing(listen("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with running(create_app(board, PageConfig(labels=predictor.labels)), listening):
            if not every_s:
                yield board
                return
            command = [sys.executable, "-c", LOOKING, address, str(minute), str(every_s)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as looking:
                assert looking.stdout is not None
                looking.stdout.readline()
                yield board
                looking.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    predictor = fewframes.load()
    with tempfile.TemporaryDirectory() as name:
        minute = Path(name) / "minute.ts"
        write_minute(given.data, minute)
        answers: list[StreamPrediction] = []
        began = time.perf_counter()
        streamed(predictor, minute, None, answers)
        every_s = 5 * (time.perf_counter() - began) / len(answers)
        kept = list(answers)

        def with_page(every_s: float) -> None:
            with paged(predictor, minute, every_s) as board:
                streamed(predictor, minute, board, [])

        taken = interleaved(
            {
                "without": lambda: streamed(predictor, minute, None, []),
                "with": lambda: with_page(0.0),
                "looked at": lambda: with_page(every_s),
            },
            ROUNDS,
        )
        with unwatched() as one, unwatched() as other:
            board = Board(other)

            def handed(watch: Watch | Board) -> None:
                for answer in kept:
                    watch.step(answer.source, answer)

            one_answer = interleaved({"without": lambda: handed(one), "with": lambda: handed(board)}, 20)
    write_result(
        stream={"answers": len(kept), "seconds between looks": round(every_s, 3)},
        rounds=ROUNDS,
        processor_s={name: least_median_most(values) for name, values in taken.items()},
        over_without={name: least_median_most(ratios(taken[name], taken["without"])) for name in ("with", "looked at")},
        one_answer_us={
            name: least_median_most([1e6 * value / len(kept) for value in values])
            for name, values in one_answer.items()
        },
    )


if __name__ == "__main__":
    main()
