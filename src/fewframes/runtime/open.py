"""Opening of models by name or path. The kind of file, what is installed and the machine decide which runtime computes."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from fewframes.errors import ConfigError, MissingDependency, nearest
from fewframes.models.config import LITE_ENCODERS
from fewframes.models.files.formats import format_of
from fewframes.models.files.model_file import GRAPH_PREFIX, read_metadata, read_model_file
from fewframes.models.files.names import BASELINE_PREFIX, HF_PREFIX, exported_in, find_model
from fewframes.runtime.protocol import DtypeName, Runtime

if TYPE_CHECKING:
    from fewframes.runtime.torch_runtime import TorchRuntime

DEFAULT_MODEL = "lite0-16"
"""The model inside the package."""
RuntimeName = Literal["auto", "torch", "onnxruntime"]
RUNTIMES = ("auto", "torch", "onnxruntime")


class Choice(NamedTuple):
    """The runtime for model files on this machine, and the reason in words."""

    runtime: Literal["torch", "onnxruntime"]
    reason: str


def open_runtime(
    name_or_path: str | os.PathLike[str],
    *,
    device: str = "auto",
    dtype: DtypeName = "auto",
    merge: int | None = None,
    runtime: RuntimeName = "auto",
) -> Runtime:
    """Open a model with the runtime that suits it. The arguments are those of `fewframes.load`.

    Raises:
        WeightsError: the model cannot be found or read.
        ConfigError: an option is wrong, or this kind of model cannot follow it.
        MissingDependency: the library that runs it is not installed.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime {runtime!r}: {nearest(str(runtime), RUNTIMES)}")
    if os.fspath(name_or_path).startswith((HF_PREFIX, BASELINE_PREFIX)):
        return _open_classifier(os.fspath(name_or_path), device, dtype, merge, runtime)
    name = exported_in(os.fspath(name_or_path))
    # ONNX Runtime can follow these values alone.
    given = {
        f"device={device!r}": device not in ("auto", "cpu"),
        f"dtype={dtype!r}": dtype not in ("auto", "float32"),
    }
    options = [option for option, is_given in given.items() if is_given]
    if format_of(name) is not None:
        return _open_exported(name, options + [f"runtime={runtime!r}"] * (runtime != "auto"), merge)
    if runtime == "onnxruntime" and options:
        raise ConfigError(f"{', '.join(options)} needs the runtime torch; leave that out, or the runtime")
    path = find_model(name)
    if not has_torch() and (options or runtime == "torch"):
        raise MissingDependency(
            f"{', '.join(options) or 'the runtime torch'} needs torch, which is not installed; pip install 'fewframes[train]'"
        )
    if runtime == "onnxruntime" or not has_torch():
        from fewframes.runtime.onnx_file import load_onnx_file

        found: Runtime | None = load_onnx_file(name)
    else:
        found = None if runtime == "torch" or options else _open_file(name, path)
    if found is not None and merge in (None, found.merge):
        return found
    if runtime == "onnxruntime":
        raise ConfigError(f"merge={merge} needs the runtime torch; leave that out, or the runtime")
    from fewframes.models.files.hub import load_checkpoint
    from fewframes.runtime.torch_runtime import TorchRuntime

    return TorchRuntime(load_checkpoint(name), device=device, dtype=dtype, merge=merge, name=name)


def _open_classifier(name: str, device: str, dtype: DtypeName, merge: int | None, runtime: RuntimeName) -> Runtime:
    """Open a video classifier that is not ours. Raises ConfigError for what only our models can follow."""
    given = {f"merge={merge}": merge is not None, f"runtime={runtime!r}": runtime == "onnxruntime"}
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise ConfigError(
            f"{name} is a model of another library, for which {', '.join(wrong)} cannot be set; leave that out"
        )
    if not has_torch():
        raise MissingDependency(
            f"{name} needs torch and the package of its network; pip install 'fewframes[baselines]'"
        )
    from fewframes.runtime.classifiers.video_classifier import VideoClassifierRuntime

    return VideoClassifierRuntime(name, device=device, dtype=dtype)


