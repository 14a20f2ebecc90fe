"""Compare two timelines of a video, such as those of an old and a new model: which spans are new, gone, relabelled or moved.

It works on seconds, labels and confidences alone, with no video and no network.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from fewframes.core.settings import STRICT
from fewframes.core.text import count_of
from fewframes.errors import ConfigError
from fewframes.inference.detection.spans import MOST_OVERLAP, Span, clock, overlap
from fewframes.results import Failure

if TYPE_CHECKING:
    from fewframes.inference.timeline import Timeline

Kind = Literal["new", "gone", "relabelled", "moved", "surer", "less sure", "unchanged", "unseen"]
"""The fate of a span. `unseen` is one that lies where the other timeline did not look, or could not."""
KINDS: tuple[Kind, ...] = get_args(Kind)
CHANGED: tuple[Kind, ...] = ("new", "gone", "relabelled", "moved")
"""The kinds in which the answer for some seconds of the video is another one."""
MIRRORED: Mapping[Kind, Kind] = {"new": "gone", "gone": "new", "surer": "less sure", "less sure": "surer"}
"""The kinds that become another one where old and new are swapped."""
Status = Literal["compared", "only before", "only after", "failed before", "failed after", "failed twice"]
"""The timelines of a video that exist. If both do, its spans are compared."""
Pairs = Sequence[tuple[int, int]]


@settings(frozen=True, kw_only=True, config=STRICT)
class ChangesConfig:
    """Settings of a comparison: the smallest differences that count as a change."""

    shift_s: Annotated[float, Field(ge=0)] = 0.5
    """Seconds by which a start or an end must differ to count as moved: more than this. Windows of 4 s begin every 0.5 s."""
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Difference of confidence (0-1) from which a span counts as surer or less sure: more than this."""


DEFAULTS = ChangesConfig()


@dataclass(frozen=True, kw_only=True)
class VideoSpans:
    """The spans of one video as one model found them, or the `error` for which there are none."""

    source: str
    model: str = ""
    """The name of the model, as far as it is known."""
    weights: str = ""
    """The key of the model's weights, as far as it is known."""
    range_s: tuple[float, float] = (0.0, 0.0)
    """The part of the video that was looked at, in seconds."""
    spans: tuple[Span, ...] = ()
    gaps: tuple[tuple[float, float], ...] = ()
    """The parts of it that could not be decoded, in seconds."""
    error: str = ""

    @classmethod
    def of(cls, found: Timeline | Failure | VideoSpans | Mapping[str, Any]) -> VideoSpans:
        """Return the spans of a timeline, or of what its `to_dict` or a row of `--engine` holds.

        Raises KeyError, TypeError or ValueError for a mapping that is neither.
        """
        if isinstance(found, VideoSpans):
            return found
        if isinstance(found, Failure):
            return cls(source=found.source, error=found.error)
        if not isinstance(found, Mapping):
            gaps = tuple((gap.start_s, gap.end_s) for gap in found.gaps)
            range_s = (found.start_s, found.end_s)
            return cls(
                source=found.source,
                model=found.model,
                weights=found.weights,
                range_s=range_s,
                spans=found.spans,
                gaps=gaps,
            )
        source, model, weights, error = (str(found.get(name) or "") for name in ("source", "model", "weights", "error"))
        if not source:
            raise ValueError("no source")
        if error:
            return cls(source=source, model=model, weights=weights, error=error)
        return cls(
            source=source,
            model=model,
            weights=weights,
            range_s=(float(found["start_s"]), float(found["end_s"])),
            spans=tuple(
                Span(float(span["start_s"]), float(span["end_s"]), str(span["label"]), float(span["confidence"]))
                for span in found["spans"]
            ),
            gaps=tuple((float(gap["start_s"]), float(gap["end_s"])) for gap in found["gaps"]),
        )

    def about(self) -> dict[str, object]:
        """Return which model found the spans, and in which part of the video, as plain values."""
        start_s, end_s = (round(time_s, 3) for time_s in self.range_s)
        return {"model": self.model, "weights": self.weights, "start_s": start_s, "end_s": end_s, "error": self.error}

    def saw(self, time_s: float) -> bool:
        """Return True if this time was looked at and could be decoded."""
        is_inside = self.range_s[0] <= time_s <= self.range_s[1]
        return is_inside and not any(start_s <= time_s < end_s for start_s, end_s in self.gaps)


