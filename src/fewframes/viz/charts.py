"""Draw results as charts: confusion matrices, curves and timelines. The `*_png` functions return a PNG as bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from fewframes.core.metrics import ReliabilityBin
from fewframes.core.text import count_of, plain
from fewframes.inference.detection.spans import Span, clock

if TYPE_CHECKING:
    from fewframes.inference.timeline import Timeline

DPI = 110
MOST_COUNTED, MOST_NAMED = 30, 150
"""The most labels with which a confusion matrix has room for numbers in its cells, and for the names of its labels."""
MOST_LETTERS = 28
"""The longest label, in letters, that pictures show whole; pages and files show every label whole."""
MOST_TRACKS = 12
"""The most labels of a timeline that are drawn."""
GREY = "#5b6470"
TRACK_COLOURS = (
    "#1f5fa8", "#c2410c", "#2f855a", "#b7791f", "#7e3ff2", "#d53f8c", "#0e7490", "#6b7280", "#9b2c2c", "#5a67d8", "#65a30d",
    "#8b5e3c",
)  # fmt: skip


def confusion_png(labels: Sequence[str], counts_KK: NDArray[np.generic], title: str) -> bytes:
    """Draw a confusion matrix: true labels down, predicted ones across, shade by fraction of the row.

    With many labels the cells shrink: first the numbers go, and rare mistakes get more shade; then the names go.

    Args:
        labels: Names of the K classes.
        counts_KK: How often a video of the row's class was taken for the column's class.
        title: Title of the picture.
    """
    num_labels = len(labels)
    fractions = counts_KK / counts_KK.sum(axis=1, keepdims=True).clip(min=1)
    cell_in, letters_pt = (0.55, 10.0) if num_labels <= MOST_COUNTED else (0.13, 6.5)
    side_in = 2.2 + min(cell_in * num_labels, MOST_NAMED * 0.13)
    figure = Figure(figsize=(side_in + 0.8, side_in), layout="constrained")
    axes = figure.add_subplot()
    # Among many labels mistakes are spread thin; the root makes them visible.
    shade = fractions if num_labels <= MOST_COUNTED else np.sqrt(fractions)
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if num_labels <= MOST_NAMED:
        shown = [shortened(label) for label in labels]
        ticks = range(num_labels)
        turned = 45 if num_labels <= MOST_COUNTED else 90
        # A label may hold dollar signs, which would begin a formula.
        axes.set_xticks(
            ticks,
            shown,
            rotation=turned,
            ha="right" if turned == 45 else "center",
            fontsize=letters_pt,
            parse_math=False,
        )
        axes.set_yticks(ticks, shown, fontsize=letters_pt, parse_math=False)
    numbered = "" if num_labels <= MOST_NAMED else " (labels are numbered in their order, from 0)"
    axes.set_xlabel(f"predicted{numbered}")
    axes.set_ylabel(f"true{numbered}")
    axes.set_title(title, parse_math=False)
    if num_labels <= MOST_COUNTED:
        for row, column in np.argwhere(counts_KK).tolist():
            colour = "white" if fractions[row, column] > 0.55 else "black"
            axes.text(column, row, str(int(counts_KK[row, column])), ha="center", va="center", color=colour)
    return _png(figure)


def shortened(label: str) -> str:
    """Return a label that fits beside a picture. Characters that are no text are shown as Python writes them."""
    text = plain(label)
    if len(text) <= MOST_LETTERS:
        return text
    return f"{text[: MOST_LETTERS - 11]}…{text[-10:]}"  # long labels often differ at their end


def curve_png(
    points: Sequence[tuple[float, float]], across: str, up: str, title: str, *, fractions: bool = True
) -> bytes:
    """Draw points joined by a line.

    Args:
        points: Pairs (x, y); y is a fraction (0-1).
        across: Title of the x axis.
        up: Title of the y axis.
        title: Title of the picture.
        fractions: x is a fraction (0-1) as well; otherwise it is a count.
    """

    def percent(value: float, _: object) -> str:
        return f"{100 * value:.3g}%"  # 85.5 % and 86 % are two ticks

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([x for x, _ in points], [y for _, y in points], marker="o", color="#1f5fa8")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.yaxis.set_major_formatter(percent)
    if fractions:
        axes.xaxis.set_major_formatter(percent)
    else:
        axes.set_xticks([x for x, _ in points])
    if axes.get_ylim()[1] > 1.01:
        axes.set_ylim(top=1.01)  # no accuracy is above 100 %, and the line at 100 % stays visible
    axes.grid(alpha=0.3)
    axes.set_title(title)
    return _png(figure)


def reliability_png(curves: Mapping[str, Sequence[ReliabilityBin]], title: str) -> bytes:
    """Draw how often answers of about the same confidence are right. The area of a point is its number of videos.

    Args:
        curves: The bins of one or two models, by name.
        title: Title of the picture.
    """
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="as sure as right")
    for (name, bins), colour in zip(curves.items(), TRACK_COLOURS, strict=False):
        across, up = [part.confidence for part in bins], [part.right for part in bins]
        most = max((part.num_videos for part in bins), default=1)
        axes.plot(across, up, color=colour, linewidth=1.2, label=name)
        sizes = [20 + 180 * part.num_videos / most for part in bins]
        axes.scatter(across, up, s=sizes, color=colour, alpha=0.7, edgecolors="none")
    axes.set_xlabel("confidence")
    axes.set_ylabel("of these answers right")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlim(0, 1.03)
    axes.set_ylim(-0.02, 1.05)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False)
    axes.set_title(title)
    return _png(figure)


def training_png(history: Sequence[Mapping[str, float]], held_out: Sequence[tuple[int, float]]) -> bytes:
    """Draw a training run: loss and accuracy of each batch over steps, and the score of the held-out videos after each epoch.

    Args:
        history: Values `number`, `loss` and `accuracy` of each step.
        held_out: Pairs of step and score (0-1).
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [step["number"] for step in history]
    left.plot(steps, [step["loss"] for step in history], color="#1f5fa8", linewidth=1)
    left.set_ylabel("loss")
    right.plot(steps, [step["accuracy"] for step in history], color="#b5c9e2", linewidth=1, label="training batches")
    if held_out:
        right.plot(
            [step for step, _ in held_out], [value for _, value in held_out], color="#c2410c", label="held-out videos"
        )
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    right.set_ylabel("accuracy")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    return _png(figure)


