"""What the benchmarks share: the machine, the data sets, heads taught on cached embeddings, interleaved timing, result files."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import difference_of
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.inference.predictor import Predictor
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig, TrainConfig
from fewframes.training.features import EmbeddedVideos, embed_videos
from fewframes.training.steps.loop import fit
from runs.packaged import DARK, rows_of

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
PACKAGED = PRESETS["lite0-16"].model
VIEW = PRESETS["lite0-16"].view
BLUE, GREY, ORANGE = "#1f5fa8", "#9aa5b1", "#c2410c"


# The machine and result files


def describe() -> dict[str, object]:
    """The machine and the versions, as plain values."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line for line in _cpuinfo().splitlines() if line.startswith("flags")), "")
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks", "runs", ":!*.json", ":!*.png"
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD"),
        **({"not committed": [line.strip() for line in changed.splitlines()]} if changed else {}),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "bfloat16 instructions": sorted({"avx512_bf16", "amx_bf16"} & set(flags.split())),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "av", "timm", "fewframes")},
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def command() -> str:
    """The command that runs this script; its folders are written as DATA, the first argument, or FOLDER."""
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "scripts run as modules: python -m benchmarks.TOPIC.NAME"
    words = sys.argv[1:]
    words = [word if not Path(word).is_dir() else "FOLDER" if index else "DATA" for index, word in enumerate(words)]
    return " ".join(["python -m", spec.name, *words])


def write_result(**parts: object) -> None:
    """Print the result of a script as JSON: the machine, the command and its parts."""
    print(json.dumps({"machine": describe(), "command": command(), **parts}, indent=1))


def save_figure(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)


# Figures


def least_median_most(values: Sequence[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 4),
        "median": round(statistics.median(values), 4),
        "max": round(max(values), 4),
    }


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """The mean over seeds, the least and the most."""
    numbers = {"value": statistics.mean(values), "min": min(values), "max": max(values)}
    return {name: round(number, 2) for name, number in numbers.items()}


def difference(
    first_SB: Tensor | NDArray[Any], second_SB: Tensor | NDArray[Any], groups: Sequence[str]
) -> dict[str, float]:
    """Mean of first minus second, in points, with its 95 % interval over groups; rows are 0 or 1 for each video."""
    gains_B = 100 * (np.asarray(first_SB, np.float64) - np.asarray(second_SB, np.float64)).mean(axis=0)
    interval = difference_of(lambda rows: float(gains_B[rows].mean()), groups, np.random.default_rng(0))
    return {"points": round(interval.value, 2), "low": round(interval.low, 2), "high": round(interval.high, 2)}


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
    *,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Seconds of each way in each round. All ways take their turn before any has its next, after one uncounted round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + warm_up):
        for name, way in ways.items():
            began = clock()
            way()
            if number or not warm_up:
                seconds[name].append(clock() - began)
    return seconds


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """First over second, round by round."""
    return [one / other for one, other in zip(first, second, strict=True)]


def resident_bytes(process: int | str = "self") -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Peak(threading.Thread):
    """The most resident memory of this process, looked at every 5 ms while it is entered."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.bytes = resident_bytes()
        self._over = threading.Event()

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    @property
    def added_mb(self) -> float:
        return round((self.bytes - self.before) / 1e6, 1)

    def run(self) -> None:
        while not self._over.wait(0.005):
            self.bytes = max(self.bytes, resident_bytes())


# Data sets, and heads taught on the embeddings of frozen encoders


@dataclass(frozen=True, eq=False)
class Videos:
    """Embeddings (B, V, T, D) of a protocol's videos, labels and groups."""

    embeddings: Tensor
    targets: Tensor
    groups: tuple[str, ...]


def directed_rows(data: Path) -> list[dict[str, str]]:
    """The daily movements of the order test: those with a direction that show something."""
    return [row for row in rows_of(data / "fir_rgb") if row["direction"] and float(row["mean_luma"]) > DARK]


def video_set(folder: Path, rows: Sequence[dict[str, str]]) -> VideoSet:
    return VideoSet(tuple(Sample(path=str(folder / row["path"]), labels=(row["label"],)) for row in rows), folder.name)


def embedded(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None,
    *,
    num_frames: int | None = None,
    augment: AugmentConfig | None = None,
) -> Tensor:
    """Embeddings (B, V, T, D) of each video as it is and mirrored, then of the views that `augment` draws."""
    for result in embed_videos(data, predictor, cache, mirror=True, num_frames=num_frames, augment=augment):
        if isinstance(result, EmbeddedVideos):
            assert not result.failures
            print(f"{data.name}: {len(data.samples)} videos embedded by {predictor.name}", file=sys.stderr)
            return torch.as_tensor(result.embeddings)
    raise AssertionError


