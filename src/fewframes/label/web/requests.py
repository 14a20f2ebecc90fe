"""The bodies of requests that change labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Words = Annotated[str, Field(max_length=200)]
BODY = ConfigDict(extra="forbid")
"""The configuration of all bodies: no unknown fields. It is not `STRICT`, which refuses the dictionaries that JSON becomes."""


@settings(frozen=True, kw_only=True, config=BODY)
class LabelRequest:
    """A request of an annotator."""

    annotator: Words = ""
    """Name of the annotator; empty for the one that the server was started for."""


@settings(frozen=True, kw_only=True, config=BODY)
class NewSegment(LabelRequest):
    """A request to label a part of a video, or to refuse a suggestion."""

    video: str
    """Id of the video."""
    start_s: Seconds
    """Start of the part, in seconds."""
    end_s: Seconds
    """End of the part, in seconds."""
    label: Words = ""
    """Name of the action; empty if the part shows none of the actions."""


@settings(frozen=True, kw_only=True, config=BODY)
class SegmentChange(LabelRequest):
    """A request to change a segment. None keeps a value."""

    start_s: Seconds | None = None
    """New start, in seconds."""
    end_s: Seconds | None = None
    """New end, in seconds."""
    label: Words | None = None
    """New label."""


@settings(frozen=True, kw_only=True, config=BODY)
class TagRequest(LabelRequest):
    """A request to label many moments at once."""

    moments: list[str]
    """Ids of moments that the grid or the next moment gave."""
    label: Words = ""
    """Name of the action; empty if they show none of the actions."""


@settings(frozen=True, kw_only=True, config=BODY)
class RenameRequest(LabelRequest):
    """A request to give a label another name."""

    old: Words
    """The name so far."""
    new: Annotated[str, Field(min_length=1, max_length=200)]
    """The new name; the name of another label merges the two."""
