"""Sessions of ONNX Runtime on the CPU, which work in forked processes too."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fewframes.core.guards import end_without_destructors, in_every_fork, keep_in_forks


class OnnxSession:
    """A session that a forked process opens anew, because the threads of the first one do not exist there.

    `opened` is the session of the process that made it, for questions about its graph.
    """

    def __init__(self, open_session: Callable[[], Any]) -> None:
        """Open the session.

        Args:
            open_session: the function that returns a new `onnxruntime.InferenceSession`.
        """
        self._open_session = open_session
        self._open()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        """Return the outputs of these names. Raises the errors of `ort_errors`."""
        if self._process_id != os.getpid():
            self._open()
        found: list[Any] = self.opened.run(list(outputs), dict(inputs))
        return found

    def _open(self) -> None:
        self.opened, self._process_id = self._open_session(), os.getpid()
        keep_in_forks(self.opened)


def session_options(runtime: Any, threads: int) -> Any:
    """Return options of ONNX Runtime for this number of threads; 0 is one for each core."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # planning the memory of a run ahead takes 6 MB more, and saves no time here
    # By default threads that wait go on spinning, and take the cores from threads that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def ort_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """Return the errors that ONNX Runtime raises. Its own classes have no common base class."""
    names = (
        "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented", "RuntimeException",
    )  # fmt: skip
    module = runtime.capi.onnxruntime_pybind11_state
    return (*(getattr(module, name) for name in names if hasattr(module, name)), ValueError, RuntimeError)


in_every_fork(end_without_destructors)
