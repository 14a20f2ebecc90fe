"""Write pages of HTML that hold their own pictures, so that one file can be passed on."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from fewframes.core.text import for_html

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .2rem .9rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
th { white-space: nowrap; }
img { max-width: 100%; }
.wide { overflow-x: auto; }
.wide img { max-width: none; }
.long { max-height: 40rem; overflow-y: auto; }
figure { margin: 1.2rem 0; }
figcaption { overflow-wrap: anywhere; }
figcaption small { color: #5b6470; }
.warning { background: #fff3cd; padding: .6rem .9rem; border-left: 4px solid #d39e00; }
"""
JUMP_STYLE = """
video { width: 100%; max-height: 60vh; background: #000; }
.bar { position: relative; height: 1.4rem; background: #eef1f4; margin: .4rem 0; }
.bar a { position: absolute; top: 0; bottom: 0; min-width: 3px; opacity: .85; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .8rem; }
.cards a { color: inherit; text-decoration: none; font-size: .85rem; line-height: 1.35; border-top: 4px solid; }
.cards a:hover, .cards a:focus { background: #eef1f4; }
.cards img { width: 100%; display: block; }
"""
JUMP_SCRIPT = """
const video = document.querySelector('video');
for (const link of document.querySelectorAll('[data-at]')) link.addEventListener('click', event => {
  event.preventDefault();
  if (link.dataset.video && video.src !== link.dataset.video) video.src = link.dataset.video;
  video.hidden = false; video.currentTime = Number(link.dataset.at); video.play(); video.scrollIntoView({behavior: 'smooth'});
});
"""


def page(title: str, style: str, body: str) -> str:
    """Return a whole page with this title, style (CSS) and body (HTML)."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{for_html(title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Return a table of two columns, names and values, both escaped."""
    return "<table>" + "".join(f"<tr><th>{for_html(a)}</th><td>{for_html(b)}</td></tr>" for a, b in rows) + "</table>"


def image(content: bytes, text: str, *, wide: bool = False) -> str:
    """Return a PNG as an image inside the page; a `wide` one scrolls instead of shrinking."""
    name = " class='wide'" if wide else ""
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f"<p{name}><img alt='{for_html(text)}' src='{source}'></p>"
