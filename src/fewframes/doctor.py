"""What this installation has, what it will use, and what to install for what is missing."""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import av
import torch

from fewframes import __version__
from fewframes.config import cache_dir
from fewframes.predictor import choose_device, machine_name

NEEDED = (
    "torch", "torchvision", "timm", "av", "safetensors", "scikit-learn", "matplotlib", "numpy", "pillow",
    "fsspec", "pydantic", "typer", "rich",
)  # fmt: skip
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "gif")
OPTIONAL = {
    "s3fs": ("videos on S3 (s3://...)", "pip install 'fewframes[s3]'"),
    "gcsfs": ("videos on Google Cloud (gs://...)", "pip install 'fewframes[gcs]'"),
    "aiohttp": ("videos by http(s)://...", "pip install 'fewframes[http]'"),
}
PROBE_SIDE = 1024


def examine(device_name: str = "auto") -> Iterator[str]:
    """The findings, a line each."""
    yield f"fewframes {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield "packages: " + ", ".join(f"{package} {_version(package) or 'MISSING'}" for package in NEEDED)
    device = choose_device(device_name)
    yield f"device: {device} ({machine_name(device)})"
    rates = {dtype: matrix_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    yield "matrix products: " + ", ".join(
        f"{str(dtype).removeprefix('torch.')} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in rates.items()
    )
    faster = max(rates, key=lambda dtype: rates[dtype])
    yield f"precision: {str(faster).removeprefix('torch.')} (decided anew for each model, by timing its frame encoder)"
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    yield f"decoder: PyAV {av.__version__} with FFmpeg libavcodec {libavcodec}"
    yield "codecs: " + ", ".join(f"{codec}{'' if _decodes(codec) else ' MISSING'}" for codec in CODECS)
    yield f"cache (pulled weights, frame embeddings; may be deleted): {cache_dir()}"
    for package, (purpose, remedy) in OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            yield f"not installed: {package}, for {purpose}: {remedy}"


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in square matrix products, best of five."""
    matrix = torch.rand(PROBE_SIDE, PROBE_SIDE, device=device).to(dtype)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        best = max(best, 2 * PROBE_SIDE**3 / (time.perf_counter() - began))
    return best


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _decodes(codec: str) -> bool:
    try:
        av.codec.Codec(codec, "r")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
