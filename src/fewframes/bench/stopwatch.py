"""One network against the clock: how it is run, seconds of its passes, memory, energy, and the machine's own limit."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from fewframes.bench.contenders import Baseline
from fewframes.core.devices import may_pay, synchronise
from fewframes.core.memory import keep_memory
from fewframes.errors import BenchError, ConfigError, FewframesError
from fewframes.inference.predictor import DTYPES, Predictor, name_of
from fewframes.models.checkpoint import Checkpoint
from fewframes.models.stam import STAM
from fewframes.video.transforms import pixels_of

Result = TypeVar("Result")
LONGEST_PASS_S = 10.0
"""A batch does not grow past what would take longer than this."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MOST_VALUES = 2**28
"""Input values of one pass, at most: what a batch may grow to."""
WORTH_IT = 0.97
"""A larger batch is kept when a view takes at most this share of the time."""
SLOW_SHARE = 4
"""While ways are looked for, a pass that takes this many times the seconds for them is run once."""
RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class RunMode:
    """How a network is run: precision, whether its memory has channels last, and how many views a pass takes."""

    dtype: str
    channels_last: bool
    batch: int = 1

    def describe(self) -> str:
        """In words."""
        return f"{self.dtype}{', channels last' if self.channels_last else ''}, {self.batch} a pass"


class Runner:
    """A contender's network, ours as `Predictor` runs it, that can be run in several ways."""

    def __init__(self, network: nn.Module, contender: Baseline, device: torch.device, merge: int = 0) -> None:
        self.contender, self.device = contender, device
        self.dtype = torch.float32
        self.tried: dict[RunMode, float | None] = {}
        """Seconds of a view in each way that was tried; None where it failed."""
        self.predictor: Predictor | None = None
        if isinstance(network, STAM):
            labels = tuple(f"class {number}" for number in range(network.config.num_classes))
            checkpoint = Checkpoint(network, contender.view, labels)
            self.predictor = Predictor(checkpoint, device=str(device), dtype="float32", merge=merge)
            self.cast: nn.Module = self.predictor.model.frame_encoder  # alone, as `Predictor` does
        else:
            self.cast = network.to(device)
        torch.backends.cudnn.benchmark = True

    def best_way(self, seconds: float, *, one_view: bool = False) -> RunMode:
        """In each precision the better layout by the clock, then the batch up to which a view gets cheaper (unless `one_view`);
        of these the cheapest. A precision that fails, or whose output is not finite, is left out."""
        names = [torch.bfloat16, torch.float32] if self.device.type == "cpu" else list(DTYPES.values())
        dtypes = [dtype for dtype in names if dtype == torch.float32 or may_pay(dtype, self.device)]
        taken: dict[RunMode, float] = {}
        for dtype in dtypes:
            layouts = {
                way: view_s
                for way in (RunMode(name_of(dtype), last) for last in (False, True))
                if (view_s := self._view_s(way, seconds)) is not None
            }
            if not layouts:
                continue
            way = min(layouts, key=layouts.__getitem__)
            taken[way] = view_s = layouts[way]
            while not one_view and self._fits(2 * way.batch) and 2 * way.batch * view_s < LONGEST_PASS_S:
                larger = replace(way, batch=2 * way.batch)
                each_s = self._view_s(larger, seconds)
                if each_s is None or each_s > WORTH_IT * view_s:
                    break
                way, view_s = larger, each_s
                taken[way] = view_s
        if not taken:
            raise ConfigError(f"its network runs in none of {', '.join(name_of(dtype) for dtype in dtypes)} here")
        return min(taken, key=taken.__getitem__)

    def _view_s(self, way: RunMode, seconds: float) -> float | None:
        self.tried[way] = None
        try:
            self.take(way)
            views_VTCHW = self.input_of(way.batch)
            began = time.perf_counter()
            finite = bool(self.run(views_VTCHW).isfinite().all())
            first_s = time.perf_counter() - began
            if finite:  # a pass that takes long needs no second one to be told from others
                pass_s = first_s if first_s > SLOW_SHARE * seconds else min(self.seconds_of(way.batch, seconds))
                self.tried[way] = pass_s / way.batch
        except RuntimeError:  # no such kernel here, or no room
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return self.tried[way]

    def take(self, way: RunMode) -> None:
        """Turn the network to this way."""
        self.dtype = DTYPES[way.dtype]
        self.cast.to(self.dtype)
        for parameter in self.cast.parameters():
            if parameter.ndim in (4, 5):
                last = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
                layout = last if way.channels_last else torch.contiguous_format
                parameter.data = parameter.data.contiguous(memory_format=layout)

    def run(self, views_VTCHW: Tensor) -> Tensor:
        """Logits (V, K) of views; uint8 for ours, else in the precision of the network, in 0-1."""
        with torch.inference_mode():
            if self.predictor is None:
                logits_VK: Tensor = self.cast(views_VTCHW)
            else:
                frames_VTD = self.predictor.encode_clips(views_VTCHW)
                logits_VK = self.predictor.model.encode_video(frames_VTD.to(self.device)).logits
            return logits_VK.float().cpu()

    def seconds_of(self, batch: int, seconds: float) -> list[float]:
        """Seconds of passes of so many views, as many as fit `seconds`, two at least unless it is 0."""
        views_VTCHW = self.input_of(batch)
        taken: list[float] = []
        while not taken or (seconds > 0 and (len(taken) < 2 or sum(taken) < seconds)):
            synchronise(self.device)
            began = time.perf_counter()
            self.run(views_VTCHW)
            taken.append(time.perf_counter() - began)
        return taken

    def input_of(self, batch: int) -> Tensor:
        """Noise in the shape of `batch` views."""
        contender = self.contender
        shape = (batch, contender.frames_a_pass, 3, contender.size_px, contender.size_px)
        if self.predictor is not None:
            return torch.randint(0, 256, shape, dtype=torch.uint8)
        return torch.rand(shape, device=self.device).to(self.dtype)

    def scores(self, views_VTCHW: Tensor) -> Tensor:
        """Scores (K,) of a video, the mean over its views (V, T, C, H, W) uint8."""
        views = (view[None] for view in views_VTCHW)
        inputs = (pixels_of(view.to(self.device)).to(self.dtype) for view in views)
        return torch.cat([self.run(one).softmax(dim=1) for one in inputs]).mean(dim=0)

    def _fits(self, batch: int) -> bool:
        return batch * self.contender.frames_a_pass * 3 * self.contender.size_px**2 <= MOST_VALUES


