"""Model files that are read and written without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fewframes.errors import WeightsError
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.model_file import read_metadata, read_model_file, write_model_file
from fewframes.models.files.names import find_model
from fewframes.models.files.networks import build_model
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY

VIEW = ViewConfig(resize_px=36, crop_px=32)


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(build_model(TINY, VIEW).eval(), VIEW, LABELS, {"data": "caf\u00e9"})


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16, torch.float64])
def test_both_readers_find_the_numbers_that_torch_would_write(
    checkpoint: Checkpoint, tmp_path: Path, dtype: torch.dtype | None
) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, checkpoint, dtype=dtype)
    stored, wanted = load_file(path), checkpoint.model.state_dict()
    file = read_model_file(path)
    assert stored.keys() == file.tensors.keys() == wanted.keys()
    for key, tensor in wanted.items():
        expected = tensor.to(dtype or tensor.dtype)
        assert stored[key].dtype == expected.dtype
        assert torch.equal(stored[key], expected)
        assert file.tensors[key].dtype == np.float32
        np.testing.assert_array_equal(file.tensors[key], expected.float().numpy())


def test_a_network_in_bfloat16_keeps_its_precision(checkpoint: Checkpoint, tmp_path: Path) -> None:
    weight = checkpoint.model.head.weight
    weight.data[0, :4] = torch.tensor([1.00390625, 1.01171875, 3.4e38, -0.0])  # two halves between neighbours
    rounded = weight.detach().bfloat16()
    save_checkpoint(tmp_path / "cast.safetensors", checkpoint, dtype=torch.bfloat16)
    assert torch.equal(load_file(tmp_path / "cast.safetensors")["head.weight"], rounded)
    checkpoint.model.bfloat16()
    save_checkpoint(tmp_path / "m.safetensors", checkpoint)
    assert torch.equal(load_file(tmp_path / "m.safetensors")["head.weight"], rounded)


def test_a_file_that_is_written_again_is_the_same(checkpoint: Checkpoint, tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_checkpoint(first, replace(checkpoint, graphs={"time": b"graph" * 99}))
    file = read_model_file(first)
    assert file.graphs == load_checkpoint(first).graphs == {"time": b"graph" * 99}
    assert (file.config, file.view, file.labels, file.provenance) == (TINY, VIEW, LABELS, {"data": "caf\u00e9"})
    write_model_file(second, file)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("text", ["", "no base 64", "AAAA", "eJwD"])
def test_damaged_graphs_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewframes.models.files.model_file._packed", lambda _: text)
    save_checkpoint(tmp_path / "m.safetensors", replace(checkpoint, graphs={"time": b""}))
    assert (read_metadata(tmp_path / "m.safetensors") or {})["graph.time"] == text
    with pytest.raises(WeightsError, match=r"m\.safetensors: graph\.time is damaged"):
        load_checkpoint(tmp_path / "m.safetensors")


def test_a_graph_cannot_fill_the_memory(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", replace(checkpoint, graphs={"time": bytes(2**26 + 1)}))
    assert (tmp_path / "m.safetensors").stat().st_size < 2**20
    with pytest.raises(WeightsError, match="cut short or too large"):
        read_model_file(tmp_path / "m.safetensors")


def test_files_without_a_header_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(WeightsError, match="not a fewframes model"):
        read_model_file(tmp_path / "m.safetensors")


def test_names_and_files_need_no_torch() -> None:
    code = (
        "import sys; from fewframes.models.files.names import find_model; from fewframes.models.files.model_file import *; "
        "assert len(read_model_file(find_model('lite0-16')).labels) == 11; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert find_model("lite0-16").is_file()
