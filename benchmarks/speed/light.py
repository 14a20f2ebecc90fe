"""What a newcomer waits for and stores: installation, the first answer, start-up, memory and throughput.

    python -m benchmarks.speed.light --before 5253971 > benchmarks/speed/light.json

Three installations of fewframes: `before` (the commit given), `light` (this commit), and `with torch` (this commit with the extra
`train`). Each is cloned, and installed into a fresh environment by `uv pip install` from a warm package cache. Then three commands
run in processes of their own, all installations in turn: the help, one clip of `examples/`, and a folder of copies of the clips.

Peers are installed and imported only, because their weights cannot be fetched without a network; `--no-peers` leaves them out.
Memory is the largest resident set of a process. `processor s` counts all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, interleaved, least_median_most, write_result

CLIP = "examples/hug.mp4"
SYSTEMS = {"before": ".", "light": ".", "with torch": ".[train]"}
PEERS = {
    "ultralytics": "import ultralytics; ultralytics.YOLO",
    "transformers torch": "import transformers; transformers.VideoMAEForVideoClassification",
    "timm": "import timm; timm.create_model",
}
"""The packages of each peer, and the line of Python that is the first step of its use."""
IN_CHILD = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
wall_s, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, done.stderr[-2000:], wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6]))
"""
"""A small parent measures its one child, because a process adds up the counters of all its children."""


@dataclass(frozen=True)
class Run:
    """One run of a command: seconds by the clock and of the processor, and the largest resident memory."""

    wall_s: float
    processor_s: float
    peak_mb: float


def run(command: Sequence[str], folder: Path) -> Run:
    parent = [sys.executable, "-c", IN_CHILD, *command]
    done = subprocess.run(parent, cwd=folder, capture_output=True, text=True, check=True, env=clean_environment())
    status, errors, wall_s, processor_s, peak_mb = json.loads(done.stdout)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}: {errors}")
    return Run(wall_s, processor_s, peak_mb)


def clean_environment() -> dict[str, str]:
    """The environment without settings of Python that would lead to packages of this one."""
    return {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }


@dataclass(frozen=True)
class Installed:
    """An installation: its environment, the folder that it runs in, and the seconds and megabytes that it took."""

    place: Path
    folder: Path
    install_s: float
    megabytes: float

    def run(self, *words: str) -> Run:
        return run([str(self.place / "bin" / words[0]), *words[1:]], self.folder)


def install(folder: Path, wanted: Sequence[str], place: Path) -> Installed:
    began = time.perf_counter()
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(place)], check=True)
    environment = {**clean_environment(), "VIRTUAL_ENV": str(place)}
    subprocess.run(["uv", "pip", "install", "-q", *wanted], check=True, cwd=folder, env=environment)
    seconds = time.perf_counter() - began
    files = (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    return Installed(place, folder, seconds, sum(path.stat().st_size for path in files) / 1e6)


def clone(commit: str, folder: Path) -> float:
    """Clone the repository at a commit, and return the seconds that it took."""
    began = time.perf_counter()
    subprocess.run(["git", "clone", "-q", "--no-local", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=folder, check=True)
    return time.perf_counter() - began


def figures(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    return {
        "wall s": least_median_most([one.wall_s for one in runs]),
        "processor s": least_median_most([one.processor_s for one in runs]),
        "peak MB": least_median_most([one.peak_mb for one in runs]),
    }


def ours(before: str, num_runs: int, num_videos: int, place: Path) -> dict[str, Any]:
    """The figures of the three installations."""
    now = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    systems: dict[str, Installed] = {}
    results: dict[str, Any] = {}
    for name, wanted in SYSTEMS.items():
        folder, commit = place / name.replace(" ", "-"), before if name == "before" else now
        clone_s = clone(commit, folder)
        systems[name] = done = install(folder, [wanted], folder / ".venv")
        first = done.run("fewframes", "predict", CLIP)
        results[name] = {
            "commit": commit[:7],
            "clone s": round(clone_s, 2),
            "install s": round(done.install_s, 2),
            "installed MB": round(done.megabytes, 1),
            "clone to first answer s": round(clone_s + done.install_s + first.wall_s, 2),
        }
        print(name, results[name], file=sys.stderr)
    commands = {
        "fewframes --help": ("fewframes", "--help"),
        f"fewframes predict {CLIP}": ("fewframes", "predict", CLIP),
        f"fewframes predict FOLDER, {num_videos} videos": (
            "fewframes",
            "predict",
            str(copies(place, num_videos)),
            "--json",
        ),
    }
    for what, words in commands.items():
        runs = in_turn(systems, words, num_runs)
        for name, own in runs.items():
            results[name][what] = figures(own)
            if "FOLDER" in what:
                results[name]["videos a second"] = least_median_most([num_videos / one.wall_s for one in own])
    return results


def in_turn(systems: Mapping[str, Installed], words: Sequence[str], num_runs: int) -> dict[str, list[Run]]:
    """The runs of a command by each installation; a busy minute of the machine falls on all."""
    runs: dict[str, list[Run]] = {name: [] for name in systems}

    def one(name: str) -> None:
        runs[name].append(systems[name].run(*words))

    interleaved({name: partial(one, name) for name in systems}, num_runs, warm_up=False)
    return runs


def copies(place: Path, num_videos: int) -> Path:
    """A folder of so many copies of the clips of `examples/`."""
    folder, clips = place / "videos", sorted((ROOT / "examples").glob("*.mp4"))
    folder.mkdir()
    for number in range(num_videos):
        shutil.copy(clips[number % len(clips)], folder / f"{number:03d}.mp4")
    return folder


def peers(num_runs: int, place: Path) -> dict[str, Any]:
    """The size and seconds of each peer's installation, and the figures of its import."""
    results = {}
    for packages, line in PEERS.items():
        done = install(place, packages.split(), place / packages.split()[0])
        results[packages] = {
            "install s": round(done.install_s, 2),
            "installed MB": round(done.megabytes, 1),
            line: figures([done.run("python", "-c", line) for _ in range(num_runs)]),
        }
        print(packages, results[packages], file=sys.stderr)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="the commit to compare with")
    parser.add_argument("--runs", type=int, default=9, help="runs of each command")
    parser.add_argument("--videos", type=int, default=60, help="videos of the folder whose throughput is measured")
    parser.add_argument("--no-peers", action="store_true", help="measure fewframes alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        results = ours(options.before, options.runs, options.videos, place)
        write_result(
            runs=options.runs,
            systems=results,
            **({} if options.no_peers else {"peers": peers(options.runs, place)}),
        )


if __name__ == "__main__":
    main()
