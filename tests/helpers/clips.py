"""Recorders of sources that were read to their end, of which clips can be cut."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from fewframes.video.live import LiveReader
from fewframes.video.live_queue import WAITING
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import Recorded
from fewframes.video.recording.recorder import Recorder


def read_through(path: Path) -> Recorder:
    """Read a file to its end, and return what has recorded it."""
    recorder = Recorder(keep_s=3600)
    with closing(LiveReader(Recorded(str(path), recorder), StreamConfig(), 0.1, lambda frame_CHW: frame_CHW)) as reader:
        while reader.take(WAITING, 0.05) is not None:
            pass
    return recorder