def numbered(labels: Sequence[str]) -> Tensor:
    names = sorted(set(labels))
    return torch.tensor([names.index(label) for label in labels])


def directions(rows: Sequence[dict[str, str]]) -> Tensor:
    """1 for up: the movements forwards, then the same movements backwards."""
    upwards = torch.tensor([int(row["direction"] == "up") for row in rows])
    return torch.cat([upwards, 1 - upwards])


def and_backwards(frames_BVTD: Tensor) -> Tensor:
    """The centres of equal parts are the same timestamps backwards, so a video played backwards has its embeddings reversed."""
    return torch.cat([frames_BVTD, frames_BVTD.flip(-2)])


def interactions(data: Path, predictor: Predictor, cache: EmbeddingCache) -> Videos:
    folder = data / "ut_interaction"
    rows = rows_of(folder)
    sequences = tuple(f"{int(row['sequence']):02d}" for row in rows)
    embeddings = embedded(video_set(folder, rows), predictor, cache)
    return Videos(embeddings, numbered([row["label"] for row in rows]), sequences)


def both_ways(data: Path, predictor: Predictor, cache: EmbeddingCache) -> Videos:
    rows = directed_rows(data)
    forwards = embedded(video_set(data / "fir_rgb", rows), predictor, cache)
    return Videos(and_backwards(forwards), directions(rows), tuple(row["recording"] for row in rows) * 2)


def taught(
    config: ModelConfig,
    embeddings_BVTD: Tensor,
    targets_B: Tensor,
    num_classes: int,
    settings: TrainConfig,
    groups: Sequence[str] | None = None,
) -> STAM:
    """A head on frozen frame embeddings, by `fit` with these settings."""
    torch.manual_seed(settings.seed)
    model = STAM(replace(config, num_classes=num_classes), VIEW, torch.nn.Identity(), embeddings_BVTD.shape[-1])
    for _ in fit(model, embeddings_BVTD, torch.eye(num_classes)[targets_B], RunConfig(train=settings), groups=groups):
        pass
    return model.eval()


def runtime_of(model: STAM) -> TorchRuntime:
    """A runtime for a head that was taught on embeddings: it has no frame encoder to speak of."""
    labels = tuple(f"class {number}" for number in range(model.config.num_classes))
    return TorchRuntime(Checkpoint(model, VIEW, labels), device="cpu", dtype="float32", merge=0)


# Processes


Job = TypeVar("Job")
Result = TypeVar("Result")
SHARED: list[Any] = []
"""In each process of `in_processes`, the values that were handed to it."""


def _start(file: Path) -> None:
    torch.set_num_threads(1)
    SHARED.extend(torch.load(file, weights_only=False, mmap=True))


def in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], shared: Sequence[object], file: Path, workers: int
) -> Iterator[tuple[Job, Result]]:
    """Each job with its result, in order, from spawned processes of one thread each: torch's threads do not survive a fork.

    `shared` goes to all processes by way of `file`, once.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(list(shared), file)
    began = time.perf_counter()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_start, initargs=(file,)) as pool:
        for number, (job, result) in enumerate(zip(jobs, pool.map(function, jobs), strict=True), 1):
            print(f"{number}/{len(jobs)} {time.perf_counter() - began:.0f} s", file=sys.stderr)
            yield job, result


# Videos that are made


@contextmanager
def video_writer(
    path: Path, size: tuple[int, int], rate: int, gop: int, options: dict[str, str], encoder: str = "libx264"
) -> Iterator[Callable[[av.VideoFrame], None]]:
    """A function that adds a frame to a video of this width and height, `rate` frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", gop
        count = 0

        def add(frame: av.VideoFrame) -> None:
            nonlocal count
            frame.pts, frame.time_base = count, Fraction(1, rate)
            container.mux(stream.encode(frame))
            count += 1

        yield add
        container.mux(stream.encode())


def repeat_video(segment: Path, path: Path, segment_s: float, times: int) -> None:
    """The packets of a video of `segment_s` seconds, written so many times one after the other; nothing is encoded anew."""
    with av.open(str(path), "w") as out:
        with av.open(str(segment)) as one:
            stream = out.add_stream_from_template(one.streams.video[0], opaque=True)
        for number in range(times):
            with av.open(str(segment)) as one:
                source = one.streams.video[0]
                assert source.time_base is not None
                shift = round(number * segment_s / source.time_base)
                for packet in one.demux(source):
                    if packet.dts is not None and packet.pts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        out.mux(packet)
