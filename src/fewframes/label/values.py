"""The values of a labelling session, each with `to_dict` for a page. Times are seconds from the start of the video."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

VideoStatus = Literal["waiting", "embedding", "ready", "failed"]
Reason = Literal["uncertain", "new", "contradicting", "first"]
DoubtKind = Literal["wrong", "unknown", "disagreement"]
Order = Literal["likeness", "uncertain", "time"]


class Value:
    """A value that a page can have as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: dataclasses as dictionaries, tuples as lists, numbers in full."""
        return asdict(self)  # type: ignore[call-overload]


@dataclass(frozen=True)
class VideoInfo(Value):
    """A video of the archive. `reason` says why one failed; it is empty for the others."""

    id: str
    name: str
    path: str
    duration_s: float
    num_segments: int
    status: VideoStatus
    reason: str = ""


@dataclass(frozen=True)
class LabelInfo(Value):
    """A label and the number of its segments."""

    name: str
    num_segments: int
    is_background: bool


@dataclass(frozen=True)
class Segment(Value):
    """A labelled span of a video."""

    id: str
    video: str
    start_s: float
    end_s: float
    label: str
    annotator: str


@dataclass(frozen=True)
class Suggestion(Value):
    """A span that the model found in a video, where nothing is labelled yet."""

    start_s: float
    end_s: float
    label: str
    score: float


@dataclass(frozen=True)
class VideoTimeline(Value):
    """The segments of a video and the findings of the model: `scores` has, for each label, one number for each of `times_s`.

    `doubtful` are the segments that the model contradicts when it has not learned from their group.
    """

    video: str
    duration_s: float
    segments: tuple[Segment, ...]
    suggestions: tuple[Suggestion, ...]
    times_s: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]
    doubtful: tuple[str, ...]


@dataclass(frozen=True)
class Accuracy(Value):
    """The accuracy (0-1) on left-out groups with its 95 % interval. `protocol` says in words what was left out."""

    value: float
    low: float
    high: float
    num_groups: int
    protocol: str


@dataclass(frozen=True)
class CurvePoint(Value):
    """The left-out accuracy (0-1) with a number of segments."""

    num_segments: int
    accuracy: float


@dataclass(frozen=True)
class SessionState(Value):
    """The state of a session. `revision` grows with every change; `forecast` says in words what more segments would bring.

    `accuracy` is None until it can be measured, and `why_no_accuracy` then says what is missing.
    """

    videos: tuple[VideoInfo, ...]
    labels: tuple[LabelInfo, ...]
    num_segments: int
    num_disagreements: int
    accuracy: Accuracy | None
    why_no_accuracy: str
    curve: tuple[CurvePoint, ...]
    forecast: str
    can_undo: bool
    can_redo: bool
    revision: int


@dataclass(frozen=True)
class Moment(Value):
    """A span to label. `guess` is the model's label with its `score` (0-1); `words` say why it is offered."""

    id: str
    video: str
    start_s: float
    end_s: float
    guess: str
    score: float
    reason: Reason
    words: str


@dataclass(frozen=True)
class Doubt(Value):
    """A segment that the model contradicts or that has two labels, or a window that shows nothing known (`segment` is empty)."""

    kind: DoubtKind
    segment: str
    video: str
    start_s: float
    end_s: float
    label: str
    model_label: str
    score: float


@dataclass(frozen=True)
class GridPage(Value):
    """Some of `total` tiles that can be tagged together."""

    tiles: tuple[Moment, ...]
    total: int


@dataclass(frozen=True)
class WrittenModel(Value):
    """A model that was written: its folder, its figures in words, and the seconds it took."""

    folder: str
    figures: str
    seconds: float