@dataclass(frozen=True)
class Change:
    """The fate of one span: `before` and `after` are the same action, or one of them is None."""

    kind: Kind
    before: Span | None
    after: Span | None

    @property
    def start_s(self) -> float:
        """Return the second at which the earlier of the two begins."""
        return min(span.start_s for span in (self.before, self.after) if span is not None)

    @property
    def end_s(self) -> float:
        """Return the second at which the later of the two ends."""
        return max(span.end_s for span in (self.before, self.after) if span is not None)

    @property
    def changed_s(self) -> float:
        """Return the seconds for which the answer is another one; 0 if only the confidence differs, or nothing."""
        if self.kind not in CHANGED:
            return 0.0
        if self.before is None or self.after is None or self.kind == "relabelled":
            return self.end_s - self.start_s
        return abs(self.before.start_s - self.after.start_s) + abs(self.before.end_s - self.after.end_s)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the label before and the label after, one where they are equal or there is one span."""
        return tuple(dict.fromkeys(span.label for span in (self.before, self.after) if span is not None))

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        before, after = (None if span is None else span.to_dict() for span in (self.before, self.after))
        return {"kind": self.kind, "before": before, "after": after}


@dataclass(frozen=True)
class VideoChanges:
    """The changes in one video, in the order of time. There are none unless its `status` is `compared`."""

    source: str
    status: Status
    before: VideoSpans | None
    after: VideoSpans | None
    changes: tuple[Change, ...] = ()

    @property
    def changed_s(self) -> float:
        """Return the seconds for which an answer is another one; where several spans overlap, each counts."""
        return sum(change.changed_s for change in self.changes)

    @property
    def error(self) -> str:
        """Return the reasons for which one or both of the timelines are missing, if they failed."""
        return "; ".join(side.error for side in (self.before, self.after) if side is not None and side.error)

    def counts(self) -> dict[Kind, int]:
        """Return how many spans are of each kind. A pair of spans, before and after, is one."""
        return counted(self.changes)

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as `fewframes changes --json` writes them."""
        return {
            "source": self.source,
            "status": self.status,
            "before": None if self.before is None else self.before.about(),
            "after": None if self.after is None else self.after.about(),
            "changed_s": round(self.changed_s, 3),
            "counts": self.counts(),
            "changes": [change.to_dict() for change in self.changes],
        }

    def to_rows(self) -> list[dict[str, object]]:
        """Return one flat row for each change, and one for a video that could not be compared, for a data frame or CSV."""
        if self.status != "compared":
            return [{"source": self.source, "kind": self.status, **_cells(None, None), "error": self.error}]
        return [
            {"source": self.source, "kind": change.kind, **_cells(change.before, change.after), "error": ""}
            for change in self.changes
        ]


def _cells(before: Span | None, after: Span | None) -> dict[str, object]:
    return {
        f"{side}_{name}": "" if span is None else span.to_dict()[name]
        for side, span in (("before", before), ("after", after))
        for name in ("start_s", "end_s", "label", "confidence")
    }


CSV_COLUMNS = ("source", "kind", *_cells(None, None), "error")


@dataclass(frozen=True)
class LabelChanges:
    """The changes of one label: its spans and their seconds before and after, and the spans of each kind that have it."""

    label: str
    num_before: int
    num_after: int
    before_s: float
    after_s: float
    counts: Mapping[Kind, int]

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "label": self.label,
            "before": {"spans": self.num_before, "seconds": round(self.before_s, 3)},
            "after": {"spans": self.num_after, "seconds": round(self.after_s, 3)},
            "counts": self.counts,
        }


