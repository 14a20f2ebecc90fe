"""Pictures of results, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fewframes.metrics import Report

DPI = 110
MOST_COUNTED, MOST_NAMED = 30, 150
"""Up to so many labels the confusion picture has room for numbers in its cells, and for the labels' names."""
MOST_LETTERS = 28
"""Longer labels are shortened in pictures; pages and files have them whole."""


def confusion_png(report: Report, title: str) -> bytes:
    """Confusion counts: true labels down, predicted ones across, shade by share of the row.

    With many labels the cells shrink: first the numbers go, and rare mistakes get more shade; then the names go.
    """
    counts, num_labels = report.confusion, len(report.labels)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    cell_in, letters_pt = (0.55, 10.0) if num_labels <= MOST_COUNTED else (0.13, 6.5)
    side_in = 2.2 + min(cell_in * num_labels, MOST_NAMED * 0.13)
    figure = Figure(figsize=(side_in + 0.8, side_in), layout="constrained")
    axes = figure.add_subplot()
    shade = shares if num_labels <= MOST_COUNTED else shares.sqrt()
    axes.imshow(shade.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if num_labels <= MOST_NAMED:
        labels = [shortened(label) for label in report.labels]
        places = range(num_labels)
        turned = 45 if num_labels <= MOST_COUNTED else 90
        # A label may hold dollar signs, which would begin a formula.
        axes.set_xticks(
            places,
            labels,
            rotation=turned,
            ha="right" if turned == 45 else "center",
            fontsize=letters_pt,
            parse_math=False,
        )
        axes.set_yticks(places, labels, fontsize=letters_pt, parse_math=False)
    numbered = "" if num_labels <= MOST_NAMED else " (labels numbered in their order, from 0)"
    axes.set_xlabel(f"predicted{numbered}")
    axes.set_ylabel(f"true{numbered}")
    axes.set_title(title, parse_math=False)
    if num_labels <= MOST_COUNTED:
        for row, column in counts.nonzero().tolist():
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=colour)
    return _png(figure)


def shortened(label: str) -> str:
    """A label that fits beside a picture; folder names need not be text."""
    text = label.encode(errors="replace").decode()
    if len(text) <= MOST_LETTERS:
        return text
    return f"{text[: MOST_LETTERS - 11]}…{text[-10:]}"  # long labels often differ at their end


def curve_png(points: Sequence[tuple[float, float]], across: str, up: str, title: str, *, shares: bool = True) -> bytes:
    """Points joined by a line; `up` is a share (0-1), and so is `across` unless it counts."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([x for x, _ in points], [y for _, y in points], marker="o", color="#1f5fa8")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    if shares:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    else:
        axes.set_xticks([x for x, _ in points])
    axes.grid(alpha=0.3)
    axes.set_title(title)
    return _png(figure)


def training_png(history: Sequence[Mapping[str, float]], held_out: Sequence[tuple[int, float]]) -> bytes:
    """How a run went: loss and share right of each batch over steps, and the figure of the held-out videos after each epoch."""
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
    right.set_ylabel("right")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()