def timeline_png(timeline: Timeline, shown: Sequence[Span], frames: Sequence[NDArray[np.uint8]]) -> bytes:
    """Draw a timeline: frames of some spans, a track of bars for each label, and scores over time.

    The `MOST_TRACKS` labels with the most seconds have a track of their own; the rest are in the files.

    Args:
        timeline: The timeline.
        shown: Spans that have a frame in the picture.
        frames: A frame (C, H, W) uint8 of each of these spans.
    """
    lengths_s: dict[str, float] = {}
    for span in timeline.spans:
        lengths_s[span.label] = lengths_s.get(span.label, 0.0) + span.length_s
    chosen = sorted(lengths_s, key=lambda label: -lengths_s[label])[:MOST_TRACKS]
    tracks = sorted(chosen, key=lambda label: min(span.start_s for span in timeline.spans if span.label == label))
    colours = {label: TRACK_COLOURS[index % len(TRACK_COLOURS)] for index, label in enumerate(tracks)}
    heights = [1.45 * bool(shown), 0.6, 0.3 + 0.27 * max(1, len(tracks)), 1.6]
    figure = Figure(figsize=(12, sum(heights) + 1.0), facecolor="white")
    grid = figure.add_gridspec(4, 1, height_ratios=[max(height, 0.01) for height in heights], hspace=0.0)
    figure.subplots_adjust(
        left=0.12, right=0.985, top=1 - 0.42 / figure.get_figheight(), bottom=0.5 / figure.get_figheight()
    )
    bars = figure.add_subplot(grid[2])
    scores = figure.add_subplot(grid[3], sharex=bars)
    _draw_tracks(bars, timeline, tracks, colours)
    _draw_scores(scores, timeline, tracks, colours)
    if shown:
        row = grid[0].subgridspec(1, len(shown), wspace=0.06)
        for index, (span, frame_CHW) in enumerate(zip(shown, frames, strict=True)):
            axes = figure.add_subplot(row[index])
            _draw_frame(axes, span, frame_CHW, colours.get(span.label, GREY))
            middle_s = (span.start_s + span.end_s) / 2
            ends = ("axes fraction", bars.get_xaxis_transform())
            line = ConnectionPatch((0.5, -0.32), (middle_s, 1.0), *ends, axesA=axes, axesB=bars)
            line.set(color=colours.get(span.label, GREY), linewidth=0.9, alpha=0.8)
            figure.add_artist(line)
    found = count_of(len(timeline.spans), "span")
    figure.suptitle(
        f"{shortened(os.path.basename(timeline.source))}: {found} in {clock(timeline.duration_s)}",
        x=0.012, y=1 - 0.1 / figure.get_figheight(), ha="left", va="top", fontsize=11, parse_math=False,
    )  # fmt: skip
    return _png(figure)


