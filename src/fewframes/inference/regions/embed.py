"""Embed the frames of several regions of a video into the cache, each frame decoded once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress, worked_ahead
from fewframes.errors import FewframesError, Unreachable
from fewframes.inference.frame_features import Times, chunk_key, chunks_of
from fewframes.results import Clip
from fewframes.runtime.protocol import Floats, Frames, Runtime
from fewframes.runtime.still import StillGate
from fewframes.video.clock import shows_gap
from fewframes.video.regions.frames import WHOLE_FRAMES
from fewframes.video.regions.zone import Region, fit_region
from fewframes.video.source import OpenVideo
from fewframes.video.view import ViewConfig


@dataclass(frozen=True, eq=False)
class RegionRow:
    """The timestamps (N,) at which a region is looked at; `first` is the position of the first in the whole video's row.

    `setting` is the cache's key of everything else that the embeddings depend on, the level of the gate among it.
    """

    region: Region
    times_s: Times
    first: int
    setting: str


@dataclass(eq=False)
class _Chunk:
    """A chunk of a row that is not cached, with the embeddings of its frames so far; `row` is the number of the row."""

    row: int
    key: str
    num_frames: int
    embeddings: list[Floats] = field(default_factory=list)
    num_done: int = 0
    is_broken: bool = False


class RegionEmbedder:
    """Embeds rows of regions chunk by chunk, as `FrameFeatures` does for the whole picture, so that it finds them in the cache."""

    def __init__(self, runtime: Runtime, view: ViewConfig, rows: Sequence[RegionRow], still: float) -> None:
        """Make one. The level `still` is that of `StillGate`: each region has a gate of its own."""
        self._rows, self._view = rows, view
        self._gates = [StillGate(runtime, still) for _ in rows]

    def num_encoded(self, row: int) -> int:
        """Return the frames of a row that were encoded; the others were cached, or showed nothing new."""
        return self._gates[row].num_embedded

    def num_reused(self, row: int) -> int:
        """Return the frames of a row that showed nothing new and got the embedding of one before."""
        return self._gates[row].num_reused

    def fill(self, video: OpenVideo, cache: EmbeddingCache, progress: Progress) -> None:
        """Embed what the cache does not have. Chunks with frames that cannot be decoded, or were not recorded, are left to
        `FrameFeatures`.

        Raises Unreachable, and VideoError for a zone that is too small.
        """
        wanting: dict[float, list[_Chunk]] = {}
        planned: set[str] = set()
        for number, row in enumerate(self._rows):
            for times_s in chunks_of(row.times_s, row.first):
                key = chunk_key(row.setting, times_s)
                if key not in planned and cache.get(key) is None:
                    planned.add(key)  # rows of one region may share chunks
                    chunk = _Chunk(number, key, len(times_s))
                    for time_s in times_s.tolist():
                        wanting.setdefault(time_s, []).append(chunk)
        times = np.array(sorted(wanting))
        parts = [times[first : first + WHOLE_FRAMES] for first in range(0, len(times), WHOLE_FRAMES)]
        with closing(worked_ahead(parts, video.frames_at, workers=1, ahead=2)) as read:
            for number, (part_s, clip) in enumerate(read):
                progress("frames", number * WHOLE_FRAMES, len(times))
                if isinstance(clip, Unreachable):
                    raise clip
                self._take(part_s, _frames_of(part_s, clip), wanting, cache)

    def _take(
        self, times_s: Times, frames_TCHW: Frames | None, wanting: dict[float, list[_Chunk]], cache: EmbeddingCache
    ) -> None:
        """Embed the regions of whole pictures, None if these are left out, and cache the chunks that are complete."""
        seen: dict[_Chunk, list[int]] = {}
        for number, time_s in enumerate(times_s.tolist()):
            for chunk in wanting.pop(time_s):
                seen.setdefault(chunk, []).append(number)
        for chunk, numbers in seen.items():
            chunk.is_broken = chunk.is_broken or frames_TCHW is None
            if frames_TCHW is None or chunk.is_broken:
                chunk.embeddings.clear()
                continue
            region, gate = self._rows[chunk.row].region, self._gates[chunk.row]
            if not chunk.num_done:
                gate.forget()
            squares = [
                fit_region(frame_CHW, region.rectangle(float(times_s[number]), *frame_CHW.shape[-2:]), self._view)
                for number in numbers
                for frame_CHW in [frames_TCHW[number]]
            ]
            chunk.embeddings.append(gate.embed(np.stack(squares)))
            chunk.num_done += len(numbers)
            if chunk.num_done == chunk.num_frames:
                cache.put_or_warn(chunk.key, np.concatenate(chunk.embeddings))
                chunk.embeddings.clear()


def _frames_of(times_s: Times, clip: Clip | FewframesError) -> Frames | None:
    """Return the frames of a clip; None if they could not be decoded, or there may be a gap in the clock among them."""
    return None if isinstance(clip, FewframesError) or shows_gap(times_s, clip.times_s) else clip.frames
