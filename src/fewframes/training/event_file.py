"""Figures of a run for TensorBoard, written at once: its own writer does so in a thread, whose errors end as tracebacks."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """A file of events in a folder of logs. Raises OSError where it cannot be written."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter  # late: slow to import

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter(path.open("wb", buffering=0))
        self._write(file_version="brain.Event:2")

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write a figure under each name for one step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        figures = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=figures))

    def close(self) -> None:
        """Give back the file."""
        self._writer.close()

    def _write(self, **fields: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())
