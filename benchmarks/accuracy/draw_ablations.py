"""The pictures of docs/explanation/ablations.md from the result files, and their tables on standard output.

python -m benchmarks.accuracy.draw_ablations
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.harness import BLUE, GREY, IMAGES, ORANGE, save_figure

RESULTS = Path(__file__).parent
PROTOCOLS = {"ut": "UT-Interaction, five folds", "order": "forwards or backwards, five folds"}


def bars(rows: Sequence[tuple[str, dict[str, Any]]], titles: dict[str, str], path: Path) -> None:
    """A row of bars for each system under each title, with the least and the most over seeds."""
    figure = Figure(figsize=(5.2 * len(titles) + 2, 0.42 * len(rows) + 1.3), layout="constrained")
    panels = figure.subplots(1, len(titles), squeeze=False, sharey=True)[0]
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for position, (name, values) in enumerate(rows):
            entry = values[key]
            colour = GREY if "mean" in name else BLUE
            errors = [[entry["value"] - entry["min"]], [entry["max"] - entry["value"]]]
            axes.barh(position, entry["value"], color=colour, xerr=errors, ecolor=ORANGE, capsize=3)
            axes.text(1, position, f"{entry['value']:.1f}", va="center", color="white", fontsize=9)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis() if axes is panels[0] else None
        axes.set_xlim(0, 100)
        axes.set_xlabel("top-1 in %")
        axes.set_title(title, fontsize=10)
    save_figure(figure, path)


def frames_curve(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Table 4: accuracy over frames, ours and the paper's."""
    paper = {4: 74.1, 8: 77.1, 16: 79.3, 32: 79.9, 64: 80.5}
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for (key, title), colour in zip(PROTOCOLS.items(), (BLUE, ORANGE), strict=True):
        names = {n: "lite0, transformer" + ("" if n == 16 else f", {n} frames") for n in paper}
        entries = [results[key][name] for name in names.values()]
        low = [entry["value"] - entry["min"] for entry in entries]
        high = [entry["max"] - entry["value"] for entry in entries]
        values = [entry["value"] for entry in entries]
        axes.errorbar(list(names), values, yerr=[low, high], marker="o", color=colour, label=title, capsize=3)
    axes.plot(list(paper), list(paper.values()), marker="s", color=GREY, label="the paper, Kinetics-400 (Table 4)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(paper), [str(count) for count in paper])
    axes.set_xlabel("frames a video")
    axes.set_ylabel("top-1 in %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Every system as a line of Markdown: mean over seeds (least-most), and the paired difference with its interval."""
    lines = [f"| top-1 in %, mean over seeds (least-most) | {' | '.join(PROTOCOLS.values())} |", "|---|---|---|"]
    for name in results["ut"]:
        cells = []
        for key in PROTOCOLS:
            entry = results[key][name]
            cell = f"{entry['value']:.1f} ({entry['min']:.1f}-{entry['max']:.1f})"
            if "difference" in entry:
                gain = entry["difference"]
                cell += (
                    f"; {gain['points']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f}) against {entry['against']}"
                )
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    results = json.loads((RESULTS / "ablations.json").read_text())["top1_percent"]

    def rows(*names: str) -> list[tuple[str, dict[str, Any]]]:
        return [(name, {key: results[key][name] for key in PROTOCOLS}) for name in names]

    table2 = rows(
        *(f"{e}, {s}" for e in ("vit-ti", "lite0") for s in ("mean", "paper's plain transformer", "transformer"))
    )
    bars(table2, PROTOCOLS, IMAGES / "ablations-temporal.png")
    bars(
        rows("vit-ti, transformer", "lite0 pooled alone, transformer", "lite0, transformer"),
        PROTOCOLS,
        IMAGES / "ablations-encoders.png",
    )
    bars(
        rows("lite0, paper's plain transformer", "lite0, release's plain transformer"),
        PROTOCOLS,
        IMAGES / "ablations-block.png",
    )
    frames_curve(results, IMAGES / "ablations-frames.png")
    print(table(results))
    whole = json.loads((RESULTS / "ablations_end_to_end.json").read_text())["top1_percent"]
    ways = {
        "both": "both ways",
        "1 -> 2": "trained on set 1, scored on set 2",
        "2 -> 1": "trained on set 2, scored on set 1",
    }
    bars(list(whole.items()), ways, IMAGES / "ablations-end-to-end.png")
    for name, values in whole.items():
        cells = [f"{values[way]['value']:.1f} ({values[way]['min']:.1f}-{values[way]['max']:.1f})" for way in ways]
        gap = values.get("difference")
        cells[0] += "" if gap is None else f"; {gap['points']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f})"
        print(f"| {name} | {' | '.join(cells)} |")
    clips = json.loads((RESULTS / "ablations.json").read_text())["ut, clips"]
    names = {"1x1": "one pass over the whole video", "5x1": "five clips of a second, scores averaged"}
    bars(
        [(title, {"ut": clips[name]}) for name, title in names.items()],
        {"ut": PROTOCOLS["ut"]},
        IMAGES / "ablations-clips.png",
    )


if __name__ == "__main__":
    main()
