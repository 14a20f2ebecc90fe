"""Processor time of one frame of Lite0 by each runtime in float32, with and without AVX-512.

    python -m benchmarks.speed.runtimes ../shared/data > benchmarks/speed/runtimes.json

16 frames, the sixth and the twenty-first picture of eight clips of `fights` (the first by name), four at once (torch
eight, as it does by default), one thread, all runtimes in turn in each of nine rounds: torch, ONNX Runtime on the graph inside the
model file, ONNX Runtime and OpenVINO on exported files. Nothing computes in bfloat16. Milliseconds are of processor time.
Ratios are those of ONNX Runtime on the model file over the other, round by round: above 1 the other is faster. `difference` is the
largest difference of an embedding from torch's, as a fraction of the largest value.

`avx2`: a process of its own in which torch (ATEN_CPU_CAPABILITY) and oneDNN, also that inside OpenVINO (ONEDNN_MAX_CPU_ISA), are
held to AVX2. ONNX Runtime has no such switch: its kernels use what the CPU has, so its lead there is an upper bound.
`without_bfloat16`: AVX-512 is allowed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import interleaved, least_median_most, ratios, write_result
from fewframes.export.exporter import export
from fewframes.inference.predictor import load
from fewframes.models.files.model_file import read_model_file
from fewframes.models.files.names import find_model
from fewframes.runtime.graph_runtime import GraphRuntime
from fewframes.runtime.onnx_file import OnnxFileRuntime
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.video.transforms import fit_frame

MODEL, ROUNDS, AT_ONCE = "lite0-16", 9, 4
PICTURES, CLIPS = (5, 20), 8
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
AVX512 = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
Frames: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]


def frames_of(data: Path) -> Frames:
    view = read_model_file(find_model(MODEL)).view
    frames = []
    for path in sorted((data / "fights").rglob("*.mp4"))[:CLIPS]:
        with av.open(str(path)) as file:
            for number, picture in enumerate(file.decode(video=0)):
                if number in PICTURES:
                    pixels_HWC = picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                    frames.append(fit_frame(pixels_HWC.transpose(2, 0, 1), view))
    return np.stack(frames)


def ways_of(folder: Path) -> dict[str, Callable[[Frames], Floats]]:
    """The function of each runtime that embeds frames, in one thread."""
    torch.set_num_threads(1)
    plain = load(MODEL, device="cpu", dtype="float32", runtime="torch").runtime
    assert isinstance(plain, TorchRuntime)
    return {
        "torch": plain.embed_frames,
        "onnxruntime, model file": OnnxFileRuntime(
            read_model_file(find_model(MODEL)), name=MODEL, threads=1
        ).embed_frames,
        "onnxruntime, exported": GraphRuntime(folder / "model.onnx", threads=1).embed_frames,
        "openvino, exported": GraphRuntime(folder / "model.xml", threads=1).embed_frames,
    }


def measure(folder: Path) -> dict[str, Any]:
    frames_TCHW = np.load(folder / "frames.npy")
    ways = ways_of(folder)
    found = {name: way(frames_TCHW) for name, way in ways.items()}
    true_TD = found["torch"]
    seconds = interleaved({name: partial(way, frames_TCHW) for name, way in ways.items()}, ROUNDS)
    base = seconds["onnxruntime, model file"]
    return {
        name: {
            "ms_a_frame": least_median_most([1e3 * value / len(frames_TCHW) for value in seconds[name]]),
            "onnxruntime_over_it": least_median_most(ratios(base, seconds[name])),
            "difference": float(np.abs(found[name] - true_TD).max() / np.abs(true_TD).max()),
        }
        for name in ways
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--here", action="store_true", help="measure in this process; DATA is a folder with frames and files"
    )
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.data)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "frames.npy", frames_of(arguments.data))
        live = load(MODEL, device="cpu", dtype="float32", runtime="torch")
        for ending in ("onnx", "xml"):
            export(live, folder / f"model.{ending}")
        found = {}
        for kind, limits in (("without_bfloat16", AVX512), ("avx2", AVX2)):
            command = [sys.executable, "-m", "benchmarks.speed.runtimes", "--here", name]
            done = subprocess.run(command, env=os.environ | limits, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            found[kind] = json.loads(done.stdout.splitlines()[-1])
        write_result(model=MODEL, frames_at_once=AT_ONCE, rounds=ROUNDS, runtimes=found)


if __name__ == "__main__":
    main()
