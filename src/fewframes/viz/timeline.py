"""Draw a timeline as one page of HTML that plays the video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import quote

from fewframes.core.text import count_of, for_html
from fewframes.inference.spans import clock
from fewframes.inference.timeline import Timeline
from fewframes.viz.html import JUMP_SCRIPT, JUMP_STYLE, STYLE, page


def timeline_page(timeline: Timeline, video: str, thumbnails: Sequence[str]) -> str:
    """Return a page that plays the video and jumps to its spans: a click on a picture or on the bar goes there.

    Args:
        timeline: The timeline.
        video: Address of the video, as seen from the page.
        thumbnails: Address of a picture of each span, as seen from the page.
    """
    length_s = timeline.duration_s
    cards, marks = [], []
    for number, (span, picture) in enumerate(zip(timeline.spans, thumbnails, strict=True)):
        label, when = for_html(span.label), f"{clock(span.start_s)} - {clock(span.end_s)}"
        hue = round(360 * timeline.labels.index(span.label) / len(timeline.labels))
        style = f"left:{100 * span.start_s / length_s:.3f}%;width:{100 * span.length_s / length_s:.3f}%"
        jump = f"href='#{number}' data-at='{span.start_s:.2f}'"
        marks.append(f"<a {jump} style='{style};background:hsl({hue} 60% 45%)' title='{label} {when}'></a>")
        cards.append(
            f"<a {jump} style='border-color:hsl({hue} 60% 45%)'><img alt='' loading='lazy' src='{quote(picture)}'>"
            f"<b>{label}</b> {span.confidence:.0%}<br>{when}</a>"
        )
    title = os.path.basename(timeline.source)
    return page(
        title,
        STYLE + JUMP_STYLE,
        f"<h1>{for_html(title)}</h1>"
        f"<video controls preload='metadata' src='{for_html(video)}'></video><div class='bar'>{''.join(marks)}</div>"
        f"<p>{count_of(len(cards), 'span')} in {clock(length_s)}. Click one to play it.</p>"
        f"<div class='cards'>{''.join(cards)}</div><script>{JUMP_SCRIPT}</script>",
    )
