"""Devices: a precision that cannot be faster is not tried, and `auto` follows a rule."""

from __future__ import annotations

import threading

import pytest
import torch

from fewframes.core.text import count_of
from fewframes.errors import ConfigError
from fewframes.inference.predictor import load
from fewframes.models.devices import PROBE_SIDE, auto_dtype, choose_device, machine_name, matrix_flops_s, may_pay

CPU = torch.device("cpu")


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
    ("capability", "chosen"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_precision_is_a_rule_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert auto_dtype(torch.device("cuda"))[0] == chosen
    assert auto_dtype(torch.device("mps"))[0] == torch.float32


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
