"""Result files: each names the commit it was measured on, and that commit can be looked at."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted([*(ROOT / "benchmarks").rglob("*.json"), *(ROOT / "runs").glob("*.json")])


def commits_in(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "commit":
                yield inner
            else:
                yield from commits_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from commits_in(inner)


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_names_the_commit_that_it_was_measured_on(path: Path) -> None:
    assert list(commits_in(json.loads(path.read_text(encoding="utf-8"))))


@pytest.mark.skipif(
    not (ROOT / ".git").exists()
    or shutil.which("git") is None
    or git("rev-parse", "--is-shallow-repository").stdout != "false\n",
    reason="the history is not here",
)
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_commit_of_a_result_is_in_the_history(path: Path) -> None:
    for commit in commits_in(json.loads(path.read_text(encoding="utf-8"))):
        assert git("merge-base", "--is-ancestor", commit, "HEAD").returncode == 0, commit
