"""Pictures of results, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from fewframes.metrics import Report

DPI = 110


def confusion_png(report: Report, title: str) -> bytes:
    """Confusion counts: true labels down, predicted ones across, shade by share of the row."""
    counts = report.confusion
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = 2.2 + 0.55 * len(report.labels)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    labels = [label.encode(errors="replace").decode() for label in report.labels]  # folder names need not be text
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    for row, values in enumerate(counts.tolist()):
        for column, count in enumerate(values):
            if count:
                colour = "white" if shares[row, column] > 0.55 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour)
    return _png(figure)


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


def strips_png(strips: Sequence[tuple[str, Tensor]]) -> bytes:
    """A row of frames (T, C, H, W) uint8 for each video, what is said of it above."""
    num_frames = max(len(frames) for _, frames in strips)
    figure = Figure(figsize=(1.5 * num_frames, 1.75 * len(strips)), layout="constrained")
    rows = figure.subplots(len(strips), num_frames, squeeze=False)
    for axes_of_row, (text, frames_TCHW) in zip(rows, strips, strict=True):
        for axes in axes_of_row:
            axes.axis("off")
        for axes, frame_CHW in zip(axes_of_row, frames_TCHW, strict=False):
            axes.imshow(frame_CHW.permute(1, 2, 0).numpy())
        axes_of_row[0].set_title(text, fontsize=8, loc="left")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()
