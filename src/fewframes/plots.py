"""Pictures of results."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fewframes.evaluate import Report


def save_confusion(report: Report, path: Path, title: str) -> None:
    """Confusion counts as a PNG: true labels down, predicted ones across, shade by share of the row."""
    counts = report.confusion
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = 2.2 + 0.55 * len(report.labels)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(report.labels)), report.labels, rotation=45, ha="right")
    axes.set_yticks(range(len(report.labels)), report.labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    for row, values in enumerate(counts.tolist()):
        for column, count in enumerate(values):
            if count:
                colour = "white" if shares[row, column] > 0.55 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
