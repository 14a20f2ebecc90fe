"""Draw the changes between two timelines of many videos as one page of HTML: two tracks a video, and a list to filter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewframes.core.storage import is_address
from fewframes.core.text import count_of, html_of
from fewframes.inference.detection.changes import KINDS, ArchiveChanges, Change, VideoChanges, VideoSpans
from fewframes.inference.detection.spans import Span, clock
from fewframes.viz.thumbnails import data_url

MOST_CHANGES = 4000
"""Changes, unchanged spans among them, up to which further videos are drawn: browsers are slow with much more."""
HIDDEN = ("unchanged",)
"""Kinds that are not listed until they are asked for."""

Pictures = Mapping[tuple[str, int], bytes]
"""A JPEG by the source of a video and the index of its change."""


def changes_page(found: ArchiveChanges, pictures: Pictures) -> str:
    """Return a page of the most changed videos: before and after as two tracks, and what changed as a list, by kind and label.

    Args:
        found: The changes.
        pictures: Pictures of some of them, such as of `pictured`.
    """
    compared, shown = [video for video in found.videos if video.status == "compared"], drawn(found)
    labels = found.labels()
    numbers = {label.label: number for number, label in enumerate(labels)}
    counts = found.counts()
    values = {
        "title": "Changes",
        "summary": found.summary(),
        "models": _models(compared),
        "cut": f"Drawn here: the {len(shown)} most changed of {len(compared)} videos."
        if len(shown) < len(compared)
        else "",
        "kinds": [
            {"name": kind, "css": _css(kind), "count": counts[kind], "shown": kind not in HIDDEN}
            for kind in KINDS
            if counts[kind]
        ],
        "labels": [
            {
                "number": number,
                "name": label.label,
                "before": f"{count_of(label.num_before, 'span')}, {clock(label.before_s)}",
                "after": f"{count_of(label.num_after, 'span')}, {clock(label.after_s)}",
                "counts": [label.counts[kind] for kind in KINDS if counts[kind]],
            }
            for number, label in enumerate(labels)
        ],
        "videos": [_video(video, numbers, pictures) for video in shown],
        "others": [
            {"name": video.source, "status": video.status, "error": video.error}
            for video in found.videos
            if video.status != "compared"
        ],
    }
    return html_of("viz/templates/changes.html", values)


def drawn(found: ArchiveChanges) -> list[VideoChanges]:
    """Return the videos that the page draws: the most changed ones, one at least."""
    shown: list[VideoChanges] = []
    left = MOST_CHANGES
    for video in found.videos:
        left -= len(video.changes)
        if video.status == "compared" and (left >= 0 or not shown):
            shown.append(video)
    return shown


def pictured(found: ArchiveChanges, most: int) -> dict[str, list[int]]:
    """Return the indices of the changes that are worth a picture, by video: the longest ones of the most changed videos.

    Args:
        found: The changes.
        most: The number of pictures.
    """
    chosen: dict[str, list[int]] = {}
    for video in drawn(found):
        order = sorted(range(len(video.changes)), key=lambda index: -video.changes[index].changed_s)
        chosen[video.source] = sorted(index for index in order[:most] if video.changes[index].changed_s)
        most -= len(chosen[video.source])
    return {source: indices for source, indices in chosen.items() if indices}


def _models(compared: Sequence[VideoChanges]) -> list[dict[str, str]]:
    """Return the models before and after, by name and the start of the key of their weights."""

    def of(sides: Sequence[VideoSpans | None]) -> str:
        names = {
            f"{side.model or 'unnamed'} ({side.weights[:8] or 'weights unknown'})" for side in sides if side is not None
        }
        return ", ".join(sorted(names))

    before, after = [video.before for video in compared], [video.after for video in compared]
    return [{"when": "before", "name": of(before)}, {"when": "after", "name": of(after)}] if compared else []


def _video(video: VideoChanges, numbers: Mapping[str, int], pictures: Pictures) -> dict[str, object]:
    sides = [side for side in (video.before, video.after) if side is not None]
    start_s, end_s = min(side.range_s[0] for side in sides), max(side.range_s[1] for side in sides)
    length_s = max(end_s - start_s, 1e-3)

    def track(when: str) -> dict[str, object]:
        own = [(index, change, span) for index, change in enumerate(video.changes) if (span := getattr(change, when))]
        rows = rows_of([span for _, _, span in own])
        height = 100 / max([1, *(row + 1 for row in rows)])
        bars = [
            {
                "index": index,
                "kind": _css(change.kind),
                "labels": _numbers(change, numbers),
                "left": f"{100 * (span.start_s - start_s) / length_s:.3f}",
                "width": f"{100 * span.length_s / length_s:.3f}",
                "top": f"{row * height:.1f}",
                "height": f"{height:.1f}",
                "title": f"{change.kind}: {_words(span)}",
            }
            for (index, change, span), row in zip(own, rows, strict=True)
        ]
        return {"when": when, "bars": bars}

    counts = {kind: number for kind, number in video.counts().items() if number}
    return {
        "name": os.path.basename(video.source) or video.source,
        "source": video.source,
        "address": video.source if is_address(video.source) else Path(os.path.abspath(video.source)).as_uri(),
        "summary": ", ".join(f"{number} {kind}" for kind, number in counts.items()) or "no spans",
        "seconds": clock(video.changed_s),
        "tracks": [track("before"), track("after")],
        "start": clock(start_s),
        "end": clock(end_s),
        "changes": [
            {
                "index": index,
                "kind": change.kind,
                "css": _css(change.kind),
                "labels": _numbers(change, numbers),
                "at": f"{change.start_s:.2f}",
                "when": f"{clock(change.start_s)} - {clock(change.end_s)}",
                "before": "" if change.before is None else _words(change.before),
                "after": "" if change.after is None else _words(change.after),
                "picture": data_url(pictures[video.source, index]) if (video.source, index) in pictures else "",
            }
            for index, change in enumerate(video.changes)
        ],
    }


def rows_of(spans: Sequence[Span]) -> list[int]:
    """Return the row of each span in a track, from 0: the first in which it overlaps none before it."""
    rows, ends_s = [0] * len(spans), list[float]()
    for index in sorted(range(len(spans)), key=lambda index: spans[index].start_s):
        span = spans[index]
        row = next((row for row, end_s in enumerate(ends_s) if end_s <= span.start_s), len(ends_s))
        ends_s[row : row + 1] = [span.end_s]
        rows[index] = row
    return rows


def _css(kind: str) -> str:
    """Return the class of a kind in the page's style."""
    return kind.replace(" ", "-")


def _numbers(change: Change, numbers: Mapping[str, int]) -> str:
    return " ".join(str(numbers[label]) for label in change.labels)


def _words(span: Span) -> str:
    return f"{span.label} {span.confidence:.0%}, {span.start_s:.1f} - {span.end_s:.1f} s"
