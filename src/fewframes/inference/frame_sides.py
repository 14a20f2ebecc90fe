"""Let several frame encoders look at the same frames, each in its own view, from one decoding of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fewframes.inference.clips import ClipReader
from fewframes.inference.predictor import Predictor
from fewframes.results import Clip
from fewframes.runtime.protocol import Frames
from fewframes.runtime.still import StillGate
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import OpenVideo
from fewframes.video.transforms import fit_frame


@dataclass(frozen=True, eq=False)
class Beside:
    """A second model that embeds the frames of a row, and the key of its frame encoder, which takes a while to compute."""

    predictor: Predictor
    encoder: str


@dataclass(eq=False)
class FrameSide:
    """A model that embeds the frames of a row.

    `setting` is the cache's key of everything that its embeddings depend on apart from the timestamps; empty where none is cached.
    """

    predictor: Predictor
    setting: str
    still: float
    gate: StillGate = field(init=False)
    """The gate that leaves out frames that show nothing new."""

    def __post_init__(self) -> None:
        self.gate = StillGate(self.predictor.runtime, self.still)

    @property
    def width(self) -> int:
        """Return D, the width of its embeddings."""
        return self.predictor.runtime.frame_width


def frames_of_each(video: OpenVideo, times_s: np.ndarray, readers: Sequence[ClipReader]) -> tuple[Clip, list[Frames]]:
    """Decode frames once, and return the clip and its frames as each reader's view has them: (T, C, crop_px, crop_px) each.

    Several readers look at the whole picture. Raises VideoError.

    Args:
        video: The video.
        times_s: Timestamps (T,) in seconds.
        readers: The readers, of which there is at least one.
    """
    if len(readers) == 1:
        clip = readers[0].frames_at(video, times_s)
        return clip, [clip.frames]
    sides = [reader.view.crop_px for reader in readers]

    def packed(frame_CHW: Pixels) -> Pixels:
        # One row of bytes holds all views, whatever their sizes. The colours of a pixel lie side by side, as in a frame.
        squares = [fit_frame(frame_CHW, reader.view).transpose(1, 2, 0).ravel() for reader in readers]
        return np.concatenate(squares)[None, None]

    clip = video.frames_at(times_s, packed)
    parts = np.split(clip.frames[:, 0, 0], np.cumsum([3 * side**2 for side in sides])[:-1], axis=1)
    return clip, [
        part.reshape(len(part), side, side, 3).transpose(0, 3, 1, 2) for part, side in zip(parts, sides, strict=True)
    ]
