"""Videos for an index, looked at by Ray's workers; the process that has the index writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewframes.batch.output import cut
from fewframes.batch.ray import rows_on_ray
from fewframes.inference.predictor import Predictor
from fewframes.results import Failure
from fewframes.search.rows import EncodedVideo, WindowEncoder, WindowJob

PIECE_VIDEOS = 4
"""Videos that go to a worker at once: they may be hours long, and are in the index when all of them have been seen."""


@dataclass(frozen=True)
class EncodeOnRay:
    """A `moment_rows.LookAt` for `Index.add`: `workers` processes look, on this machine or a cluster (see `rows_on_ray`).
    `predictor` is the job's model in this process: a worker with another ends the run."""

    job: WindowJob
    predictor: Predictor
    workers: int | None = None

    def __call__(self, paths: Sequence[str], known: Mapping[str, str]) -> Iterator[EncodedVideo]:
        """Each video once, in any order; one that kills whoever reads it is a failure that says so."""
        asked = {path: known[path] for path in paths if path in known}
        everything = cut(paths, max(1, len(paths)))
        job, here = replace(self.job, known=asked), WindowEncoder(self.predictor, self.job.settings, None)
        for piece, rows in rows_on_ray(job, here, everything, workers=self.workers, most=PIECE_VIDEOS):
            for path, row in zip(piece.sources, rows, strict=True):
                seen: Any = row.get("looked")
                yield seen or EncodedVideo(path, failure=Failure(path, str(row["error"])))
