"""Draw the imports between the wings of fewframes: `python tools/draw_wings.py docs/images/wings.png`.

It prints the numbers that docs/explanation/architecture.md quotes: modules and lines of each wing, floors, arrows between wings.
"""

from __future__ import annotations

import argparse
import tomllib
from collections import Counter
from pathlib import Path

import grimp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "fewframes"


def floors() -> list[list[str]]:
    """Return the wings on each floor, the lowest first, as the contract in pyproject.toml has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = [one["layers"] for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    found = [[name for name in layer.split(" | ") if (SOURCE / name).is_dir()] for layer in reversed(layers)]
    return [floor for floor in found if floor]


def wing_of(module: str) -> str:
    """Return the wing of a module by its dotted name; empty for the package's own files."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (SOURCE / parts[1]).is_dir() else ""


def arrows() -> Counter[tuple[str, str]]:
    """Return how many imports go from one wing to another."""
    graph = grimp.build_graph("fewframes")
    found: Counter[tuple[str, str]] = Counter()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            pair = wing_of(importer), wing_of(imported)
            if all(pair) and pair[0] != pair[1]:
                found[pair] += 1
    return found


def draw(found: Counter[tuple[str, str]], path: Path) -> None:
    """Draw the wings on their floors, and an arrow for each pair; its width grows with the number of imports."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.add_subplot()
    levels = floors()
    place = {
        wing: ((number + 0.5) / len(floor), level)
        for level, floor in enumerate(levels)
        for number, wing in enumerate(floor)
    }
    for (importer, imported), count in found.items():
        start, end = place[importer], place[imported]
        bend = 0.12 if start[1] - end[1] > 1 else 0.0
        style = {"arrowstyle": "-|>", "color": "#1f5fa8", "alpha": 0.35, "linewidth": 0.6 + count**0.5 / 2.5}
        style |= {"connectionstyle": f"arc3,rad={bend}", "shrinkA": 16, "shrinkB": 16}
        axes.annotate("", xy=end, xytext=start, arrowprops=style)
    for wing, (across, level) in place.items():
        files = list((SOURCE / wing).rglob("*.py"))
        modules = [file for file in files if file.name != "__init__.py"]
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#eef1f4", "edgecolor": "#5b6470"}
        text = f"{wing}\n{len(modules)} modules, {lines:,} lines"
        axes.text(across, level, text, ha="center", va="center", fontsize=10, bbox=box)
        print(f"{wing:10} floor {level + 1}: {len(modules)} modules, {lines} lines")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(levels) - 0.4)
    axes.axis("off")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)
    print(f"{len(levels)} floors, {len(found)} arrows between wings, {sum(found.values())} imports")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    draw(arrows(), parser.parse_args().picture)
