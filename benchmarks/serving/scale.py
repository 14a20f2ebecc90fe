"""Many videos: what Ray costs beside the local engine on one machine, what a second worker brings, and a million videos reckoned.

    OMP_NUM_THREADS=1 python -m benchmarks.serving.scale ../shared/data/ut_interaction --rounds 2 > benchmarks/serving/scale.json

32 videos, interleaved: the local engine (A), Ray with one worker (B), with two (C), with one worker that decodes for another (D);
one Ray for all. Of each turn: `clock`, from the first video's start to the last one's end, so without start-up;
`start`, what comes before (workers start, load torch and the model); `work`, the processor time inside the videos' work; `beside`,
that of the driver, the workers and Ray's own processes since the first video's start, less `work`. Processor times from /proc,
sampled each 0.2 s (what that takes is left out). Other people's work runs on this machine too: processor time counts, and the
clock says what happened here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.harness import least_median_most, write_result
from fewframes.batch.output import begin, count, cut, remaining, run_here
from fewframes.batch.ray import PIECE_VIDEOS, cluster, run_on_ray
from fewframes.batch.rows import VideoDecoder, VideoJob, VideoWork
from fewframes.data.folders import find_videos

NUM_VIDEOS, SHARD_ROWS, SAMPLED_S = 32, 16, 0.2
MILLION = 1_000_000
CORES = 64


@contextmanager
def marked(marks: str) -> Iterator[None]:
    """A line in a file of its own: when the work inside began and ended, and its processor time."""
    began, spent = time.time(), time.process_time() - Spent.own_s
    yield
    line = {"began": began, "ended": time.time(), "spent_s": time.process_time() - Spent.own_s - spent}
    (Path(marks) / f"{os.getpid()}-{began}.json").write_text(json.dumps(line))


@dataclass(frozen=True)
class TimedJob:
    """The job, with marks."""

    job: VideoJob
    marks: str

    def start(self) -> TimedWork:
        return TimedWork(self.job.start(), self.marks)


@dataclass(frozen=True)
class TimedWork:
    work: VideoWork
    marks: str

    @property
    def about(self) -> dict[str, str]:
        return self.work.about

    @property
    def columns(self) -> dict[str, Any]:
        return self.work.columns

    def rows(self, sources: Sequence[str]) -> Iterator[dict[str, object]]:
        with marked(self.marks):
            yield from self.work.rows(sources)

    def decoder(self) -> TimedDecoder | None:
        decoder = self.work.decoder()
        return None if decoder is None else TimedDecoder(decoder, self.marks)

    def rows_of(self, videos: Sequence[Any]) -> Iterator[dict[str, object]]:
        with marked(self.marks):
            yield from self.work.rows_of(videos)


@dataclass(frozen=True)
class TimedDecoder:
    decoder: VideoDecoder
    marks: str

    def __call__(self, sources: Sequence[str]) -> list[Any]:
        with marked(self.marks):
            return self.decoder(sources)


class Spent:
    """Processor time of this process and all that it has started, in seconds, sampled until it is left; without the sampling's."""

    own_s = 0.0

    def __enter__(self) -> Spent:
        self._seen: dict[int, float] = {}
        self._over = threading.Event()
        self.samples: list[tuple[float, float]] = []
        self._sample()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()

    def since(self, time_s: float) -> float:
        """From this time (time.time) to the last sample."""
        before = max((sample for sample in self.samples if sample[0] <= time_s), default=self.samples[0])
        return self.samples[-1][1] - before[1]

    def _watch(self) -> None:
        while not self._over.wait(SAMPLED_S):
            self._sample()

    def _sample(self) -> None:
        began, this = time.thread_time(), psutil.Process()
        for process in (this, *this.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._seen[process.pid] = times.user + times.system
        Spent.own_s += time.thread_time() - began
        self.samples.append((time.time(), sum(self._seen.values()) - Spent.own_s))


@dataclass(frozen=True)
class Arm:
    """Who computes: the local engine where `workers` is None."""

    workers: int | None = None
    decode_apart: bool = False


def measure(paths: list[str], job: VideoJob, here: VideoWork, arm: Arm) -> dict[str, float]:
    """One turn."""
    with tempfile.TemporaryDirectory() as name:
        marks = Path(name) / "marks"
        marks.mkdir()
        timed, work = TimedJob(job, str(marks)), TimedWork(here, str(marks))
        shards = cut(paths, SHARD_ROWS)
        folder = begin(f"{name}/out", here.about, shards)
        began = time.time()
        with Spent() as spent:
            done = (
                run_here(folder, work, shards)
                if arm.workers is None
                else run_on_ray(folder, timed, work, shards, workers=arm.workers, decode_apart=arm.decode_apart)
            )
            list(done)
        whole_s = time.time() - began
        tally = count(folder, shards)
        assert (tally.num_rows, tally.num_failed, remaining(folder, shards)) == (len(paths), 0, [])
        lines = [json.loads(path.read_text()) for path in marks.iterdir()]
    first = min(line["began"] for line in lines)
    work_s, clock_s = sum(line["spent_s"] for line in lines), max(line["ended"] for line in lines) - first
    beside_s, start_s = spent.since(first) - work_s, first - began
    return {"clock_s": clock_s, "start_s": start_s, "work_s": work_s, "beside_s": beside_s, "whole_s": whole_s}


def million(core_s: float) -> dict[str, Any]:
    """Cores and hours for a million such videos, from the processor time of one with what Ray takes beside it."""
    core_hours = MILLION * core_s / 3600
    return {
        "videos": MILLION,
        "core_seconds_a_video": round(core_s, 4),
        "core_hours": round(core_hours, 1),
        f"hours_on_{CORES}_cores": round(core_hours / CORES, 2),
        "files_of_1000_rows": MILLION // 1000,
        "pieces": -(-MILLION // PIECE_VIDEOS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = [str(path) for path in find_videos(arguments.videos.resolve())]
    paths = [found[number * len(found) // NUM_VIDEOS] for number in range(NUM_VIDEOS)]  # of all actions
    job = VideoJob(columns="actions", model="lite0-16", device="cpu")
    here = job.start()
    list(here.rows(paths[:3]))  # warms up
    arms = {"local": Arm(), "ray, 1 worker": Arm(1), "ray, 2 workers": Arm(2), "ray, 1 decodes for 1": Arm(1, True)}
    rounds: list[dict[str, dict[str, float]]] = []
    began = time.perf_counter()
    with cluster(2):
        init_s = time.perf_counter() - began
        for _ in range(arguments.rounds):
            rounds.append({name: measure(paths, job, here, arm) for name, arm in arms.items()})
            print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    figures = {
        name: {what: least_median_most([turn[name][what] for turn in rounds]) for what in rounds[0][name]}
        for name in arms
    }

    def cost(turn: dict[str, dict[str, float]], name: str) -> float:
        return turn[name]["work_s"] + turn[name]["beside_s"]

    def over(numerator: str, denominator: str) -> dict[str, float]:
        return least_median_most([cost(turn, numerator) / cost(turn, denominator) for turn in rounds])

    def clock_over(numerator: str, denominator: str) -> dict[str, float]:
        return least_median_most([turn[numerator]["clock_s"] / turn[denominator]["clock_s"] for turn in rounds])

    core_s = min(cost(turn, "ray, 1 worker") for turn in rounds) / NUM_VIDEOS
    write_result(
        ray=version("ray"),
        model=job.model,
        data=f"{len(set(paths))} videos of {arguments.videos.name}, shards of {SHARD_ROWS}",
        rounds=arguments.rounds,
        ray_init_s=round(init_s, 1),
        load_average_after=os.getloadavg(),
        **{
            "seconds for all videos": figures,
            "processor time, ray 1 worker / local": over("ray, 1 worker", "local"),
            "processor time, 1 decodes for 1 / local": over("ray, 1 decodes for 1", "local"),
            "clock, ray 1 worker / local": clock_over("ray, 1 worker", "local"),
            "clock, 1 worker / 2 workers": clock_over("ray, 1 worker", "ray, 2 workers"),
            "a million videos": million(core_s),
        },
    )


if __name__ == "__main__":
    main()
