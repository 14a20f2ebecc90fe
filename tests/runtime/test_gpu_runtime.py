"""What a runtime does on a GPU, as far as it can be seen without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from fewframes.inference.predictor import load
from fewframes.runtime import torch_runtime
from fewframes.runtime.torch_runtime import TorchRuntime, sent


@pytest.fixture
def runtime(tiny_model: Path) -> TorchRuntime:
    return load(tiny_model, device="cpu", dtype="float32", runtime="torch").torch


def noise(runtime: TorchRuntime, num_frames: int) -> Any:
    side = runtime.view.crop_px
    return np.random.default_rng(0).integers(0, 256, (num_frames, 3, side, side), dtype=np.uint8)


@pytest.mark.parametrize("most", [1, 3])
def test_frames_that_outgrow_the_memory_are_embedded_in_parts(
    runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    frames, plain, sizes = torch.from_numpy(noise(runtime, 7)), runtime._embed, []

    def limited(part: Tensor) -> Tensor:
        if len(part) > most:
            raise torch.OutOfMemoryError
        sizes.append(len(part))
        return plain(part)

    expected = plain(frames)
    monkeypatch.setattr(runtime, "_embed", limited)
    found = torch.cat(runtime._embed_fitting(frames))
    assert sum(sizes) == 7
    assert max(sizes) <= most
    assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_frame_that_outgrows_the_memory_is_an_error(runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_fits(part: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(runtime, "_embed", none_fits)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        runtime._embed_fitting(torch.from_numpy(noise(runtime, 2)))


def test_what_is_copied_on_another_stream_is_waited_for_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed: the calls are written down in their order."""
    done: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            done.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        done.append(f"on {stream.name}")
        yield
        done.append(f"off {stream.name}")

    def to(values: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        done.append(f"copy to {device}, {'not blocking' if non_blocking else 'blocking'}")
        return values

    def pin_memory(values: Tensor) -> Tensor:
        done.append("pin")
        return values

    monkeypatch.setattr(torch_runtime, "_copies", lambda device: Stream("copies"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("network"))
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(Tensor, "record_stream", lambda values, stream: done.append(f"kept for {stream.name}"))
    values = torch.ones(2)
    assert sent(values, torch.device("cuda:1")) is values
    assert done == [
        "on copies",
        "pin",
        "copy to cuda:1, not blocking",
        "off copies",
        "network waits for copies",
        "kept for network",
    ]


def test_on_a_cpu_nothing_is_copied() -> None:
    values = torch.ones(2)
    assert sent(values, torch.device("cpu")) is values


def test_bytes_normalised_on_the_device_are_those_normalised_before(
    runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of the bytes cross as uint8; the numbers that the network gets are the same to the last bit."""
    frames, seen = noise(runtime, 3), []
    encoder = runtime.model.frame_encoder
    plain = encoder.forward

    def noted(pixels: Tensor) -> Tensor:
        seen.append(pixels)
        result: Tensor = plain(pixels)
        return result

    monkeypatch.setattr(encoder, "forward", noted)
    runtime._embed(torch.from_numpy(frames))
    mean, std = (values.numpy() for values in (runtime.model.pixel_mean, runtime.model.pixel_std))
    assert_array_equal(seen[0].numpy(), (frames.astype(np.float32) / np.float32(255) - mean) / std)


def test_maps_are_computed_in_the_precision_of_the_runtime(
    runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    @contextmanager
    def noted(device: torch.device, *, tf32: bool) -> Iterator[None]:
        asked.append(tf32)
        yield

    monkeypatch.setattr(torch_runtime, "float32_products", noted)
    method = runtime.map_method("auto")
    assert method is not None
    runtime.frame_maps(noise(runtime, 2), method, 0)
    assert asked == [False]
