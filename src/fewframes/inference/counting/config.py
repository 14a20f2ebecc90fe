"""The settings of counting repetitions."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Positive, StillLevel
from fewframes.inference.counting.candidates import SHORTEST_FRAMES, Candidates, candidates
from fewframes.inference.counting.counter import LEAST_FIT

SPEED_RATIO = 1.6
"""Largest ratio of the lengths of two neighbouring repetitions."""
MOST_FRAMES = 1024
"""The most frames of the longest repetition with its pause: the search compares each frame with twice as many before it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CountConfig:
    """The settings of counting repetitions: how many frames are looked at, and what can be a repetition."""

    rate: Positive = 8.0
    """The frames a second that are looked at. The shortest repetition that can be found has four."""
    shortest_s: Positive = 0.5
    """The seconds of the shortest repetition."""
    longest_s: Positive = 20.0
    """The seconds of the longest repetition."""
    pause_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 6.0
    """The seconds of the longest pause within a stretch of repetitions. After a longer one a new stretch begins."""
    least_fit: Annotated[float, Field(ge=0, lt=1)] = LEAST_FIT
    """The fit (0-1) of a repetition to the one before, above which it counts in favour of its stretch. Higher values ask for
    repetitions that look more alike."""
    least_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The score from which a stretch gets a label; below it is `unknown`."""
    still: StillLevel = 0.0
    """The largest change of brightness (0-255) in any part of the picture up to which a frame reuses the embedding of the last one
    that was embedded. 0 is exact: the same pixels only."""

    @model_validator(mode="after")
    def _fits_together(self) -> CountConfig:
        if self.shortest_s > self.longest_s:
            raise ValueError(f"shortest_s {self.shortest_s:g} is above longest_s {self.longest_s:g}; swap them")
        if self.longest_s * self.rate < SHORTEST_FRAMES:
            raise ValueError(
                f"longest_s {self.longest_s:g} has {self.longest_s * self.rate:.1f} frames at {self.rate:g} a second, and a "
                f"repetition needs {SHORTEST_FRAMES}; raise rate or longest_s"
            )
        if (self.longest_s + self.pause_s) * self.rate > MOST_FRAMES:
            raise ValueError(
                f"longest_s {self.longest_s:g} and pause_s {self.pause_s:g} at {self.rate:g} frames a second are more than "
                f"{MOST_FRAMES} frames; lower one of the three"
            )
        return self

    def plan(self, interval_s: float, most_frames: int | None = None) -> Candidates:
        """Return the candidates for frames `interval_s` apart, none longer than a video of `most_frames`."""
        most = most_frames or MOST_FRAMES
        shortest = math.ceil(self.shortest_s / interval_s - 0.01)
        longest, pause = round(self.longest_s / interval_s), round(self.pause_s / interval_s)
        return candidates(min(shortest, most), min(longest, most), min(pause, most), SPEED_RATIO)


DEFAULTS = CountConfig()
