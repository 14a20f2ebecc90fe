"""A result as one page of HTML with its pictures inside, to show to a colleague."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from fewframes.evaluate import Evaluation
from fewframes.metrics import Report
from fewframes.plots import confusion_png, curve_png, strips_png
from fewframes.predictor import Predictor, tally

WORST, STRIP_FRAMES = 8, 8
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .2rem .9rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
.warning { background: #fff3cd; padding: .6rem .9rem; border-left: 4px solid #d39e00; }
"""


def report_page(evaluation: Evaluation, predictor: Predictor) -> str:
    """The report of an evaluation; frames of its worst mistakes are read again from their videos."""
    report, facts = evaluation.report, evaluation.provenance
    parts = [f"<h1>{escape(str(facts['model']))} on {escape(str(facts['data']))}</h1>"]
    if facts["trained_on_these"]:
        parts.append(
            "<p class='warning'>The model was trained on these data: what it has seen it may simply know. Judge it on videos "
            "that were held out.</p>"
        )
    main = "Top-1" if isinstance(report, Report) else "mAP"
    parts.append(f"<p><strong>{main} {escape(str(evaluation.interval))}</strong> (groups drawn anew 1000 times)</p>")
    parts.append(_table(_facts(evaluation)))
    parts.append("<h2>By action</h2><pre>" + escape("\n".join(report.lines()[1:])) + "</pre>")
    if isinstance(report, Report):
        parts.append(_image(confusion_png(report, "confusion"), "confusion matrix"))
        curve = curve_png(
            evaluation.rejection, "videos answered", "of these right", "leaving the most doubtful unanswered"
        )
        parts.append("<h2>Doubt</h2>" + _image(curve, "share right over share answered"))
    if evaluation.sweep:
        points = sorted(evaluation.sweep.items())
        picture = curve_png(points, "frames a video", main, "frames against accuracy", shares=False)
        parts.append("<h2>Frames</h2>" + _image(picture, "accuracy over number of frames"))
    if isinstance(report, Report) and (rows := evaluation.worst(WORST)):
        parts.append("<h2>Wrong, and sure of it</h2>" + _image(_strips(evaluation, predictor, rows), "worst mistakes"))
    if evaluation.failures:
        failed = [(failure.source, failure.error) for failure in evaluation.failures]
        parts.append("<h2>Could not be read</h2>" + _table(failed))
    title = escape(f"{facts['model']} on {facts['data']}")
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    facts, order, calibration = evaluation.provenance, evaluation.order, evaluation.calibration
    rows = [
        ("videos", tally(len(evaluation.samples), "evaluated", evaluation.failures)),
        ("protocol", f"{facts['protocol']}, {facts['precision']}"),
        ("data", f"{facts['num_data_videos']} videos, fingerprint {facts['data_fingerprint']}"),
        ("frames backwards", f"{order.backwards:.1%}"),
        ("frames in random order", f"{order.shuffled:.1%} (in order {order.forwards:.1%})"),
    ]
    if isinstance(evaluation.report, Report):
        rows.insert(
            1, ("top-5, mean over actions", f"{evaluation.report.top5:.1%}, {evaluation.report.mean_class:.1%}")
        )
    if calibration is not None:
        rows.append(
            (
                "calibration error",
                f"{calibration.error:.3f}; {calibration.scaled_error:.3f} with a temperature fitted on the other half of the "
                f"groups ({calibration.temperature:.2f} fits all)",
            )
        )
    return rows


def _strips(evaluation: Evaluation, predictor: Predictor, rows: Sequence[int]) -> bytes:
    strips = []
    for row in rows:
        sample = evaluation.samples[row]
        clip = predictor.read_clip(sample.path, num_frames=STRIP_FRAMES, start_s=sample.start_s, end_s=sample.end_s)
        score, index = evaluation.scores[row].max(dim=0)
        said = f"{predictor.labels[int(index)]} {float(score):.0%}, truly {', '.join(sample.labels)}: {sample.path}"
        strips.append((said, clip.frames))
    return strips_png(strips)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows) + "</table>"


def _image(content: bytes, text: str) -> str:
    return f"<p><img alt='{escape(text)}' src='data:image/png;base64,{base64.b64encode(content).decode()}'></p>"
