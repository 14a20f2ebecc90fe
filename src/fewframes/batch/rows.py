"""Turn videos into rows, of actions or of embeddings, on any of many machines. Decoding can run in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from fewframes.batch.embeddings import embedding_columns, embedding_row
from fewframes.core.text import printable
from fewframes.core.version import __version__
from fewframes.errors import FewframesError
from fewframes.inference.clips import BackendChoice, ClipReader, ClipRequest, DecodedClips
from fewframes.inference.predictor import load, one_pass
from fewframes.inference.stages.early_exit import exit_plan_of
from fewframes.inference.unknowns import UnknownChoice
from fewframes.results import Failure, Prediction
from fewframes.runtime.protocol import DtypeName


@dataclass(frozen=True, kw_only=True)
class VideoJob:
    """Settings that turn videos into rows: those of `load` and of `Predictor.predict_many`, and which columns are wanted."""

    columns: Literal["actions", "embeddings"]
    model: str
    device: str = "auto"
    dtype: DtypeName = "float32"
    """Precision of the frame encoder. `auto` is float32 too: the faster one may differ between machines, and so would the rows."""
    backend: BackendChoice = "auto"
    """The decoder. `auto` is PyAV, for the same reason."""
    merge: int | None = None
    topk: int = 5
    per_frame: bool = False
    num_frames: int | None = None
    start_s: float = 0.0
    end_s: float | None = None
    tolerance: float = 0.0
    early_exit: bool | float = False
    unknown: UnknownChoice = "auto"
    workers: int | None = None

    def start(self) -> VideoWork:
        """Load the model. Raises WeightsError or ConfigError."""
        return VideoWork(self)


class VideoWork:
    """A loaded model and the columns of its rows; it implements `RowTable` and `SplitWork`."""

    def __init__(self, job: VideoJob) -> None:
        import pyarrow  # late: an optional package

        job = replace(
            job,
            dtype="float32" if job.dtype == "auto" else job.dtype,
            backend="pyav" if job.backend == "auto" else job.backend,
        )
        self.predictor = load(
            job.model, device=job.device, dtype=job.dtype, backend=job.backend, merge=job.merge, unknown=job.unknown
        )
        exit_plan_of(self.predictor.runtime, job.early_exit, job.num_frames)  # fail before any video is read
        self._job = job
        settings = {name: value for name, value in asdict(job).items() if name not in ("model", "device", "workers")}
        self.about = {
            "fewframes": __version__,
            "weights": self.predictor.runtime.model_key(),
            "settings": json.dumps(settings, sort_keys=True),
            "labels": json.dumps([printable(label) for label in self.predictor.labels]),
        }
        number, text = pyarrow.float32(), pyarrow.string()
        self.columns: dict[str, Any] = (
            embedding_columns(self.predictor, per_frame=job.per_frame)
            if job.columns == "embeddings"
            else {
                "source": text,
                "label": text,
                "score": number,
                "known": number,
                "unfamiliar": pyarrow.bool_(),
                "reason": text,
                "top_labels": pyarrow.list_(text),
                "top_scores": pyarrow.list_(number),
                **({"present": pyarrow.list_(text)} if self.predictor.runtime.task == "multilabel" else {}),
                "times_s": pyarrow.list_(number),
                "error": text,
            }
        )

    def rows(self, sources: Sequence[str]) -> Iterator[dict[str, object]]:
        """Yield one row for each source, in their order. A source that cannot be read gives a row with an `error`."""
        job = self._job
        results = self.predictor.predict_many(
            sources,
            num_frames=job.num_frames,
            start_s=job.start_s,
            end_s=job.end_s,
            tolerance=job.tolerance,
            early_exit=job.early_exit,
            workers=job.workers,
        )
        for result in results:
            yield self._row(result)

    def decoder(self) -> VideoDecoder | None:
        """Return a decoder for `rows_of` that runs anywhere; None where the network decides what to decode, or the GPU decodes."""
        job, own = self._job, self.predictor
        if job.early_exit is not False or job.backend != "pyav":
            return None
        request = ClipRequest(one_pass(job.tolerance), job.num_frames or own.num_frames, job.start_s, job.end_s)
        return VideoDecoder(ClipReader(own.runtime.view), request)

    def rows_of(self, videos: Sequence[DecodedClips | Failure]) -> Iterator[dict[str, object]]:
        """Yield a row for each decoded video; all of them go through the network together."""
        decoded = [video for video in videos if isinstance(video, DecodedClips)]
        predictions = iter(self.predictor.label_many(decoded) if decoded else [])
        for video in videos:
            yield self._row(video if isinstance(video, Failure) else next(predictions))

    def _row(self, result: Prediction | Failure) -> dict[str, object]:
        if self._job.columns == "embeddings" or isinstance(result, Failure):
            return embedding_row(result, per_frame=self._job.per_frame)
        top = result.top(self._job.topk)
        return {
            "source": printable(result.source),
            "label": printable(result.label),
            "score": top[0].score,
            "known": result.known,
            "unfamiliar": result.unfamiliar,
            "reason": printable(result.reason),
            "top_labels": [printable(best.label) for best in top],
            "top_scores": [best.score for best in top],
            **({"present": [printable(label) for label, _ in result.present]} if result.thresholds else {}),
            "times_s": result.times_s,
        }


@dataclass(frozen=True)
class VideoDecoder:
    """A decoder of videos for a model, without the model."""

    reader: ClipReader
    request: ClipRequest

    def __call__(self, sources: Sequence[str]) -> list[DecodedClips | Failure]:
        """Return the frames of each source, or the reason why it cannot be read."""
        return [self._read(source) for source in sources]

    def _read(self, source: str) -> DecodedClips | Failure:
        try:
            return self.reader.read(source, self.request, threads=1)
        except FewframesError as error:
            return Failure.of(source, error)
