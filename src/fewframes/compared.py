"""A bench as tables and pictures: the paper's Table 1 and Figure 1 for this machine, and time over frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fewframes.bench import Bench, Row
from fewframes.contenders import PUBLISHED_ONLY, Published
from fewframes.plots import DPI
from fewframes.scaling import LAYOUTS, Point

Format = Literal["table", "markdown", "json", "csv"]
BLUE, GREY, ORANGE = "#1f5fa8", "#6b7683", "#c2410c"
HEAD = (
    "model", "top-1 %", "GMACs x views", "params M", "frames read", "videos/s, network", "with decoding", "ms a view, p50/p95",
    "MB", "run as", "published: GMACs a view, params M, videos/s on a V100",
)  # fmt: skip


def bench_text(result: Bench, form: Format) -> str:
    """All rows in one of the forms."""
    if form == "json":
        return json.dumps(result.to_dict(), indent=1)
    if form == "csv":
        rows = [{**row.to_dict(), **_flat(row)} for row in result.rows]
        for row in rows:
            del row["published"], row["ms_a_view_in_other_ways"]
        return _csv(rows)
    lines = [_cells(row) for row in result.rows]
    if form == "markdown":
        lines += [
            [name, _top1_text(published, None), *[""] * (len(HEAD) - 3), f"{_published(published)}"]
            for name, published in PUBLISHED_ONLY.items()
        ]
        return markdown(HEAD, lines)
    return _aligned([list(HEAD), *lines])


def scaling_text(points: Sequence[Point], form: Format) -> str:
    """All points in one of the forms."""
    if form == "json":
        return json.dumps([asdict(point) for point in points], indent=1)
    if form == "csv":
        return _csv([asdict(point) for point in points])
    rows = [["frames", "attention over time", "GMACs", "of these attention", "seconds", "MB"]]
    rows += [
        [
            str(point.frames),
            LAYOUTS[point.layout],
            f"{point.gmacs + point.attention_gmacs:.1f}",
            f"{point.attention_gmacs:.1f}",
            point.reason if point.seconds is None else f"{point.seconds:.3g}",
            "" if point.memory_bytes is None else f"{point.memory_bytes / 1e6:.0f}",
        ]
        for point in points
    ]
    return _aligned(rows)


def figure_1(result: Bench) -> Figure:
    """The paper's Figure 1 for this machine: accuracy (measured where there is a figure, else published on Kinetics-400), and
    multiply-adds of a video, over videos/s; markers sized by the frames that are read."""
    measured = any(row.report is not None for row in result.rows)
    judged: list[tuple[Row, float]] = []
    for row in result.rows:
        top1 = (None if row.report is None else 100 * row.report.top1) if measured else row.contender.published.top1
        if top1 is not None:
            judged.append((row, top1))
    costs = [(row, row.contender.passes * (row.cost.gmacs + row.cost.attention_gmacs)) for row in result.rows]
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, points in ((left, judged), (right, costs)):
        for row, value in points:
            colour = BLUE if row.ours else GREY
            axes.scatter(row.videos_s, value, s=3 * row.contender.frames_read, color=colour, alpha=0.7)
            axes.annotate(
                f"{Path(row.name).stem} ({row.contender.frames_read})", (row.videos_s, value), xytext=(0, 9),
                textcoords="offset points", ha="center", fontsize=8, parse_math=False,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.margins(x=0.15, y=0.15)
        axes.set_xlabel("videos/s, network alone, all views")
        axes.grid(alpha=0.3, which="both")
    right.set_yscale("log")
    right.set_ylabel("GMACs a video, all views, with attention")
    left.set_ylabel("top-1 in %, " + ("measured on the videos given" if measured else "as published on Kinetics-400"))
    without = [row.name for row in result.rows if row not in [row for row, _ in judged]]
    if without:
        left.set_title(f"without a figure for accuracy: {', '.join(without)}", fontsize=8, parse_math=False)
    figure.suptitle(f"{result.machine}; in brackets the frames that are read", fontsize=9, parse_math=False)
    return figure


def scaling_figure(points: Sequence[Point], preset: str) -> Figure:
    """Seconds and memory over frames, a line for each place of attention over time."""
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    panels = figure.subplots(1, 3)
    for layout, colour in zip(LAYOUTS, (BLUE, GREY, ORANGE), strict=True):
        own = [point for point in points if point.layout == layout]
        run = [point for point in own if point.seconds is not None and point.memory_bytes is not None]
        lines = (
            (own, [point.gmacs + point.attention_gmacs for point in own]),
            (run, [point.seconds for point in run]),
            (run, [(point.memory_bytes or 0) / 1e6 for point in run]),
        )
        for axes, (shown, values) in zip(panels, lines, strict=True):
            axes.plot([point.frames for point in shown], values, marker="o", color=colour, label=LAYOUTS[layout])
    for axes, label in zip(panels, ("GMACs a video", "seconds a video", "MB above an empty process"), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        counts = sorted({point.frames for point in points})
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xlabel("frames a video")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.suptitle(preset, fontsize=10)
    return figure


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, as the name says."""
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _cells(row: Row) -> list[str]:
    values, way = row.to_dict(), row.turns[0].way
    attention = row.cost.attention_gmacs
    with_attention = f" ({row.cost.gmacs + attention:.1f} with attention)" if attention > 0.05 else ""
    decoded = row.videos_s_decoded
    return [
        row.name,
        _top1_text(row.contender.published, None if row.report is None else 100 * row.report.top1),
        f"{row.cost.gmacs:.1f}{with_attention} x {row.contender.passes}",
        f"{row.cost.num_parameters / 1e6:.1f}",
        str(row.contender.frames_read),
        f"{row.videos_s:.3g} ({values['videos_s_least']:.3g}-{values['videos_s_most']:.3g})",
        "" if decoded is None else f"{decoded:.3g}",
        f"{values['view_ms_p50']:.3g} / {values['view_ms_p95']:.3g}",
        "" if values["memory_mb"] is None else f"{values['memory_mb']}",
        way.describe(),
        _published(row.contender.published),
    ]


def _top1_text(published: Published, measured: float | None) -> str:
    texts = [] if measured is None else [f"{measured:.1f} measured"]
    figures = {"K400": published.top1, "UCF101": published.ucf101, "Charades mAP": published.charades}
    texts += [f"{name} {value:.1f}" for name, value in figures.items() if value is not None]
    return "; ".join(texts)


def _published(published: Published) -> str:
    figures = {"GMACs": published.gmacs, "M": published.params_m, "videos/s": published.videos_s}
    texts = [f"{value:g} {unit}" for unit, value in figures.items() if value is not None]
    return " ".join([", ".join(texts), f"({published.source})" if published.source else ""]).strip()


def _flat(row: Row) -> dict[str, object]:
    return {f"published_{name}": value for name, value in asdict(row.contender.published).items()}


def _csv(rows: Sequence[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
