"""Processes that train together: starting them, dealing videos out to them, and the threads of each.

Started with torchrun, several processes run the same program, each with its own rank. This module loads accelerate only when
one of them is started, so that an evaluation in a single process does not wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fewframes.errors import ConfigError, MissingDependency, nearest
from fewframes.models.devices import choose_device
from fewframes.models.stam import STAM
from fewframes.training.config import TrainConfig

if TYPE_CHECKING:  # see the docstring of this module
    from accelerate import Accelerator

LONGEST_WAIT = timedelta(hours=6)
"""The time after which a process that others wait for is taken for dead. It may embed or score longer than they, or write."""
ONE_THREAD_GFLOP = 10.0
"""The work of a step up to which a single thread does it. More threads gain nothing on an idle machine, and wait for each other
on a busy one."""


def start_processes(device: str, config: TrainConfig, folder: Path | None = None) -> Accelerator:
    """Join the processes that train together (torchrun starts several), and return this one's handle on its device.

    Args:
        device: `auto`, `cpu`, `cuda` or another name that torch has.
        config: Names the trackers that logged values go to.
        folder: Folder of the trackers' files.

    Raises:
        ConfigError: A tracker is unknown.
        MissingDependency: A tracker is not installed.
    """
    from accelerate import Accelerator  # late: see the docstring of this module
    from accelerate.state import AcceleratorState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import InitProcessGroupKwargs

    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is not None and "LOCAL_RANK" not in os.environ:
        torch.cuda.set_device(chosen)
    # accelerate keeps one state for the whole process. It is reset, because each run here stands by itself.
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
    """Run the block in one thread if its device is a CPU and its steps are too small to be worth sharing."""
    before = torch.get_num_threads()
    if device.type == "cpu" and step_gflop <= ONE_THREAD_GFLOP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_in_first(model: STAM, accelerator: Accelerator) -> STAM:
    """Copy the first process's weights into the model of every process, and return it. Every process has to call it."""
    if accelerator.num_processes > 1:
        for tensor in model.state_dict().values():
            sent = tensor.to(accelerator.device).contiguous()
            torch.distributed.broadcast(sent, src=0)
            tensor.copy_(sent)
    return model
