"""Compose long sequences of labelled clips, background and stills, and cut pieces out of long videos whose spans are labelled.

A frame encoder sees each frame by itself, so a film of clips has the frame embeddings of these clips, one after the other. No film
is made and nothing is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

SPEEDS = (-0.6, 0.6)
"""The range of the logarithm (base 2) of the speed at which a clip is played."""
STILL_BEFORE, OTHER_BEFORE = 0.4, 0.75
"""An action follows its own first frame, held still, in this fraction of the cases; another clip, without an action, up to the
second fraction; and the clip before it in the rest."""
STILL_AFTER = 0.3
"""The fraction of actions after which their last frame is held still."""
LONGEST_STILL = 2.0
"""The longest still, as a multiple of the median clip."""
FROM_FILM = 0.5
"""The fraction of sequences that are cut out of long videos, if there are any."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A labelled clip: the rows (V, T) of its frames in V views, its length, its labels (none for background), and its group."""

    rows: Rows
    length_s: float
    labels: tuple[int, ...]
    group: str


@dataclass(frozen=True)
class FrameSpan:
    """An action of a sequence, in frames from its first one."""

    start: float
    end: float
    label: int


@dataclass(frozen=True, eq=False)
class Film:
    """A long video whose spans are labelled: the rows (N,) of its frames at a steady rate, and its group."""

    rows: Rows
    spans: tuple[FrameSpan, ...]
    group: str


@dataclass(frozen=True, eq=False)
class Piece:
    """A sequence: the rows (N,) of its frames, and its actions."""

    rows: Rows
    spans: tuple[FrameSpan, ...]


@dataclass(frozen=True, eq=False)
class Material:
    """All that sequences are made of. Frames lie `interval_s` apart in them."""

    clips: tuple[Clip, ...]
    films: tuple[Film, ...]
    interval_s: float
    actions: tuple[Clip, ...] = field(init=False)
    background: tuple[Clip, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "actions", tuple(clip for clip in self.clips if clip.labels))
        object.__setattr__(self, "background", tuple(clip for clip in self.clips if not clip.labels))

    @property
    def groups(self) -> set[str]:
        """Return the groups of all clips and films."""
        return {clip.group for clip in self.clips} | {film.group for film in self.films}

    def of_groups(self, groups: set[str]) -> Material:
        """Return the clips and films of these groups."""
        return Material(
            tuple(clip for clip in self.clips if clip.group in groups),
            tuple(film for film in self.films if film.group in groups),
            self.interval_s,
        )

    def draw(self, num_frames: int, generator: np.random.Generator) -> Piece:
        """Return a random sequence of this many frames."""
        if self.films and (not self.actions or generator.random() < FROM_FILM):
            return self._from_film(num_frames, generator)
        return self._composed(num_frames, generator)

    def _from_film(self, num_frames: int, generator: np.random.Generator) -> Piece:
        film = self.films[generator.integers(len(self.films))]
        first = int(generator.integers(max(1, len(film.rows) - num_frames + 1)))
        # The last frame of a short film is repeated, as if it were held.
        rows = film.rows[np.minimum(np.arange(first, first + num_frames), len(film.rows) - 1)]
        return Piece(rows, moved(film.spans, first, num_frames))

    def _composed(self, num_frames: int, generator: np.random.Generator) -> Piece:
        parts: list[Rows] = []
        spans: list[FrameSpan] = []
        count = 0

        def add(rows: Rows) -> None:
            nonlocal count
            parts.append(rows)
            count += len(rows)

        longest = max(
            2, round(LONGEST_STILL * float(np.median([clip.length_s for clip in self.actions])) / self.interval_s)
        )
        lead = int(generator.integers(num_frames // 2))
        while count < num_frames + lead:
            action = self.actions[generator.integers(len(self.actions))]
            rows = self._played(action, generator)
            before = generator.random()
            if before < STILL_BEFORE:
                add(np.repeat(rows[:1], generator.integers(2, longest + 1)))
            elif before < OTHER_BEFORE and self.background:
                add(self._played(self.background[generator.integers(len(self.background))], generator))
            spans += [FrameSpan(count, count + len(rows), label) for label in action.labels]
            add(rows)
            if generator.random() < STILL_AFTER:
                add(np.repeat(rows[-1:], generator.integers(2, longest + 1)))
        return Piece(np.concatenate(parts)[lead : lead + num_frames], moved(spans, lead, num_frames))

    def _played(self, clip: Clip, generator: np.random.Generator) -> Rows:
        """Return the rows of a clip at a random speed, in one of its views."""
        rows = clip.rows[generator.integers(len(clip.rows))]
        length_s = clip.length_s / 2 ** generator.uniform(*SPEEDS)
        num_frames = max(2, round(length_s / self.interval_s))
        positions = (np.arange(num_frames) + generator.uniform(0, 1)) / num_frames * len(rows)
        return rows[np.minimum(positions.astype(np.int64), len(rows) - 1)]


def moved(spans: Sequence[FrameSpan], first: int, num_frames: int) -> tuple[FrameSpan, ...]:
    """Return the spans that reach into a piece of this many frames from `first` on, in frames of the piece."""
    shifted = (FrameSpan(span.start - first, span.end - first, span.label) for span in spans)
    return tuple(span for span in shifted if span.end > 1 and span.start < num_frames - 1)
