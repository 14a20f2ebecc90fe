"""The plan of an early exit, which is stored inside a model file.

It says in which order the frames of a video are encoded, and when the answer is sure enough to skip the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as settings

from fewframes.core.settings import STRICT, Positive, Task, settings_from
from fewframes.errors import ConfigError
from fewframes.models.config import ModelConfig


@settings(frozen=True, kw_only=True, config=STRICT)
class ExitPlan:
    """The stages in which a video is labelled, and the confidence that ends it early. `to_dict` gives plain values for a file."""

    stages: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...]
    """The positions, among the model's uniformly sampled frames, of all frames encoded by the end of each stage. They ascend. Each
    stage contains the one before, and the last one contains every position."""
    temperatures: tuple[Positive, ...]
    """The number that the logits of each stage are divided by before their confidence is computed."""
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The confidence (0-1) that is enough for an answer before the last stage. Above 1, no answer is given early."""

    @model_validator(mode="after")
    def _fits_together(self) -> ExitPlan:
        """Raise ValueError unless the stages grow to all frames and each has its temperature."""
        if not self.stages or len(self.temperatures) != len(self.stages):
            raise ValueError(
                f"{len(self.stages)} stages with {len(self.temperatures)} temperatures: needs one for each"
            )
        seen: set[int] = set()
        for positions in self.stages:
            if list(positions) != sorted(set(positions)) or not seen < set(positions):
                raise ValueError(
                    f"stage {positions}: needs ascending positions, all those of the stage before and at least one more"
                )
            seen = set(positions)
        # The positions are different and not below 0, so their number tells whether any is missing.
        if len(seen) != self.num_frames:
            raise ValueError(
                f"the last stage has {len(seen)} of {self.num_frames} positions: needs all of them, counted from 0"
            )
        return self

    @property
    def num_frames(self) -> int:
        """Return T, the number of frames of the last stage."""
        return self.stages[-1][-1] + 1 if self.stages and self.stages[-1] else 0

    def new_positions(self, stage: int) -> tuple[int, ...]:
        """Return the positions of the frames that are encoded for the first time in this stage, ascending."""
        before = self.stages[stage - 1] if stage else ()
        return tuple(position for position in self.stages[stage] if position not in before)

    def check(self, config: ModelConfig) -> None:
        """Raise ConfigError if a model of these settings cannot stop early, or is built for another number of frames."""
        check_can_exit(embeds_frames=config.layout == "factorised", task=config.task)
        self.check_frames(config.num_frames)

    def check_frames(self, num_frames: int) -> None:
        """Raise ConfigError if the plan is not for a model that is built for this number of frames."""
        if num_frames != self.num_frames:
            raise ConfigError(
                f"this exit plan is for {self.num_frames} frames and the model is built for {num_frames}; "
                "fit a plan for this model"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "exit plan") -> ExitPlan:
        """Return the plan that `to_dict` wrote. Raises ConfigError, which begins with `where`, if the values are not valid."""
        return settings_from(cls, values, where)


def check_can_exit(*, embeds_frames: bool, task: Task) -> None:
    """Raise ConfigError if encoding fewer frames saves nothing, or if the model has no single answer to be confident of.

    Args:
        embeds_frames: True if each frame has an embedding of its own.
        task: the kind of labels.
    """
    if not embeds_frames:
        raise ConfigError(
            "this model mixes frames inside its encoder, so no frame can be added later; take all frames, or a model of the "
            "'factorised' layout"
        )
    if task == "multilabel":
        raise ConfigError(
            "early exit needs a single answer, and a multi-label model gives one for each label; take all frames"
        )
