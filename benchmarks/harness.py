"""What result files share: when, on what, with which versions; and how spreads are written."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, object]:
    """The machine and the versions, as plain values."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line for line in _cpuinfo().splitlines() if line.startswith("flags")), "")
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks", "runs", ":!*.json", ":!*.png"
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD"),
        **({"not committed": [line.strip() for line in changed.splitlines()]} if changed else {}),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "bfloat16 instructions": sorted({"avx512_bf16", "amx_bf16"} & set(flags.split())),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "av", "timm", "fewframes")},
    }


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {
        "min": round(min(values), 4),
        "median": round(statistics.median(values), 4),
        "max": round(max(values), 4),
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""
