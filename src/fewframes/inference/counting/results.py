"""The result of counting repetitions in a video, and what it looks like as plain values, CSV and tables."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass

import numpy as np

from fewframes.core.text import count_of, for_csv
from fewframes.inference.detection.spans import clock
from fewframes.inference.frame_features import Gap, Times
from fewframes.results import Mark, bars_html
from fewframes.runtime.protocol import Floats

CSV_COLUMNS = ("source", "stretch", "repetition", "start_s", "end_s", "label", "confidence")


@dataclass(frozen=True)
class Repetition:
    """A repetition from `start_s` to `end_s`; `confidence` (0-1) is how well it fits the one before."""

    start_s: float
    end_s: float
    confidence: float

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "confidence": round(self.confidence, 4),
        }


@dataclass(frozen=True)
class Stretch:
    """A stretch of at least two repetitions of one movement, with the model's label for it and its score (0-1).

    The label is `unknown` where the model knows none for it.
    """

    label: str
    score: float
    repetitions: tuple[Repetition, ...]

    @property
    def count(self) -> int:
        """Return the number of repetitions."""
        return len(self.repetitions)

    @property
    def start_s(self) -> float:
        """Return the start of the first repetition."""
        return self.repetitions[0].start_s

    @property
    def end_s(self) -> float:
        """Return the end of the last repetition."""
        return self.repetitions[-1].end_s

    @property
    def period_s(self) -> float:
        """Return the median length of a repetition in seconds."""
        return float(np.median([one.end_s - one.start_s for one in self.repetitions]))

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "count": self.count,
            "period_s": round(self.period_s, 3),
            "label": self.label,
            "score": round(self.score, 4),
            "repetitions": [one.to_dict() for one in self.repetitions],
        }


@dataclass(frozen=True, eq=False)
class RepetitionCount:
    """The repetitions in a video between `start_s` and `end_s`, in stretches in the order of time.

    `similarity` (M, L) is how alike the frame at `similarity_times_s` (M,) and the one `similarity_lags_s` (L,) before it are: 1 if
    they are the same, 0 as far apart as frames of this video usually are, NaN where there is none. Of long videos it has every
    second frame, every fourth, and so on. Of the frames that were looked at, `num_encoded` were encoded now, `num_reused` showed
    nothing new, and `num_missing` could not be decoded; the others came from the cache.
    """

    source: str
    duration_s: float
    start_s: float
    end_s: float
    stretches: tuple[Stretch, ...]
    gaps: tuple[Gap, ...]
    similarity: Floats
    similarity_times_s: Times
    similarity_lags_s: Times
    num_frames: int
    num_encoded: int
    num_missing: int
    num_reused: int = 0

    @property
    def count(self) -> int:
        """Return the number of repetitions in all stretches."""
        return sum(stretch.count for stretch in self.stretches)

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of repetitions of each label, in the order of time."""
        counts: Counter[str] = Counter()
        for stretch in self.stretches:
            counts[stretch.label] += stretch.count
        return dict(counts)

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as `fewframes count --json` writes them."""
        return {
            "source": self.source,
            "duration_s": round(self.duration_s, 3),
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "count": self.count,
            "counts": self.counts,
            "frames": {"embedded": self.num_encoded, "reused": self.num_reused, "missing": self.num_missing},
            "stretches": [stretch.to_dict() for stretch in self.stretches],
            "gaps": [gap.to_dict() for gap in self.gaps],
        }

    def to_rows(self) -> list[dict[str, object]]:
        """Return one flat row for each repetition, for a data frame or CSV."""
        return [
            {"source": self.source, "stretch": place, "repetition": number, "label": stretch.label, **one.to_dict()}
            for place, stretch in enumerate(self.stretches, 1)
            for number, one in enumerate(stretch.repetitions, 1)
        ]

    def to_csv(self, *, header: bool = True) -> str:
        """Return `to_rows` as CSV."""
        file = io.StringIO()
        writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({name: for_csv(cell) for name, cell in row.items()} for row in self.to_rows())
        return file.getvalue()

    def __repr__(self) -> str:
        return f"RepetitionCount({self.source!r}: {count_of(self.count, 'repetition')} in {self.end_s - self.start_s:.1f} s)"

    def _repr_html_(self) -> str:
        """Return the stretches as a table for notebooks, each with its place in the video."""
        length_s = self.end_s - self.start_s
        return bars_html(
            f"{self.source}: {count_of(self.count, 'repetition')} in {clock(length_s)}",
            ("start", "end", "count", "period in s", "action"),
            [
                (clock(own.start_s), clock(own.end_s), own.count, f"{own.period_s:.1f}", own.label)
                for own in self.stretches
            ],
            [own.score for own in self.stretches],
            spans=[
                Mark((own.start_s - self.start_s) / length_s, (own.end_s - own.start_s) / length_s)
                for own in self.stretches
            ],
        )
