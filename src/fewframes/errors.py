"""The exceptions of this package, as one tree.

    FewframesError         1  anything the caller can fix; shown as one line, without a traceback
    ├── ConfigError        2  a setting, option or run file that cannot be used
    ├── VideoError         1  a video that cannot be opened or decoded as asked
    │   ├── MissingVideo   1  a video that does not exist
    │   ├── Unreachable    1  a video that was opened, but whose store or server failed later
    │   └── TooLarge       1  a video above the limits that were set
    ├── DataError          1  a folder or list of videos that cannot be read as a data set, or a file of boxes
    ├── WeightsError       1  a checkpoint that is missing, damaged or of another shape
    ├── OutputError        1  a result that cannot be written: a full or read-only disk, a folder that was removed
    ├── ExportError        1  an exported graph that cannot be made, or that disagrees with its model
    ├── BenchError         1  a benchmarked system that failed in its own process
    ├── Refusal            1  a request that the server does not accept
    └── MissingDependency  4  an optional package that is needed; the message has the pip line

The number is the exit code of the command. A command over many files finishes the others and exits with
`EXIT_SOME_FAILED`. Wrong Python arguments raise ValueError or TypeError, as in any library; a ConfigError is a ValueError too.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

MOST_NAMED = 60
"""The most names that an error message lists. Of more, such as timm's thousand networks, it gives the number alone."""
EXIT_SOME_FAILED = 3
"""The exit code of a command that finished but could not process some of its inputs."""


class FewframesError(Exception):
    """An error that the caller can fix. It is the base class of all errors of this package."""

    exit_code = 1


class ConfigError(FewframesError, ValueError):
    """A setting, option, argument or run file that cannot be used."""

    exit_code = 2


class VideoError(FewframesError):
    """A video that cannot be opened or decoded as asked."""


class MissingVideo(VideoError):
    """A video that does not exist: there is nothing at its path or address."""


class Unreachable(VideoError):
    """A video that was opened, but whose store or server failed later. The video itself may be intact."""


class AccessDenied(VideoError):
    """A camera or server that does not accept the user and password, or wants some."""


class TooLarge(VideoError):
    """A video above the limits that were set."""


class DataError(FewframesError):
    """A folder or list of videos that cannot be read as a data set, or a file of boxes that makes no sense."""


class WeightsError(FewframesError):
    """A checkpoint that is missing, damaged or of another shape."""


class OutputError(FewframesError):
    """A result that cannot be written: the disk is full or read-only, or the folder was removed."""


class ExportError(FewframesError):
    """An exported graph that cannot be made, or that disagrees with its model."""


class BenchError(FewframesError):
    """A benchmarked system that failed in its own process."""


class Refusal(FewframesError):
    """A request that the server does not accept.

    `status` is the HTTP status of the answer. `retry_s` is the number of seconds after which a client may try again, or None.
    """

    def __init__(self, status: int, message: str, *, retry_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_s = status, retry_s


class MissingDependency(FewframesError):
    """An optional package that is needed but not installed."""

    exit_code = 4


def needed(package: str, extra: str, words: str = "") -> Any:
    """Import an optional package and return it.

    Args:
        package: the name to import.
        extra: the extra of fewframes that installs it.
        words: the first words of the error message, which say what needs the package.

    Raises:
        MissingDependency: the package cannot be imported. The message has the pip line.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        words = words or f"{package} is not installed"
        raise MissingDependency(f"{words} ({error}); pip install 'fewframes[{extra}]'") from None


TRAINING_PACKAGES = (
    "accelerate",
    "onnx",
    "onnxscript",
    "sklearn",
    "tensorboard",
    "timm",
    "torch",
    "torchvision",
)
"""The packages that the extra `train` installs, and that the default installation does without."""


def missing_training(error: ModuleNotFoundError) -> MissingDependency | None:
    """Return the error for a package of the extra `train` that is not installed, or None if another module is missing."""
    package = (error.name or "").partition(".")[0]
    if package not in TRAINING_PACKAGES:
        return None
    return MissingDependency(f"this needs {package}, which is not installed; pip install 'fewframes[train]'")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the known name closest to `name`, or else all known names if they are few."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    if len(choices) > MOST_NAMED:
        return f"none of the {len(choices)} known names is close to it; check the spelling"
    return f"choose from: {', '.join(choices)}"