@dataclass(frozen=True)
class ArchiveChanges:
    """The changes in many videos, the most changed one first, and videos that could not be compared last."""

    videos: tuple[VideoChanges, ...]

    def counts(self) -> dict[Kind, int]:
        """Return how many spans are of each kind."""
        return counted(change for video in self.videos for change in video.changes)

    def statuses(self) -> dict[Status, int]:
        """Return how many videos have each status, without those that none has."""
        found = Counter(video.status for video in self.videos)
        return {status: found[status] for status in get_args(Status) if found[status]}

    def labels(self) -> tuple[LabelChanges, ...]:
        """Return the changes of each label, the label of the most changed spans first."""
        changes = [change for video in self.videos for change in video.changes]
        names = dict.fromkeys(label for change in changes for label in change.labels)
        found = [_label_changes(name, [change for change in changes if name in change.labels]) for name in names]
        return tuple(sorted(found, key=lambda label: (-sum(label.counts[kind] for kind in CHANGED), label.label)))

    def summary(self) -> str:
        """Return one line that counts videos, spans and seconds."""
        counts, statuses = self.counts(), self.statuses()
        compared = [video for video in self.videos if video.status == "compared"]
        seen_s = sum(side.range_s[1] - side.range_s[0] for video in compared if (side := video.after) is not None)
        changed = ", ".join(f"{counts[kind]} {kind}" for kind in CHANGED)
        others = "".join(f", {number} {status}" for status, number in statuses.items() if status != "compared")
        unseen = f", {counts['unseen']} unseen" if counts["unseen"] else ""
        return (
            f"{count_of(len(compared), 'video')} compared{others}: "
            f"{sum(counts[kind] for kind in CHANGED)} of {count_of(sum(counts.values()), 'span')} changed ({changed}); "
            f"{counts['surer']} surer, {counts['less sure']} less sure, {counts['unchanged']} unchanged{unseen}; "
            f"another answer for {clock(sum(video.changed_s for video in compared))} of {clock(seen_s)}"
        )


def counted(changes: Iterable[Change]) -> dict[Kind, int]:
    """Return how many of these changes are of each kind."""
    found = Counter(change.kind for change in changes)
    return {kind: found[kind] for kind in KINDS}


def _label_changes(label: str, changes: Sequence[Change]) -> LabelChanges:
    before, after = (
        [span for change in changes for span in (getattr(change, side),) if span is not None and span.label == label]
        for side in ("before", "after")
    )
    before_s, after_s = (sum(span.length_s for span in spans) for spans in (before, after))
    return LabelChanges(label, len(before), len(after), before_s, after_s, counted(changes))


def compare_timelines(
    before: Timeline | VideoSpans | Mapping[str, Any],
    after: Timeline | VideoSpans | Mapping[str, Any],
    config: ChangesConfig = DEFAULTS,
) -> VideoChanges:
    """Compare the spans of two timelines of one video. Each span is in exactly one change.

    Spans are the same action if they overlap by more than `MOST_OVERLAP` (tIoU); of several, those that overlap most. Spans of one
    label are matched first, and what is left then counts as relabelled. Raises ConfigError for timelines of two videos.

    Args:
        before: The earlier timeline, or what its `to_dict` returned.
        after: The later one.
        config: The smallest differences that count.
    """
    old, new = VideoSpans.of(before), VideoSpans.of(after)
    if old.source != new.source:
        raise ConfigError(f"{old.source} and {new.source}: two videos; compare two timelines of one video")
    return _compared(old.source, old, new, matched, config)


def compare_archives(
    before: Mapping[str, VideoSpans],
    after: Mapping[str, VideoSpans],
    config: ChangesConfig = DEFAULTS,
    *,
    match: Callable[[Sequence[Span], Sequence[Span]], Pairs] | None = None,
) -> ArchiveChanges:
    """Return the changes in each video of two archives. Videos that are in one of them, or failed, are told apart.

    Args:
        before: The earlier timelines by video.
        after: The later ones.
        config: The smallest differences that count.
        match: A function that pairs the indices of spans before and after; `matched` if it is left out.
    """
    videos = [
        _compared(source, before.get(source), after.get(source), match or matched, config)
        for source in {**before, **after}
    ]
    return ArchiveChanges(tuple(sorted(videos, key=lambda video: (video.status != "compared", -video.changed_s))))


