"""Time one network in one process: find the fastest way to run it, and measure its passes, memory and energy."""

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

from fewframes.core.process import keep_memory
from fewframes.errors import BenchError, ConfigError, FewframesError
from fewframes.inference.predictor import Predictor
from fewframes.models.baselines.systems import Baseline
from fewframes.models.devices import may_pay, synchronise
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.layers import pixels_of
from fewframes.models.stam import STAM
from fewframes.runtime.torch_runtime import DTYPES

Result = TypeVar("Result")
LONGEST_PASS_S = 10.0
"""The largest number of seconds that a pass of a larger batch may be expected to take."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MOST_VALUES = 2**28
"""The most input values of one pass: the limit to which a batch grows."""
WORTH_IT = 0.97
"""A larger batch is chosen if a view takes at most this fraction of the time."""
SLOW_FACTOR = 4
"""While modes are compared, a pass that takes this many times the seconds for a mode is run only once."""
RAPL = Path("/sys/class/powercap")
"""Energy counters of the processor's packages, on Linux."""


@dataclass(frozen=True)
class RunMode:
    """The way a network is run: its precision, the layout of its memory (channels last or not), and the views of a pass."""

    dtype: str
    channels_last: bool
    batch: int = 1

    def describe(self) -> str:
        """Return the mode in words."""
        return f"{self.dtype}{', channels last' if self.channels_last else ''}, {self.batch} a pass"


class Runner:
    """A network that can be run in several modes; one of ours is run as `Predictor` runs it."""

    def __init__(self, network: nn.Module, baseline: Baseline, device: torch.device, merge: int = 0) -> None:
        self.baseline, self.device = baseline, device
        self.dtype = torch.float32
        self.tried: dict[RunMode, float | None] = {}
        """Seconds of a view in each mode that was tried; None where it failed."""
        self.predictor: Predictor | None = None
        if isinstance(network, STAM):
            labels = tuple(f"class {number}" for number in range(network.config.num_classes))
            checkpoint = Checkpoint(network, baseline.view, labels)
            self.predictor = Predictor(checkpoint, device=str(device), dtype="float32", merge=merge)
            self.cast: nn.Module = self.predictor.torch.model.frame_encoder  # `Predictor` casts nothing else
        else:
            self.cast = network.to(device)
        torch.backends.cudnn.benchmark = True

    def best_mode(self, seconds: float, *, one_view: bool = False) -> RunMode:
        """Return the mode in which a view takes the least time, by the clock.

        For each precision it tries both layouts, and then doubles the batch as long as a view gets cheaper (not with
        `one_view`). A precision that fails, or whose output is not finite, is left out. Raises ConfigError if all fail.
        """
        names = [torch.bfloat16, torch.float32] if self.device.type == "cpu" else list(DTYPES.values())
        dtypes = [dtype for dtype in names if dtype == torch.float32 or may_pay(dtype, self.device)]
        taken: dict[RunMode, float] = {}
        for dtype in dtypes:
            layouts = {
                mode: view_s
                for mode in (RunMode(_name_of(dtype), last) for last in (False, True))
                if (view_s := self._view_s(mode, seconds)) is not None
            }
            if not layouts:
                continue
            mode = min(layouts, key=layouts.__getitem__)
            taken[mode] = view_s = layouts[mode]
            while not one_view and self._fits(2 * mode.batch) and 2 * mode.batch * view_s < LONGEST_PASS_S:
                larger = replace(mode, batch=2 * mode.batch)
                each_s = self._view_s(larger, seconds)
                if each_s is None or each_s > WORTH_IT * view_s:
                    break
                mode, view_s = larger, each_s
                taken[mode] = view_s
        if not taken:
            raise ConfigError(f"its network runs in none of {', '.join(_name_of(dtype) for dtype in dtypes)} here")
        return min(taken, key=taken.__getitem__)

    def _view_s(self, mode: RunMode, seconds: float) -> float | None:
        """Return the seconds of a view in this mode; None if it fails or its output is not finite."""
        self.tried[mode] = None
        try:
            self.take(mode)
            views_VTCHW = self.input_of(mode.batch)
            began = time.perf_counter()
            finite = bool(self.run(views_VTCHW).isfinite().all())
            first_s = time.perf_counter() - began
            if finite:  # a slow pass needs no second one to be told from faster modes
                pass_s = first_s if first_s > SLOW_FACTOR * seconds else min(self.seconds_of(mode.batch, seconds))
                self.tried[mode] = pass_s / mode.batch
        except RuntimeError:  # there is no such kernel here, or not enough memory
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return self.tried[mode]

    def take(self, mode: RunMode) -> None:
        """Cast the network to the precision of this mode, and its weights to the layout."""
        self.dtype = DTYPES[mode.dtype]
        self.cast.to(self.dtype)
        if self.predictor is not None:  # says how many frames are embedded at once, and whether the rest may take TF32
            self.predictor.torch.dtype = self.dtype
        for parameter in self.cast.parameters():
            if parameter.ndim in (4, 5):
                last = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
                layout = last if mode.channels_last else torch.contiguous_format
                parameter.data = parameter.data.contiguous(memory_format=layout)

    def run(self, views_VTCHW: Tensor) -> Tensor:
        """Return the logits (V, K) of views: uint8 for our models, else in 0-1 and in the precision of the network."""
        with torch.inference_mode():
            if self.predictor is None:
                logits_VK: Tensor = self.cast(views_VTCHW)
            else:
                runtime = self.predictor.runtime
                logits_VK = torch.as_tensor(runtime.encode_windows(runtime.encode_clips(views_VTCHW.numpy())).logits)
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
        """Return noise in the shape of `batch` views."""
        baseline = self.baseline
        shape = (batch, baseline.frames_a_pass, 3, baseline.size_px, baseline.size_px)
        if self.predictor is not None:
            return torch.randint(0, 256, shape, dtype=torch.uint8)
        return torch.rand(shape, device=self.device).to(self.dtype)

    def scores(self, views_VTCHW: Tensor) -> Tensor:
        """Return the scores (K,) of a video: the mean over its views (V, T, C, H, W) uint8."""
        views = (view[None] for view in views_VTCHW)
        inputs = (pixels_of(view.to(self.device)).to(self.dtype) for view in views)
        return torch.cat([self.run(one).softmax(dim=1) for one in inputs]).mean(dim=0)

    def _fits(self, batch: int) -> bool:
        """Return True if a batch of this many views stays below `MOST_VALUES`."""
        return batch * self.baseline.frames_a_pass * 3 * self.baseline.size_px**2 <= MOST_VALUES


