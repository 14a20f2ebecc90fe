"""Draw the events of a folder as one page of HTML that plays their clips. It loads nothing but the files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fewframes.core.text import count_of, html_of
from fewframes.inference.detection.spans import clock

MOST_SHOWN = 1000
"""The most events on the page, the newest ones."""


def clips_page(title: str, events: Sequence[Mapping[str, Any]]) -> str:
    """Return a page of events by day, the newest first. A click plays a clip; sources and labels can be chosen.

    Args:
        title: Title of the page.
        events: The values of each event's JSON file, the oldest first.
    """
    shown = events[: -MOST_SHOWN - 1 : -1]
    days: dict[str, list[dict[str, object]]] = {}
    for values in shown:
        day, _, time = values["started_at"].partition("T")
        days.setdefault(day, []).append(_card(values, time[:8]))
    summary = f"{count_of(len(events), 'event')}."
    if len(shown) < len(events):
        summary += f" The newest {len(shown)} are listed; older ones are in the folders of their days."
    page = {
        "title": title,
        "summary": summary,
        "days": list(days.items()),
        "sources": sorted({values["source"] for values in shown}),
        "labels": sorted({values["label"] for values in shown}),
        "zones": sorted({values["zone"] for values in shown if values["zone"]}),
    }
    return html_of("watch/clips/templates/clips.html", page)


def _card(values: Mapping[str, Any], time: str) -> dict[str, object]:
    """Return an event as the page has it."""
    lasts_s = None if values["end_s"] is None else values["end_s"] - values["start_s"]
    before_s = 0.0 if values["clip_start_s"] is None else values["start_s"] - values["clip_start_s"]
    where = ", ".join(str(values[name]) for name in ("source", "zone", "track") if values[name])
    return {
        **{name: values[name] for name in ("id", "source", "label", "zone", "note")},
        "clip": quote(values["clip"]),
        "picture": quote(values["picture"]),
        "time": f"{time} UTC",
        "score": f"{values['confidence']:.0%}",
        "where": where,
        "lasts": "not ended" if lasts_s is None else f"{lasts_s:.1f} s",
        "begins": f"from {clock(max(0.0, before_s))} of the clip on" if values["clip"] else "",
        "at": "0",
    }
