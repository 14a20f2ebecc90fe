"""Results of a bench: the figures of a turn, the row of a system, and all rows with the machine."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec

from fewframes.bench.stopwatch import RunMode, percentile, significant
from fewframes.core.metrics import Report
from fewframes.models.baselines.systems import Baseline
from fewframes.models.cost import Cost

PACKAGES = ("torch", "torchvision", "timm", "transformers", "pytorchvideo", "av", "fewframes")


@dataclass(frozen=True)
class Measurement:
    """The figures of one turn.

    `pass_s` are the seconds of each pass of `mode.batch` views, `view_s` of each pass of one view, `decode_s` the seconds to
    decode all views of the clip, `memory_bytes` the peak above an empty process, `joules` the energy of all passes, and
    `matrix_flops_s` the machine's rate of matrix products in the precision of `mode`. What was not measured is None.
    """

    mode: RunMode
    pass_s: tuple[float, ...]
    view_s: tuple[float, ...]
    decode_s: float | None
    memory_bytes: int | None
    joules: float | None
    matrix_flops_s: float
    tried: Mapping[RunMode, float | None] = field(default_factory=dict)
    """Seconds of a view in each mode that was tried; None where it failed."""


@dataclass(frozen=True)
class BenchResult:
    """The row of one system: its cost by count, the figures of each turn, and its accuracy on labelled videos."""

    name: str
    baseline: Baseline = field(repr=False)
    cost: Cost
    """Cost of a view by the whole network."""
    computed: Cost
    """Cost of a view as it is run: ours without the part of the last block that nothing reads, and with patches merged."""
    turns: tuple[Measurement, ...]
    report: Report | None = None
    """Accuracy on the user's videos; None without videos or weights."""

    @property
    def video_s(self) -> list[float]:
        """Return the seconds that the network needs for all views of one video, by turn."""
        return [self.baseline.passes * statistics.median(turn.pass_s) / turn.mode.batch for turn in self.turns]

    @property
    def videos_s(self) -> float:
        """Return the videos/s of the network alone, the median over turns."""
        return 1 / statistics.median(self.video_s)

    @property
    def decode_s(self) -> float | None:
        """Return the seconds to decode all views of the clip, the median over turns; None if nothing was decoded."""
        seconds = [turn.decode_s for turn in self.turns if turn.decode_s is not None]
        return statistics.median(seconds) if seconds else None

    @property
    def videos_s_decoded(self) -> float | None:
        """Return the videos/s with decoding and the network one after the other; None if nothing was decoded."""
        return None if self.decode_s is None else 1 / (statistics.median(self.video_s) + self.decode_s)

    @property
    def rate_fraction(self) -> float:
        """Return the fraction of the machine's rate of matrix products that it reaches: attention included, median over turns."""
        flops = 1e9 * self.computed.gflops
        fractions = [
            flops * turn.mode.batch / statistics.median(turn.pass_s) / turn.matrix_flops_s for turn in self.turns
        ]
        return statistics.median(fractions)

    def to_dict(self) -> dict[str, object]:
        """Return the row as plain values, as bench.json has them."""
        mode, baseline = self.turns[0].mode, self.baseline
        view_s = sorted(seconds for turn in self.turns for seconds in turn.view_s)
        joules = [turn.joules / len(turn.pass_s) / mode.batch for turn in self.turns if turn.joules is not None]
        memory = [turn.memory_bytes for turn in self.turns if turn.memory_bytes is not None]
        decoded = self.videos_s_decoded
        return {
            "name": self.name,
            "parameters_m": round(self.cost.num_parameters / 1e6, 2),
            "gmacs_a_view": round(self.cost.gmacs, 2),
            "attention_gmacs_a_view": round(self.cost.attention_gmacs, 2),
            "gmacs_computed_a_view": round(self.computed.gmacs + self.computed.attention_gmacs, 2),
            "tolerance": baseline.views.tolerance,
            "views": baseline.passes,
            "frames_read": baseline.frames_read,
            "videos_s": significant(self.videos_s),
            "videos_s_least": significant(1 / max(self.video_s)),
            "videos_s_most": significant(1 / min(self.video_s)),
            "videos_s_decoded": None if decoded is None else significant(decoded),
            "decode_s": None if self.decode_s is None else significant(self.decode_s),
            "view_ms_p50": significant(1e3 * percentile(view_s, 0.5)),
            "view_ms_p95": significant(1e3 * percentile(view_s, 0.95)),
            "views_a_pass": mode.batch,
            "precision": mode.dtype,
            "channels_last": mode.channels_last,
            "ms_a_view_in_other_ways": {
                tried.describe(): None if view_s is None else significant(1e3 * view_s)
                for tried, view_s in self.turns[0].tried.items()
            },
            "share_of_matrix_rate": round(self.rate_fraction, 3),
            "memory_mb": round(max(memory) / 1e6) if memory else None,
            "passes_timed": sum(len(turn.pass_s) for turn in self.turns),
            "top1": None if self.report is None else round(100 * self.report.top1, 1),
            "videos_judged": None if self.report is None else self.report.num_videos,
            "joules_a_video": significant(statistics.median(joules) * baseline.passes) if joules else None,
            "published": asdict(baseline.published),
        }


@dataclass(frozen=True)
class UnmeasuredBaseline:
    """A system that could not be measured, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Bench:
    """The result of a bench: a row for each system, the systems that failed, the machine, and the settings."""

    rows: tuple[BenchResult, ...]
    missed: tuple[UnmeasuredBaseline, ...]
    machine: str
    rounds: int
    seconds: float
    clip: str
    matrix_gflops_s: dict[str, float]
    interrupted: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return the bench as plain values, as bench.json has them."""
        return {
            "machine": self.machine,
            "versions": {package: version(package) for package in PACKAGES if find_spec(package) is not None},
            "interrupted": self.interrupted,
            "rounds": self.rounds,
            "seconds_a_turn": self.seconds,
            "clip": self.clip,
            "matrix_gflops_s": self.matrix_gflops_s,
            "rows": [row.to_dict() for row in self.rows],
            "missed": [asdict(missed) for missed in self.missed],
        }
