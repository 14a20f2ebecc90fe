"""Measure what a newcomer waits for and stores: installation, the first answer, start-up, memory, and throughput.

Each system is installed into a fresh environment by `uv pip install` from a warm package cache. Then one clip of `examples/` is
labelled in processes of their own, interleaved with those of the other installations. Peers are only installed and imported,
because their weights cannot be fetched without a network.

    python benchmarks/light.py --before COMMIT --output benchmarks/results/light.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from machine import machine

ROOT = Path(__file__).resolve().parent.parent
CLIP = "examples/hug.mp4"
PEERS = {
    "ultralytics": "import ultralytics; ultralytics.YOLO",
    "transformers torch": "import transformers; transformers.VideoMAEForVideoClassification",
    "timm": "import timm; timm.create_model",
}
"""The packages of each peer, and the line of Python that is the first step of its use."""
MIB = 2**20


@dataclass(frozen=True)
class Installed:
    """An installation: its name, its environment, the folder that it runs in, and the seconds and bytes that it took."""

    name: str
    python: Path
    folder: Path
    install_s: float
    megabytes: float

    def command(self, *words: str) -> list[str]:
        """Return a command line of this environment."""
        return [str(self.python.parent / words[0]), *words[1:]]


@dataclass(frozen=True)
class Run:
    """One run of a command: seconds on the wall, seconds of processor time, and the largest resident memory."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def run(command: list[str], folder: Path) -> Run:
    """Run a command and measure it. Raises CalledProcessError, with its output shown, if it fails."""
    # A small parent process measures its one child, because the counters of all children of a process are added up.
    code = (
        "import json, resource, subprocess, sys, time; began = time.perf_counter(); "
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True); wall = time.perf_counter() - began; "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(json.dumps([done.returncode, done.stderr[-2000:], wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=folder, capture_output=True, text=True, check=True
    )
    status, errors, wall_s, cpu_s, peak_mib = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}: {errors}")
    return Run(wall_s, cpu_s, peak_mib)


def install(name: str, folder: Path, wanted: list[str], place: Path) -> Installed:
    """Make an environment and install packages into it."""
    began = time.perf_counter()
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(place)], check=True)
    environment = {**os.environ, "VIRTUAL_ENV": str(place)}
    subprocess.run(["uv", "pip", "install", "-q", *wanted], check=True, cwd=folder, env=environment)
    seconds = time.perf_counter() - began
    size = sum(path.lstat().st_size for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    return Installed(name, place / "bin/python", folder, seconds, size / 1e6)


def clone(commit: str, folder: Path) -> float:
    """Clone the repository at a commit and return the seconds that it took."""
    began = time.perf_counter()
    subprocess.run(["git", "clone", "-q", "--no-local", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=folder, check=True)
    return time.perf_counter() - began


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, the least and the largest of some values."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def main() -> None:
    """Install all systems, measure them and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="commit to compare with")
    parser.add_argument("--runs", type=int, default=9, help="runs of each command")
    parser.add_argument(
        "--videos", type=int, default=60, help="copies of the clips in the folder whose throughput is measured"
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file of the results")
    arguments = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        systems = []
        for system, at, wanted in (
            ("before", arguments.before, ["."]),
            ("light", commit, ["."]),
            ("with torch", commit, [".[train]"]),
        ):
            folder = place / system.replace(" ", "-")
            clone_s = clone(at, folder)
            done = install(system, folder, wanted, folder / ".venv")
            first = run(done.command("fewframes", "predict", CLIP), folder)
            systems.append(done)
            results[system] = {
                "commit": at,
                "clone_s": round(clone_s, 2),
                "install_s": round(done.install_s, 2),
                "megabytes": round(done.megabytes, 1),
                "clone_to_first_answer_s": round(clone_s + done.install_s + first.wall_s, 2),
            }
        videos = place / "videos"
        videos.mkdir()
        clips = sorted((ROOT / "examples").glob("*.mp4"))
        for number in range(arguments.videos):
            shutil.copy(clips[number % len(clips)], videos / f"{number:03d}.mp4")
        commands = {
            "help": ("fewframes", "--help"),
            "predict": ("fewframes", "predict", CLIP),
            "folder": ("fewframes", "predict", str(videos), "--json"),
        }
        measured: dict[tuple[str, str], list[Run]] = {}
        for _ in range(arguments.runs):  # interleaved, so that a busy minute of the machine falls on all
            for system in systems:
                for verb, words in commands.items():
                    measured.setdefault((system.name, verb), []).append(run(system.command(*words), system.folder))
        for (system_name, verb), runs in measured.items():
            results[system_name][verb] = {
                "wall_s": spread([one.wall_s for one in runs]),
                "cpu_s": spread([one.cpu_s for one in runs]),
                "peak_mib": spread([one.peak_mib for one in runs]),
            }
        for peer, line in PEERS.items():
            done = install(peer, place, peer.split(), place / peer.split()[0])
            runs = [run(done.command("python", "-c", line), place) for _ in range(arguments.runs)]
            results[peer] = {
                "install_s": round(done.install_s, 2),
                "megabytes": round(done.megabytes, 1),
                "import_wall_s": spread([one.wall_s for one in runs]),
                "import_peak_mib": spread([one.peak_mib for one in runs]),
            }
    report = {
        "command": " ".join(sys.argv),
        "commit": commit,
        **machine(),
        "videos": arguments.videos,
        "systems": results,
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
