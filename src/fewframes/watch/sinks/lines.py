"""Write events as JSON lines, to a file or a stream of text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from fewframes.core.text import json_line
from fewframes.errors import ConfigError
from fewframes.watch.event import STATES, Event
from fewframes.watch.sinks.protocol import DeliveryError


class FileSink:
    """A file of JSON lines. Each line is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        """Open the file for appending. Raises ConfigError if that is impossible."""
        self.name, self.states, self._path = "file", STATES, path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                self._is_regular = path.is_file()
                if self._is_regular and file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a process was killed in the middle of a line
                        file.write(b"\n")
        except OSError as error:
            raise ConfigError(f"events {path}: cannot be written ({error.strerror or error}); take another") from None

    def send(self, event: Event) -> None:
        """Append an event. Raises DeliveryError if it cannot be written."""
        line = (json_line(event.to_dict()) + "\n").encode()
        try:
            with self._path.open("ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if file.write(line) != len(line):
                    if self._is_regular:
                        file.truncate(size)
                    raise DeliveryError(f"{self._path}: no room for a line; make room")
                if self._is_regular:
                    os.fsync(file.fileno())
        except OSError as error:
            raise DeliveryError(f"{self._path}: cannot be written ({error.strerror or error}); make room") from None

    def close(self) -> None:
        """Do nothing: the file is closed after each line, so that others may move it away."""


class StreamSink:
    """A stream of text, such as standard output, with an event as JSON on each line."""

    def __init__(self, stream: TextIO) -> None:
        self.name, self.states, self._stream = "stdout", STATES, stream

    def send(self, event: Event) -> None:
        """Write an event. Raises DeliveryError if nobody reads any more."""
        try:
            self._stream.write(json_line(event.to_dict()) + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            raise DeliveryError(f"standard output: cannot be written ({error})", is_final=True) from None

    def close(self) -> None:
        """Leave the stream open: it is another's."""
