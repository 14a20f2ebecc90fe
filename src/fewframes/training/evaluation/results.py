"""The figures of an evaluation, and how they are put into words and plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.metrics import Interval, MultiLabelReport, ReliabilityBin, Report, reliability
from fewframes.core.text import count_of
from fewframes.data.layouts import Sample
from fewframes.inference.stages.early_exit import ExitFigures
from fewframes.models.cost import Cost
from fewframes.results import Failure
from fewframes.training.evaluation.scoring import ScoringSpeed


@dataclass(frozen=True)
class FrameOrder:
    """Top-1 (mAP for multi-label models) with the frames in order, backwards, and in random order (mean of five orders)."""

    forwards: float
    backwards: float
    shuffled: float


OVERSURE = 0.1
"""The difference of mean confidence and accuracy from which an evaluation warns."""


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error of a model as it is, and with logits divided by a temperature that was fitted on the other
    half of the groups. `temperature` is the one fitted on all groups. `confidence` is the mean score of the answers, `accuracy` the
    fraction of them that are right."""

    error: float
    scaled_error: float
    temperature: float
    confidence: float
    accuracy: float

    def __str__(self) -> str:
        return (
            f"mean confidence {self.confidence:.1%} where {self.accuracy:.1%} are right; "
            f"calibration error {100 * self.error:.1f} points"
        )


@dataclass(frozen=True)
class OfficialSubset:
    """The figures over the videos that the 2021 release's loader keeps. It drops those that last less than `shortest_s`, because
    `num_frames` frames at 1.6 a second do not fit into them. `report` is None if no video is that long."""

    num_frames: int
    shortest_s: float
    num_videos: int
    num_all: int
    report: Report | MultiLabelReport | None

    def __str__(self) -> str:
        found = f"{self.num_videos} of {count_of(self.num_all, 'video')}"
        if self.report is None:
            return f"{found} (none lasts {self.shortest_s:.1f} s)"
        return f"{found}, {figure_name(self.report)} {figure_of(self.report):.1%}"

    def to_dict(self) -> dict[str, object]:
        """Return the subset's size and figures as plain values for JSON."""
        report = {} if self.report is None else self.report.to_dict()
        figures = {name: value for name, value in report.items() if isinstance(value, float)}
        return {"shortest_s": self.shortest_s, "num_videos": self.num_videos, **figures}


