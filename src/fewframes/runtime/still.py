"""A gate for still cameras: a frame that shows nothing new gets the embedding of the last frame that was embedded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fewframes.runtime.protocol import Floats, Frames, Runtime

CELLS = 14
"""Cells along each side of a thumbnail: 16 x 16 pixels each in a frame of 224."""
AFRESH_FRAMES = 256
"""Frames of a row after which one is embedded whatever it shows. Answers then do not depend on where reading began long before."""


class StillGate:
    """Embeds frames in the order of time, and reuses the embedding of the last embedded frame where nothing changed.

    Every frame is compared with the last frame that was embedded, not with the one before it, so slow drift adds up and is seen.
    With `level` 0 the pixels have to be the same. Above 0, the mean of each colour in each of `CELLS` x `CELLS` cells may differ by
    at most `level`.
    """

    def __init__(self, runtime: Runtime, level: float = 0.0) -> None:
        self._runtime, self._level = runtime, level
        self.num_embedded = self.num_reused = 0
        self._shown: NDArray[np.generic] | None = None
        self._last_D: Floats | None = None
        self._rows = np.zeros(0, np.int64)

    def forget(self) -> None:
        """Embed the next frame, whatever it shows."""
        self._shown = self._last_D = None

    def embed(self, frames_TCHW: Frames) -> Floats:
        """Return embeddings of frames, each later than all before: (T, C, H, W) uint8, T > 0 -> (T, D)."""
        new_NCHW = self.select(frames_TCHW)
        return self.settle(self._runtime.embed_frames(new_NCHW) if len(new_NCHW) else None)

    def select(self, frames_TCHW: Frames) -> Frames:
        """Return those of the frames (T, C, H, W) that show something new: (N, C, H, W). `settle` must be called next.

        So the frames of several gates can be embedded together.
        """
        looks = frames_TCHW if self._level == 0 else thumbnails(frames_TCHW)
        shown, new = self._shown, []
        # The row of the embedding that each frame gets; row 0 is the embedding from before.
        self._rows = np.empty(len(looks), np.int64)
        for number, look in enumerate(looks):
            if shown is None or self._differs(look, shown):
                shown = look
                new.append(number)
            self._rows[number] = len(new)
        # A copy, so that the chunk itself does not stay in memory.
        self._shown = np.array(shown) if new else self._shown
        self.num_embedded += len(new)
        self.num_reused += len(looks) - len(new)
        return frames_TCHW if len(new) == len(looks) else frames_TCHW[new]

    def settle(self, found_ND: Floats | None) -> Floats:
        """Return embeddings (T, D) of the frames that `select` was given.

        Args:
            found_ND: The embeddings of the frames that it returned; None if there were none.
        """
        if found_ND is None:
            assert self._last_D is not None, "the first frame is always new"
            return np.repeat(self._last_D[None], len(self._rows), axis=0)
        before_1D = found_ND[:1] if self._last_D is None else self._last_D[None]
        self._last_D = found_ND[-1].copy()
        embedded_TD: Floats = np.concatenate([before_1D, found_ND])[self._rows]
        return embedded_TD

    def _differs(self, look: NDArray[np.generic], shown: NDArray[np.generic]) -> bool:
        if self._level == 0:
            return not np.array_equal(look, shown)
        return bool(np.abs(np.subtract(look, shown, dtype=np.float32)).max() > self._level)


def each_once(encode: Callable[[Floats], Floats], windows_WTD: Floats) -> Floats:
    """Return what `encode` does for windows (W, T, D) -> (W, ...), computed once for neighbours with the same embeddings.

    Windows of a still film are all the same, because reused embeddings are the same to the bit. So are those in a gap.
    """
    is_new_W = np.ones(len(windows_WTD), np.bool_)
    bits_WTD = windows_WTD.view(np.uint32)  # bits, because NaN is not equal to itself
    is_new_W[1:] = (bits_WTD[1:] != bits_WTD[:-1]).any(axis=(1, 2))
    if is_new_W.all():
        return encode(windows_WTD)
    found: Floats = encode(windows_WTD[is_new_W])[np.cumsum(is_new_W) - 1]
    return found


def thumbnails(frames_TCHW: Frames) -> Floats:
    """Return the mean of each colour in each cell, in 0-255: (T, C, H, W) uint8 -> (T, C, CELLS, CELLS), fewer in small frames."""
    height, width = frames_TCHW.shape[-2:]
    rows, columns = _edges(height), _edges(width)
    sums = np.empty((*frames_TCHW.shape[:2], len(rows), width), np.uint32)
    # A sum over rows runs along the memory, which `reduceat` does not.
    for row, (first, end) in enumerate(pairwise([*rows, height])):
        frames_TCHW[:, :, first:end].sum(axis=2, dtype=np.uint32, out=sums[:, :, row])
    sums = np.add.reduceat(sums, columns, axis=3)
    sizes = np.diff([*rows, height])[:, None] * np.diff([*columns, width])
    means: Floats = (sums / sizes).astype(np.float32)
    return means


def _edges(size: int) -> list[int]:
    cells = min(CELLS, size)
    return [number * size // cells for number in range(cells)]