def in_own_process(work: Callable[..., Result], *arguments: object) -> Result:
    """What `work` returns, computed in a process that nothing else has used, and that holds memory as the command does.

    Whatever goes wrong in there is a BenchError here: other work goes on. A script that calls this needs the guard
    `if __name__ == "__main__"`, as everything that starts processes.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=keep_memory) as pool:
        try:
            outcome = pool.submit(_guarded, work, arguments).result()
        except BrokenProcessPool:
            raise BenchError("its process was killed, most likely for want of memory") from None
    if isinstance(outcome, _Trouble):
        raise BenchError(outcome.reason)
    return outcome


@dataclass(frozen=True)
class _Trouble:
    reason: str


def _guarded(work: Callable[..., Result], arguments: tuple[object, ...]) -> Result | _Trouble:
    try:
        return work(*arguments)
    except FewframesError as error:
        return _Trouble(str(error))
    except Exception as error:  # other people's networks raise what they like; nothing but its text leaves this process
        said = str(error).strip().splitlines()
        return _Trouble(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__)


class Memory:
    """The most bytes held between entry and exit, above what an empty process holds: of the GPU's memory on CUDA, else of this
    process. None where the system does not say (other than Linux)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.empty_bytes = _status_bytes("VmRSS")
        self.peak_bytes: int | None = None

    def __enter__(self) -> Memory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.empty_bytes is not None:
            with suppress(OSError):
                CLEAR.write_text("5")  # forgets the peak so far
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
        elif self.empty_bytes is not None:
            self.peak_bytes = max(0, (_status_bytes("VmHWM") or 0) - self.empty_bytes)


def _status_bytes(name: str) -> int | None:
    if not STATUS.is_file():
        return None
    return next(1024 * int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name))


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
            except ImportError:
                return None
            try:
                pynvml.nvmlInit()
                uuid = torch.cuda.get_device_properties(self.device).uuid
                handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
            except pynvml.NVMLError:
                return None
        try:
            packages = [path for path in RAPL.glob("intel-rapl:?") if (path / "name").read_text().startswith("package")]
            counters = [int((path / "energy_uj").read_text()) for path in packages]
        except OSError:  # readable by root alone on most systems
            return None
        return sum(counters) / 1e6 if counters else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of ascending values lies; the nearest one, not between two."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1 if share else 0)]


def significant(value: float, digits: int = 4) -> float:
    """A figure without the digits that noise has made."""
    return float(f"{value:.{digits}g}")