def _name_of(dtype: torch.dtype) -> str:
    """Return the name of a precision, as `DTYPES` has it."""
    return str(dtype).removeprefix("torch.")


def in_own_process(work: Callable[..., Result], *arguments: object) -> Result:
    """Return the result of `work(*arguments)`, computed in a fresh process.

    The process keeps freed memory, as the command itself does. Whatever goes wrong in it is a BenchError here, so that other
    work goes on. A script that calls this needs the guard `if __name__ == "__main__"`, like all that start processes.
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
    """A failure in another process. A text crosses the border between processes; an exception of a library may not."""

    reason: str


def _guarded(work: Callable[..., Result], arguments: tuple[object, ...]) -> Result | _Trouble:
    """Return the result of the work, or the text of what went wrong."""
    try:
        return work(*arguments)
    except FewframesError as error:
        return _Trouble(str(error))
    except Exception as error:  # networks of other libraries may raise anything
        said = str(error).strip().splitlines()
        return _Trouble(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__)


class Memory:
    """A context that measures the peak of memory, in bytes: of the GPU on CUDA, else of this process above an empty one.

    Make it before the network, for the memory of the empty process is read then. `peak_bytes` is None where the system does not
    say (other than Linux).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.empty_bytes = _status_bytes("VmRSS")
        self.peak_bytes: int | None = None

    def __enter__(self) -> Memory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.empty_bytes is not None:
            with suppress(OSError):
                CLEAR.write_text("5")  # resets VmHWM, the peak so far
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
        elif self.empty_bytes is not None:
            self.peak_bytes = max(0, (_status_bytes("VmHWM") or 0) - self.empty_bytes)


def _status_bytes(name: str) -> int | None:
    """Return a figure of this process's status in bytes; None where there is no such file."""
    if not STATUS.is_file():
        return None
    return next(1024 * int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name))


class Energy:
    """A context that measures energy, in joules: of the processor's packages (RAPL), or of the GPU.

    `joules` is None where nothing counts them, and where a counter ran over.
    """

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
        """Return the counters so far, in joules."""
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


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the value at or below which this fraction of ascending values lies: one of them, not an interpolation."""
    return ordered[min(len(ordered) - 1, math.ceil(fraction * len(ordered)) - 1 if fraction else 0)]


def significant(value: float, digits: int = 4) -> float:
    """Return a figure rounded to its significant digits; the others are noise."""
    return float(f"{value:.{digits}g}")
