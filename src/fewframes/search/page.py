"""Draw search results as one page of HTML, on which labels are taught."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewframes.core.storage import is_address
from fewframes.core.text import for_html
from fewframes.inference.spans import clock
from fewframes.search.table import Hit
from fewframes.viz.html import JUMP_SCRIPT, JUMP_STYLE, STYLE, page
from fewframes.viz.thumbnails import data_url

TEACH_STYLE = """
.cards { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
.cards small { color: #5b6470; overflow-wrap: anywhere; }
.cards button { font: inherit; border: 1px solid #bbb; background: none; border-radius: 3px; cursor: pointer; }
.cards button[aria-pressed=true] { background: #1f5fa8; color: #fff; }
code { background: #eef1f4; padding: .2rem .4rem; overflow-wrap: anywhere; user-select: all; }
"""
TEACH_SCRIPT = """
const said = document.querySelector('code');
for (const button of document.querySelectorAll('button')) button.addEventListener('click', () => {
  const is = button.getAttribute('aria-pressed') === 'true';
  for (const one of button.parentNode.querySelectorAll('button')) one.setAttribute('aria-pressed', 'false');
  button.setAttribute('aria-pressed', String(!is));
  const ids = name => [...document.querySelectorAll(`button[name=${name}][aria-pressed=true]`)].map(one => one.value).join(',');
  said.textContent = '--teach NAME' + (ids('yes') && ' --yes ' + ids('yes')) + (ids('no') && ' --no ' + ids('no'));
});
"""


def search_page(title: str, hits: Sequence[Hit], pictures: Mapping[str, bytes]) -> str:
    """Return a page of search results. A click plays one; results that are marked yes or no become options that teach a label.

    Args:
        title: Title of the page.
        hits: The results, best first.
        pictures: A JPEG of each result, by the id of the hit.
    """
    cards = []
    for number, hit in enumerate(hits, 1):
        address = hit.source if is_address(hit.source) else Path(hit.source).as_uri()
        picture = pictures.get(hit.id)
        image = "<p>(no picture)</p>" if picture is None else f"<img alt='' src='{data_url(picture)}'>"
        marks = "".join(
            f"<button name='{name}' value='{for_html(hit.id)}' aria-pressed='false'>{name}</button> "
            for name in ("yes", "no")
        )
        cards.append(
            f"<div><a href='#{number}' style='display:block' data-at='{hit.start_s:.2f}' "
            f"data-video='{for_html(address)}'>{image}<b>{number}. {hit.similarity:.3f}</b> {for_html(hit.label)} "
            f"{hit.score:.0%}<br>{clock(hit.start_s)} - {clock(hit.end_s)}<br>"
            f"<small>{for_html(os.path.basename(hit.source))}</small></a>{marks}</div>"
        )
    return page(
        title,
        STYLE + JUMP_STYLE + TEACH_STYLE,
        f"<h1>{for_html(title)}</h1>"
        f"<video controls preload='none' hidden></video><p>{len(cards)} results. Click one to play it. To teach a label, mark some "
        f"results and search with <code>--teach NAME</code></p><div class='cards'>{''.join(cards)}</div>"
        f"<script>{JUMP_SCRIPT}{TEACH_SCRIPT}</script>",
    )
