"""A labelled span of a video: the one value that all formats are read to and written from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fewframes.data.samples import Sample, as_label
from fewframes.errors import DataError

EXTRAS = ("annotator", "score", "split", "group")
"""The fields of a span that not every format can hold."""


@dataclass(frozen=True, kw_only=True)
class VideoSpan:
    """A label of a video, or of the part of it between two times. Several labels of one part are several spans."""

    path: str
    label: str
    start_s: float = 0.0
    end_s: float | None = None
    """None for the end of the video."""
    split: str = ""
    """`train`, `val` or `test`; empty if none is named."""
    group: str = ""
    annotator: str = ""
    """The person, or the model, that the span comes from; empty if none is named."""
    score: float | None = None
    """The confidence of a model that suggests the span; None for what people labelled."""


@dataclass(frozen=True)
class LabelledSpans:
    """The spans in a file or a folder."""

    spans: tuple[VideoSpan, ...]
    notes: tuple[str, ...] = ()
    """Notes for users on what was not used, and on how it was read."""
    name: str = ""
    """Name of the format."""


def checked_span(where: str, span: VideoSpan) -> VideoSpan:
    """Return a span with its label as labels are compared. Raises DataError if it has no label, or its times are none.

    Args:
        where: The file and the place in it, for error texts.
        span: The span as it was read.
    """
    label = as_label(span.label)
    if not label:
        raise DataError(f"{where}: a span without a label; label it, or take it out")
    end_s = math.inf if span.end_s is None else span.end_s
    if not (0 <= span.start_s < math.inf and span.start_s < end_s) or math.isnan(end_s):
        raise DataError(
            f"{where}: {label!r} from {span.start_s:g} s to {end_s:g} s: needs a start of 0 or more and a later end"
        )
    return replace(span, label=label)


def by_video(spans: Iterable[VideoSpan]) -> dict[str, list[VideoSpan]]:
    """Return the spans of each video, by its path."""
    found: dict[str, list[VideoSpan]] = {}
    for span in spans:
        found.setdefault(span.path, []).append(span)
    return found


def samples_of(
    where: str, spans: Sequence[VideoSpan], *, multilabel: bool
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Return what people labelled as samples to learn from, and notes on what was left out.

    Args:
        where: The file or the folder, for error texts.
        spans: The spans in it. Those that a model suggests are left out.
        multilabel: True if spans of the same times are one sample with several labels.

    Raises:
        DataError: Nothing is left.
    """
    labelled = [span for span in spans if span.score is None]
    num_suggested = len(spans) - len(labelled)
    suggested = f"spans that a model suggests, with a score, not used: {num_suggested}"
    if not labelled:
        why = f"{suggested}; `fewframes data convert` to a list takes them as labels" if num_suggested else "none"
        raise DataError(f"{where}: no labelled span ({why}); label the videos and export them again")
    rows: dict[tuple[object, ...], list[VideoSpan]] = {}
    for number, span in enumerate(labelled):
        place = (span.path, span.start_s, span.end_s, span.split, span.group)
        rows.setdefault((*place, None if multilabel else number), []).append(span)
    samples = [
        Sample(
            path=row[0].path,
            labels=tuple(sorted({span.label for span in row})),
            start_s=row[0].start_s,
            end_s=row[0].end_s,
            split=row[0].split,
            group=row[0].group,
        )
        for row in rows.values()
    ]
    return tuple(samples), (suggested,) if num_suggested else ()


def spans_of(samples: Sequence[Sample]) -> tuple[tuple[VideoSpan, ...], tuple[str, ...]]:
    """Return a span for each label of labelled videos, and notes on videos without any."""
    spans = [
        VideoSpan(
            path=sample.path,
            label=label,
            start_s=sample.start_s,
            end_s=sample.end_s,
            split=sample.split,
            group=sample.group,
        )
        for sample in samples
        for label in sample.labels
    ]
    unlabelled = sum(not sample.labels for sample in samples)
    return tuple(spans), (f"videos without a label, left out: {unlabelled}",) if unlabelled else ()
