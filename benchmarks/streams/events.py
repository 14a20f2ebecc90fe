"""How long does a stream wait for its events, and what is delivered, while receivers behave badly?

    PYTHONPATH=tests python -m benchmarks.streams.events FOLDER

The answers are made up: eleven labels, of which the first is above and below its threshold in turn, so that each answer starts or
ends an event. FOLDER holds the spool; put it on the disk that is meant. Receivers are real servers of this machine.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import write_result
from fewframes import StreamPrediction
from fewframes.watch.settings import watch_of
from fewframes.watch.watch import Watch
from helpers.receivers import cut, webhook

LABELS = tuple(f"action {number}" for number in range(11))
BEGAN = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def answer_of(number: int, *, happens: bool) -> StreamPrediction:
    """Return an answer, in which something begins or ends with each one if anything happens."""
    scores_K = np.zeros(len(LABELS), np.float32)
    scores_K[0] = 0.9 if happens and number % 2 == 0 else 0.0
    return StreamPrediction("cam1", LABELS, number - 3.2, float(number), scores_K, scores_K, None, 0.0, 16, 0, ())


def steps(watch: Watch, num_answers: int, *, happens: bool, pause_s: float = 0.0) -> list[float]:
    """Return the milliseconds of each step."""
    found = []
    for number in range(num_answers):
        answer = answer_of(number, happens=happens)
        began = time.perf_counter()
        watch.step("cam1", answer, at=BEGAN + timedelta(seconds=number))
        found.append(1e3 * (time.perf_counter() - began))
        time.sleep(pause_s)
    return found


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median_ms": round(statistics.median(values), 4),
        "p99_ms": round(float(np.quantile(values, 0.99)), 3),
        "max_ms": round(max(values), 3),
    }


def waiting_times(folder: Path, num_answers: int) -> dict[str, Any]:
    """Return the milliseconds of a step without events, with events, and with events while a webhook hangs."""
    found: dict[str, Any] = {}
    for name, happens, spool, hangs in (
        ("no events", False, "", False),
        ("events, spool in memory", True, "", False),
        ("events, spool on disk", True, str(folder / "spool"), False),
        ("events, spool on disk, webhook hangs", True, str(folder / "spool"), True),
    ):
        shutil.rmtree(folder / "spool", ignore_errors=True)
        with webhook(*[lambda _: time.sleep(6.0)] * (100 if hangs else 0)) as receiver:
            values = {"webhooks": [{"url": receiver.url, "timeout_s": 5.0}], "spool": spool, "close_s": 0.0}
            with Watch(watch_of(values, "benchmark"), tell=lambda _: None) as watch:
                found[name] = spread(steps(watch, num_answers, happens=happens, pause_s=0.002))
    return found


def all_in_the_end(num_events: int) -> dict[str, Any]:
    """Return what a webhook got that answers every third message well, fails with 500, or breaks off."""
    behaviours: list[int | Callable[..., None]] = list(
        itertools.islice(itertools.cycle([204, 500, cut]), 3 * num_events)
    )
    with webhook(*behaviours) as receiver:  # type: ignore[arg-type]
        values = {"webhooks": [{"url": receiver.url}], "close_s": 600.0}
        began = time.monotonic()
        with Watch(watch_of(values, "benchmark"), tell=lambda _: None) as watch:
            steps(watch, 2 * num_events, happens=True)
        seconds = time.monotonic() - began
        keys = Counter(headers["idempotency-key"] for headers, _ in receiver.requests)
        counts = watch.counts().sinks["webhook"]
    return {
        "messages": 2 * num_events,
        "messages that arrived": len(keys),
        "requests": keys.total(),
        "acknowledged": counts.delivered,
        "failed attempts": counts.failed,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--events", type=int, default=10)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    write_result(
        settings={"answers": options.answers, "labels": len(LABELS), "pause between answers, ms": 2},
        a_step_of_the_stream=waiting_times(options.folder, options.answers),
        bad_webhook=all_in_the_end(options.events),
    )


if __name__ == "__main__":
    main()
