"""Learn from the segments of a labelling session: a read-out that is solved anew after each change, and how good it is.

The embeddings are there already, so that solving is all that a label costs. Nothing of a segment's own group is used to judge it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.metrics import interval_of
from fewframes.core.text import count_of
from fewframes.label.archive import Archive, Window
from fewframes.label.values import BACKGROUND, Accuracy, Segment
from fewframes.models.moments import SOLVED_MOMENTS
from fewframes.models.read_out.solve import cross_entropy, solve_rows
from fewframes.runtime.protocol import Floats, scores_of
from fewframes.training.forecast import Forecast, forecast_twice
from fewframes.training.solved.run import calibrated

BLOCK_S = 60.0
"""The seconds of a block of a video. Segments of one block are one group while there are few videos."""
ENOUGH_VIDEOS = 5
"""Labelled videos from which each of them is one group."""
NUM_ASSUMED = 48
"""Windows that are assumed to show nothing of interest while there is one label and no background."""


@dataclass(frozen=True, eq=False)
class Learned:
    """The result of learning from segments."""

    labels: tuple[str, ...] = ()
    """The K labels; empty if nothing can be learned yet."""
    weight: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """The weights (K, P) of the read-out."""
    bias: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """The bias (K,) of the read-out."""
    left_out: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """The scores (K,) of each segment by a read-out that did not learn from its group, by the id of the segment."""
    accuracy: Accuracy | None = None
    why_no_accuracy: str = "nothing is labelled yet; label an action, and a part that shows none of the actions"
    windows: Mapping[str, tuple[Window, ...]] = field(default_factory=dict)
    """The windows that each segment was learned from, by its id."""

    def scores(self, moments_WP: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the scores (W, K) of windows by their moments."""
        return scores_of(moments_WP.astype(np.float32) @ self.weight.T + self.bias, "single")

    def likeliest(self, segment: Segment) -> tuple[str, float]:
        """Return the label that a segment gets without its own group, and the score of it."""
        scores_K = self.left_out[segment.id]
        return self.labels[int(scores_K.argmax())], float(scores_K.max())


NOTHING = Learned()


