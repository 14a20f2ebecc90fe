"""The pictures of docs/explanation/comparison.md from the result files, and its table on standard output.

    python -m benchmarks.speed.draw_comparison

The files hold what `fewframes bench --output` writes, and the commit; how they were made stands in docs/explanation/comparison.md.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.harness import IMAGES
from fewframes.bench.scaling import Point
from fewframes.bench.tables import bench_text, figure_1, scaling_figure, write_picture

RESULTS = Path(__file__).parent


def main() -> None:
    result = json.loads((RESULTS / "bench.json").read_text())
    write_picture(figure_1(result), IMAGES / "comparison-figure1.png")
    print(bench_text(result, "markdown"))
    points = [Point(**values) for values in json.loads((RESULTS / "scaling.json").read_text())["points"]]
    write_picture(scaling_figure(points, "vit-ti-16"), IMAGES / "comparison-scaling.png")


if __name__ == "__main__":
    main()
