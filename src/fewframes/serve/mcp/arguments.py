"""The arguments of the tools that agents call. Agents read the words below each field."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from fewframes.serve.config import Seconds

MOST_LISTED = 1000
"""The most videos in one list."""
MOST_CLIPS = 200
"""The most clips that one call of `teach` takes."""
ARGUMENTS = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
"""The settings of all arguments: no unknown names, no conversion of types, and the words of each field in the schema."""


@settings(frozen=True, kw_only=True, config=ARGUMENTS)
class AboutArguments:
    """The arguments of `about`: none."""


@settings(frozen=True, kw_only=True, config=ARGUMENTS)
class ListArguments:
    """The arguments of `videos`."""

    folder: str = ""
    """Folder below a root, or a root. Empty for all roots."""
    most: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 200
    """The most videos to list."""


@settings(frozen=True, kw_only=True, config=ARGUMENTS)
class VideoArguments:
    """The arguments of tools that look at one video, or at the part of it between two times."""

    # Words below a field are lost where a class inherits it, so they stand beside these.
    path: Annotated[
        str,
        Field(
            description="Path of the video: absolute, or relative to a root. `about` lists the roots; nothing outside of them "
            "can be read."
        ),
    ]
    start_s: Annotated[Seconds, Field(description="Start of the part to look at, in seconds.")] = 0.0
    end_s: Annotated[
        Seconds | None, Field(description="End of the part, in seconds. Left out: the end of the video.")
    ] = None
    model: Annotated[
        str | None,
        Field(
            description="Name of the model that answers, one that `about` lists. Left out: the models that the server was "
            "started with."
        ),
    ] = None


@settings(frozen=True, kw_only=True, config=ARGUMENTS)
class PredictArguments(VideoArguments):
    """The arguments of `predict`."""

    topk: Annotated[int, Field(ge=1, le=100)] = 5
    """Number of actions to name, likeliest first."""


@settings(frozen=True, kw_only=True, config=ARGUMENTS)
class TimelineArguments(VideoArguments):
    """The arguments of `timeline`."""

    window_s: Annotated[float, Field(ge=0.5, allow_inf_nan=False)] | None = None
    """Seconds that an action lasts, about. Left out: what suits the model."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Confidence that a span needs, from 0 to 1. Lower ones find more, and more that is wrong. Left out: the model's own."""


@settings(frozen=True, kw_only=True, config=ARGUMENTS)
class CountArguments(VideoArguments):
    """The arguments of `count`."""


@settings(frozen=True, kw_only=True, config=ARGUMENTS)
class SearchArguments:
    """The arguments of `search`. At least one of `text`, `label`, `like` and `path` is given."""

    text: str | None = None
    """Find moments that show what these words say, such as `two people shake hands`. Only if `about` says takes_text."""
    not_text: str = ""
    """Leave out moments that are more like these words than like `text`."""
    label: str | None = None
    """Find moments of this label: one of the model of the index, or one that was taught in the index. With others it keeps only
    moments of the label."""
    like: str | None = None
    """Find moments like this one: the id of an earlier result."""
    path: str | None = None
    """Find moments like this video: its path, absolute or relative to a root."""
    start_s: Seconds = 0.0
    """Start of the part of `path` to compare with, in seconds."""
    end_s: Seconds | None = None
    """End of that part, in seconds."""
    videos: str = ""
    """Search only videos whose path matches this pattern, such as `*/kitchen/*`."""
    num: Annotated[int, Field(ge=1, le=200)] = 20
    """Number of moments to find."""
    distinct: bool = False
    """Return at most one moment of each video."""


@settings(frozen=True, kw_only=True, config=ARGUMENTS)
class ClipArguments:
    """A video, or a part of one, that is an example."""

    path: str
    """Path of the video: absolute, or relative to a root."""
    start_s: Seconds = 0.0
    """Start of the part that is the example, in seconds."""
    end_s: Seconds | None = None
    """End of that part, in seconds. Left out: the end of the video."""


@settings(frozen=True, kw_only=True, config=ARGUMENTS)
class TeachArguments:
    """The arguments of `teach`. All changes are made, or none."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    """Name of the model to teach: letters, digits, - and _. A name that does not exist is made: a new model."""
    yes: dict[str, list[ClipArguments]] = Field(default_factory=dict)
    """Clips that show each label, by label. A model needs two labels, with clips of several videos each."""
    no: dict[str, list[ClipArguments]] = Field(default_factory=dict)
    """Clips that do not show a label, by label."""
    forget: list[ClipArguments] = Field(default_factory=list)
    """Clips that are to be examples no longer."""
    remove: list[str] = Field(default_factory=list)
    """Labels to remove, with all their examples."""
    rename: dict[str, str] = Field(default_factory=dict)
    """New names of labels, by their old ones."""
