"""Decode files, streams and cameras into frames at timestamps, as uint8 pixels. Of the wings this one imports `core` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.video.source import open_video as open_video
    from fewframes.video.source import read_frames as read_frames

__getattr__, __dir__ = lazy("fewframes.video", {"open_video": "source", "read_frames": "source"})
