"""Draw the repetitions in a video: frames, the self-similarity, and each repetition over time."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fewframes.core.text import count_of
from fewframes.inference.detection.spans import Span, clock
from fewframes.viz.charts import DPI, GREY, TRACK_COLOURS, shortened

if TYPE_CHECKING:
    from fewframes.inference.counting.results import RepetitionCount

LAGS_SHOWN = 3.0
"""The picture shows lags up to so many times the longest median repetition."""


def count_png(found: RepetitionCount, shown: Sequence[Span], frames: Sequence[NDArray[np.uint8]]) -> bytes:
    """Draw a count: frames of some repetitions, the similarity of each moment to those before it, and all repetitions.

    Args:
        found: The count.
        shown: Repetitions that have a frame in the picture, named by their labels.
        frames: A frame (C, H, W) uint8 of each of these.
    """
    heights = [1.45 * bool(shown), 0.2, 2.4, 0.75]
    figure = Figure(figsize=(12, sum(heights) + 1.0), facecolor="white")
    grid = figure.add_gridspec(4, 1, height_ratios=[max(height, 0.01) for height in heights], hspace=0.06)
    figure.subplots_adjust(
        left=0.08, right=0.985, top=1 - 0.42 / figure.get_figheight(), bottom=0.5 / figure.get_figheight()
    )
    similarity = figure.add_subplot(grid[2])
    bars = figure.add_subplot(grid[3], sharex=similarity)
    _draw_similarity(similarity, found)
    _draw_repetitions(bars, found)
    if shown:
        row = grid[0].subgridspec(1, len(shown), wspace=0.06)
        for index, (span, frame_CHW) in enumerate(zip(shown, frames, strict=True)):
            axes = figure.add_subplot(row[index])
            axes.imshow(frame_CHW.transpose(1, 2, 0))
            axes.set_xticks([])
            axes.set_yticks([])
            words = f"{shortened(span.label)}\n{clock(span.start_s)} - {clock(span.end_s)}"
            axes.set_xlabel(words, fontsize=7.5, parse_math=False, labelpad=3)
    title = f"{shortened(os.path.basename(found.source))}: {count_of(found.count, 'repetition')} in {clock(found.duration_s)}"
    figure.suptitle(
        title, x=0.012, y=1 - 0.1 / figure.get_figheight(), ha="left", va="top", fontsize=11, parse_math=False
    )
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def _draw_similarity(axes: Axes, found: RepetitionCount) -> None:
    """Draw how alike each moment is to the one a lag before: repetitions are level lines at their length."""
    times_s, lags_s = np.asarray(found.similarity_times_s), np.asarray(found.similarity_lags_s)
    longest_s = max((own.period_s for own in found.stretches), default=0.0)
    num_lags = int(np.searchsorted(lags_s, LAGS_SHOWN * longest_s, side="right")) if longest_s else len(lags_s)
    step_s = float(times_s[1] - times_s[0]) if len(times_s) > 1 else 1.0
    lags_s = lags_s[: max(2, num_lags)]
    axes.imshow(
        np.asarray(found.similarity)[:, : len(lags_s)].T,
        origin="lower",
        aspect="auto",
        extent=(times_s[0] - step_s / 2, times_s[-1] + step_s / 2, 0.0, float(lags_s[-1])),
        cmap="Blues",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axes.set_ylabel("like the moment\n... s before", fontsize=9)
    axes.tick_params(labelsize=8.5, labelbottom=False)


def _draw_repetitions(axes: Axes, found: RepetitionCount) -> None:
    labels = list(found.counts)
    for own in found.stretches:
        colour = TRACK_COLOURS[labels.index(own.label) % len(TRACK_COLOURS)]
        for number, one in enumerate(own.repetitions):
            axes.barh(
                0,
                one.end_s - one.start_s,
                left=one.start_s,
                height=0.8,
                color=colour,
                alpha=0.85 if number % 2 == 0 else 0.5,
            )
        words = f"{own.count} x {shortened(own.label)}"
        axes.text(own.start_s, 0.5, words, fontsize=8.5, color=colour, va="bottom", parse_math=False)
    for gap in found.gaps:
        axes.axvspan(gap.start_s, gap.end_s, color="#888888", alpha=0.35, hatch="//")
    axes.set_xlim(found.start_s, found.end_s)
    axes.set_ylim(-0.5, 1.1)
    axes.set_yticks([])
    axes.set_ylabel("repetitions", fontsize=9, color=GREY)
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 1.2, 1.5, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: clock(value))
    axes.tick_params(labelsize=8.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
