"""Values that a labelling session gives to its page. Times are in seconds from the start of a video, scores in 0-1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["waiting", "embedding", "ready", "failed"]
MomentReason = Literal["first", "uncertain", "new", "contradicting"]
DoubtKind = Literal["wrong", "unknown", "disagreement"]
GridOrder = Literal["likeness", "uncertain", "time"]

BACKGROUND = "background"
"""The label of parts that show none of the actions."""


class Value:
    """A value that can be written as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, times to a thousandth of a second."""
        return {name: plain(value) for name, value in asdict(self).items()}  # type: ignore[call-overload]


def plain(value: Any) -> Any:
    """Return a value with numbers rounded to four digits, which is as much as a page shows."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class VideoInfo(Value):
    """A video of the session."""

    id: str
    """A key of the content of the file, so that a moved or renamed video keeps its labels."""
    name: str
    path: str
    duration_s: float
    num_segments: int
    status: Status
    reason: str = ""
    """The reason why it cannot be used; empty if it can."""


@dataclass(frozen=True)
class LabelInfo(Value):
    """A label, and the number of segments that have it."""

    name: str
    num_segments: int
    is_background: bool


@dataclass(frozen=True)
class Segment(Value):
    """A part of a video with a label."""

    id: str
    video: str
    start_s: float
    end_s: float
    label: str
    annotator: str


@dataclass(frozen=True)
class Suggestion(Value):
    """A span that the model proposes to label."""

    start_s: float
    end_s: float
    label: str
    score: float


@dataclass(frozen=True)
class VideoTimeline(Value):
    """The labels of a video, and the model's scores over time."""

    video: str
    duration_s: float
    segments: tuple[Segment, ...]
    suggestions: tuple[Suggestion, ...]
    times_s: tuple[float, ...]
    scores: Mapping[str, tuple[float, ...]]
    doubtful: tuple[str, ...]
    """The ids of segments that the model contradicts."""


@dataclass(frozen=True)
class Accuracy(Value):
    """The fraction of segments whose label the model finds without having learned from their group, with its interval of 95 %."""

    value: float
    low: float
    high: float
    num_groups: int
    protocol: str


@dataclass(frozen=True)
class CurvePoint(Value):
    """The accuracy with so many segments."""

    num_segments: int
    accuracy: float


@dataclass(frozen=True)
class SessionState(Value):
    """The state of a session."""

    videos: tuple[VideoInfo, ...]
    labels: tuple[LabelInfo, ...]
    """The labels in the order of their first use, the background last."""
    num_segments: int
    num_disagreements: int
    accuracy: Accuracy | None
    why_no_accuracy: str
    curve: tuple[CurvePoint, ...]
    forecast: str
    """The forecast of what more labels would bring, in words; empty if there is none."""
    can_undo: bool
    can_redo: bool
    revision: int
    """A number that grows with each change of anything in the session."""


@dataclass(frozen=True)
class Moment(Value):
    """A part of a video that is worth looking at."""

    id: str
    video: str
    start_s: float
    end_s: float
    guess: str
    """The likeliest label; empty if nothing was learned yet."""
    score: float
    reason: MomentReason
    words: str
    """The reason in words."""


@dataclass(frozen=True)
class Doubt(Value):
    """A label to look at again, or a part of a video that looks like nothing that was labelled."""

    kind: DoubtKind
    segment: str
    """The id of the segment; empty for a part without a label."""
    video: str
    start_s: float
    end_s: float
    label: str
    model_label: str
    score: float


@dataclass(frozen=True)
class GridPage(Value):
    """A page of the grid of moments that have no label yet."""

    tiles: tuple[Moment, ...]
    total: int


@dataclass(frozen=True)
class WrittenModel(Value):
    """A model that was written, its figures in words, and the seconds that it took."""

    folder: str
    figures: str
    seconds: float
