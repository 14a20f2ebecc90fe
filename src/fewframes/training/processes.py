"""Processes that train together, and the threads of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import InitProcessGroupKwargs

from fewframes.core.devices import choose_device
from fewframes.errors import ConfigError, MissingDependency, nearest
from fewframes.models.stam import STAM
from fewframes.training.config import TrainConfig

LONGEST_WAIT = timedelta(hours=6)
"""How long processes wait for one that embeds or judges longer than they, or writes, before they take it for dead."""
ONE_THREAD_GFLOP = 10.0
"""Work of a step up to which one thread does it: more gain nothing on an idle machine, and wait for each other on a busy one."""


def start_processes(device: str, config: TrainConfig, folder: Path | None = None) -> Accelerator:
    """Return this process among those that train together (torchrun starts several), on its device. What is logged goes to the
    run's trackers, their files to `folder`. Raises MissingDependency for one that is not installed."""
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is not None and "LOCAL_RANK" not in os.environ:
        torch.cuda.set_device(chosen)
    # accelerate keeps one state for the whole process; each run here is one by itself
    AcceleratorState._reset_state(reset_partial_state=True)
    available = [str(name) for name in get_available_trackers()]
    for name in config.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(f"tracker {name!r}: {nearest(name, LOGGER_TYPE_TO_CLASS)}")
        if name not in available:
            raise MissingDependency(f"tracker {name!r} is not installed; pip install {name}")
    return Accelerator(
        cpu=chosen.type == "cpu",
        log_with=list(config.trackers) or None,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )


@contextmanager
def few_threads(device: torch.device, step_gflop: float) -> Iterator[None]:
    """Let one thread do steps on a CPU that are too small to be shared."""
    before = torch.get_num_threads()
    if device.type == "cpu" and step_gflop <= ONE_THREAD_GFLOP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_in_first(model: STAM, accelerator: Accelerator) -> STAM:
    """Return the model with the weights that it has in the first process; every process has to call it."""
    if accelerator.num_processes > 1:
        for tensor in model.state_dict().values():
            sent = tensor.to(accelerator.device).contiguous()
            torch.distributed.broadcast(sent, src=0)
            tensor.copy_(sent)
    return model
