"""The packaged network on a CPU: what frames of its own for each core and fused convolutions are worth, by the clock and in processor
time.

    python -m research.threads_of_the_network

One clip of noise; the ways take turns, round by round, in one process that keeps its memory as the command does. Ratios are of
one round each, so that a neighbour who comes and goes does not count for one way alone. On a machine that others use too,
processor time says more than the clock, and the load stands in the result.

`split, plain` is torch's own way: each operation over all cores, ReLU6 and sums by themselves, 8 frames at once. `split, fused`
has oneDNN make them inside the convolutions. `threads, plain` gives each core frames of its own. `threads, fused` is what
`Predictor` does. Threads that wait for each other spin, so splitting looks far worse on a busy machine than on an idle one:
with OMP_WAIT_POLICY=PASSIVE, where they sleep, splitting and threads could not be told apart on the same busy machine.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import fewframes
from benchmarks.harness import least_median_most, write_result
from fewframes.core.process import keep_memory
from fewframes.runtime.threads import side_by_side
from fewframes.models.layers import pixels_of

ROUNDS = 7
SPLIT_FRAMES, THREAD_FRAMES = 8, 4
Way = Callable[[Tensor], Tensor]


def ways_of(predictor: fewframes.Predictor) -> dict[str, Way]:
    """Frames (T, C, H, W) -> embeddings (T, D), in each way."""

    def encode(part_TCHW: Tensor, *, fused: bool) -> Tensor:
        with torch.inference_mode() if fused else torch.no_grad():  # convolutions are fused in inference mode alone
            pixels_TCHW = pixels_of(part_TCHW).contiguous(memory_format=torch.channels_last)
            return predictor.model.encode_frames(pixels_TCHW)

    def split(frames_TCHW: Tensor, *, fused: bool) -> Tensor:
        return torch.cat([encode(part_TCHW, fused=fused) for part_TCHW in frames_TCHW.split(SPLIT_FRAMES)])

    def plain_threads(frames_TCHW: Tensor) -> Tensor:
        return torch.cat(side_by_side(lambda part: encode(part, fused=False), frames_TCHW.split(THREAD_FRAMES)))

    return {
        "split, plain": lambda frames: split(frames, fused=False),
        "split, fused": lambda frames: split(frames, fused=True),
        "threads, plain": plain_threads,
        "threads, fused": predictor.embed_frames,
    }


def main() -> None:
    keep_memory()
    torch.manual_seed(0)
    predictor = fewframes.load(device="cpu")
    side = predictor.config.image_size
    frames_TCHW = torch.randint(0, 256, (predictor.config.num_frames, 3, side, side), dtype=torch.uint8)
    ways = ways_of(predictor)
    expected_TD = next(iter(ways.values()))(frames_TCHW)
    apart = {name: float((way(frames_TCHW) - expected_TD).norm() / expected_TD.norm()) for name, way in ways.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            way(frames_TCHW)
            seconds[name].append((time.perf_counter() - began, time.process_time() - began_cpu))
    first = seconds["split, plain"]
    results = {
        "load average over 5 minutes": round(os.getloadavg()[1], 1),
        "precision": str(predictor.dtype).removeprefix("torch."),
        "rounds": ROUNDS,
        "ways": {
            name: {
                "seconds a video": least_median_most([clock for clock, _ in taken]),
                "processor seconds a video": least_median_most([cpu for _, cpu in taken]),
                "times as fast, by the clock": round(
                    statistics.median(a[0] / b[0] for a, b in zip(first, taken, strict=True)), 2
                ),
                "times less processor": round(
                    statistics.median(a[1] / b[1] for a, b in zip(first, taken, strict=True)), 2
                ),
                "relative difference of embeddings": float(f"{apart[name]:.1e}"),
            }
            for name, taken in seconds.items()
        },
    }
    write_result(**results)


if __name__ == "__main__":
    main()
