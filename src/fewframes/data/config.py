"""Settings of the reading of labelled videos. This module imports neither numpy nor a decoder, so that `--help` is fast."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Count, Positive, Share


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """The `data` table of a run: how labels are read, which videos are held out, and if the others are mirrored."""

    task: Literal["auto", "single", "multilabel"] = "auto"
    """Number of actions in a video: exactly one (`single`) or any number (`multilabel`, with labels in one cell separated by
    semicolons). `auto` follows the layout of the data."""

    holdout: Share = 0.2
    """Fraction of each action's videos that is held out to measure on, if the data name no split; 0 trains on all."""
    group: str = "group"
    """The list's column of groups. Videos of one group (a recording, a person) are not divided between training and test."""
    scenes: Literal["auto", "off"] = "auto"
    """If the data name no groups, clips of one scene are found by a frame of each, and are a group; `off`: each video is its own."""
    videos: str = ""
    """Folder of the videos, if their paths are not relative to the list."""
    official_split: Count = 1
    """Number of the official split, if the data have several (UCF101, HMDB51)."""
    mirror: bool = True
    """Train on each video mirrored left to right as well; not for actions that differ in left and right."""
    background: tuple[str, ...] = ()
    """Footage in which nothing of interest happens: videos and folders of them. It is no action. Thresholds of alarms come from it."""
    alarms_per_day: Positive | None = None
    """The most false alarms a day that streams of the model may raise in the mean, as far as they see what `background` shows."""
