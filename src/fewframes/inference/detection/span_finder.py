"""Find where actions begin and end in frames that come chunk by chunk, with a model's detector, in memory that stays the same.

The detector looks at one block of frames after the other. A block has a core, whose spans are taken, and a margin to both sides, so
that the network, the search for repeats and the scores of spans see the frames that they would see in the whole video.

Letters in shapes: N frames, D width of a frame embedding, T frames of a window, P detected spans, K actions, V width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fewframes.models.boundaries.boundaries import Boundaries, Candidates
from fewframes.models.boundaries.network import NUM_LEVELS
from fewframes.runtime.protocol import Floats

SPANS_AT_ONCE = 256
MOST_GAP = 0.5
"""The largest fraction of a span whose frames could not be decoded."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The sizes of blocks in frames, both multiples of the coarsest level's stride. A video up to core + margin is one block."""

    core: int = 2048
    margin: int = 1024
    """The frames to both sides of the core. The network reaches 115 frames, and spans that it learned from at most 256. A span that
    reaches farther than the margin from where it was detected is scored by the frames of its block."""

    def __post_init__(self) -> None:
        stride = 2 ** (NUM_LEVELS - 1)
        if self.core % stride or self.margin % stride or self.core < stride:
            raise ValueError(f"{self}: needs multiples of {stride} frames, so that levels halve the same pairs")


BLOCKS = Blocks()


@dataclass(frozen=True, eq=False)
class DetectedSpans:
    """Detected spans (P,) with all that is known of them, in frames from the first one."""

    starts: Floats
    """The starts (P,)."""
    ends: Floats
    """The ends (P,)."""
    happening: Floats
    """The logits (P,) of an action going on."""
    labels: Floats
    """The logits (P, K) of each action by the detector."""
    scores: Floats
    """The scores (P, K) of each action by the model."""
    vectors: Floats
    """The rest of what `ScoreSpans.scores` returns of spans (P, V)."""


@dataclass(frozen=True, eq=False)
class ScoreSpans:
    """Scores detected spans as the model scores clips."""

    scores: Callable[[Floats], Floats]
    """Returns the scores of windows (W, T, D), and whatever else is wanted of spans, such as a vector: (W, K + V)."""
    num_frames: int
    """T."""

    def spans_of(self, embeddings_ND: Floats, boundaries: Boundaries, blocks: Blocks = BLOCKS) -> DetectedSpans:
        """Detect spans in the embeddings (N, D) of frames at a steady rate, NaN where a frame could not be decoded."""
        finder = SpanFinder(self, boundaries, len(embeddings_ND), blocks)
        for first in range(0, len(embeddings_ND), blocks.core):
            finder.add(embeddings_ND[first : first + blocks.core])
        return finder.finish()

    def of(self, rows_ND: Floats, starts: Floats, ends: Floats) -> Floats:
        """Return the scores (P, K + V) of spans (P,), given in frames of these (N, D)."""
        centres = (np.arange(self.num_frames) + 0.5) / self.num_frames
        found = []
        for first in range(0, len(starts), SPANS_AT_ONCE):
            part = slice(first, first + SPANS_AT_ONCE)
            times = starts[part, None] + centres * (ends[part] - starts[part])[:, None]
            found.append(self.scores(rows_ND[times.astype(np.int64).clip(0, len(rows_ND) - 1)]))
        return np.concatenate(found)


