"""The plan of an early exit, which travels inside a model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as settings

from fewframes.core.settings import STRICT, Positive, settings_from
from fewframes.errors import ConfigError
from fewframes.models.stam import STAM


@settings(frozen=True, kw_only=True, config=STRICT)
class ExitPlan:
    """When to stop looking at a video; plain values with `to_dict`, so that it can travel inside a checkpoint."""

    stages: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...]
    """Places, of the model's uniform frames, that have been looked at after each stage: ascending, each stage with all of the
    one before, the last with every place."""
    temperatures: tuple[Positive, ...]
    """What the logits of each stage are divided by before their confidence is taken."""
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Confidence (0-1) from which an answer is given before the last stage; above 1 none is."""

    @model_validator(mode="after")
    def _fits_together(self) -> ExitPlan:
        if not self.stages or len(self.temperatures) != len(self.stages):
            raise ValueError(
                f"{len(self.stages)} stages with {len(self.temperatures)} temperatures: needs one for each"
            )
        seen: set[int] = set()
        for places in self.stages:
            if list(places) != sorted(set(places)) or not seen < set(places):
                raise ValueError(f"stage {places}: needs ascending places, those of the stage before and more")
            seen = set(places)
        if len(seen) != self.num_frames:  # they are ascending and from 0 up: as many as that are all of them
            raise ValueError(f"the last stage has {len(seen)} of {self.num_frames} places: needs all, counted from 0")
        return self

    @property
    def num_frames(self) -> int:
        """Frames of the whole video, those of the last stage."""
        return self.stages[-1][-1] + 1 if self.stages and self.stages[-1] else 0

    def new_places(self, stage: int) -> tuple[int, ...]:
        """The places to look at for this stage that no stage before has looked at, ascending."""
        before = self.stages[stage - 1] if stage else ()
        return tuple(place for place in self.stages[stage] if place not in before)

    def check(self, model: STAM) -> None:
        """ConfigError where this model cannot stop early or is built for another number of frames."""
        check_can_exit(model)
        if model.config.num_frames != self.num_frames:
            raise ConfigError(
                f"this exit plan is for {self.num_frames} frames and the model is built for {model.config.num_frames}; "
                "fit a plan for this model"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "exit plan") -> ExitPlan:
        """The plan that `to_dict` wrote; ConfigError names `where` and what does not fit."""
        return settings_from(cls, values, where)


def check_can_exit(model: STAM) -> None:
    """ConfigError where looking at fewer frames saves nothing, or where there is no single answer to be sure of."""
    if model.config.layout != "factorised":
        raise ConfigError(
            f"layout {model.config.layout!r} mixes frames inside the encoder, so none can be left out until later; take all "
            "frames, or a model of the 'factorised' layout"
        )
    if model.config.task == "multilabel":
        raise ConfigError(
            "early exit stops at one sure answer, and a multi-label model has one for each label; take all frames"
        )
