"""Keep the self-similarity of a video for a picture, in bounded memory."""

from __future__ import annotations

import numpy as np

from fewframes.inference.frame_features import Times
from fewframes.runtime.protocol import Floats

MOST_ROWS = 1024
"""The most frames that are kept, of each `step` one; a picture has no more columns."""


class SimilarityPicture:
    """The distances of some frames to those before them. When there are too many, every second one is dropped."""

    def __init__(self) -> None:
        self._rows: list[Floats] = []
        self._step = 1
        self._num_frames = 0

    def add(self, distances_NL: Floats) -> None:
        """Add the squared distances (n, L) of the next frames."""
        for distances_L in distances_NL:
            if self._num_frames % self._step == 0:
                self._rows.append(distances_L)
            self._num_frames += 1
            if len(self._rows) > MOST_ROWS:
                self._rows, self._step = self._rows[::2], 2 * self._step

    def drawn(self, first_s: float, interval_s: float) -> tuple[Floats, Times, Times]:
        """Return the similarity (M, L), the timestamps of its frames (M,), and its lags in seconds (L,).

        Args:
            first_s: Timestamp of the first frame.
            interval_s: Seconds from one frame to the next.
        """
        distances_ML = np.stack(self._rows)
        finite = distances_ML[np.isfinite(distances_ML)]
        usual = float(np.median(finite)) if len(finite) else 0.0
        with np.errstate(invalid="ignore"):
            similarity_ML = np.clip(1 - distances_ML / max(usual, 1e-12), 0, 1).astype(np.float32)
        similarity_ML[~np.isfinite(distances_ML)] = np.nan
        times_s: Times = first_s + interval_s * self._step * np.arange(len(self._rows), dtype=np.float64)
        lags_s: Times = interval_s * np.arange(distances_ML.shape[1], dtype=np.float64)
        return similarity_ML, times_s, lags_s
