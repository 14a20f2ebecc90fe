"""The settings of a live source and of the answers about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from fewframes.core.hours import hours_of, time_zone_of
from fewframes.core.settings import STRICT, Positive, StillLevel


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StreamConfig:
    """The settings for reading a stream and answering about it."""

    window_s: Positive = 3.2
    """The seconds that each answer is about. The model's frames are spread over them evenly."""
    memory: Literal["window", "state"] = "window"
    """`window`: an answer is about the last `window_s` seconds. `state`: it is about all frames since the source began or was
    interrupted, and costs one step for each frame (models of temporal 'recurrent' alone)."""
    every_s: Positive | None = None
    """The seconds between answers, rounded to a whole number of frames; None answers after each frame."""
    smooth_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """The time constant of the smoothed scores, in seconds: after that time 1/e of an answer is left. 0 smooths nothing."""
    enter: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The smoothed score from which the likeliest action becomes the label."""
    leave: Annotated[float, Field(ge=0, le=1)] = 0.3
    """The smoothed score below which the label is given up."""
    only: tuple[str, ...] | None = None
    """The labels that are told; others count as none of the actions. None is all labels of the model."""
    zones: tuple[str, ...] = ()
    """Parts of the picture, each judged by itself, as `NAME=x0,y0,x1,y1` in fractions of its width and height."""
    detector: str = ""
    """A detector of persons, `people` or `package.module:factory`: each person is followed and judged. Empty for none."""
    detections_per_s: Positive = 5.0
    """The most pictures a second that the detector looks at. In between, persons are taken to move on as they did."""
    most_persons: Annotated[int, Field(ge=1)] = 10
    """The most persons that are judged at a time. Those who come later are judged when one of them has gone."""
    hours: tuple[str, ...] = ()
    """The hours of the day in which the source is looked at, such as `22:00-06:00`; all of the day if there are none."""
    time_zone: str = ""
    """The time zone of these hours, such as `Europe/Berlin`; empty for that of the machine."""
    alarm_gap_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """The seconds between two answers above the threshold of alarms up to which both are one alarm."""
    still: StillLevel = 0.0
    """The largest change of brightness (0-255) in any part of the picture up to which a frame reuses the embedding of the last one
    that was embedded. 0 is exact: the same pixels only."""
    spans: Literal["auto", "learned", "off"] = "auto"
    """`learned`: the model's detector tells when an action begins and ends. `auto` does so if there is a detector."""
    count: bool = False
    """True to count the repetitions of whatever is repeated, in the same frames."""
    max_latency_s: Positive | None = None
    """The greatest age of an answer, in seconds. Frames whose answers would be older are dropped, so that newer ones come in time.
    None sets no limit."""
    drop: Literal["auto", "newest", "never"] = "auto"
    """The frames to drop if they come faster than the model takes them. `newest` keeps the newest; `never` drops none and lets the
    source wait; `auto` keeps the newest of cameras, networks and `live` files, and drops none of others."""
    live: bool = False
    """True to play a file at its own speed, as if it came from a camera."""
    stall_s: Positive = 5.0
    """The seconds without a picture after which a source counts as stalled."""
    reconnects: Annotated[int, Field(ge=0)] | None = 10
    """The number of tries in a row to open a camera or network stream again; None tries for ever."""
    open_s: Positive | None = None
    """The most seconds that opening the source may take (a silent pipe takes for ever); None sets no limit."""

    @model_validator(mode="after")
    def _fits_together(self) -> StreamConfig:
        for each in self.hours:
            hours_of(each)
        time_zone_of(self.time_zone)
        if self.leave > self.enter:
            raise ValueError(f"leave {self.leave:g} is above enter {self.enter:g}: a label would be given up at once")
        if self.detector and self.zones:
            raise ValueError(
                f"detector {self.detector!r} and {len(self.zones)} zones exclude each other: persons are judged wherever they are; "
                "leave one out, or name the source twice"
            )
        if self.drop == "never" and self.max_latency_s is not None:
            raise ValueError(
                "drop 'never' and max_latency_s exclude each other, because a limit on latency drops frames; leave one out"
            )
        return self
