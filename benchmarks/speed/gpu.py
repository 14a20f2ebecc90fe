"""What a GPU gives: precision, frames a second, agreement with the CPU, training, videos, requests, 30 views, memory.

    python -m benchmarks.speed.gpu --output benchmarks/speed/gpu.json

It takes nine minutes at most, and the table goes to stderr. The file is written anew after each part. In the last two minutes
nothing more is begun, and what was left out is named; `--stop-s` ends whatever still runs. `--tiny` does all of it with small
networks on any machine, in under a minute. It shows that the command works; its figures are those of no GPU. `--parts` takes some
of the parts alone.

Networks have random weights, but the packaged Lite0. `network` starts with frames on the device; `with copies` is what a caller
of the runtime gets, from arrays to arrays. TF32 for the frame encoder is measured for comparison; no setting asks for it.
`share` of a training step counts three forward passes of arithmetic, without what checkpointing computes again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.harness import least_median_most, resident_bytes, video_writer, write_result
from fewframes.bench.stopwatch import Memory, Runner
from fewframes.core.process import num_cores, worked_ahead
from fewframes.inference.clips import BackendChoice, ClipRequest
from fewframes.inference.predictor import Predictor, load
from fewframes.models.baselines.catalogue import BASELINES
from fewframes.models.baselines.systems import Baseline, build
from fewframes.models.config import ModelConfig
from fewframes.models.cost import count_cost
from fewframes.models.devices import (
    auto_dtype,
    choose_device,
    float32_products,
    float32_reason,
    machine_name,
    matrix_flops_s,
    may_pay,
    synchronise,
)
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.networks import build_model, planned_model
from fewframes.models.layers import pixels_of
from fewframes.models.presets import PRESETS
from fewframes.results import Prediction
from fewframes.runtime.protocol import DtypeName
from fewframes.runtime.torch_runtime import DTYPES, TorchRuntime
from fewframes.sampling import ONE_PASS
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.processes import start_processes
from fewframes.training.steps.loader import Draw, TrainingBatch
from fewframes.training.steps.loop import Trainer
from fewframes.training.steps.training_set import TrainingSet
from fewframes.video.torchcodec import why_not

STOP_S, LAST_SHARE = 530.0, 0.2
"""Seconds after which the command ends itself, and their last part, in which nothing more is begun. A piece takes far less."""
CLIENTS = 16
"""Clients that ask a server at the same time."""
PRECISIONS: dict[str, DtypeName] = {
    "float32": "float32",
    "tf32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
}
"""The precisions that are measured, and the type of the weights in each."""
VIT_B, SMALL_VIT = PRESETS["stam-16"].model, ModelConfig(width=48, depth=2, heads=3, temporal_depth=1, num_frames=4)


@dataclass(frozen=True)
class Sizes:
    """How much is measured: seconds and frames of a network, videos of a folder, the batch of a training step, baselines."""

    seconds: float
    frames: tuple[int, ...]
    matrix_side: int
    vit: ModelConfig
    num_files: int
    file_s: int
    num_videos: int
    num_soaked: int
    num_requests: int
    batches: tuple[int, ...]
    steps: int
    baselines: tuple[str, ...]


FULL = Sizes(
    seconds=1.0, frames=(1, 16, 256), matrix_side=8192, vit=VIT_B, num_files=16, file_s=10, num_videos=256, num_soaked=1000,
    num_requests=480, batches=(64, 32, 16, 8, 4), steps=10, baselines=("stam-16", "x3d-l", "slowfast-8x8-r50", "i3d-r50-nl"),
)  # fmt: skip
TINY = Sizes(
    seconds=0.0, frames=(1, 2), matrix_side=256, vit=SMALL_VIT, num_files=2, file_s=1, num_videos=4, num_soaked=8,
    num_requests=20, batches=(2,), steps=3, baselines=("lite0-16", "i3d-r50-nl"),
)  # fmt: skip


class Clock:
    """The seconds since the start. In the last of those that there are, a piece of work is left out, and named as such."""

    def __init__(self, device: torch.device, stop_s: float) -> None:
        self.began, self.device, self.last_s = time.monotonic(), device, (1 - LAST_SHARE) * stop_s

    def piece(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of a piece of work; why there are none, if it fails or time is up. The others go on: a GPU may be lent."""
        passed_s = time.monotonic() - self.began
        if passed_s > self.last_s:
            return {"left out": f"{passed_s:.0f} s had passed"}
        print(f"{passed_s:.0f} s: {name}", file=sys.stderr)
        try:
            return work()
        except Exception as error:  # no memory, no kernel, no package; networks of other libraries may raise anything
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return {"failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}


@dataclass(frozen=True)
class Bench:
    """One run of this script: the device, the sizes and the clock."""

    device: torch.device
    sizes: Sizes
    clock: Clock

    def seconds_of(self, work: Callable[[], object]) -> list[float]:
        """Seconds of each call, after two that are not counted. Each call waits until the device is done."""
        taken: list[float] = []
        for number in range(10_000):
            synchronise(self.device)
            began = time.perf_counter()
            work()
            synchronise(self.device)
            if number >= 2:
                taken.append(time.perf_counter() - began)
                if len(taken) >= 3 and sum(taken) >= self.sizes.seconds:
                    break
        return taken

    def frames_s(self, num_frames: int, work: Callable[[], object]) -> dict[str, float]:
        return least_median_most([num_frames / seconds for seconds in self.seconds_of(work)])


def checkpoint_of(config: ModelConfig) -> Checkpoint:
    """A model with random weights, the same each time."""
    torch.manual_seed(0)
    view = PRESETS["stam-16"].view
    return Checkpoint(build_model(config, view), view, tuple(f"class {number}" for number in range(config.num_classes)))


# The parts


def precision(bench: Bench) -> dict[str, Any]:
    """The precision that `auto` takes and why, and the rate of products of matrices in each precision, in TFLOP/s."""
    dtype, why = auto_dtype(bench.device)
    rates = {}
    for name, weights in PRECISIONS.items():
        with float32_products(bench.device, tf32=name == "tf32"):
            flops_s = matrix_flops_s(
                DTYPES[weights], bench.device, side=bench.sizes.matrix_side, seconds=bench.sizes.seconds
            )
        rates[name] = round(flops_s / 1e12, 4)
    return {
        "auto": str(dtype).removeprefix("torch."),
        "why": why,
        "rest": float32_reason(dtype, bench.device),
        "matrix TFLOP/s": rates,
    }


def networks(bench: Bench) -> dict[str, Any]:
    """Frames/s of Lite0 and of a ViT in each precision, and how far their embeddings are from those of the CPU in float32."""
    models = {"lite0": partial(load_checkpoint, "lite0-16"), "vit": partial(checkpoint_of, bench.sizes.vit)}
    return {model: bench.clock.piece(model, partial(in_each_precision, bench, made)) for model, made in models.items()}


def in_each_precision(bench: Bench, made: Callable[[], Checkpoint]) -> dict[str, Any]:
    checkpoint = made()
    results: dict[str, Any] = {}
    side = checkpoint.view.crop_px
    most = max(bench.sizes.frames)
    frames_TCHW = np.random.default_rng(0).integers(0, 256, (most, 3, side, side), dtype=np.uint8)
    few = frames_TCHW[: min(most, 16)]
    exact_TD = TorchRuntime(checkpoint, device="cpu", dtype="float32").embed_frames(few)
    for name, dtype in PRECISIONS.items():
        if not may_pay(DTYPES[dtype], bench.device):
            results[name] = {"left out": "this CPU has no instructions for it"}
            continue
        work = partial(network, bench, checkpoint, name, frames_TCHW, few, exact_TD)
        results[name] = bench.clock.piece(name, work)
    return results


def network(
    bench: Bench,
    checkpoint: Checkpoint,
    name: str,
    frames_TCHW: np.ndarray[Any, Any],
    few: np.ndarray[Any, Any],
    exact_TD: np.ndarray[Any, Any],
) -> dict[str, Any]:
    """The figures of one network in one precision."""
    runtime = TorchRuntime(checkpoint, device=str(bench.device), dtype=PRECISIONS[name])
    tf32 = name == "tf32"
    result: dict[str, Any] = {}

    def encode(frames: Tensor) -> Tensor:
        return runtime.model.encode_frames(pixels_of(frames).contiguous(memory_format=torch.channels_last))

    with torch.inference_mode(), float32_products(bench.device, tf32=tf32):
        found_TD = encode(torch.from_numpy(few).to(bench.device)).float().cpu().numpy()
        for num_frames in bench.sizes.frames:
            there = torch.from_numpy(frames_TCHW[:num_frames]).to(bench.device)
            cell: dict[str, Any] = {"network": bench.frames_s(num_frames, partial(encode, there))}
            if bench.device.type == "cuda":
                work = partial(graph_figures, bench, encode, there)
                cell["CUDA graph"] = bench.clock.piece(f"graph of {num_frames} frames", work)
            result[f"{num_frames} frames"] = cell
    for num_frames in () if tf32 else bench.sizes.frames:
        rate = bench.frames_s(num_frames, partial(runtime.embed_frames, frames_TCHW[:num_frames]))
        result[f"{num_frames} frames"]["with copies"] = rate
    norms_T = np.linalg.norm(found_TD, axis=1) * np.linalg.norm(exact_TD, axis=1)
    result["least cosine with the CPU"] = round(float(((found_TD * exact_TD).sum(axis=1) / norms_T).min()), 6)
    result["largest difference"] = float(np.abs(found_TD - exact_TD).max() / np.abs(exact_TD).max())
    return result


def graph_figures(bench: Bench, encode: Callable[[Tensor], Tensor], frames: Tensor) -> dict[str, Any]:
    """Frames/s of a CUDA graph of a network on these frames, which begins all of its kernels at once."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            encode(frames)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        encode(frames)
    return bench.frames_s(len(frames), graph.replay)


def made_videos(sizes: Sizes, folder: Path) -> list[str]:
    """Videos of 320 x 240 px, 25 frames a second, a key frame every two seconds: a picture that moves, with noise."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (240, 640, 3), dtype=np.uint8)
    paths = []
    for number in range(sizes.num_files):
        paths.append(str(folder / f"{number}.mp4"))
        with video_writer(Path(paths[-1]), (320, 240), 25, 50, {"preset": "ultrafast"}) as add:
            for index in range(sizes.file_s * 25):
                left = (index * (1 + number % 4)) % 320
                frame = np.ascontiguousarray(picture[:, left : left + 320])
                add(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p"))
    return paths


def folders(bench: Bench) -> dict[str, Any]:
    """Videos/s of `predict_many` with each reader, of decoding alone and of the network alone; then memory over many videos."""
    readers: tuple[BackendChoice, ...] = ("pyav", "torchcodec")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = made_videos(bench.sizes, Path(folder))
        for reader in readers:
            if reader == "torchcodec" and (reason := why_not(str(bench.device))):
                results[reader] = {"left out": reason}
                continue
            results[reader] = bench.clock.piece(
                f"predict_many, {reader}", partial(folder_figures, bench, reader, paths)
            )
        results["memory"] = bench.clock.piece("memory", partial(memory_over_videos, bench, paths))
    return results


def loaded(bench: Bench, reader: BackendChoice) -> Predictor:
    return load("lite0-16", device=str(bench.device), backend=reader, runtime="torch")


def folder_figures(bench: Bench, reader: BackendChoice, paths: Sequence[str]) -> dict[str, Any]:
    predictor = loaded(bench, reader)
    sources = [paths[number % len(paths)] for number in range(bench.sizes.num_videos)]
    request = ClipRequest(ONE_PASS, predictor.num_frames)
    workers = num_cores()
    first = predictor.reader.read(paths[0], request, threads=1)
    at_once = predictor._videos_at_once(predictor.num_frames)
    predictor.label_many([first] * at_once)  # warm-up

    began = time.perf_counter()
    answered = sum(isinstance(result, Prediction) for result in predictor.predict_many(sources))
    whole_s = (time.perf_counter() - began) / len(sources)
    began = time.perf_counter()
    with closing(
        worked_ahead(sources, lambda path: predictor.reader.read(path, request, threads=1), workers)
    ) as decoded:
        for _ in decoded:
            pass
    decoding_s = (time.perf_counter() - began) / len(sources)
    network_s = statistics.median(bench.seconds_of(lambda: predictor.label_many([first] * at_once))) / at_once
    return {
        "videos": len(sources),
        "answered": answered,
        "videos/s": round(1 / whole_s, 2),
        "decoding alone, videos/s": round(1 / decoding_s, 2),
        "network alone, videos/s": round(1 / network_s, 2),
        "share of the slower of both": round(max(decoding_s, network_s) / whole_s, 3),
        "decoding threads": workers,
        "videos at once": at_once,
    }


def memory_over_videos(bench: Bench, paths: Sequence[str]) -> dict[str, Any]:
    """Memory in MB after a tenth of many videos and after all of them."""
    predictor = loaded(bench, "auto")
    sources = (paths[number % len(paths)] for number in range(bench.sizes.num_soaked))
    seen: dict[int, dict[str, float]] = {}
    for number, _ in enumerate(predictor.predict_many(sources), 1):
        if number in (max(1, bench.sizes.num_soaked // 10), bench.sizes.num_soaked):
            seen[number] = {"resident MB": round(resident_bytes() / 1e6, 1)}
            if bench.device.type == "cuda":
                seen[number]["GPU MB"] = round(torch.cuda.memory_allocated(bench.device) / 1e6, 1)
    return {f"after {number} videos": figures for number, figures in seen.items()}


class NoiseVideos(Dataset[TrainingBatch]):
    """Training examples that cost no time: each is the same noise, so that a step measures the network alone."""

    def __init__(self, num_videos: int, frames_TCHW: Tensor) -> None:
        self.num_videos, self.frames_TCHW = num_videos, frames_TCHW

    def __len__(self) -> int:
        return self.num_videos

    def __getitem__(self, draws: Sequence[Draw]) -> TrainingBatch:
        rows_B = torch.tensor([row for row, _ in draws])
        return TrainingBatch(self.frames_TCHW.expand(len(draws), *self.frames_TCHW.shape).contiguous(), rows_B)


def training(bench: Bench) -> dict[str, Any]:
    """Videos/s of a training step of the whole ViT, peak memory, and the share of the measured rate of products; then resuming."""
    results = {}
    for checkpointing in (False, True):
        for batch in bench.sizes.batches:  # the largest that fits
            work = partial(training_figures, bench, batch, checkpointing=checkpointing)
            name = f"{'with' if checkpointing else 'without'} checkpointing"
            results[name] = bench.clock.piece(f"training {name}, {batch} videos", work)
            if "failed" not in results[name]:
                break
    results["resume"] = bench.clock.piece("resume", partial(resuming, bench))
    return results


def trainer_of(bench: Bench, batch: int, steps: int, dtype: torch.dtype, *, checkpointing: bool) -> Trainer:
    config, view = bench.sizes.vit, PRESETS["stam-16"].view
    settings = TrainConfig(unfreeze="all", batch_size=batch, epochs=1, min_steps=steps, checkpointing=checkpointing)
    noise_TCHW = torch.randint(0, 256, (config.num_frames, 3, view.crop_px, view.crop_px), dtype=torch.uint8)
    targets_BK = torch.eye(config.num_classes)[torch.arange(batch) % config.num_classes]
    examples: Any = NoiseVideos(batch, noise_TCHW)
    training_set = TrainingSet(examples, targets_BK, [f"video {row}" for row in range(batch)])
    accelerator = start_processes(str(bench.device), settings)
    return Trainer(checkpoint_of(config).model, training_set, RunConfig(train=settings), accelerator, dtype)


def training_figures(bench: Bench, batch: int, *, checkpointing: bool) -> dict[str, Any]:
    memory = Memory(bench.device)
    config, view = bench.sizes.vit, PRESETS["stam-16"].view
    dtype = auto_dtype(bench.device)[0]
    trainer = trainer_of(bench, batch, bench.sizes.steps + 2, dtype, checkpointing=checkpointing)
    with memory:
        step_s = [step.seconds - step.waited_s for step in trainer.steps()][2:]  # two to warm up
    videos_s = batch / statistics.median(step_s)
    gflop = 3 * count_cost(planned_model(config, view), config.num_frames, view.crop_px).gflops
    rate = matrix_flops_s(dtype, bench.device, side=bench.sizes.matrix_side, seconds=bench.sizes.seconds)
    return {
        "precision": str(dtype).removeprefix("torch."),
        "batch": batch,
        "step s": least_median_most(step_s),
        "videos/s": round(videos_s, 3),
        "peak GB": None if memory.peak_bytes is None else round(memory.peak_bytes / 1e9, 3),
        "share of the measured rate": round(videos_s * gflop * 1e9 / rate, 4),
    }


def resuming(bench: Bench) -> dict[str, Any]:
    """A run that is saved after its second step of four and continued by a new trainer, against the one that went on."""
    batch, dtype = min(bench.sizes.batches), auto_dtype(bench.device)[0]
    torch.manual_seed(0)
    whole = trainer_of(bench, batch, 4, dtype, checkpointing=False)
    torch.manual_seed(0)
    resumed = trainer_of(bench, batch, 4, dtype, checkpointing=False)
    steps = whole.steps()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        losses = [next(steps).loss for _ in range(2)]
        began = time.perf_counter()
        whole.save(path, {})
        saved_s = time.perf_counter() - began
        losses += [step.loss for step in steps]
        began = time.perf_counter()
        resumed.restore(path)
        restored_s = time.perf_counter() - began
        size_mb = path.stat().st_size / 1e6
    again = [step.loss for step in resumed.steps()]
    ends = [trainer.trained().state_dict().values() for trainer in (whole, resumed)]
    pairs = zip(*ends, strict=True)
    return {
        "steps": f"{len(losses)}, of which {len(again)} once more",
        "largest difference of losses": max(abs(one - other) for one, other in zip(losses[2:], again, strict=True)),
        "largest difference of weights": max(float((one.float() - other.float()).abs().max()) for one, other in pairs),
        "save s": round(saved_s, 3),
        "restore s": round(restored_s, 3),
        "MB": round(size_mb, 1),
    }


def serving(bench: Bench) -> dict[str, Any]:
    """Answers a second of `fewframes serve` and how long each takes, while several clients ask at once; clips of `examples`."""
    from benchmarks.serving.serving import Server, ask, client_of, in_parallel, quantiles  # late: it needs httpx2

    server = Server(0, ("--device", str(bench.device), "--max-waiting", str(CLIENTS)))
    answers: Counter[int] = Counter()
    taken: list[float] = []

    async def asked(num_requests: int) -> None:
        async with client_of(server.url) as client:

            async def work(number: int) -> bool:
                if number < num_requests:
                    began = time.perf_counter()
                    answers[(await ask(client, number)).status_code] += 1
                    taken.append(time.perf_counter() - began)
                return number < num_requests

            await in_parallel(CLIENTS, work)

    try:
        asyncio.run(asked(CLIENTS))  # warm-up
        answers.clear()
        taken.clear()
        began = time.perf_counter()
        asyncio.run(asked(bench.sizes.num_requests))
        seconds = time.perf_counter() - began
    finally:
        server.stop()
    return {
        "clients": CLIENTS,
        "answers": {str(status): number for status, number in sorted(answers.items())},
        "answers/s": round(len(taken) / seconds, 2),
        "seconds of an answer": quantiles(taken),
    }


def many_views(bench: Bench) -> dict[str, Any]:
    """Videos/s of our network in one view and of 3-D networks in their 30, each in its own best precision and batch."""
    return {
        name: bench.clock.piece(name, partial(views_figures, bench, BASELINES[name])) for name in bench.sizes.baselines
    }


def views_figures(bench: Bench, baseline: Baseline) -> dict[str, Any]:
    if bench.sizes is TINY:  # smaller pictures, where the network takes any
        baseline = replace(baseline, view=replace(baseline.view, crop_px=64)) if baseline.passes > 1 else baseline
    runner = Runner(build(baseline), baseline, bench.device)
    mode = runner.best_mode(bench.sizes.seconds / 4, one_view=bench.sizes is TINY)
    runner.take(mode)
    runner.seconds_of(mode.batch, 0)
    view_s = [seconds / mode.batch for seconds in runner.seconds_of(mode.batch, 2 * bench.sizes.seconds)]
    return {
        "mode": mode.describe(),
        "views": baseline.passes,
        "views/s": least_median_most([1 / seconds for seconds in view_s]),
        "videos/s": round(1 / statistics.median(view_s) / baseline.passes, 3),
    }


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "precision": precision,
    "networks": networks,
    "training": training,
    "folders": folders,
    "serving": serving,
    "views": many_views,
}


def table(results: dict[str, Any]) -> str:
    """The figures as lines: the part, what was measured, and its figures."""
    lines = []
    for part, figures in results.items():
        lines.append(part)
        for name, value in figures.items():
            lines.append(f"  {name:32} {_words(value)}")
    return "\n".join(lines)


def _words(value: Any) -> str:
    """A figure in words; of a spread, the median alone."""
    if isinstance(value, dict):
        if "median" in value:
            return f"{value['median']:g}"
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="the device, as for fewframes.load")
    parser.add_argument("--tiny", action="store_true", help="small networks and few videos: does the command work?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts alone")
    parser.add_argument("--output", type=Path, help="the file for the JSON, written anew after each part; else stdout")
    parser.add_argument("--stop-s", type=float, default=STOP_S, help="seconds after which the command ends itself")
    options = parser.parse_args()
    device = choose_device(options.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs are those of the current GPU
    if device.type == "cpu" and not options.tiny:
        parser.error("there is no GPU here; --tiny shows that the command works")
    bench = Bench(device, TINY if options.tiny else FULL, Clock(device, options.stop_s))
    gpu = {"name": machine_name(device)}
    if device.type == "cuda":
        memory_gb = torch.cuda.get_device_properties(device).total_memory / 1e9
        gpu |= {"CUDA": str(torch.version.cuda), "memory GB": f"{memory_gb:.1f}"}
    results: dict[str, Any] = {}

    def write() -> None:
        seconds = round(time.monotonic() - bench.clock.began, 1)
        write_result(device=gpu, tiny=options.tiny, seconds=seconds, **results)

    def written(part: str, figures: dict[str, Any]) -> None:
        results[part] = json.loads(json.dumps(figures))
        if options.output:
            with options.output.open("w") as file, redirect_stdout(file):
                write()

    def stop() -> None:
        part = next((part for part in options.parts if part not in results), options.parts[-1])
        written(part, {"failed": f"it still ran after {options.stop_s:g} s"})
        os._exit(1)  # a kernel that hangs cannot be interrupted

    watch = threading.Timer(options.stop_s, stop)
    watch.daemon = True
    watch.start()
    for part in options.parts:
        written(part, bench.clock.piece(part, partial(PARTS[part], bench)))
    watch.cancel()
    print(table(results), file=sys.stderr)
    if not options.output:
        write()


if __name__ == "__main__":
    main()
