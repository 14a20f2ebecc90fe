"""What search costs: recall of the ten nearest against brute force, milliseconds a query, bytes on disk.

    python benchmarks/search_scale.py --rows 100000 1000000 > benchmarks/results/search_scale.json

Clustered unit vectors of the width of lite0-16's video embedding (128): 1,000 centres drawn at random, rows around them
(0.5 of the spread of the centres), ten rows a video. Queries are drawn the same way and are not in the table. `exact` compares all
rows, as `fewframes search` does below `retrieve.INDEXED_FROM`; `indexed` is its vector index and settings (`retrieve.PROBES`,
`retrieve.REFINE`). Queries one at a time through `Index.search`'s own table call, after ten to warm up; processor milliseconds
are those of the whole process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pyarrow as pa

from fewframes.moments import Settings, lancedb, schema_of
from fewframes.retrieve import PROBES, REFINE, Index

WIDTH, CENTRES, A_VIDEO, AT_ONCE = 128, 1000, 10, 100_000
NUM_QUERIES, WARM = 100, 10


def drawn(count: int, centres: Any, generator: np.random.Generator) -> Any:
    noise = generator.standard_normal((count, WIDTH), dtype=np.float32)
    rows = centres[generator.integers(0, CENTRES, count)] + 0.5 * noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(folder: str, num_rows: int) -> tuple[Index, Any]:
    settings = Settings("synthetic", "", ("none",), WIDTH, 4.0, 2.0, "video")
    database = lancedb().connect(folder)
    table = database.create_table("windows", schema=schema_of(settings))
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CENTRES, WIDTH), dtype=np.float32)
    for first in range(0, num_rows, AT_ONCE):
        count = min(AT_ONCE, num_rows - first)
        places = np.arange(first, first + count)
        columns = [
            pa.array([f"{place // A_VIDEO:016x}-{place % A_VIDEO}" for place in places]),
            pa.array([f"/videos/{place // A_VIDEO:08d}.mp4" for place in places]),
            pa.array([f"{place // A_VIDEO:040x}" for place in places]),
            pa.array(places % A_VIDEO, pa.int32()),
            pa.array(2.0 * (places % A_VIDEO)),
            pa.array(2.0 * (places % A_VIDEO) + 4),
            pa.array(np.full(count, 22.0)),
            pa.array(["none"] * count),
            pa.array(np.zeros(count, np.float32)),
            pa.FixedSizeListArray.from_arrays(pa.array(drawn(count, centres, generator).ravel()), WIDTH),
        ]
        table.add(pa.Table.from_arrays(columns, schema=table.schema))
    return Index(folder, database, table, settings, None), drawn(NUM_QUERIES + WARM, centres, generator)


def asked(index: Index, queries: Any, *, exact: bool) -> tuple[list[set[str]], dict[str, float]]:
    found, seconds, began = [], [], 0.0
    for number, query in enumerate(queries):
        if number == WARM:
            began = time.process_time()
        met = time.perf_counter()
        builder = (
            index._table.search(query, vector_column_name="embedding").distance_type("cosine").limit(10).select(["id"])
        )
        builder = builder.bypass_vector_index() if exact else builder.nprobes(PROBES).refine_factor(REFINE)
        found.append({row["id"] for row in builder.to_list()})
        seconds.append(time.perf_counter() - met)
    ordered = sorted(1000 * value for value in seconds[WARM:])
    return found[WARM:], {
        "p50_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[int(0.95 * len(ordered))], 2),
        "processor_ms": round(1000 * (time.process_time() - began) / (len(queries) - WARM), 2),
    }


def size_mb(folder: str) -> float:
    return round(sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6, 1)


def measure(num_rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        index, queries = filled(folder, num_rows)
        rows_mb = size_mb(folder)
        true, exact = asked(index, queries, exact=True)
        began = time.process_time()
        index.optimize(indexed_from=0)
        build_s = time.process_time() - began
        near, indexed = asked(index, queries, exact=False)
        recall = sum(len(one & other) for one, other in zip(true, near, strict=True)) / (10 * len(true))
        index_mb = size_mb(f"{folder}/windows.lance/_indices")
        return {
            "rows": num_rows,
            "rows_MB": rows_mb,
            "exact": exact,
            "index": {
                "build_processor_s": round(build_s, 1),
                "MB": index_mb,
                "recall_at_10": round(recall, 4),
                **indexed,
            },
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[100_000, 1_000_000])
    options = parser.parse_args()
    results = []
    for num_rows in options.rows:
        results.append(measure(num_rows))
        command = f"python benchmarks/search_scale.py --rows {' '.join(map(str, options.rows))}"
        about = {"machine": machine.describe(), "command": command, "sizes": results}
        print(json.dumps(results[-1]), file=__import__("sys").stderr, flush=True)
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
