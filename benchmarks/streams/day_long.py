"""Memory and time of learned spans in long videos, from made embeddings.

    python -m benchmarks.streams.day_long > benchmarks/streams/day_long.json

Shots of 2 to 30 s, in which little or much moves, are made chunk by chunk as the packaged model's frame embeddings, with the
interval of its detector. They say nothing about how good spans are. "Above the model" is the peak of the resident memory while
spans are found, less what was resident before; it has the spans, and the scores over time of all labels, which grow with the video.
Ways: `blocks` is the default, `whole` one block for all, as it was before. Each length and way runs in a process of its own, one
thread, in turn. Seconds are processor time, without making the embeddings.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np

from benchmarks.harness import Peak, write_result
from fewframes.inference.detection.frame_row import SteadyFrames
from fewframes.inference.detection.learned import span_reader
from fewframes.inference.detection.span_finder import BLOCKS, Blocks
from fewframes.inference.predictor import load
from fewframes.runtime.protocol import Floats

HOURS = (1.0, 6.0, 24.0)
WHOLE_HOURS = (1.0, 6.0)
CHUNK = 256


class Shots:
    """Makes embeddings of shots, chunk by chunk."""

    def __init__(self, width: int, interval_s: float) -> None:
        self._generator, self._width, self._interval_s = np.random.default_rng(0), width, interval_s
        self._left, self._last_D, self._step = 0, np.zeros(width, np.float32), 0.0

    def chunk(self, count: int) -> Floats:
        """Return the next embeddings (n, D)."""
        rows_ND = np.empty((count, self._width), np.float32)
        draw = self._generator
        for row in range(count):
            if not self._left:
                self._left = int(draw.uniform(2, 30) / self._interval_s)
                self._last_D = np.abs(draw.standard_normal(self._width, np.float32))
                self._step = float(draw.choice([0.01, 0.05, 0.2]))
            self._left -= 1
            self._last_D = self._last_D + self._step * draw.standard_normal(self._width, np.float32)
            rows_ND[row] = self._last_D
        return rows_ND


def measured(hours: float, blocks: Blocks) -> dict[str, float]:
    """The memory and the time of one video of so many hours."""
    runtime = load(dtype="float32").runtime
    boundaries = runtime.boundaries
    assert boundaries is not None
    interval_s = boundaries.interval_s
    count = round(3600 * hours / interval_s)
    shots, used_s = Shots(runtime.frame_width, interval_s), 0.0
    runtime.encode_windows(shots.chunk(runtime.num_frames)[None])  # what is made at the first call belongs to the model
    with Peak() as peak:
        frames = SteadyFrames(np.linspace(interval_s / 2, (count - 0.5) * interval_s, count), interval_s)
        reader = span_reader(runtime, boundaries, frames, blocks=blocks)
        for first in range(0, count, CHUNK):
            rows_ND = shots.chunk(min(CHUNK, count - first))
            began = time.process_time()
            reader.add(rows_ND)
            used_s += time.process_time() - began
        began = time.process_time()
        found = reader.found(frames.times_s)
        used_s += time.process_time() - began
    return {
        "hours": hours,
        "frames": count,
        "embeddings_MB": round(count * runtime.frame_width * 4 / 1e6),
        "above_the_model_MB": round(peak.added_mb),
        "scores_over_time_MB": round(found.scores.nbytes / 1e6, 1),
        "spans": sum(span.confidence >= boundaries.threshold for span in found.spans),
        "spans_of_any_confidence": len(found.spans),
        "processor_s": round(used_s, 1),
    }


def main() -> None:
    """Measure each length and way, or one of them in this process."""
    if len(sys.argv) > 1:
        blocks = BLOCKS if sys.argv[1] == "blocks" else Blocks(core=2**30)
        print(json.dumps(measured(float(sys.argv[2]), blocks)))
        return
    results: dict[str, list[dict[str, float]]] = {"blocks": [], "whole": []}
    for way, lengths in (("blocks", HOURS), ("whole", WHOLE_HOURS)):
        for hours in lengths:
            words = [sys.executable, "-m", "benchmarks.streams.day_long", way, str(hours)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            results[way].append(json.loads(done.stdout))
            print(way, results[way][-1], file=sys.stderr)
    write_result(block={"core": BLOCKS.core, "margin": BLOCKS.margin}, **results)


if __name__ == "__main__":
    main()
