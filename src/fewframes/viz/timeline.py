"""Draw a timeline as one page of HTML that plays the video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from fewframes.core.text import count_of, html_of
from fewframes.inference.detection.spans import clock

if TYPE_CHECKING:
    from fewframes.inference.timeline import Timeline


def timeline_page(timeline: Timeline, video: str, thumbnails: Sequence[str]) -> str:
    """Return a page that plays the video and jumps to its spans: a click on a picture or on a bar goes there.

    Args:
        timeline: The timeline.
        video: Address of the video, as seen from the page.
        thumbnails: Address of a picture of each span, as seen from the page.
    """
    length_s = timeline.duration_s

    def on_track(start_s: float, end_s: float) -> dict[str, str]:
        when = f"{clock(start_s)} - {clock(end_s)}"
        return {
            "left": f"{100 * start_s / length_s:.3f}",
            "width": f"{100 * (end_s - start_s) / length_s:.3f}",
            "when": when,
        }

    tracks: dict[str, dict[str, object]] = {}
    cards: list[dict[str, object]] = []
    for number, (span, picture) in enumerate(zip(timeline.spans, thumbnails, strict=True)):
        hue = round(360 * timeline.labels.index(span.label) / len(timeline.labels))
        colour = f"hsl({hue} 60% 45%)"
        place = {**on_track(span.start_s, span.end_s), "number": number, "at": f"{span.start_s:.2f}"}
        track = tracks.setdefault(span.label, {"label": span.label, "colour": colour, "spans": []})
        track["spans"] = [*track["spans"], place]  # type: ignore[misc]
        score = f"{span.confidence:.0%}"
        cards.append({**place, "label": span.label, "score": score, "colour": colour, "picture": quote(picture)})
    spans = f"{count_of(len(cards), 'span')} in {clock(length_s)}."
    values = {
        "title": os.path.basename(timeline.source),
        "video": video,
        "summary": f"{spans} Click one to play it." if cards else f"No action above {timeline.threshold:.0%}.",
        "gaps": [{**on_track(gap.start_s, gap.end_s), "error": gap.error} for gap in timeline.gaps],
        "tracks": list(tracks.values()),
        "cards": cards,
        "length": clock(length_s),
    }
    return html_of("viz/templates/timeline.html", values)
