"""What computes here: precisions that cannot pay are not tried."""

from __future__ import annotations

import pytest
import torch

from fewframes.machine import PROBE_SIDE, choose_device, machine_name, matrix_flops_s, may_pay
from fewframes.predictor import load

CPU = torch.device("cpu")


@pytest.mark.parametrize("supported", [True, False])
def test_a_precision_without_instructions_is_not_tried(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    """On an AVX2 machine a single frame in bfloat16 takes tens of seconds."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert may_pay(torch.bfloat16, CPU) == supported
    assert may_pay(torch.float32, CPU)
    tried = []

    def timed(encoder: torch.nn.Module, size: int, device: torch.device) -> float:
        tried.append(next(encoder.parameters()).dtype)
        return float(len(tried))

    monkeypatch.setattr("fewframes.predictor._seconds_a_frame", timed)
    assert load().dtype == torch.float32  # the first that was timed is the faster
    assert tried == ([torch.float32, torch.bfloat16] if supported else [])


def test_rate_is_that_of_products() -> None:
    assert matrix_flops_s(torch.float32, CPU, side=PROBE_SIDE, seconds=0.0) > 0
    assert machine_name(choose_device("cpu")).endswith(f"{torch.get_num_threads()} threads")
