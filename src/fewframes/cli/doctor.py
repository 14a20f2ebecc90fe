"""Findings of `fewframes doctor`: installed packages, device, precision, decoder, and what is missing."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import av
import torch

from fewframes.core.settings import cache_dir
from fewframes.core.version import __version__
from fewframes.inference.clips import choose_backend
from fewframes.models.devices import PROBE_SIDE, auto_dtype, choose_device, machine_name, matrix_flops_s, may_pay
from fewframes.video.torchcodec import why_not

NEEDED = (
    "torch", "torchvision", "timm", "av", "safetensors", "scikit-learn", "matplotlib", "numpy", "pillow",
    "fsspec", "pydantic", "typer", "rich",
)  # fmt: skip
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "gif")
OPTIONAL = {
    "s3fs": ("videos on S3 (s3://...)", "pip install 'fewframes[s3]'"),
    "gcsfs": ("videos on Google Cloud (gs://...)", "pip install 'fewframes[gcs]'"),
    "lancedb": ("index and search", "pip install 'fewframes[search]'"),
    "aiohttp": ("videos by http(s)://...", "pip install 'fewframes[http]'"),
}
RATE_SIDE = 1024
"""Rows and columns of the matrices whose products are timed."""


def examine(device_name: str = "auto") -> Iterator[str]:
    """Yield a line for each finding about this installation and machine."""
    yield f"fewframes {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield "packages: " + ", ".join(f"{package} {_version(package) or 'MISSING'}" for package in NEEDED)
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
    yield f"precision: {str(dtype).removeprefix('torch.')} ({why})"
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    unfit = why_not(str(device))
    used = choose_backend("auto", str(device))
    other = f"torchcodec could be used too ({_version('torchcodec')})" if not unfit else f"not torchcodec: {unfit}"
    reason = "the fewest pictures decoded for the same frames" if used == "pyav" else "the GPU decodes"
    yield f"decoder: {used} ({reason}); PyAV {av.__version__} with FFmpeg libavcodec {libavcodec}; {other}"
    yield "codecs: " + ", ".join(f"{codec}{'' if _decodes(codec) else ' MISSING'}" for codec in CODECS)
    yield f"cache (pulled weights, frame embeddings; may be deleted): {cache_dir()}"
    for package, (purpose, remedy) in OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            yield f"not installed: {package}, for {purpose}: {remedy}"


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
