"""Work for tests of `in_own_process`: a process of its own can import helpers, but not a test file."""

from __future__ import annotations

import os

import torch

from fewframes.bench.stopwatch import Memory
from fewframes.errors import WeightsError


def peak_of_ones() -> int | None:
    memory = Memory(torch.device("cpu"))
    with memory:
        torch.ones(50, 2**18)
    return memory.peak_bytes


def fails(name: str) -> None:
    if name == "raise":
        raise ZeroDivisionError("by nothing")
    if name == "own":
        raise WeightsError("out of something")
    os._exit(9)