@dataclass(frozen=True)
class EarlyExit:
    """The effect of stopping early: `figures` at the plan's `threshold`, and a `curve` of (threshold, mean number of frames, top-1)
    at other confidences. A video that does not stop early takes `num_frames`."""

    threshold: float
    figures: ExitFigures
    num_frames: int
    curve: tuple[tuple[float, float, float], ...]

    def __str__(self) -> str:
        figures = self.figures
        return (
            f"{figures.top1:.1%} by {figures.mean_frames:.2f} of {self.num_frames} frames on average (from a confidence of "
            f"{self.threshold:.3g}); {figures.top1_all_frames:.1%} by all"
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        names = ("threshold", "mean_frames", "top1")
        curve = [dict(zip(names, (round(value, 4) for value in point), strict=True)) for point in self.curve]
        return {"threshold": round(self.threshold, 4), **self.figures.to_dict(), "curve": curve}


@dataclass(frozen=True)
class UnknownFigures:
    """The effect of answering `unknown` below the `threshold` of `known`.

    `kept` is the fraction of the videos that are answered. `right_lost` is the fraction of right answers that are lost by it, and
    `wrong_avoided` the fraction of wrong ones that are avoided; None if there are none. Of `num_background` videos that show none
    of the actions, the fraction `background_found` is called unknown. `unfamiliar` is the fraction of the videos that have the
    warning.
    """

    threshold: float
    kept: float
    right_lost: float | None
    wrong_avoided: float | None
    unfamiliar: float
    num_background: int
    background_found: float | None

    def lines(self) -> list[str]:
        """Return the figures as lines of text for people."""
        lost = "" if self.right_lost is None else f"; {self.right_lost:.1%} of the right answers are lost"
        avoided = "" if self.wrong_avoided is None else f", {self.wrong_avoided:.1%} of the wrong ones avoided"
        lines = [f"answered {self.kept:.1%}, the others are unknown{lost}{avoided}"]
        if self.unfamiliar:
            lines.append(f"unfamiliar, unlike what it has learned from: {self.unfamiliar:.1%}")
        if self.background_found is not None:
            found = f"{self.background_found:.1%} of {count_of(self.num_background, 'video')}"
            lines.append(f"background called unknown: {found}")
        return lines


@dataclass(frozen=True)
class EvaluationCost:
    """The cost of scoring one video: `frames_read` frames, `num_views` passes of `view_cost` each. `pace` is the measured speed."""

    frames_read: int
    num_views: int
    view_cost: Cost | None
    pace: ScoringSpeed
    machine: str
    precision: str

    def lines(self) -> list[str]:
        """Return lines of text for people. Speeds are named only if something was computed, and not taken from the cache."""
        cost, pace = self.view_cost, self.pace
        line = f"each video: {count_of(self.frames_read, 'frame')} read"
        if cost is not None:
            a_view = cost.gmacs + cost.attention_gmacs
            line += f", {self.num_views * a_view:.4g} billion multiply-adds"
            if self.num_views > 1:
                line += f" ({self.num_views} views of {a_view:.4g} billion)"
            line += f"; model: {cost.num_parameters / 1e6:.1f} million parameters"
        lines = [line]
        if pace.num_videos:
            network = f"network alone {pace.num_videos / pace.network_s:.3g} videos/s"
            decoding = "" if pace.total_s is None else f"{pace.num_videos / pace.total_s:.3g} videos/s with decoding, "
            lines.append(f"{decoding}{network} ({pace.num_videos} computed; {self.machine}, {self.precision})")
        return lines

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, None for those that nothing tells.

        GMACs are multiply-adds in units of 1e9; attention's products q k^T and (weights) v are counted apart.
        """
        cost, pace = self.view_cost, self.pace
        speed = (
            {
                "videos": pace.num_videos,
                "seconds": None if pace.total_s is None else round(pace.total_s, 3),
                "network_seconds": round(pace.network_s, 3),
                "videos_per_s": None if pace.total_s is None else round(pace.num_videos / pace.total_s, 2),
                "network_videos_per_s": round(pace.num_videos / pace.network_s, 2),
            }
            if pace.num_videos
            else None
        )
        return {
            "frames_read": self.frames_read,
            "views": self.num_views,
            "gmacs_a_view": None if cost is None else round(cost.gmacs, 4),
            "attention_gmacs_a_view": None if cost is None else round(cost.attention_gmacs, 4),
            "gmacs": None if cost is None else round(self.num_views * cost.gmacs, 4),
            "attention_gmacs": None if cost is None else round(self.num_views * cost.attention_gmacs, 4),
            "parameters": None if cost is None else cost.num_parameters,
            "machine": self.machine,
            "precision": self.precision,
            "computed": speed,
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of a model on labelled videos. `samples` and the rows of `logits`, `targets` and `scores`, all (N, K), are the N
    videos that could be read; columns are the K labels of the model. `failures` are the other videos. `thresholds` are the scores
    from which each label of a multi-label model counts as present."""

    report: Report | MultiLabelReport
    interval: Interval
    order: FrameOrder | None
    calibration: Calibration | None
    rejection: list[tuple[float, float]]
    sweep: dict[int, float]
    official: OfficialSubset | None
    early_exit: EarlyExit | None
    work: EvaluationCost
    samples: tuple[Sample, ...]
    logits: NDArray[np.float32]
    targets: NDArray[np.float32]
    scores: NDArray[np.float32]
    failures: tuple[Failure, ...]
    thresholds: tuple[float, ...]
    provenance: dict[str, Any]
    unknown: UnknownFigures | None = None

    def to_dict(self) -> dict[str, object]:
        """Return all figures and the provenance as plain values for JSON, without the scores of single videos."""
        order, calibration, official = self.order, self.calibration, self.official
        return {
            **self.provenance,
            "evaluated": len(self.samples),
            "failed": [failure.to_dict() for failure in self.failures if not failure.missing],
            "missing": [failure.to_dict() for failure in self.failures if failure.missing],
            "report": self.report.to_dict(),
            "interval": self.interval.to_dict(),
            "official_subset": None if official is None else official.to_dict(),
            "early_exit": None if self.early_exit is None else self.early_exit.to_dict(),
            "cost": self.work.to_dict(),
            "order": None if order is None else vars(order),
            "calibration": None if calibration is None else vars(calibration),
            "reliability": [asdict(part) for part in self.reliability],
            "rejection": [{"answered": answered, "right": right} for answered, right in self.rejection],
            "unknown": None if self.unknown is None else asdict(self.unknown),
            "frames_sweep": {str(frames): value for frames, value in self.sweep.items()},
        }

    @property
    def reliability(self) -> list[ReliabilityBin]:
        """Return how often answers of about the same confidence are right; none for multi-label models."""
        if not isinstance(self.report, Report):
            return []
        return reliability(self.scores.max(axis=1), self.scores.argmax(axis=1) == self.targets.argmax(axis=1))

    @property
    def warning(self) -> str:
        """Return a warning in words if the model is much surer than it is right; empty if it is not.

        The difference must be beyond chance too: confidence lies above the interval of the accuracy.
        """
        found = self.calibration
        if found is None or found.confidence < max(found.accuracy + OVERSURE, self.interval.high):
            return ""
        return (
            f"the model is surer than it is right on these videos ({found.confidence:.1%} against {found.accuracy:.1%}), so do not "
            "take its scores at their word here; videos like these in its training would mend that"
        )

    def worst(self, count: int) -> list[int]:
        """Return the rows of the `count` wrong answers with the highest scores, highest first (one action per video)."""
        wrong_N = self.scores.argmax(axis=1) != self.targets.argmax(axis=1)
        order_N = (-self.scores.max(axis=1)).argsort(kind="stable")
        return [row for row in order_N.tolist() if wrong_N[row]][:count]


def figure_of(report: Report | MultiLabelReport) -> float:
    """Return the main figure of a report: top-1, or mAP for multi-label models."""
    return report.top1 if isinstance(report, Report) else report.mean_ap


def figure_name(report: Report | MultiLabelReport) -> str:
    """Return the name of the figure that `figure_of` returns."""
    return "top-1" if isinstance(report, Report) else "mAP"
