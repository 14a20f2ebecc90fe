"""Scripts that fork, run in a session of their own: one that hangs fails its test, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

FORKED = """
import gc, os, sys
import torch


def forked(name, work, code=0):
    child = os.fork()
    if child == 0:
        work()
        gc.collect()
        sys.exit(code)  # unlike os._exit, this frees every object and runs the destructors of libraries
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def refused(work):
    try:
        work()
    except Exception as error:
        print(type(error).__name__, "spawn" in str(error), flush=True)


torch.set_num_threads(2)  # with one thread torch has nothing to wait for
"""
"""The beginning of a script: `forked` runs work in a forked child and prints the child's exit code."""


def lines_of(script: str, *arguments: str, timeout_s: float) -> list[str]:
    """Run a script and return the lines that it printed. The test fails if the script fails, or does not end in time."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # children too
        output, errors = process.communicate()
        pytest.fail(f"hangs after {output.splitlines()}: {errors[-2000:]}")
    assert process.returncode == 0, errors[-2000:]
    return output.splitlines()
