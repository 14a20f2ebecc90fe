"""Draw search results as one page of HTML, on which labels are taught."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewframes.core.storage import is_address
from fewframes.core.text import html_of
from fewframes.inference.detection.spans import clock
from fewframes.search.table import Hit
from fewframes.viz.thumbnails import data_url


def search_page(title: str, hits: Sequence[Hit], pictures: Mapping[str, bytes], again: str = "") -> str:
    """Return a page of search results. A click plays one; results that are marked yes or no become options that teach a label.

    A page cannot search by itself: words that are typed become the command that does.

    Args:
        title: Title of the page.
        hits: The results, best first.
        pictures: A JPEG of each result, by the id of the hit.
        again: The command that searches this index, to which words are added; empty if it knows no words.
    """
    cards = [
        {
            "number": number,
            "id": hit.id,
            "at": f"{hit.start_s:.2f}",
            "video": hit.source if is_address(hit.source) else Path(hit.source).as_uri(),
            "picture": data_url(pictures[hit.id]) if hit.id in pictures else None,
            "label": hit.label,
            "score": f"{hit.score:.0%}",
            "similarity": f"{hit.similarity:.3f}",
            "parts": ", ".join(f"{part.part} {part.similarity:.3f} (#{part.rank})" for part in hit.parts),
            "width": f"{100 * min(1.0, max(0.0, hit.similarity)):.1f}",
            "when": f"{clock(hit.start_s)} - {clock(hit.end_s)}",
            "name": os.path.basename(hit.source),
        }
        for number, hit in enumerate(hits, 1)
    ]
    summary = f"{len(cards)} result{'s' * (len(cards) != 1)}."
    return html_of("search/templates/search.html", {"title": title, "summary": summary, "cards": cards, "again": again})
