"""Write the two halves of a model for phones and small boards, as LiteRT or ExecuTorch programs, and compare them with the model.

`python tools/export_phone.py lite0-16 --runtime litert --output phone`. Its packages (litert-torch, or executorch) want versions of
torch of their own, so install them beside fewframes in a new environment (docs/guide/phones.md).
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import fewframes
from fewframes.export.exporter import pans
from fewframes.export.graphs import FramesGraph, TimeGraph

Array = NDArray[Any]
Run = Callable[[Array], list[Array]]
"""A function that runs a program on its input and returns its outputs, in no particular order."""
ENDINGS = {"litert": ".tflite", "executorch": ".pte"}
LARGEST_DIFFERENCE = 1e-3
"""The largest difference from the model that is allowed, as a fraction of the largest value."""
ROUNDS = 7
"""The number of times that a clip is timed; the first is left out."""


def write_litert(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write a module as a LiteRT program for inputs of the example's shape."""
    importlib.import_module("litert_torch").convert(module, (example,)).export(str(path))


def write_executorch(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write a module as an ExecuTorch program that XNNPACK runs, for inputs of the example's shape."""
    exir = importlib.import_module("executorch.exir")
    xnnpack = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    lowered = exir.to_edge_transform_and_lower(
        torch.export.export(module, (example,)), partitioner=[xnnpack.XnnpackPartitioner()]
    )
    path.write_bytes(lowered.to_executorch().buffer)


def open_litert(path: Path, threads: int) -> Run:
    """Open a LiteRT program; its operators run in XNNPACK."""
    program = importlib.import_module("ai_edge_litert.interpreter").Interpreter(str(path), num_threads=threads)
    program.allocate_tensors()

    def run(inputs: Array) -> list[Array]:
        program.set_tensor(program.get_input_details()[0]["index"], inputs)
        program.invoke()
        return [program.get_tensor(output["index"]) for output in program.get_output_details()]

    return run


def open_executorch(path: Path, threads: int) -> Run:
    """Open an ExecuTorch program."""
    importlib.import_module("executorch.extension.pybindings.portable_lib")._unsafe_reset_threadpool(threads)
    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    method = runtime.load_program(str(path)).load_method("forward")
    return lambda inputs: [output.numpy().copy() for output in method.execute([torch.from_numpy(inputs)])]


WRITERS = {"litert": write_litert, "executorch": write_executorch}
OPENERS = {"litert": open_litert, "executorch": open_executorch}


def export(model: str, runtime: str, output: Path, threads: int) -> bool:
    """Write, compare and time both halves. Return True if they agree with the model.

    Args:
        model: the name or file of the model.
        runtime: litert or executorch.
        output: the folder to write to.
        threads: the number of threads that compute.
    """
    predictor = fewframes.load(model, device="cpu", dtype="float32", runtime="torch")
    network = predictor.torch.model.to(memory_format=torch.contiguous_format).eval()
    clips = [torch.as_tensor(clip.frames).contiguous() for clip in pans(predictor)]
    halves = {"frames": FramesGraph(network).eval(), "time": TimeGraph(network).eval()}
    with torch.inference_mode():
        live = [halves["frames"](clip)[0] for clip in clips]
    examples = {"frames": clips[0][:1].clone(), "time": live[0][None].clone()}
    output.mkdir(parents=True, exist_ok=True)
    runs = {}
    for part, module in halves.items():
        path = output / f"model.{part}{ENDINGS[runtime]}"
        WRITERS[runtime](module, examples[part], path)
        runs[part] = OPENERS[runtime](path, threads)
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    about = {"labels": predictor.labels, "view": asdict(predictor.runtime.view), "num_frames": predictor.num_frames}
    (output / "model.json").write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def label(clip: Array) -> tuple[Array, list[Array]]:
        embeddings_TD = np.concatenate([runs["frames"](frame[None])[0].copy() for frame in clip])
        return embeddings_TD, runs["time"](embeddings_TD[None])

    worst = 0.0
    for clip, embeddings_TD in zip(clips, live, strict=True):
        found_TD, outputs = label(clip.numpy())
        with torch.inference_mode():
            expected = [value.numpy() for value in halves["time"](embeddings_TD[None])]
        # LiteRT gives the outputs in an order of its own; the scores, attention and embedding have different lengths.
        pairs = [(next(one for one in outputs if one.shape == value.shape), value) for value in expected]
        for found, value in [(found_TD, embeddings_TD.numpy()), *pairs]:
            worst = max(worst, float(np.abs(found - value).max() / np.abs(value).max()))
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        label(clips[0].numpy())
        seconds.append(time.perf_counter() - began)
    seconds = sorted(seconds[1:])
    print(
        f"{len(clips)} clips: largest difference {worst:.1e} of the largest value; the limit is {LARGEST_DIFFERENCE:.0e}"
    )
    print(f"a clip with {threads} threads: {np.median(seconds):.3f} s ({seconds[0]:.3f}-{seconds[-1]:.3f})")
    return worst <= LARGEST_DIFFERENCE


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a preset, or a file or folder written by `fewframes train`")
    parser.add_argument("--runtime", choices=sorted(WRITERS), default="litert")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--threads", type=int, default=1, help="threads to compare and time with")
    given = parser.parse_args()
    sys.exit(0 if export(given.model, given.runtime, given.output, given.threads) else 1)


if __name__ == "__main__":
    main()
