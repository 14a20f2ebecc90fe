"""Give single frames of videos as pictures, for browsers that cannot play the file, and for thumbnails."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from fewframes.errors import DataError
from fewframes.label.archive import Archive, ArchivedVideo
from fewframes.video.source import OpenVideo, open_video
from fewframes.viz.thumbnails import jpeg_of_height

MOST_OPEN = 4
"""Videos that are kept open, because pictures of one are asked for one after the other."""
LAST_S = 1e-3
"""The seconds before the end of a video at which its last frame is asked for."""


class FramePictures:
    """A source of pictures of the archive's videos."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._open: OrderedDict[str, OpenVideo] = OrderedDict()

    def jpeg(self, video: ArchivedVideo, time_s: float, height_px: int) -> bytes:
        """Return the frame that is shown at a time as a JPEG of at most this height. Raises VideoError or DataError."""
        if height_px < 1:
            raise DataError(f"height {height_px}: needs at least 1 pixel")
        time_s = min(max(0.0, time_s), max(0.0, video.duration_s - LAST_S))
        with self._lock:  # a decoder serves one request at a time
            opened = self._opened(video)
            frame_CHW = np.asarray(opened.frames_at(np.array([time_s])).frames[0])  # type: ignore[arg-type]
        return jpeg_of_height(frame_CHW, height_px)

    def close(self) -> None:
        """Close all videos."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def _opened(self, video: ArchivedVideo) -> OpenVideo:
        if video.id not in self._open:
            self._open[video.id] = open_video(video.path)
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(video.id)
        return self._open[video.id]
