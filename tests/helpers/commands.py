"""Run the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(
    *arguments: str | Path, code: str | None = None, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    command = ["-c", code] if code else ["-m", "fewframes.cli"]
    return subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        env={**os.environ, "COLUMNS": "200", **environment},
        check=False,
        timeout=400,
    )
