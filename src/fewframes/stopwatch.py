"""One network against the clock: how it is run, seconds of its passes, memory, energy, and the machine's own limit."""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from fewframes.contenders import Contender
from fewframes.errors import ConfigError
from fewframes.memory import keep_memory
from fewframes.predictor import name_of
from fewframes.transforms import pixels_of

Result = TypeVar("Result")
RATE_SIZE = 4096
MOST_VALUES = 2**28
"""Input values of one pass, at most: what a batch may grow to."""
WORTH_IT = 0.97
"""A larger batch is kept when a view takes at most this share of the time."""
RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Way:
    """How a network is run: precision, whether its memory has channels last, and how many views a pass takes."""

    dtype: str
    channels_last: bool
    batch: int = 1


class Runner:
    """A network that can be run in several ways."""

    def __init__(self, network: nn.Module, contender: Contender, device: torch.device) -> None:
        self.network, self.contender, self.device = network.to(device), contender, device
        self.dtype, self.channels_last = torch.float32, False

    def best_way(self, seconds: float) -> Way:
        """Precision and layout by the clock at one view, then the batch up to which a view still gets cheaper."""
        dtypes = [torch.bfloat16, torch.float32]
        if self.device.type != "cpu":
            dtypes.insert(1, torch.float16)
        ways = [Way(name_of(dtype), last) for dtype in dtypes for last in (False, True)]
        taken: dict[Way, float] = {}
        for way in ways:
            try:
                self.take(way)
                taken[way] = min(self.seconds_of(1, seconds))
            except RuntimeError:  # a kernel that this precision has not, here
                continue
        if not taken:
            raise ConfigError(f"the network runs in none of {', '.join(sorted({way.dtype for way in ways}))} here")
        best = min(taken, key=taken.__getitem__)
        view_s, batch = taken[best], 1
        self.take(best)
        while self._fits(2 * batch) and 2 * batch * view_s < 10 * max(seconds, 0.1):
            each_s = min(self.seconds_of(2 * batch, seconds)) / (2 * batch)
            if each_s > WORTH_IT * view_s:
                break
            view_s, batch = each_s, 2 * batch
        return Way(best.dtype, best.channels_last, batch)

    def take(self, way: Way) -> None:
        """Turn the network to this way. Only the frame encoder of ours is cast, as `Predictor` does."""
        dtype: torch.dtype = getattr(torch, way.dtype)
        part = getattr(self.network, "frame_encoder", self.network)
        part.to(dtype)
        self.dtype, self.channels_last = dtype, way.channels_last
        for module in part.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.ndim in (4, 5):
                    last = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
                    parameter.data = parameter.data.contiguous(
                        memory_format=last if way.channels_last else torch.contiguous_format
                    )

    def seconds_of(self, batch: int, seconds: float) -> list[float]:
        """Seconds of passes of so many views, as many as fit `seconds`, two at least unless it is 0."""
        pixels_BTCHW = self.input_of(batch)
        taken: list[float] = []
        with torch.inference_mode():
            while not taken or (seconds > 0 and (len(taken) < 2 or sum(taken) < seconds)):
                synchronise(self.device)
                began = time.perf_counter()
                self.network(pixels_BTCHW).float().cpu()
                taken.append(time.perf_counter() - began)
        return taken

    def scores(self, views_VTCHW: Tensor) -> Tensor:
        """Scores (K,) of a video, the mean over its views (V, T, C, H, W) uint8."""
        with torch.inference_mode():
            scores = [self.network(pixels_of(view[None].to(self.device))).softmax(1).cpu() for view in views_VTCHW]
        return torch.cat(scores).mean(dim=0)

    def input_of(self, batch: int) -> Tensor:
        """Noise in the shape of `batch` views."""
        contender = self.contender
        num_clips = contender.views.num_clips if contender.takes == "clips" else 1
        shape = (batch, num_clips * contender.frames, 3, contender.size_px, contender.size_px)
        ours = hasattr(self.network, "frame_encoder")
        return torch.rand(shape, device=self.device, dtype=torch.float32 if ours else self.dtype)

    def _fits(self, batch: int) -> bool:
        contender = self.contender
        return batch * contender.frames * 3 * contender.size_px**2 <= MOST_VALUES


def in_own_process(work: Callable[..., Result], *arguments: object) -> Result:
    """What `work` returns, computed in a process that nothing else has used, and that holds memory as the command does."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=keep_memory) as pool:
        return pool.submit(work, *arguments).result()


def matrix_flops_s(dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    """The machine's rate of matrix products, the best of several, in FLOP/s: what no network can exceed."""
    left, right = (torch.rand(RATE_SIZE, RATE_SIZE, device=device).to(dtype) for _ in range(2))
    best_s, began = math.inf, time.perf_counter()
    while time.perf_counter() - began < seconds or best_s == math.inf:
        synchronise(device)
        start = time.perf_counter()
        left @ right
        synchronise(device)
        best_s = min(best_s, time.perf_counter() - start)
    return 2 * RATE_SIZE**3 / best_s


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def memory_peak(device: torch.device) -> int:
    """Bytes: the most this process has held, on a GPU of the GPU's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil  # late: needed nowhere else

        return int(psutil.Process().memory_info().peak_wset)
    import resource  # late: Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class Energy:
    """Joules between entry and exit: of the processor's packages (RAPL), or of the GPU; None where nothing counts them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.joules: float | None = None

    def __enter__(self) -> Energy:
        self._before = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._read()
        if self._before is not None and after is not None and after >= self._before:
            self.joules = after - self._before

    def _read(self) -> float | None:
        if self.device.type == "cuda":
            try:
                import pynvml  # late: an optional package

                pynvml.nvmlInit()
                handle = pynvml.nvmlDeviceGetHandleByIndex(self.device.index or 0)
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
            except (ImportError, RuntimeError, OSError):
                return None
        try:
            counters = [path.read_text() for path in RAPL.glob("intel-rapl:?/energy_uj")]
        except OSError:  # readable by root alone on most systems
            return None
        return sum(map(int, counters)) / 1e6 if counters else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of ascending values lies; the nearest one, not between two."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1 if share else 0)]


def significant(value: float, digits: int = 4) -> float:
    """A figure without the digits that noise has made."""
    return float(f"{value:.{digits}g}")
