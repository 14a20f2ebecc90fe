"""Devices that compute: how one is chosen, its name, the precision that suits it, and its rate of matrix products."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fewframes.core.process import cpu_name
from fewframes.core.text import count_of
from fewframes.errors import ConfigError

PROBE_SIDE = 256
"""The side of the matrices that probe a device. They are small enough for processors without instructions for the precision."""
LONGEST_PRODUCT_S = 1.0
"""The longest time that one matrix product of the benchmark may take, in seconds."""
LEAST_CAPABILITY = 8
"""The compute capability from which tensor cores of NVIDIA take bfloat16 and TF32 (Ampere)."""
_SWITCHES = threading.RLock()
"""Held while torch's switches of TF32 are set, because they are the whole process's."""


def choose_device(name: str) -> torch.device:
    """Return the device of this name; `auto` is the first of cuda, mps and cpu that exists.

    Raises ConfigError if the device is unknown or missing.
    """
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
    """Return the name of the device for people; for a CPU with the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name() if device.type != "cpu" else f"{cpu_name()}, {count_of(torch.get_num_threads(), 'thread')}"


def may_pay(dtype: torch.dtype, device: torch.device) -> bool:
    """Return True if a network may be faster in this precision than in float32, so that trying it is worth the time.

    A CPU without instructions for the precision takes fifty times as long (AVX2: 0.4 GFLOP/s where float32 has 20-50), so
    trying a network would take minutes. Timing small products instead was tried; on a busy machine the result is random.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return True
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    mkldnn = torch.ops.mkldnn
    return bool(mkldnn._is_mkldnn_bf16_supported() if dtype == torch.bfloat16 else mkldnn._is_mkldnn_fp16_supported())


def auto_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """Return the precision that `auto` stands for on this device, and the reason in words.

    The choice depends on what the device has, never on timing. Times vary on a busy machine, so the answers and the cache keys
    would change from start to start. On a device with bfloat16 instructions every kind of frame encoder takes half the time.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= LEAST_CAPABILITY:
            return torch.bfloat16, f"compute capability {major}.{minor} has bfloat16"
        return torch.float32, (
            f"compute capability {major}.{minor} has no fast bfloat16; float16, whose numbers end at 65504, has to be asked for"
        )
    if device.type != "cpu":
        return torch.float32, f"bfloat16 was never measured on {device.type}"
    # Support by oneDNN is not enough: with plain AVX-512 it computes bfloat16 by way of float32.
    found = (
        "AMX" if torch.cpu._is_amx_tile_supported() else "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else ""
    )
    if found and may_pay(torch.bfloat16, device):
        return torch.bfloat16, f"this CPU has {found}"
    return torch.float32, "this CPU has no instructions for bfloat16"


@contextmanager
def float32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Run the block with TF32 allowed, or not, in what a GPU computes in float32; elsewhere nothing is changed.

    By default torch allows TF32 in convolutions and not in products of matrices. Its switches are the whole process's: one that
    says otherwise is set, and put back after the block. Another thread that needs them waits until then, so results are fetched
    outside the block.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    with _SWITCHES:
        before = [(switch, switch.fp32_precision) for switch in (torch.backends.cuda.matmul, cudnn.conv)]
        changed = [(switch, precision) for switch, precision in before if (precision == "tf32") != tf32]
        try:
            for switch, _ in changed:
                switch.fp32_precision = "tf32" if tf32 else "ieee"
            yield
        finally:
            for switch, precision in changed:
                switch.fp32_precision = "none"  # as torch.backends.fp32_precision has it, then and later
                if switch.fp32_precision != precision:
                    switch.fp32_precision = precision


def float32_reason(dtype: torch.dtype, device: torch.device) -> str:
    """Return in words how a GPU computes what stays in float32 beside a frame encoder of this precision; empty elsewhere."""
    if device.type != "cuda":
        return ""
    if torch.cuda.get_device_capability(device)[0] < LEAST_CAPABILITY:
        return "the rest in float32: this GPU has no TF32"
    return "the rest in float32 without TF32" if dtype == torch.float32 else "the rest in float32 with TF32"


def matrix_flops_s(dtype: torch.dtype, device: torch.device, *, side: int, seconds: float) -> float:
    """Return the highest measured rate of square matrix products, in FLOP/s. No network can exceed it.

    Args:
        dtype: the precision of the matrices.
        device: the device that multiplies them.
        side: the side of the matrices. It is halved while one product would take longer than `LONGEST_PRODUCT_S`.
        seconds: how long to measure. At least one product is measured.
    """
    while side > PROBE_SIDE and (side / PROBE_SIDE) ** 3 * _product_s(dtype, device, PROBE_SIDE) > LONGEST_PRODUCT_S:
        side //= 2
    best_s, began = math.inf, time.perf_counter()
    while time.perf_counter() - began < seconds or best_s == math.inf:
        best_s = min(best_s, _product_s(dtype, device, side))
    return 2 * side**3 / best_s


def _product_s(dtype: torch.dtype, device: torch.device, side: int) -> float:
    """Return the seconds that one matrix product takes."""
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    left[:1] @ right  # the first product also prepares the kernels
    synchronise(device)
    began = time.perf_counter()
    left @ right
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all work that was queued on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