class SpanFinder:
    """Finds the spans in a row of frames that comes chunk by chunk."""

    def __init__(self, score: ScoreSpans, boundaries: Boundaries, num_rows: int, blocks: Blocks = BLOCKS) -> None:
        """Prepare to find spans.

        Args:
            score: What scores them.
            boundaries: The detector.
            num_rows: N, the frames that will come in all.
            blocks: The sizes of blocks.
        """
        self._score, self._boundaries, self._num_rows, self._blocks = score, boundaries, num_rows, blocks
        self._num_labels = len(boundaries.weights["labels.bias"])
        self._rows: list[Floats] = []
        self._projected: list[Floats] = []
        self._missing: list[NDArray[np.bool_]] = []
        self._last_1D: Floats | None = None
        """The last frame that could be decoded."""
        # The held frames are those from `first` to before `end`; the next core begins at `core`.
        self._first = self._end = self._core = 0
        self._found: list[DetectedSpans] = []

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Return which of the frames so far could not be decoded (N,)."""
        return np.concatenate([np.zeros(0, np.bool_), *self._missing])

    def add(self, rows_ND: Floats) -> None:
        """Take the next frames (n, D), NaN where one could not be decoded."""
        good_N = ~np.isnan(rows_ND[:, 0])
        self._missing.append(~good_N)
        if self._last_1D is None and good_N.any():
            self._begin(rows_ND[good_N][:1], len(self.missing) - len(rows_ND))
        if self._last_1D is None:
            return
        # A frame that is missing is taken to look like the one before it, and the first ones like the first that is there.
        before = np.maximum.accumulate(np.where(good_N, np.arange(len(good_N)) + 1, 0))
        filled_ND = rows_ND if good_N.all() else np.concatenate([self._last_1D, rows_ND])[before]
        self._hold(filled_ND)
        self._last_1D = filled_ND[-1:]
        while self._core < self._num_rows and self._end >= self._block_end():
            self._detect()

    def finish(self) -> DetectedSpans:
        """Return all spans. Those of one block are in the order of how likely they are, the blocks in the order of time."""
        none, no_scores = np.zeros(0, np.float32), np.zeros((0, self._num_labels), np.float32)
        nothing = DetectedSpans(none, none, none, no_scores, no_scores, no_scores[:, :0])
        found = [part for part in self._found if len(part.starts)] or [nothing]
        return DetectedSpans(
            *(_joined([getattr(part, field.name) for part in found]) for field in fields(DetectedSpans))
        )

    def _begin(self, first_1D: Floats, num_before: int) -> None:
        """Fill the frames before the first one that could be decoded. Where they are many, blocks of nothing else are left out."""
        self._last_1D = first_1D
        self._core = max(0, num_before - self._blocks.margin) // self._blocks.core * self._blocks.core
        self._first = self._end = max(0, self._core - self._blocks.margin)
        if num_before > self._first:
            self._hold(np.repeat(first_1D, num_before - self._first, axis=0))

    def _hold(self, rows_ND: Floats) -> None:
        self._rows.append(rows_ND)
        self._projected.append(self._boundaries.projected(rows_ND))
        self._end += len(rows_ND)

    def _block_end(self) -> int:
        """Return the frame before which the next block ends."""
        return min(self._num_rows, self._core + self._blocks.core + self._blocks.margin)

    def _detect(self) -> None:
        """Find the spans of the next core, and let go of the frames that no further one needs."""
        end = self._block_end()
        next_core = self._num_rows if end == self._num_rows else self._core + self._blocks.core
        rows_ND, projected = (_joined(parts) for parts in (self._rows, self._projected))
        low = max(0, self._core - self._blocks.margin)
        held = slice(low - self._first, end - self._first)
        found = self._boundaries.candidates_of(projected[held], (-low, self._num_rows - low))
        own = np.flatnonzero((found.times + low >= self._core) & (found.times + low < next_core))
        self._found.append(self._scored(found.of(own), rows_ND[held], low))
        self._core = next_core
        kept = max(0, next_core - self._blocks.margin) - self._first
        # Copies, because a part of an array would hold all of it in memory.
        self._rows, self._projected = [rows_ND[kept:].copy()], [projected[kept:].copy()]
        self._first += kept

    def _scored(self, found: Candidates, rows_ND: Floats, low: int) -> DetectedSpans:
        """Return spans in the frames of a block that begins at frame `low`, without those of frames that are mostly missing."""
        missing = np.concatenate([[0], np.cumsum(self.missing[low : low + len(rows_ND)])])
        firsts, lasts = (times.astype(np.int64).clip(0, len(rows_ND)) for times in (found.starts, np.ceil(found.ends)))
        found = found.of(np.flatnonzero(missing[lasts] - missing[firsts] <= MOST_GAP * (lasts - firsts)))
        if not len(found.starts):
            scored = np.zeros((0, self._num_labels), np.float32)
        else:
            scored = self._score.of(rows_ND, found.starts, found.ends)
        return DetectedSpans(
            found.starts + low,
            found.ends + low,
            found.happening,
            found.labels,
            scored[:, : self._num_labels],
            scored[:, self._num_labels :],
        )


def _joined(parts: list[Floats]) -> Floats:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
