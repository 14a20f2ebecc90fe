"""Settings of a live source and of the answers about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StreamConfig:
    """How a stream is looked at, and what is said of it."""

    window_s: Positive = 3.2
    """Seconds that each answer is about: the model's number of frames lie in them, evenly."""
    every_s: Positive | None = None
    """Seconds between answers, taken to the nearest number of frames; None answers after each one."""
    smooth_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Time constant of the smoothed scores: of what an answer said, 1/e is left after as many seconds; 0 smooths nothing."""
    enter: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Smoothed score from which the likeliest action becomes the label."""
    leave: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Smoothed score below which the label is given up."""
    max_latency_s: Positive | None = None
    """Answers that would be older than this have their frames dropped, so that the newest get theirs in time."""
    drop: Literal["auto", "newest", "never"] = "auto"
    """When frames come faster than they are looked at: keep the `newest`, or `never` drop any and let the source wait; `auto`
    keeps the newest of cameras, networks and `live` files."""
    live: bool = False
    """Play a file at its own speed, as if a camera gave it."""
    stall_s: Positive = 5.0
    """Seconds without a picture after which a source counts as stalled."""
    reconnects: Annotated[int, Field(ge=0)] = 10
    """Tries in a row to open a camera or network stream again."""
    open_s: Positive | None = None
    """Seconds that opening the source may take, a pipe that says nothing for example; None waits for ever."""

    @model_validator(mode="after")
    def _fits_together(self) -> StreamConfig:
        if self.leave > self.enter:
            raise ValueError(f"leave {self.leave:g} is above enter {self.enter:g}: a label would be given up at once")
        if self.drop == "never" and self.max_latency_s is not None:
            raise ValueError(
                "drop never, and a greatest latency, which is kept to by dropping; leave one of the two out"
            )
        return self
