"""What a frame costs one thread with each listed frame encoder, in float32 and with random weights.

    python -m benchmarks.speed.encoders > benchmarks/speed/encoders.json

The time is the processor time of the one thread that computes, so that other work on the machine counts less. It is not free of
it: caches and memory are shared. `fewframes models --encoders --measure` measures the same on another machine.
"""

from __future__ import annotations

import os
from dataclasses import asdict

from benchmarks.harness import write_result
from fewframes.bench.encoders import FRAMES_AT_ONCE, measure_encoder
from fewframes.models.encoders.listed import ENCODERS

ROUNDS = 5


def main() -> None:
    before = os.getloadavg()[0]
    speeds = {
        name: {key: round(value, 2) for key, value in asdict(measure_encoder(name, rounds=ROUNDS)).items()}
        for name in ENCODERS
    }
    write_result(
        protocol={
            "what": "processor time of one thread for a frame, in milliseconds",
            "frames together": FRAMES_AT_ONCE,
            "rounds": ROUNDS,
            "precision": "float32",
            "weights": "random",
            "load of the machine before and after": [round(before, 1), round(os.getloadavg()[0], 1)],
        },
        speeds=speeds,
    )


if __name__ == "__main__":
    main()
