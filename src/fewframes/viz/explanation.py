"""Draw an explanation as a picture: frames with borders by attention (the paper's Figure 2), maps, and effects of omission."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fewframes.core.files import write_file
from fewframes.errors import ConfigError
from fewframes.viz.charts import DPI, shortened
from fewframes.viz.frames import HEAT, MAP_WORDS, explanation_page, heat_of, overlaid, shown_maps

if TYPE_CHECKING:
    from fewframes.inference.explain import Explanation

BLUE, ORANGE, GREY = "#1f5fa8", "#b35900", "#5b6470"
ENDINGS = (".png", ".svg", ".html")
COLUMNS, MOST_COLUMNS, MOST_TOP = 8, 16, 5
SIDE_IN, LEFT_IN, TIMES_IN, GAP_IN, BARS_IN, HEADER_IN = 1.0, 2.4, 0.27, 0.09, 0.72, 0.45
"""Sizes in inches: a frame's side, the column left of the frames, room for times, between frames, a row of bars, the title."""


def check_picture(path: Path) -> None:
    """Raise ConfigError for a file that cannot be a picture or page of ours."""
    if path.suffix.lower() not in ENDINGS or path.is_dir():
        raise ConfigError(
            f"{path}: explanations are written as .png, .svg or .html; name a file with one of these endings"
        )


def write_picture(explanation: Explanation, path: Path) -> None:
    """Write an explanation as a picture, .png or .svg, or as a page, .html. Raises ConfigError and OutputError."""
    check_picture(path)
    form = path.suffix.lower().removeprefix(".")
    if form == "html":
        write_file(path, explanation_page(explanation))
        return
    content = io.BytesIO()
    # Without a date and with a fixed salt, an explanation drawn twice gives the same file.
    metadata = {"Date": None} if form == "svg" else None
    with mpl.rc_context({"svg.hashsalt": "fewframes"}):
        explanation_figure(explanation).savefig(content, format=form, dpi=DPI, metadata=metadata)
    write_file(path, content.getvalue())


