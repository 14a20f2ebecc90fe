"""What search costs: recall of the ten nearest against brute force, milliseconds a query, bytes on disk.

    python -m benchmarks.search.search_scale --rows 100000 1000000 > benchmarks/search/search_scale.json

Clustered unit vectors of the width of lite0-16's video embedding (128): 1,000 centres drawn at random, rows around them (0.5 of
the spread of the centres), ten rows a video. Queries are drawn the same way and are not in the table. `exact` compares all
rows, as `fewframes search` does below `index.INDEXED_FROM`; `index` is its vector index and settings (`index.PROBES`,
`index.REFINE`). Queries one at a time through `Index.search`'s own table call, after ten to warm up; processor milliseconds are
those of the whole process. `others`: twenty of each of what else is asked of an index, whole calls: windows like a given one,
with a filter that nine of ten rows pass and one that one of a hundred does, the best of one of 100 labels, one row by its id;
and once the list of all videos, with which each `fewframes index` begins.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import write_result
from fewframes.search.finding import PROBES, REFINE
from fewframes.search.index import Index
from fewframes.search.table import IndexSettings, SearchQuery, lancedb, schema_of

WIDTH, CENTRES, A_VIDEO, AT_ONCE = 128, 1000, 10, 100_000
WARM, NUM_OTHERS = 10, 20
LABELS = tuple(f"action {number}" for number in range(100))


def drawn(count: int, centres: Any, generator: np.random.Generator) -> Any:
    noise = generator.standard_normal((count, WIDTH), dtype=np.float32)
    rows = centres[generator.integers(0, CENTRES, count)] + 0.5 * noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(folder: str, num_rows: int, num_queries: int) -> tuple[Index, Any]:
    settings = IndexSettings("synthetic", "", LABELS, WIDTH, 4.0, 2.0, "video")
    database = lancedb().connect(folder)
    table = database.create_table("windows", schema=schema_of(settings))
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CENTRES, WIDTH), dtype=np.float32)
    for first in range(0, num_rows, AT_ONCE):
        count = min(AT_ONCE, num_rows - first)
        numbers = np.arange(first, first + count)
        columns = [
            pa.array([f"{number // A_VIDEO:016x}-{number % A_VIDEO}" for number in numbers]),
            pa.array([f"/videos/{number // A_VIDEO:08d}.mp4" for number in numbers]),
            pa.array([f"{number // A_VIDEO:040x}" for number in numbers]),
            pa.array(numbers % A_VIDEO, pa.int32()),
            pa.array(2.0 * (numbers % A_VIDEO)),
            pa.array(2.0 * (numbers % A_VIDEO) + 4),
            pa.array(np.full(count, 22.0)),
            pa.array([LABELS[label] for label in generator.integers(0, len(LABELS), count)]),
            pa.array(generator.random(count, dtype=np.float32)),
            pa.FixedSizeListArray.from_arrays(pa.array(drawn(count, centres, generator).ravel()), WIDTH),
        ]
        table.add(pa.Table.from_arrays(columns, schema=table.schema))
    return Index(folder, database, table, settings, None), drawn(num_queries + WARM, centres, generator)


def asked(index: Index, queries: Any, *, exact: bool) -> tuple[list[set[str]], dict[str, float]]:
    found, seconds, began = [], [], 0.0
    for number, query in enumerate(queries):
        if number == WARM:
            began = time.process_time()
        met = time.perf_counter()
        builder = (
            index._table.search(query, vector_column_name="embedding")
            .distance_type("cosine")
            .limit(10)
            .select(["id", "_distance"])
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


def others(index: Index, queries: Any) -> dict[str, float]:
    """Milliseconds, the median of whole calls."""
    ids = [f"{number:016x}-{number % A_VIDEO}" for number in range(NUM_OTHERS)]

    def median_ms(calls: Iterable[Callable[[], object]]) -> float:
        taken = []
        for call in calls:
            began = time.perf_counter()
            call()
            taken.append(1000 * (time.perf_counter() - began))
        return round(statistics.median(taken), 1)

    moments = [SearchQuery(query) for query in queries[:NUM_OTHERS]]
    return {
        "moment_ms": median_ms(partial(index.search, one) for one in moments),
        "moment_score_above_0.1_ms": median_ms(partial(index.search, one, where="score > 0.1") for one in moments),
        "moment_of_one_label_ms": median_ms(partial(index.search, one, where="label = 'action 7'") for one in moments),
        "label_ms": median_ms(partial(index.search, label) for label in LABELS[:NUM_OTHERS]),
        "row_ms": median_ms(partial(index.row, row_id) for row_id in ids),
        "videos_ms": median_ms([index.videos]),
    }


def size_mb(folder: str) -> float:
    return round(sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6, 1)


def measure(num_rows: int, num_queries: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        index, queries = filled(folder, num_rows, num_queries)
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
            "queries": num_queries,
            "rows_MB": rows_mb,
            "exact": exact,
            "index": {
                "build_processor_s": round(build_s, 1),
                "MB": index_mb,
                "recall_at_10": round(recall, 4),
                **indexed,
            },
            "others": others(index, queries),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=100)
    options = parser.parse_args()
    results = []
    for num_rows in options.rows:
        results.append(measure(num_rows, options.queries))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    write_result(sizes=results)


if __name__ == "__main__":
    main()