class Learner:
    """A learner that keeps the moments of labelled windows, so that each change costs one solution alone."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._moments: dict[Window, NDArray[np.float32]] = {}

    def learn(self, segments: Sequence[Segment]) -> Learned:
        """Return what the segments teach. Those of videos that are not embedded yet wait for them."""
        windows = {segment.id: tuple(self._archive.whole_windows_of(segment)) for segment in segments}
        usable = [segment for segment in segments if windows[segment.id]]
        if not usable:
            return NOTHING
        labels = sorted({segment.label for segment in usable}, key=lambda label: (label == BACKGROUND, label))
        groups = groups_of(usable)
        rows = [window for segment in usable for window in windows[segment.id]]
        number_M = [number for number, segment in enumerate(usable) for _ in windows[segment.id]]
        label_M = [labels.index(usable[number].label) for number in number_M]
        group_M = [groups[number] for number in number_M]
        if labels == [BACKGROUND]:
            return Learned(why_no_accuracy="only parts without actions are labelled; label an action")
        if len(labels) == 1:
            assumed = self._assumed(usable)
            labels.append(BACKGROUND)
            rows, label_M = [*rows, *assumed], [*label_M, *[1] * len(assumed)]
            group_M = [*group_M, *(f"assumed {number}" for number in range(len(assumed)))]
        if len(set(label_M)) < 2:
            return Learned(why_no_accuracy="one action alone is labelled; label a part that shows none of the actions")
        targets_MK = np.eye(len(labels))[label_M]
        if len(set(group_M)) < 2:  # a single block: each segment stands for itself
            group_M = [usable[number].id for number in number_M]
        group_names, groups_M = np.unique(group_M, return_inverse=True)
        rows_MP = np.stack([self._moments_of(window) for window in rows])
        solved = solve_rows(rows_MP[:, None], targets_MK, cross_entropy, groups_B=groups_M, moments=SOLVED_MOMENTS)
        names = tuple(str(group_names[groups_M[row]]) for row in solved.indices)
        solved, _ = calibrated(solved, targets_MK, groups_M, names, "single")
        logits_MK = np.empty_like(solved.left_out[:, 0])
        logits_MK[solved.indices] = solved.left_out[:, 0]
        left_out = {}
        for number, segment in enumerate(usable):
            own = np.flatnonzero(np.asarray(number_M) == number)
            left_out[segment.id] = scores_of(logits_MK[own].mean(axis=0, keepdims=True), "single")[0]
        accuracy, why = _accuracy(usable, groups, left_out, labels)
        kept = {segment.id: windows[segment.id] for segment in usable}
        return Learned(tuple(labels), solved.weight, solved.bias, left_out, accuracy, why, kept)

    def forecast(self, segments: Sequence[Segment]) -> Forecast:
        """Return the forecast of what twice the segments would bring."""
        usable = [(segment, windows[0]) for segment in segments if (windows := self._archive.whole_windows_of(segment))]
        if not usable:
            return Forecast(missing="nothing is labelled yet")
        labels = sorted({segment.label for segment, _ in usable})
        embeddings = [
            self._archive.embeddings_of(self._archive.video(window.video), window.stride, np.array([window.first]))
            for _, window in usable
        ]
        targets_BK = np.eye(len(labels))[[labels.index(segment.label) for segment, _ in usable]]
        return forecast_twice(np.stack(embeddings), targets_BK, groups_of([segment for segment, _ in usable]))

    def _moments_of(self, window: Window) -> NDArray[np.float32]:
        if window not in self._moments:
            self._moments[window] = self._archive.moments_of([window])[0]
        return self._moments[window]

    def _assumed(self, segments: Sequence[Segment]) -> list[Window]:
        """Return windows that are taken for background: some at random, away from all segments."""
        generator = np.random.default_rng(0)
        free: list[Window] = []
        for video in self._archive.videos.values():
            if video.embeddings is not None:
                own = [segment for segment in segments if segment.video == video.id]
                windows = [Window(video.id, 1, first) for first in self._archive.windows(video, 1).tolist()]
                free += [window for window in windows if not any(_touches(self._archive, window, one) for one in own)]
        chosen = generator.permutation(len(free))[:NUM_ASSUMED]
        return [free[index] for index in sorted(chosen.tolist()) if self._archive.is_whole(free[index])]


def _touches(archive: Archive, window: Window, segment: Segment) -> bool:
    start_s, end_s = archive.times_of(window)
    return start_s < segment.end_s and segment.start_s < end_s


def groups_of(segments: Sequence[Segment]) -> list[str]:
    """Return the group of each segment: its video, or a block of a minute of it while few videos have labels."""
    if len({segment.video for segment in segments}) >= ENOUGH_VIDEOS:
        return [segment.video for segment in segments]
    return [f"{segment.video} {int((segment.start_s + segment.end_s) / 2 // BLOCK_S)}" for segment in segments]


def _accuracy(
    segments: Sequence[Segment], groups: Sequence[str], left_out: Mapping[str, Floats], labels: Sequence[str]
) -> tuple[Accuracy | None, str]:
    """Return the accuracy on left-out groups, or the reason why there is none."""
    counts = {label: {groups[index] for index, one in enumerate(segments) if one.label == label} for label in labels}
    by_video = len({segment.video for segment in segments}) >= ENOUGH_VIDEOS
    few = [label for label, found in counts.items() if len(found) < 2]
    if few:
        where = "videos" if by_video else "minutes"
        return None, f"{few[0]!r} needs labels in two {where}, because each is left out in turn"
    right_N = np.array([labels[int(left_out[one.id].argmax())] == one.label for one in segments])
    interval = interval_of(lambda rows: float(right_N[rows].mean()), groups, np.random.default_rng(0))
    each = "video" if by_video else f"block of {BLOCK_S:g} s"
    protocol = f"{count_of(len(segments), 'segment')}, each {each} left out in turn"
    return Accuracy(interval.value, interval.low, interval.high, interval.num_groups, protocol), ""
