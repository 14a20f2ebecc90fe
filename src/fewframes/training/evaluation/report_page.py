"""Write the report of an evaluation as one page of HTML, with charts and the frames of the worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewframes.core.metrics import Report
from fewframes.core.text import for_html
from fewframes.data.known_videos import known_words
from fewframes.data.layouts import Sample
from fewframes.inference.clips import ClipRequest
from fewframes.inference.predictor import Predictor
from fewframes.results import Clip, tally
from fewframes.sampling import ONE_PASS
from fewframes.training.evaluation.measures import RELEASE_FPS
from fewframes.training.evaluation.results import Evaluation, figure_name
from fewframes.viz.charts import MOST_COUNTED, confusion_png, curve_png
from fewframes.viz.explanation import strip_png
from fewframes.viz.html import STYLE, image, page, table

WORST = 8
MOST_PAIRS = 20


@dataclass(frozen=True, eq=False)
class Mistake:
    """A video that was labelled wrongly: the sample with its true labels, the predicted label with its score (0-1), and the frames
    that the model saw with their attention (T,)."""

    sample: Sample
    predicted: str
    score: float
    clip: Clip
    attention: Tensor


def read_mistakes(evaluation: Evaluation, predictor: Predictor) -> tuple[Mistake, ...]:
    """Return the mistakes with the highest scores. Their videos are decoded and labelled again, for frames and attention.

    For multi-label models there are none.
    """
    found = []
    for row in evaluation.worst(WORST) if isinstance(evaluation.report, Report) else ():
        sample = evaluation.samples[row]
        request = ClipRequest(ONE_PASS, predictor.config.num_frames, sample.start_s, sample.end_s)
        decoded = predictor.reader.read(sample.path, request, threads=0)
        scores_K = evaluation.scores[row]
        best = int(scores_K.argmax())
        attention_T = predictor.label(decoded).frame_attention
        found.append(Mistake(sample, predictor.labels[best], float(scores_K[best]), decoded.clips[0], attention_T))
    return tuple(found)


def report_page(evaluation: Evaluation, mistakes: Sequence[Mistake] = ()) -> str:
    """Return the report of an evaluation as a page of HTML. `mistakes`, as `read_mistakes` returns them, are shown with frames."""
    report, facts = evaluation.report, evaluation.provenance
    parts = [f"<h1>{for_html(str(facts['model']))} on {for_html(str(facts['data']))}</h1>"]
    if known := known_words(facts, len(evaluation.samples)):
        parts.append(f"<p class='warning'>{for_html(known)}</p>")
    main = figure_name(report)
    parts.append(f"<p><strong>{main} {for_html(str(evaluation.interval))}</strong></p>")
    parts.append(table(_facts(evaluation)))
    parts.append("<h2>By action</h2><pre class='long'>" + "\n".join(map(for_html, report.lines()[1:])) + "</pre>")
    if isinstance(report, Report):
        labels, counts_KK = _occurring(report)
        parts.append(
            image(
                confusion_png(labels, counts_KK, "confusion"),
                "confusion matrix",
                wide=len(labels) > MOST_COUNTED,
            )
        )
        if pairs := _pairs(report):
            parts.append("<h2>Taken for each other</h2>" + table(pairs))
        curve = curve_png(
            evaluation.rejection, "videos answered", "of these right", "leaving the most doubtful unanswered"
        )
        parts.append("<h2>Doubt</h2>" + image(curve, "fraction right over fraction answered"))
    if evaluation.sweep:
        points = sorted(evaluation.sweep.items())
        picture = curve_png(points, "frames per view", main, "frames against accuracy", fractions=False)
        parts.append("<h2>Frames</h2>" + image(picture, "accuracy over number of frames"))
    if mistakes:
        note = "<p><small>Borders: attention, from pale yellow (none) to dark red (the most in the video).</small></p>"
        parts.append("<h2>Wrong, and sure of it</h2>" + note + "".join(map(_strip, mistakes)))
    if evaluation.failures:
        failed = [(failure.source, failure.error) for failure in evaluation.failures]
        parts.append("<h2>Could not be read</h2>" + table(failed))
    return page(f"{facts['model']} on {facts['data']}", STYLE, "".join(parts))


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
                f"{official}. The 2021 release's loader takes {official.num_frames} frames at {RELEASE_FPS} a second. It silently "
                f"drops every video shorter than {official.shortest_s:.1f} s, and prints the accuracy on the others.",
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


def _occurring(report: Report) -> tuple[tuple[str, ...], NDArray[np.generic]]:
    """Return the labels that have videos or were predicted, and their confusion counts."""
    counts_KK = np.asarray(report.confusion)
    kept = np.flatnonzero(counts_KK.sum(axis=0) + counts_KK.sum(axis=1))
    return tuple(report.labels[index] for index in kept), counts_KK[np.ix_(kept, kept)]


def _pairs(report: Report) -> list[tuple[str, str]]:
    """Return pairs of confused actions as rows of a table (true label, text), the most frequent first."""
    counts_KK = np.asarray(report.confusion)
    wrong_KK = counts_KK - np.diag(np.diag(counts_KK))
    found = sorted(np.argwhere(wrong_KK).tolist(), key=lambda pair: -int(wrong_KK[pair[0], pair[1]]))
    totals = counts_KK.sum(axis=1)
    return [
        (report.labels[row], f"taken for {report.labels[column]}: {int(wrong_KK[row, column])} of {int(totals[row])}")
        for row, column in found[:MOST_PAIRS]
    ]


def _strip(mistake: Mistake) -> str:
    """Return a mistake as HTML: its true and predicted label, and the frames with their times and attention."""
    true, predicted = for_html(", ".join(mistake.sample.labels)), for_html(mistake.predicted)
    caption = f"<b>{true}</b>, taken for <b>{predicted}</b> ({mistake.score:.0%})"
    clip = mistake.clip
    picture = image(
        strip_png(clip.frames.cpu(), clip.times_s.tolist(), mistake.attention), f"frames of {mistake.sample.path}"
    )
    return f"<figure><figcaption>{caption}<br><small>{for_html(mistake.sample.path)}</small></figcaption>{picture}</figure>"