def explanation_figure(explanation: Explanation) -> Figure:
    """Draw an explanation: top labels at the left, frames with borders by attention, maps below, bars of both at the foot."""
    num_frames, columns = len(explanation.occlusion), COLUMNS
    while columns < MOST_COLUMNS and num_frames > 2 * columns:
        columns *= 2
    columns = min(columns, max(num_frames, 4))
    side_in = COLUMNS * (SIDE_IN + GAP_IN) / columns - GAP_IN
    row_in = side_in + TIMES_IN + (0 if explanation.maps is None else side_in + 0.12)
    strip_in = -(-num_frames // columns) * row_in
    foot_in = 2 * BARS_IN + 0.95
    width_in = LEFT_IN + COLUMNS * (SIDE_IN + GAP_IN) + 0.1
    sheet = _Sheet(width_in, HEADER_IN + max(strip_in, 2.3) + foot_in)
    name = shortened(Path(explanation.source).name)
    sheet.text(0.15, 0.13, shortened(explanation.label), size=15, weight="bold")
    words = "; ".join(filter(None, (f"{name}, {num_frames} frames", explanation.judgement)))
    sheet.text(LEFT_IN, 0.16, words, size=11, colour=GREY)
    _top_labels(sheet, explanation)
    _strip(sheet, explanation, columns, side_in, row_in)
    _foot(sheet, explanation, HEADER_IN + max(strip_in, 2.3) + 0.12)
    return sheet.figure


class _Sheet:
    """A figure on which things are placed in inches from the top left."""

    def __init__(self, width_in: float, height_in: float) -> None:
        self.figure = Figure(figsize=(width_in, height_in))
        self.width_in, self.height_in = width_in, height_in

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes of this position and size."""
        bottom = self.height_in - top - height
        return self.figure.add_axes(
            (left / self.width_in, bottom / self.height_in, width / self.width_in, height / self.height_in)
        )

    def text(
        self, left: float, top: float, words: str, *, size: float, colour: str = "black", weight: str = "normal"
    ) -> None:
        """Write words that begin at this position. Formulas are off, because a name may hold the dollar sign that begins one."""
        position = left / self.width_in, 1 - top / self.height_in
        self.figure.text(*position, words, size=size, color=colour, weight=weight, va="top", parse_math=False)


def _strip(sheet: _Sheet, explanation: Explanation, columns: int, side_in: float, row_in: float) -> None:
    prediction = explanation.prediction
    colours, times_s = heat_of(np.asarray(prediction.frame_attention)), prediction.times_s.tolist()
    maps_Thw = shown_maps(explanation)
    for index, frame_CHW in enumerate(np.asarray(explanation.frames)):
        row, column = divmod(index, columns)
        left, top = LEFT_IN + column * (side_in + GAP_IN), HEADER_IN + row * row_in
        _frame(sheet.axes(left, top, side_in, side_in), frame_CHW, colours[index], f"{times_s[index]:.2f} s")
        if maps_Thw is not None:
            below = sheet.axes(left, top + side_in + TIMES_IN, side_in, side_in)
            _frame(below, overlaid(frame_CHW, maps_Thw[index]), None, "")


def _frame(axes: Axes, frame_CHW: NDArray[np.uint8], colour: str | None, below: str) -> None:
    axes.imshow(frame_CHW.transpose(1, 2, 0), aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(below, fontsize=8, labelpad=4)
    for spine in axes.spines.values():
        spine.set(linewidth=0 if colour is None else 3.5, edgecolor=colour)


def _top_labels(sheet: _Sheet, explanation: Explanation) -> None:
    top = explanation.prediction.top(MOST_TOP)
    bar_in, width_in = 0.33, LEFT_IN - 0.45
    axes = sheet.axes(0.15, HEADER_IN + 0.02, width_in, bar_in * len(top))
    for rank, (label, score) in enumerate(top):
        colour = BLUE if label == explanation.label else "#b5c9e2"
        axes.barh(rank + 0.26, score, height=0.3, color=colour, align="center")
        axes.text(0, rank, shortened(label), size=9, va="bottom", parse_math=False)
        axes.text(1, rank, f"{score:.1%}", size=9, va="bottom", ha="right")
    axes.set(xlim=(0, 1), ylim=(len(top) - 0.5, -0.5))
    axes.axis("off")
    attention = np.asarray(explanation.prediction.frame_attention)
    below = HEADER_IN + bar_in * len(top) + 0.22
    _colour_bar(sheet, below, f"border: attention (if equal: {1 / len(attention):.3f})", float(attention.max()))
    if explanation.map_method is not None:
        words = MAP_WORDS[explanation.map_method].format(label=shortened(explanation.label))
        sheet.text(0.15, below + 0.6, f"lower pictures: from least to most of\n{words}", size=8)


def _colour_bar(sheet: _Sheet, top: float, words: str, most: float) -> None:
    sheet.text(0.15, top, words, size=8)
    bar = sheet.figure.colorbar(
        ScalarMappable(Normalize(0, most), HEAT),
        cax=sheet.axes(0.25, top + 0.17, LEFT_IN - 0.65, 0.1),
        orientation="horizontal",
        ticks=[0, most / 2, most],
        format="%.3f",
    )
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _foot(sheet: _Sheet, explanation: Explanation, top: float) -> None:
    """Draw two rows of bars over the same frames, so that the eye can compare them."""
    prediction = explanation.prediction
    attention, drops = np.asarray(prediction.frame_attention), 100 * np.asarray(explanation.occlusion)
    num_frames = len(drops)
    width_in = COLUMNS * (SIDE_IN + GAP_IN) - GAP_IN
    upper, lower = (sheet.axes(LEFT_IN, top + row * (BARS_IN + 0.12), width_in, BARS_IN) for row in range(2))
    upper.bar(range(num_frames), attention.tolist(), color=heat_of(attention), edgecolor=GREY, linewidth=0.4)
    upper.axhline(1 / num_frames, color=GREY, linewidth=0.8, linestyle="--")
    lower.bar(range(num_frames), drops.tolist(), color=[BLUE if drop >= 0 else ORANGE for drop in drops.tolist()])
    lower.axhline(0, color=GREY, linewidth=0.8)
    ends = sorted({0.0, float(drops[np.abs(drops).argmax()])})
    lower.set_yticks(ends, [f"{end:.2g}" for end in ends])
    every = math.ceil(num_frames / 16)
    times_s = prediction.times_s.tolist()
    for axes in (upper, lower):
        axes.set_xlim(-0.6, num_frames - 0.4)
        axes.set_xticks(range(0, num_frames, every), [])
        axes.tick_params(labelsize=8, length=2)
        axes.margins(y=0.1)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    lower.set_xticklabels([f"{time_s:.2f} s" for time_s in times_s[::every]])
    sheet.text(0.15, top + 0.1, "attention", size=9, weight="bold")
    sheet.text(0.15, top + 0.27, "dashed: if all were equal", size=8, colour=GREY)
    sheet.text(0.15, top + BARS_IN + 0.22, "leaving a frame out", size=9, weight="bold")
    sheet.text(0.15, top + BARS_IN + 0.39, "fall of the score, in points\n(orange: rise)", size=8, colour=GREY)
    sheet.text(0.15, top + 2 * BARS_IN + 0.48, explanation.agreement(), size=9)
