"""A result as one page of HTML with its pictures inside, to show to a colleague."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from fewframes.core.metrics import Report
from fewframes.core.storage import is_address
from fewframes.core.text import for_html
from fewframes.data.known_videos import known_words
from fewframes.inference.clips import Part
from fewframes.inference.predictor import Predictor
from fewframes.inference.spans import clock
from fewframes.inference.timeline import Timeline
from fewframes.results import tally
from fewframes.search.table import Hit
from fewframes.training.evaluate import RELEASE_FPS, Evaluation, figure_name
from fewframes.video.sampling import ONE_PASS
from fewframes.viz.charts import MOST_COUNTED, confusion_png, curve_png
from fewframes.viz.explanation import strip_png
from fewframes.viz.thumbnails import data_url

WORST, MOST_PAIRS = 8, 20
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


def report_page(evaluation: Evaluation, predictor: Predictor) -> str:
    """The report of an evaluation; frames of its worst mistakes are read again from their videos."""
    report, facts = evaluation.report, evaluation.provenance
    parts = [f"<h1>{for_html(str(facts['model']))} on {for_html(str(facts['data']))}</h1>"]
    if known := known_words(facts, len(evaluation.samples)):
        parts.append(f"<p class='warning'>{for_html(known)}</p>")
    main = figure_name(report)
    parts.append(f"<p><strong>{main} {for_html(str(evaluation.interval))}</strong></p>")
    parts.append(_table(_facts(evaluation)))
    parts.append("<h2>By action</h2><pre class='long'>" + "\n".join(map(for_html, report.lines()[1:])) + "</pre>")
    if isinstance(report, Report):
        parts.append(
            _image(confusion_png(report, "confusion"), "confusion matrix", wide=len(report.labels) > MOST_COUNTED)
        )
        if pairs := _pairs(report):
            parts.append("<h2>Taken for each other</h2>" + _table(pairs))
        curve = curve_png(
            evaluation.rejection, "videos answered", "of these right", "leaving the most doubtful unanswered"
        )
        parts.append("<h2>Doubt</h2>" + _image(curve, "share right over share answered"))
    if evaluation.sweep:
        points = sorted(evaluation.sweep.items())
        picture = curve_png(points, "frames a view", main, "frames against accuracy", shares=False)
        parts.append("<h2>Frames</h2>" + _image(picture, "accuracy over number of frames"))
    if isinstance(report, Report) and (rows := evaluation.worst(WORST)):
        note = "<p><small>Borders: attention, from pale yellow (none) to dark red (the most in the video).</small></p>"
        parts.append(
            "<h2>Wrong, and sure of it</h2>" + note + "".join(_strip(evaluation, predictor, row) for row in rows)
        )
    if evaluation.failures:
        failed = [(failure.source, failure.error) for failure in evaluation.failures]
        parts.append("<h2>Could not be read</h2>" + _table(failed))
    return _page(f"{facts['model']} on {facts['data']}", STYLE, "".join(parts))


def timeline_page(timeline: Timeline, video: str, thumbnails: Sequence[str]) -> str:
    """A page that plays the video and jumps to the moments of its spans: a click on a picture or on the bar.

    `video` and `thumbnails`, one for each span, are addresses as seen from the page."""
    length_s = timeline.duration_s
    cards, marks = [], []
    for number, (span, picture) in enumerate(zip(timeline.spans, thumbnails, strict=True)):
        label, when = for_html(span.label), f"{clock(span.start_s)} - {clock(span.end_s)}"
        hue = round(360 * timeline.labels.index(span.label) / len(timeline.labels))
        place = f"left:{100 * span.start_s / length_s:.3f}%;width:{100 * span.length_s / length_s:.3f}%"
        jump = f"href='#{number}' data-at='{span.start_s:.2f}'"
        marks.append(f"<a {jump} style='{place};background:hsl({hue} 60% 45%)' title='{label} {when}'></a>")
        cards.append(
            f"<a {jump} style='border-color:hsl({hue} 60% 45%)'><img alt='' loading='lazy' src='{quote(picture)}'>"
            f"<b>{label}</b> {span.confidence:.0%}<br>{when}</a>"
        )
    title = os.path.basename(timeline.source)
    return _page(
        title,
        STYLE + JUMP_STYLE,
        f"<h1>{for_html(title)}</h1>"
        f"<video controls preload='metadata' src='{for_html(video)}'></video><div class='bar'>{''.join(marks)}</div>"
        f"<p>{len(cards)} spans in {clock(length_s)}. A click jumps to the moment.</p>"
        f"<div class='cards'>{''.join(cards)}</div><script>{JUMP_SCRIPT}</script>",
    )


def search_page(title: str, hits: Sequence[Hit], pictures: Mapping[str, bytes]) -> str:
    """A page of moments of many videos, of which a click plays one; what is marked yes or no there becomes options that teach a
    label. `pictures` are JPEGs by the id of the hit."""
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
    return _page(
        title,
        STYLE + JUMP_STYLE + TEACH_STYLE,
        f"<h1>{for_html(title)}</h1>"
        f"<video controls preload='none' hidden></video><p>{len(cards)} moments; a click plays one. To teach a label mark some, "
        f"and search with <code>--teach NAME</code></p><div class='cards'>{''.join(cards)}</div>"
        f"<script>{JUMP_SCRIPT}{TEACH_SCRIPT}</script>",
    )


def _page(title: str, style: str, body: str) -> str:
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{for_html(title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    facts, order, calibration = evaluation.provenance, evaluation.order, evaluation.calibration
    rows = [
        ("videos", tally(len(evaluation.samples), "evaluated", evaluation.failures)),
        ("protocol", f"{facts['protocol']}, {facts['precision']}"),
        ("data", f"{facts['num_data_videos']} videos, fingerprint {facts['data_fingerprint']}"),
    ]
    if isinstance(evaluation.report, Report):
        rows.append(("top-5, mean over actions", f"{evaluation.report.top5:.1%}, {evaluation.report.mean_class:.1%}"))
    if evaluation.official is not None:
        official = evaluation.official
        rows.append(
            (
                "official subset",
                f"{official}. The 2021 release's loader takes {official.num_frames} frames at {RELEASE_FPS} a second and drops, "
                f"without a word, every video shorter than {official.shortest_s:.1f} s; what it prints is the accuracy on the "
                "others.",
            )
        )
    if evaluation.early_exit is not None:
        rows.append(("early exit", str(evaluation.early_exit)))
    rows += [("cost" if number == 0 else "speed", line) for number, line in enumerate(evaluation.work.lines())]
    if order is not None:
        rows.append(("frames backwards", f"{order.backwards:.1%}"))
        rows.append(("frames in random order", f"{order.shuffled:.1%} (in order {order.forwards:.1%})"))
    if calibration is not None:
        rows.append(
            (
                "calibration error",
                f"{calibration.error:.3f}; {calibration.scaled_error:.3f} with a temperature fitted on the other half of the "
                f"groups ({calibration.temperature:.2f} fits all)",
            )
        )
    return rows


def _pairs(report: Report) -> list[tuple[str, str]]:
    """What was taken for what, most often first."""
    wrong_KK = report.confusion.clone().fill_diagonal_(0)
    found = sorted(wrong_KK.nonzero().tolist(), key=lambda pair: -int(wrong_KK[pair[0], pair[1]]))
    totals = report.confusion.sum(dim=1)
    return [
        (report.labels[true], f"taken for {report.labels[named]}: {int(wrong_KK[true, named])} of {int(totals[true])}")
        for true, named in found[:MOST_PAIRS]
    ]


def _strip(evaluation: Evaluation, predictor: Predictor, row: int) -> str:
    """One mistake: what it is, what it was taken for, and the frames looked at, with their times and attention."""
    sample = evaluation.samples[row]
    part = Part(ONE_PASS, predictor.config.num_frames, sample.start_s, sample.end_s)
    read = predictor.reader.read(sample.path, part, threads=0)
    attention_T, clip = predictor.label(read).frame_attention, read.clips[0]
    score, index = evaluation.scores[row].max(dim=0)
    true, named = for_html(", ".join(sample.labels)), for_html(predictor.labels[int(index)])
    said = f"<b>{true}</b>, taken for <b>{named}</b> ({float(score):.0%})"
    picture = _image(strip_png(clip.frames.cpu(), clip.times_s.tolist(), attention_T), f"frames of {sample.path}")
    return f"<figure><figcaption>{said}<br><small>{for_html(sample.path)}</small></figcaption>{picture}</figure>"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><th>{for_html(a)}</th><td>{for_html(b)}</td></tr>" for a, b in rows) + "</table>"


def _image(content: bytes, text: str, *, wide: bool = False) -> str:
    name = " class='wide'" if wide else ""
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f"<p{name}><img alt='{for_html(text)}' src='{source}'></p>"
