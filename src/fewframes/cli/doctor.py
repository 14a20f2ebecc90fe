"""`fewframes doctor`: installed packages, device, precision, decoder, and what is missing."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Generator, Iterator
from importlib.metadata import PackageNotFoundError, version

import av

from fewframes.cli.console import console
from fewframes.cli.options import DeviceOption
from fewframes.core.process import cpu_name, num_cores
from fewframes.core.settings import cache_dir
from fewframes.core.text import count_of
from fewframes.core.version import __version__
from fewframes.errors import ConfigError
from fewframes.inference.clips import choose_backend
from fewframes.runtime.open import choice, has_torch
from fewframes.video.torchcodec import why_not

NEEDED = (
    "onnxruntime", "av", "safetensors", "matplotlib", "numpy", "pillow", "fsspec", "pydantic", "typer", "rich",
)  # fmt: skip
TRAINING = ("torch", "torchvision", "timm", "accelerate", "scikit-learn", "onnx")
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "gif")
OPTIONAL = {
    "s3fs": ("videos on S3 (s3://...)", "pip install 'fewframes[s3]'"),
    "gcsfs": ("videos on Google Cloud (gs://...)", "pip install 'fewframes[gcs]'"),
    "lancedb": ("index and search", "pip install 'fewframes[search]'"),
    "open_clip": ("labels in words", "pip install 'fewframes[words]'"),
    "aiohttp": ("videos by http(s)://...", "pip install 'fewframes[http]'"),
}
RATE_SIDE = 1024
"""Rows and columns of the matrices whose products are timed."""


def doctor(device: DeviceOption = "auto") -> None:
    """Show what is installed, what this machine will use, and what is missing."""
    for line in examine(device):
        console().print(line, highlight=False, markup=False, soft_wrap=True)


def examine(device_name: str = "auto") -> Iterator[str]:
    """Yield a line for each finding about this installation and machine."""
    yield f"fewframes {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield "packages: " + ", ".join(f"{package} {_version(package) or 'MISSING'}" for package in NEEDED)
    yield "packages of training: " + ", ".join(f"{package} {_version(package) or 'absent'}" for package in TRAINING)
    chosen = choice()
    yield f"runtime: {chosen.runtime} ({chosen.reason})"
    if has_torch():
        device = yield from _examine_torch(device_name)
    elif device_name in ("auto", "cpu"):
        device = "cpu"
        yield f"device: cpu ({cpu_name()}, {count_of(num_cores(), 'core')})"
    else:
        raise ConfigError(f"device {device_name!r} needs torch, which is not installed; pip install 'fewframes[train]'")
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    unfit = why_not(device)
    used = choose_backend("auto", device)
    other = f"torchcodec could be used too ({_version('torchcodec')})" if not unfit else f"not torchcodec: {unfit}"
    reason = "the fewest pictures decoded for the same frames" if used == "pyav" else "the GPU decodes"
    yield f"decoder: {used} ({reason}); PyAV {av.__version__} with FFmpeg libavcodec {libavcodec}; {other}"
    yield "codecs: " + ", ".join(f"{codec}{'' if _decodes(codec) else ' MISSING'}" for codec in CODECS)
    yield f"cache (pulled weights, frame embeddings; may be deleted): {cache_dir()}"
    for package, (purpose, remedy) in OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            yield f"not installed: {package}, for {purpose}: {remedy}"


def _examine_torch(device_name: str) -> Generator[str, None, str]:
    """Yield a line for each finding about torch and its device. Return the name of the device."""
    import torch

    from fewframes.models.devices import (
        PROBE_SIDE,
        auto_dtype,
        choose_device,
        float32_reason,
        machine_name,
        matrix_flops_s,
        may_pay,
    )

    device = choose_device(device_name)
    yield f"device: {device} ({machine_name(device)})"
    rates = {
        dtype: matrix_flops_s(dtype, device, side=RATE_SIDE if may_pay(dtype, device) else PROBE_SIDE, seconds=0.2)
        for dtype in (torch.float32, torch.bfloat16)
    }
    yield "matrix products: " + ", ".join(
        f"{str(dtype).removeprefix('torch.')} {rate / 1e9:.3g} GFLOP/s" for dtype, rate in rates.items()
    )
    dtype, why = auto_dtype(device)
    rest = float32_reason(dtype, device)
    yield f"precision of torch: {str(dtype).removeprefix('torch.')} ({why}){rest and f'; {rest}'}"
    return str(device)


def _version(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _decodes(codec: str) -> bool:
    """Return True if FFmpeg has a decoder of this name."""
    try:
        av.codec.Codec(codec, "r")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
