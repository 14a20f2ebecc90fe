"""Turn long videos into rows with their spans, on any of many machines, and read such results back to compare them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fewframes.batch.output import RUN_FILE, ShardFolder, writing_to
from fewframes.core.cache import EmbeddingCache
from fewframes.core.files import check_format
from fewframes.core.storage import is_address
from fewframes.core.text import printable
from fewframes.core.version import __version__
from fewframes.data.samples import absolute
from fewframes.errors import ConfigError, DataError, FewframesError
from fewframes.inference.clips import BackendChoice
from fewframes.inference.detection.changes import VideoSpans
from fewframes.inference.predictor import load
from fewframes.inference.timeline import DEFAULTS, Timeline, TimelineConfig, sweep
from fewframes.inference.unknowns import UnknownChoice
from fewframes.runtime.protocol import DtypeName


@dataclass(frozen=True, kw_only=True)
class TimelineJob:
    """Settings that turn long videos into rows: those of `load` and of `fewframes.timeline`.

    The cache's folder is each machine's own.
    """

    model: str
    config: TimelineConfig = DEFAULTS
    device: str = "auto"
    dtype: DtypeName = "float32"
    """Precision of the frame encoder. `auto` is float32 too: the faster one may differ between machines, and so would the rows."""
    backend: BackendChoice = "auto"
    """The decoder. `auto` is PyAV, for the same reason."""
    merge: int | None = None
    start_s: float = 0.0
    end_s: float | None = None
    unknown: UnknownChoice = "auto"
    cache: Path | None = None
    workers: int | None = None

    def start(self) -> TimelineWork:
        """Load the model. Raises WeightsError or ConfigError."""
        return TimelineWork(self)


class TimelineWork:
    """A loaded model that finds the spans of videos; it implements `RowTable`."""

    def __init__(self, job: TimelineJob) -> None:
        import pyarrow  # late: an optional package

        job = replace(
            job,
            dtype="float32" if job.dtype == "auto" else job.dtype,
            backend="pyav" if job.backend == "auto" else job.backend,
        )
        self.predictor = load(
            job.model, device=job.device, dtype=job.dtype, backend=job.backend, merge=job.merge, unknown=job.unknown
        )
        if not self.predictor.runtime.embeds_frames:
            raise ConfigError(f"{job.model} mixes frames inside its encoder; use a model of the 'factorised' layout")
        self._job, self._cache = job, None if job.cache is None else EmbeddingCache(job.cache)
        without = ("model", "device", "workers", "cache")
        settings = {name: value for name, value in asdict(job).items() if name not in without}
        self.about = {
            "fewframes": __version__,
            "weights": self.predictor.runtime.model_key(),
            "settings": json.dumps(settings, sort_keys=True),
            "labels": json.dumps([printable(label) for label in self.predictor.labels]),
        }
        number, text = pyarrow.float64(), pyarrow.string()
        part = {"start_s": number, "end_s": number}
        span = pyarrow.struct(list({**part, "label": text, "confidence": pyarrow.float32()}.items()))
        gap = pyarrow.struct(list({**part, "error": text, "is_pause": pyarrow.bool_()}.items()))
        self.columns: dict[str, Any] = {
            "source": text,
            "model": text,
            "weights": text,
            "duration_s": number,
            **part,
            "threshold": number,
            "num_frames": pyarrow.int64(),
            "num_missing": pyarrow.int64(),
            "spans": pyarrow.list_(span),
            "gaps": pyarrow.list_(gap),
            "error": text,
        }

    def rows(self, sources: Sequence[str]) -> Iterator[dict[str, object]]:
        """Yield one row for each source, in their order. A source that cannot be read gives a row with an `error`."""
        job = self._job
        made_by = {"model": printable(job.model), "weights": self.about["weights"]}
        for source in sources:
            about = {"source": printable(source), **made_by}
            try:
                found = sweep(
                    self.predictor, source, job.config, cache=self._cache, start_s=job.start_s, end_s=job.end_s
                )
            except FewframesError as error:
                yield {**about, "error": printable(str(error))}
            else:
                yield {**about, **_row(found)}


def _row(found: Timeline) -> dict[str, object]:
    def texts(values: Mapping[str, object]) -> dict[str, object]:
        return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}

    return {
        "duration_s": found.duration_s,
        "start_s": found.start_s,
        "end_s": found.end_s,
        "threshold": found.threshold,
        "num_frames": len(found.times_s),
        "num_missing": found.num_missing,
        "spans": [texts(span.to_dict()) for span in found.spans],
        "gaps": [texts(gap.to_dict()) for gap in found.gaps],
    }


def read_timelines(path: str) -> dict[str, VideoSpans]:
    """Return the spans of each video of a result: a folder of `--engine`, or the lines of `fewframes timeline --json`.

    Relative paths of videos become absolute, from the current folder on. Raises DataError for a file that holds none, or those of
    several models, and MissingDependency for a folder without pyarrow.
    """
    found: dict[str, VideoSpans] = {}
    is_folder = is_address(path) or os.path.isdir(path)
    for where, values in _rows_in(path) if is_folder else _lines_in(path):
        try:
            video = VideoSpans.of(values)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}, {where}: not a timeline ({type(error).__name__}: {error}); give the lines that `fewframes timeline "
                "--json` writes, or a folder of its --engine"
            ) from None
        source = absolute(video.source)
        before = found.get(source)
        if before is not None and not (before.error or video.error) and before.weights != video.weights:
            raise DataError(f"{path}, {where}: a second model's timeline of {source}; keep those of one model")
        found[source] = replace(video, source=source)
    if not found:
        raise DataError(f"{path}: holds no timelines; write some with `fewframes timeline --json`")
    return found


def _lines_in(path: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of each line of JSON, with its number. Raises DataError."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", json.loads(line)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: cannot be read as lines of JSON ({reason}); give what `fewframes timeline --json` or --engine wrote"
        ) from None


def _rows_in(location: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of each row of a folder of `--engine`, with its number. Raises DataError for an unfinished run."""
    check_format("parquet")
    from pyarrow import parquet

    folder = ShardFolder(location)
    with writing_to(location):
        run, names = folder.read(RUN_FILE), sorted(name for name in folder.names() if name.startswith("part-"))
    try:
        num_files = int(json.loads(run or b"{}")["num_shards"])
    except (LookupError, TypeError, ValueError):
        raise DataError(
            f"{location}: no folder of `fewframes timeline --engine` (it has no {RUN_FILE}); a model goes to --against-model"
        ) from None
    if len(names) < num_files:
        raise DataError(
            f"{location}: {len(names)} of {num_files} files are there; repeat the command that writes them, which computes the rest"
        )
    for name in names:
        with writing_to(location), folder.open(name) as file:
            table = parquet.ParquetFile(file, pre_buffer=False).read(use_threads=False)
        for row in table.to_pylist():
            yield f"row {row.get('row')}", row
