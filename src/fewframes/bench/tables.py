"""Write a bench as tables and pictures: the paper's Table 1 and Figure 1 for this machine, and time over frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fewframes.bench.scaling import LAYOUTS, Point
from fewframes.core.files import write_file, writing
from fewframes.models.baselines.catalogue import BASELINES, OURS, PUBLISHED_ONLY
from fewframes.viz.charts import DPI

Plain = Mapping[str, Any]
"""A bench or a row of it as plain values, as bench.json has them."""
TableFormat = Literal["table", "markdown", "json", "csv"]
BLUE, GREY, ORANGE = "#1f5fa8", "#6b7683", "#c2410c"
HEAD = (
    "model", "top-1 %", "GMACs x views", "params M", "frames read", "videos/s, network", "with decoding", "ms a view, p50/p95",
    "MB", "run as", "published: GMACs a view, params M, videos/s on a V100",
)  # fmt: skip


def bench_text(result: Plain, form: TableFormat) -> str:
    """Return all rows of a bench, given as plain values, in one of the formats."""
    rows = result["rows"]
    if form == "json":
        return json.dumps(result, indent=1)
    if form == "csv":
        left_out = ("published", "ms_a_view_in_other_ways")
        flat = [{name: value for name, value in row.items() if name not in left_out} for row in rows]
        published = [{f"published_{name}": value for name, value in row["published"].items()} for row in rows]
        return _csv([{**one, **other} for one, other in zip(flat, published, strict=True)])
    lines = [_cells(row) for row in rows]
    if form == "markdown":
        lines += [
            [name, _top1_text(asdict(published), None), *[""] * (len(HEAD) - 3), _published(asdict(published))]
            for name, published in PUBLISHED_ONLY.items()
        ]
        return markdown(HEAD, lines)
    return _aligned([list(HEAD), *lines])


def scaling_text(points: Sequence[Point], form: TableFormat) -> str:
    """Return all points of a scaling in one of the formats; `markdown` is the same as `table`."""
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


def figure_1(result: Plain) -> Figure:
    """Return the paper's Figure 1 for this machine.

    Left: accuracy over videos/s, with markers sized by the frames that are read. The accuracy is the measured one if there is
    any, else the one published on Kinetics-400. Right: videos/s and multiply-adds of all systems.
    """
    rows = result["rows"]
    measured = any(row["top1"] is not None for row in rows)
    figure = Figure(figsize=(13, max(5, 1 + 0.27 * len(rows))), layout="constrained")
    left, right = figure.subplots(1, 2)
    without = []
    for row in rows:
        name, top1 = Path(row["name"]).stem, row["top1"] if measured else row["published"]["top1"]
        if top1 is None:
            without.append(name)
            continue
        left.scatter(row["videos_s"], top1, s=3 * row["frames_read"], color=_colour(row), alpha=0.7)
        left.annotate(
            f"{name} ({row['frames_read']})", (row["videos_s"], top1), xytext=(0, 9),
            textcoords="offset points", ha="center", fontsize=8, parse_math=False,
        )  # fmt: skip
    left.margins(x=0.15, y=0.15)
    left.set_ylabel("top-1 in %, " + ("measured on the videos given" if measured else "as published on Kinetics-400"))
    if without:
        left.set_title(f"accuracy unknown: {', '.join(without)}", fontsize=8, parse_math=False)
    ordered = sorted(rows, key=lambda row: row["videos_s"])
    right.barh(range(len(ordered)), [row["videos_s"] for row in ordered], color=[_colour(row) for row in ordered])
    for position, row in enumerate(ordered):
        gmacs = row["views"] * (row["gmacs_a_view"] + row["attention_gmacs_a_view"])
        right.text(
            row["videos_s"], position, f" {row['videos_s']:.3g} a second, {gmacs:,.0f} GMACs", va="center", fontsize=8
        )
    right.set_yticks(range(len(ordered)), [Path(row["name"]).stem for row in ordered], fontsize=8, parse_math=False)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("videos/s, network alone, all views", fontsize=9)
        axes.grid(alpha=0.3, axis="both" if axes is left else "x")
    rates = [row["videos_s"] for row in ordered]
    right.set_xlim(0.5 * min(rates, default=1), 60 * max(rates, default=1))
    figure.suptitle(f"{result['machine']}; in brackets the frames that are read", fontsize=9, parse_math=False)
    return figure


def scaling_figure(points: Sequence[Point], preset: str) -> Figure:
    """Return multiply-adds, seconds and memory over frames, with a line for each layout of attention over time."""
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
    """Write a figure as PNG or SVG, by the ending of the name. Raises OutputError."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, format=path.suffix.lower().removeprefix(".") or "png")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content.getvalue())


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _colour(row: Plain) -> str:
    """Return blue for a model of ours, grey for others."""
    return BLUE if row["name"] in OURS or row["name"] not in BASELINES else GREY


def _cells(row: Plain) -> list[str]:
    """Return the cells of a row, in the order of `HEAD`."""
    gmacs, attention = row["gmacs_a_view"], row["attention_gmacs_a_view"]
    with_attention = f" ({gmacs + attention:.1f} with attention)" if attention > 0.05 else ""
    layout = ", channels last" if row["channels_last"] else ""
    return [
        row["name"],
        _top1_text(row["published"], row["top1"]),
        f"{gmacs:.1f}{with_attention} x {row['views']}",
        f"{row['parameters_m']:.1f}",
        str(row["frames_read"]),
        f"{row['videos_s']:.3g} ({row['videos_s_least']:.3g}-{row['videos_s_most']:.3g})",
        "" if row["videos_s_decoded"] is None else f"{row['videos_s_decoded']:.3g}",
        f"{row['view_ms_p50']:.3g} / {row['view_ms_p95']:.3g}",
        "" if row["memory_mb"] is None else str(row["memory_mb"]),
        f"{row['precision']}{layout}, {row['views_a_pass']} a pass",
        _published(row["published"]),
    ]


def _top1_text(published: Plain, measured: float | None) -> str:
    """Return the accuracies of a system: the measured one, and those that were published."""
    texts = [] if measured is None else [f"{measured:.1f} measured"]
    names = {"top1": "K400", "ucf101": "UCF101", "charades": "Charades mAP"}
    return "; ".join(
        [*texts, *(f"{name} {published[key]:.1f}" for key, name in names.items() if published[key] is not None)]
    )


def _published(published: Plain) -> str:
    """Return the published cost and speed of a system, and their source."""
    units = {"gmacs": "GMACs", "params_m": "M", "videos_s": "videos/s"}
    figures = [f"{published[key]:g} {unit}" for key, unit in units.items() if published[key] is not None]
    return " ".join([", ".join(figures), f"({published['source']})" if published["source"] else ""]).strip()


def _csv(rows: Sequence[dict[str, object]]) -> str:
    """Return rows as CSV with a header, without a newline at the end."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text whose columns are aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