def _draw_frame(axes: Axes, span: Span, frame_CHW: NDArray[np.uint8], colour: str) -> None:
    axes.imshow(frame_CHW.transpose(1, 2, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    for edge in axes.spines.values():
        edge.set_color(colour)
        edge.set_linewidth(2.5)
    words = f"{shortened(span.label)}\n{clock(span.start_s)} - {clock(span.end_s)}"
    axes.set_xlabel(words, fontsize=7.5, parse_math=False, labelpad=3)


def _draw_tracks(axes: Axes, timeline: Timeline, tracks: Sequence[str], colours: Mapping[str, str]) -> None:
    least_s = timeline.duration_s / 600  # narrower bars would not be seen
    for index, label in enumerate(tracks):
        axes.axhspan(index - 0.5, index + 0.5, color="#f4f6f8" if index % 2 == 0 else "white", zorder=0)
        for span in timeline.spans:
            if span.label == label:
                alpha = 0.35 + 0.65 * span.confidence
                axes.barh(
                    index,
                    max(span.length_s, least_s),
                    left=span.start_s,
                    height=0.72,
                    color=colours[label],
                    alpha=alpha,
                )
    for gap in timeline.gaps:
        axes.axvspan(gap.start_s, gap.end_s, color="#888888", alpha=0.35, hatch="//")
    axes.set_yticks(range(len(tracks)), [shortened(label) for label in tracks], fontsize=9, parse_math=False)
    axes.set_ylim(max(len(tracks), 1) - 0.5, -0.5)
    axes.tick_params(axis="both", length=0, labelbottom=False)
    for edge in axes.spines.values():
        edge.set_visible(False)


def _draw_scores(axes: Axes, timeline: Timeline, tracks: Sequence[str], colours: Mapping[str, str]) -> None:
    times_s, scores_NK = np.asarray(timeline.times_s), np.asarray(timeline.scores)
    for label in tracks:
        values_N = scores_NK[:, timeline.labels.index(label)]
        axes.plot(times_s, values_N, color=colours[label], linewidth=1.0)
        axes.fill_between(times_s, values_N, color=colours[label], alpha=0.12, linewidth=0)
    axes.axhline(timeline.threshold, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_ylim(0, 1.05)
    axes.set_xlim(timeline.start_s, timeline.end_s)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("score", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 1.2, 1.5, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: clock(value))
    axes.tick_params(labelsize=8.5)
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()