def _compared(
    source: str,
    before: VideoSpans | None,
    after: VideoSpans | None,
    match: Callable[[Sequence[Span], Sequence[Span]], Pairs],
    config: ChangesConfig,
) -> VideoChanges:
    """Compare one video, if both timelines of it are there."""
    if before is None or after is None:
        return VideoChanges(source, "only after" if before is None else "only before", before, after)
    if before.error or after.error:
        failed: Status = "failed after" if not before.error else "failed before" if not after.error else "failed twice"
        return VideoChanges(source, failed, before, after)
    pairs = match(before.spans, after.spans)
    changes = [_change(before.spans[old], after.spans[new], config) for old, new in pairs]
    for kind, own, other, taken in (
        ("gone", before, after, {old for old, _ in pairs}),
        ("new", after, before, {new for _, new in pairs}),
    ):
        for index, span in enumerate(own.spans):
            if index not in taken:
                is_seen = other.saw((span.start_s + span.end_s) / 2)
                alone = Change("gone" if kind == "gone" else "new", *((span, None) if kind == "gone" else (None, span)))
                changes.append(alone if is_seen else replace(alone, kind="unseen"))
    ordered = sorted(changes, key=lambda change: (change.start_s, change.end_s, change.labels))
    return VideoChanges(source, "compared", before, after, tuple(ordered))


def _change(before: Span, after: Span, config: ChangesConfig) -> Change:
    """Return the kind of a pair: its label counts before its place, and its place before its confidence."""
    shift_s = max(abs(before.start_s - after.start_s), abs(before.end_s - after.end_s))
    surer = after.confidence - before.confidence
    # Rounded, so that times and confidences out of a file, which are rounded, lie on the same side as those in memory.
    kind: Kind = (
        "relabelled"
        if before.label != after.label
        else "moved"
        if round(shift_s, 3) > config.shift_s
        else "unchanged"
        if round(abs(surer), 4) <= config.confidence
        else "surer"
        if surer > 0
        else "less sure"
    )
    return Change(kind, before, after)


def matched(before: Sequence[Span], after: Sequence[Span]) -> Pairs:
    """Return pairs of indices of spans that are the same action, each span in at most one.

    The pair that overlaps most is taken first, as in the measure of detection (`average_precision`); pairs of one label go before
    pairs of two. Ties are broken the same way if old and new are swapped.
    """
    found = []
    by_start = sorted(range(len(after)), key=lambda index: after[index].start_s)
    starts = [after[index].start_s for index in by_start]
    longest_s = max((span.length_s for span in after), default=0.0)
    for old, one in enumerate(before):
        near = slice(bisect_left(starts, one.start_s - longest_s), bisect_right(starts, one.end_s))
        for new in by_start[near]:
            other = after[new]
            if one.length_s > 0 and other.length_s > 0 and (tiou := overlap(one, other)) > MOST_OVERLAP:
                unsure = abs(one.confidence - other.confidence)
                place = *sorted((one.start_s, other.start_s)), *sorted((one.end_s, other.end_s))
                found.append(((one.label != other.label, -tiou, unsure, place), old, new))
    return _one_to_one((old, new) for _, old, new in sorted(found))


def same_place(before: Sequence[Span], after: Sequence[Span]) -> Pairs:
    """Return pairs of indices of spans that begin and end at the same thousandth of a second, such as windows of an index."""
    places: dict[tuple[float, float], int] = {
        (round(span.start_s, 3), round(span.end_s, 3)): index for index, span in enumerate(after)
    }
    found = ((old, places.get((round(span.start_s, 3), round(span.end_s, 3)))) for old, span in enumerate(before))
    return _one_to_one((old, new) for old, new in found if new is not None)


def _one_to_one(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pairs of which no index is in a pair before."""
    kept: list[tuple[int, int]] = []
    old_taken, new_taken = set[int](), set[int]()
    for old, new in pairs:
        if old not in old_taken and new not in new_taken:
            kept.append((old, new))
            old_taken.add(old)
            new_taken.add(new)
    return kept
