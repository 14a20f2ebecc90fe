"""Save and load the state from which an interrupted run continues. It is the same for any number of processes."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from fewframes.errors import ConfigError
from fewframes.training.steps.optim import Average

STATE_FORMAT = 1
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""The options for states that are the same for any number of processes."""


@dataclass(frozen=True, eq=False)
class LearnedState:
    """The objects that a run changes with each step: the trained part, its optimiser, gradient scaler and moving average."""

    learner: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: Average | None

    def save(self, path: Path, plain: dict[str, Any], *, write: bool) -> None:
        """Write the state to one file, all of it or nothing.

        Every process has to call it. Raises OSError.

        Args:
            path: The file.
            plain: Further plain values to store, which `load` returns.
            write: True in the process that writes the file.
        """
        weights, optimiser = get_state_dict(self.learner, self.optimiser, options=WHOLE)
        state = {
            "format": STATE_FORMAT,
            "weights": weights,
            "optimiser": optimiser,
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            **plain,
        }
        if not write:
            return
        part = path.with_name(path.name + ".part")
        try:
            with part.open("wb") as file:
                _write(state, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(path)

    def load(self, path: Path) -> dict[str, Any]:
        """Continue from a saved state, and return all values of the file. Raises ConfigError if it is no such state."""
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state["format"] != STATE_FORMAT:
                raise ConfigError(
                    f"{path}: written by another version (format {state['format']}); start anew: --overwrite"
                )
            set_state_dict(
                self.learner,
                self.optimiser,
                model_state_dict=state["weights"],
                optim_state_dict=state["optimiser"],
                options=StateDictOptions(full_state_dict=True),
            )
        except (OSError, RuntimeError, EOFError, LookupError, TypeError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"{path}: not the state of this run ({reason}); start anew: --overwrite") from None
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        return state


def _write(state: dict[str, Any], file: IO[bytes]) -> None:
    """Write the state with torch.save, and raise the OSError of a full disk.

    torch.save itself raises a RuntimeError about positions in the file instead.
    """
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
