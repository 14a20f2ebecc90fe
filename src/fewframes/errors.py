"""What can go wrong, as one tree.

    FewframesError         1  anything the caller can put right; one line, no traceback
    ├── ConfigError        2  a setting, option or run file that cannot be used
    ├── VideoError         1  a video that cannot be opened or decoded as asked
    │   ├── MissingVideo   1  there is no such video
    │   ├── Unreachable    1  a video that could be opened, and whose store or server then failed
    │   └── TooLarge       1  a video above the limits that were set
    ├── DataError          1  a folder or list of videos that cannot be read as a data set
    ├── WeightsError       1  a checkpoint that is missing, damaged or of another shape
    ├── OutputError        1  a result that cannot be written: a full or forbidden disk, a folder that went away
    ├── ExportError        1  an exported graph that cannot be made, or does not say what the model says
    ├── BenchError         1  something that is measured failed in its own process
    ├── Refusal            1  a request that the server does not take
    └── MissingDependency  4  an optional package is needed; the pip line is in the message

The number is the exit code of the command. A command over many files finishes the others and exits with
`EXIT_SOME_FAILED`. Wrong Python arguments raise ValueError or TypeError, as in any library: a ConfigError is a ValueError too.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

MOST_NAMED = 60
"""Names that an error lists; timm has a thousand."""
EXIT_SOME_FAILED = 3
"""Exit code of a command that finished but could not process some of its inputs."""


class FewframesError(Exception):
    """Anything the caller can put right."""

    exit_code = 1


class ConfigError(FewframesError, ValueError):
    """A setting, option, argument or run file that cannot be used."""

    exit_code = 2


class VideoError(FewframesError):
    """A video that cannot be opened or decoded as asked."""


class MissingVideo(VideoError):
    """There is no such video: nothing at this path or address."""


class Unreachable(VideoError):
    """A video that could be opened, and whose store or server then failed: it is not known to be damaged."""


class TooLarge(VideoError):
    """A video above the limits that were set."""


class DataError(FewframesError):
    """A folder or list of videos that cannot be read as a data set."""


class WeightsError(FewframesError):
    """A checkpoint that is missing, damaged or of another shape."""


class OutputError(FewframesError):
    """A result that cannot be written: a full or forbidden disk, a folder that went away."""


class ExportError(FewframesError):
    """An exported graph that cannot be made, or does not say what the model says."""


class BenchError(FewframesError):
    """Something that is measured failed in its own process."""


class Refusal(FewframesError):
    """A request that the server does not take, and its HTTP status."""

    def __init__(self, status: int, message: str, *, retry_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_s = status, retry_s


class MissingDependency(FewframesError):
    """An optional package is needed for what was asked."""

    exit_code = 4


def needed(package: str, extra: str, words: str = "") -> Any:
    """An optional package, imported; MissingDependency with the pip line where it is not there. `words` say who needs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        words = words or f"{package} is not installed"
        raise MissingDependency(f"{words} ({error}); pip install 'fewframes[{extra}]'") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """The part of an error message that offers the closest known name, or lists them all."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(choices) - MOST_NAMED} others" if len(choices) > MOST_NAMED else ""
    return f"choose from: {', '.join(choices[:MOST_NAMED])}{more}"
