"""Devices: a precision that cannot be faster is not tried, and `auto` follows a rule."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewframes.cli.doctor import examine
from fewframes.core.text import count_of
from fewframes.errors import ConfigError
from fewframes.inference.predictor import load
from fewframes.models import devices
from fewframes.models.devices import (
    PROBE_SIDE,
    auto_dtype,
    choose_device,
    float32_products,
    float32_reason,
    machine_name,
    matrix_flops_s,
    may_pay,
)
from fewframes.runtime import torch_runtime

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def switches() -> tuple[str, str]:
    """How torch multiplies matrices and convolves in float32 on a GPU."""
    cudnn: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision


def takes_tf32() -> list[bool]:
    """Whether torch multiplies matrices and convolves in TF32."""
    return [switch == "tf32" for switch in switches()]


@pytest.mark.parametrize("supported", [True, False])
def test_a_precision_without_instructions_does_not_pay(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    """On an AVX2 machine a single frame in bfloat16 takes tens of seconds."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert may_pay(torch.bfloat16, CPU) == supported
    assert may_pay(torch.float32, CPU)


@pytest.mark.parametrize(
    ("amx", "avx", "onednn", "chosen", "words"),
    [
        (True, False, True, torch.bfloat16, "this CPU has AMX"),
        (False, True, True, torch.bfloat16, "this CPU has AVX512-BF16"),
        (False, False, True, torch.float32, "no instructions for bfloat16"),  # AVX-512 alone: oneDNN would emulate it
        (False, True, False, torch.float32, "no instructions for bfloat16"),  # torch built without oneDNN
    ],
)
def test_precision_is_a_rule_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx: bool, onednn: bool, chosen: torch.dtype, words: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    dtype, why = auto_dtype(CPU)
    assert dtype == chosen
    assert words in why
    predictor = load(device="cpu", runtime="torch")
    assert predictor.torch.dtype == chosen
    assert next(predictor.torch.model.frame_encoder.parameters()).dtype == chosen
    assert predictor.torch.model.head.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("capability", "chosen", "words"),
    [
        ((7, 5), torch.float32, "has to be asked for; the rest in float32: this GPU has no TF32"),
        ((8, 0), torch.bfloat16, "compute capability 8.0 has bfloat16; the rest in float32 with TF32"),
        ((9, 0), torch.bfloat16, "compute capability 9.0 has bfloat16; the rest in float32 with TF32"),
    ],
)
def test_precision_is_a_rule_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: torch.dtype, words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    dtype, why = auto_dtype(CUDA)
    assert dtype == chosen
    assert f"{why}; {float32_reason(dtype, CUDA)}".endswith(words)
    assert auto_dtype(torch.device("mps"))[0] == torch.float32


def test_float32_that_is_asked_for_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's default a GPU convolves in TF32, with ten bits of mantissa, and multiplies in float32."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert float32_reason(torch.float32, CUDA) == "the rest in float32 without TF32"
    assert float32_reason(torch.float32, CPU) == ""
    before = switches()
    with float32_products(CUDA, tf32=False):
        assert takes_tf32() == [False, False]
    with float32_products(CUDA, tf32=True):
        assert takes_tf32() == [True, True]
    with pytest.raises(KeyError), float32_products(CUDA, tf32=True):
        raise KeyError
    with float32_products(CPU, tf32=True):
        assert switches() == before
    assert switches() == before


@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_a_setting_for_all_of_torch_is_the_callers_before_and_after(precision: str) -> None:
    """A switch that follows `torch.backends.fp32_precision` still follows it once a GPU has computed in either way."""
    backends: Any = torch.backends
    convolutions = backends.cudnn.conv.fp32_precision
    try:
        backends.fp32_precision = precision
        inherited = switches()
        for tf32 in (True, False):
            with float32_products(CUDA, tf32=tf32):
                assert takes_tf32() == [tf32, tf32]
        assert switches() == inherited
        backends.fp32_precision = other = "ieee" if precision == "tf32" else "tf32"
        assert backends.cuda.matmul.fp32_precision == other
    finally:
        backends.fp32_precision = "none"
        # torch's start value does not come back by itself, and the older switch could not be read.
        backends.cudnn.conv.fp32_precision = convolutions
    assert backends.cudnn.allow_tf32


def test_older_settings_can_be_read_again_afterwards() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with float32_products(CUDA, tf32=False):
            assert takes_tf32() == [False, False]
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cuda.matmul.fp32_precision = "none"


def test_threads_do_not_see_the_switches_of_each_other() -> None:
    before, wrong = switches(), []

    def compute(tf32: bool) -> None:
        for _ in range(300):
            with float32_products(CUDA, tf32=tf32):
                time.sleep(0)
                if takes_tf32() != [tf32, tf32]:
                    wrong.append(tf32)

    threads = [threading.Thread(target=compute, args=(tf32,)) for tf32 in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, switches()) == ([], before)


@pytest.mark.parametrize(("dtype", "tf32"), [("float32", False), ("bfloat16", True)])
def test_a_runtime_sets_the_switches_while_it_computes(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, dtype: Any, tf32: bool
) -> None:
    """No GPU is needed: what the runtime asks for is written down."""
    asked: list[bool] = []

    @contextmanager
    def noted(device: torch.device, *, tf32: bool) -> Iterator[None]:
        asked.append(tf32)
        yield

    monkeypatch.setattr(torch_runtime, "float32_products", noted)
    runtime = load(tiny_model, device="cpu", dtype=dtype, runtime="torch").torch
    side = runtime.view.crop_px
    runtime.encode_windows(runtime.embed_frames(np.zeros((2, 3, side, side), np.uint8))[None])
    assert len(asked) >= 2  # the frames, and the window
    assert set(asked) == {tf32}


def test_doctor_says_how_a_gpu_computes_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "auto_dtype", lambda device: (torch.bfloat16, "compute capability 9.0 has bfloat16"))
    monkeypatch.setattr(devices, "float32_reason", lambda dtype, device: "the rest in float32 with TF32")
    line = "precision of torch: bfloat16 (compute capability 9.0 has bfloat16); the rest in float32 with TF32"
    assert line in list(examine("cpu"))


def test_a_busy_machine_chooses_as_an_idle_one() -> None:
    """The precision is a part of the answer and of cache keys, so timing must not choose it."""
    at_work = threading.Event()

    def burn() -> None:
        while not at_work.is_set():
            torch.rand(64, 64) @ torch.rand(64, 64)

    busy = [threading.Thread(target=burn) for _ in range(4)]
    for thread in busy:
        thread.start()
    try:
        loaded = [load(device="cpu", runtime="torch") for _ in range(4)]
    finally:
        at_work.set()
        for thread in busy:
            thread.join()
    assert len({predictor.runtime.encoder_key() for predictor in loaded}) == 1
    assert {predictor.torch.dtype for predictor in loaded} == {auto_dtype(CPU)[0]}


def test_a_device_without_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match="device 'meta' cannot be used here"):
        choose_device("meta")


def test_rate_is_that_of_products() -> None:
    assert matrix_flops_s(torch.float32, CPU, side=PROBE_SIDE, seconds=0.0) > 0
    assert machine_name(choose_device("cpu")).endswith(count_of(torch.get_num_threads(), "thread"))
