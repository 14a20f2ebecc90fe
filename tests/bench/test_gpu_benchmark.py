"""The benchmark for GPUs runs on a CPU in a tiny size, so that a GPU that is lent for minutes is not spent on finding typos."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "benchmarks.speed.gpu", "--device", "cpu", *options]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def failures_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "failed":
                yield inner
            yield from failures_in(inner)


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not here")
def test_a_tiny_run_measures_every_cell(tmp_path: Path) -> None:
    done = benchmark("--tiny", "--output", str(tmp_path / "gpu.json"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert list(failures_in(result)) == []
    assert result["tiny"]
    assert result["precision"]["auto"] in ("float32", "bfloat16")
    assert set(result["precision"]["matrix TFLOP/s"]) == {"float32", "tf32", "bfloat16", "float16"}
    assert set(result["networks"]) == {"lite0", "vit"}
    assert result["networks"]["vit"]["float32"]["least cosine with the CPU"] > 0.9999
    resume = result["training"].pop("resume")
    assert resume["largest difference of weights"] == 0
    assert all(step["videos/s"] > 0 for step in result["training"].values())
    assert set(result["training"]) == {"without checkpointing", "with checkpointing"}
    assert result["serving"]["answers"] == {"200": 20}
    assert all(view["videos/s"] > 0 for view in result["views"].values())
    pyav = result["folders"]["pyav"]
    assert (pyav["videos"], pyav["answered"]) == (4, 4)
    assert set(result["folders"]["memory"]) == {"after 1 videos", "after 8 videos"}
    assert "share of the measured rate" in done.stderr  # the table


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not here")
def test_a_run_that_hangs_ends_and_keeps_what_it_has(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    done = benchmark("--tiny", "--parts", "views", "--stop-s", "0.3", "--output", str(output))
    assert done.returncode == 1
    result = json.loads(output.read_text())
    assert result["views"] == {"failed": "it still ran after 0.3 s"}


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not here")
def test_figures_of_a_cpu_are_not_taken_for_those_of_a_gpu() -> None:
    done = benchmark()
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no GPU here; --tiny shows that the command works" in done.stderr
