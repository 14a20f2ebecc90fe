"""What computes here, and how fast: devices, their names, and their rate of matrix products."""

from __future__ import annotations

import math
import platform
import time
from pathlib import Path

import torch

from fewframes.errors import ConfigError

PROBE_SIDE = 256
"""Matrices small enough for processors that have no instructions for their precision."""
LONGEST_PRODUCT_S = 1.0
LEAST_CAPABILITY = 8
"""NVIDIA's compute capability from which tensor cores take bfloat16 (Ampere)."""


def choose_device(name: str) -> torch.device:
    """The device to compute on; ConfigError for one that is unknown or not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # `meta` has no numbers to give back
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); take 'auto' or 'cpu'") from None
    return device


def machine_name(device: torch.device) -> str:
    """What computes, for people: the device's name, for a CPU with the threads that are used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")  # Linux: platform knows the architecture only
    if cpuinfo.is_file():
        models = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        name = next(models, name)
    return name if device.type != "cpu" else f"{name}, {torch.get_num_threads()} threads"


def may_pay(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a network may be faster in this precision than in float32, and is worth trying.

    A CPU without instructions for it takes fifty times as long (AVX2: 0.4 GFLOP/s where float32 has 20-50), so trying a
    network would take minutes. Timing small products instead of asking was tried: on a busy machine it says anything.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return True
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    mkldnn = torch.ops.mkldnn
    return bool(mkldnn._is_mkldnn_bf16_supported() if dtype == torch.bfloat16 else mkldnn._is_mkldnn_fp16_supported())


def auto_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """Return the precision that `auto` stands for on this device, and why: by what it has, never by the clock.

    A stopwatch on a busy machine says now this, now that, and with it the answers and the keys of what is cached would change
    from start to start. Where bfloat16 has instructions every kind of frame encoder takes half the time in it.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= LEAST_CAPABILITY:
            return torch.bfloat16, f"compute capability {major}.{minor} has bfloat16"
        return torch.float32, f"compute capability {major}.{minor} has no fast bfloat16"
    if device.type != "cpu":
        return torch.float32, f"bfloat16 was never measured on {device.type}"
    # Not what oneDNN supports alone: with plain AVX-512 it does bfloat16 by way of float32.
    found = (
        "AMX" if torch.cpu._is_amx_tile_supported() else "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else ""
    )
    if found and may_pay(torch.bfloat16, device):
        return torch.bfloat16, f"this CPU has {found}"
    return torch.float32, "this CPU has no instructions for bfloat16"


def matrix_flops_s(dtype: torch.dtype, device: torch.device, *, side: int, seconds: float) -> float:
    """The rate of products of square matrices, the best of those that fit `seconds`, in FLOP/s: what no network can exceed. The
    sides are `side`, or less where one product would take longer than `LONGEST_PRODUCT_S`."""
    while side > PROBE_SIDE and (side / PROBE_SIDE) ** 3 * _product_s(dtype, device, PROBE_SIDE) > LONGEST_PRODUCT_S:
        side //= 2
    best_s, began = math.inf, time.perf_counter()
    while time.perf_counter() - began < seconds or best_s == math.inf:
        best_s = min(best_s, _product_s(dtype, device, side))
    return 2 * side**3 / best_s


def _product_s(dtype: torch.dtype, device: torch.device, side: int) -> float:
    """Seconds of one product, after one that prepares."""
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    left[:1] @ right
    synchronise(device)
    began = time.perf_counter()
    left @ right
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
