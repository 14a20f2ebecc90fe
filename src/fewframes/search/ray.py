"""Encode videos for an index with Ray's workers. The process that has the index writes it."""

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
"""Videos that go to a worker at once. They may be hours long, and are indexed when all of them are encoded."""


@dataclass(frozen=True)
class EncodeOnRay:
    """An encoder for `Index.add` that uses `workers` processes, on this machine or a cluster (see `rows_on_ray`).

    `predictor` is the job's model in this process: a worker with another model ends the run.
    """

    job: WindowJob
    predictor: Predictor
    workers: int | None = None

    def __call__(self, paths: Sequence[str], known: Mapping[str, str]) -> Iterator[EncodedVideo]:
        """Yield each video once, in any order. A video that kills its worker is a failure that says so."""
        # Workers get no more of the known keys than these videos need.
        asked = {path: known[path] for path in paths if path in known}
        shards = cut(paths, max(1, len(paths)))
        job, here = replace(self.job, known=asked), WindowEncoder(self.predictor, self.job.settings, None)
        for piece, rows in rows_on_ray(job, here, shards, workers=self.workers, most=PIECE_VIDEOS):
            for path, row in zip(piece.sources, rows, strict=True):
                video: Any = row.get("encoded")
                yield video or EncodedVideo(path, failure=Failure(path, str(row["error"])))
