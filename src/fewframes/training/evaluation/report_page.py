"""Write the report of an evaluation as one page of HTML, with charts and the frames of the worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.core.metrics import MultiLabelReport, Report
from fewframes.core.text import count_of, html_of
from fewframes.data.known_videos import known_words
from fewframes.data.layouts import Sample
from fewframes.inference.clips import ClipRequest
from fewframes.inference.predictor import Predictor
from fewframes.results import Clip, tally
from fewframes.sampling import ONE_PASS
from fewframes.training.evaluation.measures import RELEASE_FPS
from fewframes.training.evaluation.results import Evaluation, figure_name
from fewframes.viz.charts import MOST_COUNTED, confusion_png, curve_png, reliability_png
from fewframes.viz.frames import frames_of
from fewframes.viz.thumbnails import data_url

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
    attention: NDArray[np.float32]


def read_mistakes(evaluation: Evaluation, predictor: Predictor) -> tuple[Mistake, ...]:
    """Return the mistakes with the highest scores. Their videos are decoded and labelled again, for frames and attention.

    For multi-label models there are none.
    """
    found = []
    for row in evaluation.worst(WORST) if isinstance(evaluation.report, Report) else ():
        sample = evaluation.samples[row]
        request = ClipRequest(ONE_PASS, predictor.num_frames, sample.start_s, sample.end_s)
        decoded = predictor.reader.read(sample.path, request, threads=0)
        scores_K = np.asarray(evaluation.scores[row])
        attention_T = np.asarray(predictor.label(decoded).frame_attention)
        predicted, score = predictor.labels[int(scores_K.argmax())], float(scores_K.max())
        found.append(Mistake(sample, predicted, score, decoded.clips[0], attention_T))
    return tuple(found)


def report_page(evaluation: Evaluation, mistakes: Sequence[Mistake] = ()) -> str:
    """Return the report of an evaluation as a page of HTML. `mistakes`, as `read_mistakes` returns them, are shown with frames."""
    report, facts = evaluation.report, evaluation.provenance
    main = figure_name(report)
    values: dict[str, object] = {
        "title": f"{facts['model']} on {facts['data']}",
        "warning": "; ".join(
            filter(None, (known_words(facts, len(evaluation.samples)), evaluation.interval.warning, evaluation.warning))
        ),
        "headline": f"{main} {evaluation.interval}",
        "rows": _facts(evaluation),
        "actions": _actions(report, evaluation.thresholds),
        "confusion": None,
        "is_wide": False,
        "pairs": [],
        "reliability": None,
        "doubt": None,
        "sweep": None,
        "mistakes": list(map(_mistake, mistakes)),
        "failures": [(failure.source, failure.error) for failure in evaluation.failures],
    }
    if isinstance(report, Report):
        labels, counts_KK = _occurring(report)
        curve = curve_png(
            evaluation.rejection, "videos answered", "of these right", "leaving the most doubtful unanswered"
        )
        values |= {
            "confusion": data_url(confusion_png(labels, counts_KK, "confusion"), "png"),
            "is_wide": len(labels) > MOST_COUNTED,
            "pairs": _pairs(labels, counts_KK),
            "reliability": data_url(
                reliability_png({"this model": evaluation.reliability}, "how sure, how right"), "png"
            ),
            "doubt": data_url(curve, "png"),
        }
    if evaluation.sweep:
        points = sorted(evaluation.sweep.items())
        picture = curve_png(points, "frames per view", main, "frames against accuracy", fractions=False)
        values["sweep"] = data_url(picture, "png")
    return html_of("training/evaluation/templates/report.html", values)


def _actions(report: Report | MultiLabelReport, thresholds: Sequence[float]) -> list[dict[str, str]]:
    """Return a row for each action that has videos: how many are right, or the average precision and the action's threshold."""
    if isinstance(report, Report):
        fractions = report.recalls
        counts_KK = np.asarray(report.confusion)
        counts = [
            f"{right} of {total}" for right, total in zip(counts_KK.diagonal(), counts_KK.sum(axis=1), strict=True)
        ]
    else:
        fractions, counts = (
            report.average_precisions,
            [f"present from {least:.2f}; average precision" for least in thresholds],
        )
    return [
        {"label": label, "count": count, "fraction": f"{fraction:.1%}", "width": f"{100 * fraction:.1f}"}
        for label, count, fraction in zip(report.labels, counts, fractions, strict=True)
        if fraction is not None
    ]


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    facts, order, calibration = evaluation.provenance, evaluation.order, evaluation.calibration
    rows = [
        ("videos", tally(len(evaluation.samples), "evaluated", evaluation.failures)),
        ("protocol", f"{facts['protocol']}, {facts['precision']}"),
        ("data", f"{count_of(facts['num_data_videos'], 'video')}, fingerprint {facts['data_fingerprint']}"),
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
    if evaluation.unknown is not None:
        rows += [("unknown" if number == 0 else "", line) for number, line in enumerate(evaluation.unknown.lines())]
    if calibration is not None:
        rows.append(
            (
                "calibration",
                f"{calibration}; {100 * calibration.scaled_error:.1f} with a temperature fitted on the other half of the groups "
                f"({calibration.temperature:.2f} fits all)",
            )
        )
    return rows


def _occurring(report: Report) -> tuple[tuple[str, ...], NDArray[np.integer]]:
    """Return the labels that have videos or were predicted, and their confusion counts."""
    counts_KK = np.asarray(report.confusion)
    kept = np.flatnonzero(counts_KK.sum(axis=0) + counts_KK.sum(axis=1))
    return tuple(report.labels[index] for index in kept), counts_KK[np.ix_(kept, kept)]


def _pairs(labels: Sequence[str], counts_KK: NDArray[np.integer]) -> list[tuple[str, str]]:
    """Return pairs of confused actions as rows of a table (true label, text), the most frequent first."""
    wrong_KK = counts_KK - np.diag(counts_KK.diagonal())
    found = sorted(np.argwhere(wrong_KK).tolist(), key=lambda pair: -int(wrong_KK[pair[0], pair[1]]))
    totals_K = counts_KK.sum(axis=1)
    return [
        (labels[row], f"taken for {labels[column]}: {wrong_KK[row, column]} of {totals_K[row]}")
        for row, column in found[:MOST_PAIRS]
    ]


def _mistake(mistake: Mistake) -> dict[str, object]:
    clip = mistake.clip
    return {
        "true": ", ".join(mistake.sample.labels),
        "predicted": mistake.predicted,
        "score": f"{mistake.score:.0%}",
        "source": mistake.sample.path,
        "frames": frames_of(np.asarray(clip.frames), clip.times_s.tolist(), mistake.attention),
    }
