"""Define what a sink is, how its delivery fails, and where it has its secrets from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from fewframes.errors import ConfigError, FewframesError
from fewframes.watch.event import Event, State


class DeliveryError(FewframesError):
    """A delivery that failed. It is tried again, unless the receiver will never take it."""

    def __init__(self, message: str, *, is_final: bool = False, after_s: float = 0.0) -> None:
        """Describe a failure.

        Args:
            message: The reason, without secrets.
            is_final: True if another attempt would fail in the same way.
            after_s: The least seconds until the next attempt, where the receiver said so.
        """
        super().__init__(message)
        self.is_final, self.after_s = is_final, after_s


class Sink(Protocol):
    """A place that events are delivered to. Its methods are called by one thread of its own."""

    @property
    def name(self) -> str:
        """Return the name, by which the spool tells its deliveries from those of other sinks after a restart too."""

    @property
    def states(self) -> tuple[State, ...]:
        """Return the states of events that it wants to be told of."""

    def send(self, event: Event) -> None:
        """Deliver an event. When this returns, the receiver has it. Raises DeliveryError."""

    def close(self) -> None:
        """Release what the sink holds."""


@runtime_checkable
class Announces(Protocol):
    """A sink whose receivers learn beforehand which events there may be."""

    def announce(self, source: str, zone: str, label: str, model: str) -> None:
        """Take note of a label of a zone of which there may be events. It returns at once, and may be called by any thread."""


def secret_of(file: str, variable: str) -> str:
    """Return a secret from a file, or else from an environment variable; empty if neither is set.

    Raises ConfigError, without the secret, for a file that cannot be read and for a secret that cannot be sent.
    """
    if not file:
        where, text = variable, os.environ.get(variable, "")
    else:
        where = file
        try:
            text = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigError(f"{file}: the secret cannot be read ({reason})") from None
        if not text:
            raise ConfigError(f"{file}: is empty; it must hold the secret")
    if not text.isprintable():
        raise ConfigError(f"{where}: the secret has control characters or several lines; it must be one line of text")
    return text
