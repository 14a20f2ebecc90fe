"""Measure a solved read-out: on every group that was left out in turn, and on videos that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.metrics import Interval, MultiLabelReport, Report, interval_of, report_of
from fewframes.core.settings import Task
from fewframes.data.layouts import Sample
from fewframes.models.moments import Floats
from fewframes.results import Failure
from fewframes.runtime.protocol import scores_of


@dataclass(frozen=True, eq=False)
class HeadFigures:
    """The figures of a read-out on N videos that it was not solved from, each in one view: the video as it is."""

    protocol: str
    """The way in which the videos were kept apart, in words."""
    report: Report | MultiLabelReport
    """The accuracy, and the confusion of actions."""
    interval: Interval
    """Top-1 (mAP for multi-label data) with its interval of 95 % over groups."""
    samples: tuple[Sample, ...]
    """The N videos."""
    scores: NDArray[np.float32]
    """The scores (N, K) in 0-1, in the order of the model's labels."""
    failures: tuple[Failure, ...]
    """The videos that could not be read."""
    thresholds: tuple[float, ...]
    """The score from which each label of multi-label data counts as present; empty for one action a video."""

    def to_dict(self) -> dict[str, object]:
        """Return all figures as plain values for JSON, without the scores of single videos."""
        return {
            "protocol": self.protocol,
            "evaluated": len(self.samples),
            "report": self.report.to_dict(),
            "interval": self.interval.to_dict(),
        }


def figures_of(
    logits_NK: Floats,
    targets_NK: Floats,
    task: Task,
    labels: tuple[str, ...],
    samples: Sequence[Sample],
    protocol: str,
    failures: tuple[Failure, ...] = (),
    thresholds: tuple[float, ...] = (),
) -> HeadFigures:
    """Return the figures of logits for videos.

    Args:
        logits_NK: The logits.
        targets_NK: The targets in 0-1.
        task: One action a video, or any number of them.
        labels: Names of the K actions.
        samples: The N videos.
        protocol: How they were kept apart from those that the read-out was solved from.
        failures: Further videos, which could not be read.
        thresholds: The score from which each label of multi-label data counts as present.
    """

    def report(rows: NDArray[Any]) -> Report | MultiLabelReport:
        return report_of(task, logits_NK[rows], targets_NK[rows], labels, thresholds)

    right_N = logits_NK.argmax(axis=1) == targets_NK.argmax(axis=1)

    def figure(rows: Any) -> float:
        if task == "single":
            return float(right_N[np.asarray(rows)].mean())
        found = report(np.asarray(rows))
        assert isinstance(found, MultiLabelReport)
        return found.mean_ap

    groups = [sample.group or sample.path for sample in samples]
    return HeadFigures(
        protocol=protocol,
        report=report(np.arange(len(samples))),
        interval=interval_of(figure, groups, np.random.default_rng(0)),
        samples=tuple(samples),
        scores=scores_of(np.asarray(logits_NK, np.float32), task),
        failures=failures,
        thresholds=thresholds or ((0.5,) * len(labels) if task == "multilabel" else ()),
    )
