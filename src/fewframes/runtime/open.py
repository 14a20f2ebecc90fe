"""Opening of models by name or path: the kind of file, and what is installed, decide which runtime computes."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Literal

from fewframes.errors import ConfigError, nearest
from fewframes.models.files.formats import format_of
from fewframes.runtime.protocol import DtypeName, Runtime

if TYPE_CHECKING:
    from fewframes.runtime.torch_runtime import TorchRuntime

DEFAULT_MODEL = "lite0-16"
"""The model inside the package."""
RuntimeName = Literal["auto", "torch", "onnxruntime"]
RUNTIMES = ("auto", "torch", "onnxruntime")


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
    if format_of(name_or_path) is not None:
        return _open_graphs(name_or_path, device=device, dtype=dtype, merge=merge, runtime=runtime)
    from fewframes.models.files.hub import load_checkpoint
    from fewframes.runtime.torch_runtime import TorchRuntime

    checkpoint = load_checkpoint(name_or_path)
    return TorchRuntime(checkpoint, device=device, dtype=dtype, merge=merge, name=os.fspath(name_or_path))


def _open_graphs(
    path: str | os.PathLike[str], *, device: str, dtype: DtypeName, merge: int | None, runtime: RuntimeName
) -> Runtime:
    """Open an exported file. Raises ConfigError for options that it cannot follow."""
    given = {
        f"runtime={runtime!r}": runtime != "auto",
        f"device={device!r}": device not in ("auto", "cpu"),
        f"dtype={dtype!r}": dtype != "auto",
        f"merge={merge}": merge is not None,
    }
    wrong = [option for option, is_given in given.items() if is_given]
    if wrong:
        raise ConfigError(
            f"{os.fspath(path)} is an exported model, for which {', '.join(wrong)} cannot be set; leave that out"
        )
    from fewframes.runtime.graph_runtime import GraphRuntime

    return GraphRuntime(path)


def has_torch() -> bool:
    """Return True if torch is installed. It is not imported."""
    return importlib.util.find_spec("torch") is not None


def torch_only(runtime: Runtime) -> TorchRuntime:
    """Return a runtime of torch as such. Raises ConfigError for any other, because only torch can look inside the network."""
    if runtime.kind != "torch":
        raise ConfigError(
            f"{runtime.name}: {runtime.kind} runs this model, and only torch can look inside a network; load the model file "
            "with runtime='torch'"
        )
    from fewframes.runtime.torch_runtime import TorchRuntime

    assert isinstance(runtime, TorchRuntime)
    return runtime