def _open_exported(name: str, options: list[str], merge: int | None) -> Runtime:
    """Open an exported model. Raises ConfigError for options, and for another number of merged patches than that of its graph."""
    from fewframes.runtime.graph_runtime import GraphRuntime

    opened = None if options else GraphRuntime(name)
    if opened is not None and merge in (None, opened.merge):
        return opened
    wrong = ", ".join([*options, *([] if merge is None else [f"merge={merge}"])])
    raise ConfigError(f"{name} is an exported model, for which {wrong} cannot be set; leave that out")


def _open_file(name: str, path: Path) -> Runtime | None:
    """Open a model file with ONNX Runtime if that is chosen for it, or return None: for a file without graphs, among others.

    Args:
        name: the name or path that the caller gave.
        path: the file.
    """
    metadata = read_metadata(path)
    if metadata is None or not any(key.startswith(GRAPH_PREFIX) for key in metadata):
        return None
    file = read_model_file(path)
    if choice(file.config.encoder).runtime != "onnxruntime":
        return None
    from fewframes.runtime.onnx_file import OnnxFileRuntime

    return OnnxFileRuntime(file, name=name)


def choice(encoder: str = "lite0") -> Choice:
    """Return the runtime that `auto` takes for model files. It depends on what is there, never on timing.

    Measured for Lite0 on a CPU with AVX512-BF16: a frame takes ONNX Runtime in float32 as much processor time as torch in bfloat16,
    and torch in float32 about twice as much, with AVX-512 and with AVX2 (docs/explanation/performance.md). ONNX Runtime also starts
    in a fraction of the time. A ViT is matrix products, which bfloat16 halves; and AMX is faster still.

    Args:
        encoder: the frame encoder, as `ModelConfig.encoder` names it.
    """
    if not has_torch():
        return Choice("onnxruntime", "torch is not installed")
    if may_have_gpu():
        return Choice("torch", "this machine has a GPU")
    found = bfloat16_instructions()
    if found == "AMX" or (found and encoder not in LITE_ENCODERS):
        return Choice("torch", f"this CPU has {found}, with which torch computes in bfloat16")
    if found:
        reason = f"with {found} it is as fast as torch in bfloat16"
    elif encoder in LITE_ENCODERS:
        reason = "this CPU has no bfloat16 instructions; in float32 it takes about half of torch's processor time"
    else:
        reason = "this CPU has no bfloat16 instructions"
    return Choice("onnxruntime", f"{reason}, and it starts faster than torch")


def has_torch() -> bool:
    """Return True if torch is installed. It is not imported."""
    return importlib.util.find_spec("torch") is not None


def may_have_gpu() -> bool:
    """Return True if this machine seems to have a GPU that torch can use: one of NVIDIA that is not hidden, or one of Apple."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return False
    return any(os.path.exists(path) for path in ("/dev/nvidia0", "/dev/dxg")) or shutil.which("nvidia-smi") is not None


def bfloat16_instructions() -> str:
    """Return the name of the instructions with which this CPU computes in bfloat16, or an empty text if it has none."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = (
        next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
        if cpuinfo.is_file()
        else ""
    )
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return next((name for flag, name in names.items() if flag in flags.split()), "")


def torch_only(runtime: Runtime) -> TorchRuntime:
    """Return a runtime of torch as such. Raises ConfigError for any other, because only torch can look inside the network."""
    if runtime.kind != "torch":
        raise ConfigError(
            f"{runtime.name}: {runtime.kind} runs this model, and only torch can look inside a network; load the model file "
            "with the runtime torch"
        )
    from fewframes.runtime.torch_runtime import TorchRuntime

    assert isinstance(runtime, TorchRuntime)
    return runtime
