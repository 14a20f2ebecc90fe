"""Measure the cost of systems on this machine: videos/s, latency, memory and energy.

Each turn of a system is a fresh process: it builds the network, warms up, measures and ends. So the memory, threads and kernels
of one system do not disturb another. Turns are interleaved (A B A B): all systems have their first before any has its second,
so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from fewframes.bench.contenders import (
    BASELINES,
    NUM_CLASSES,
    OURS,
    Baseline,
    BaselineNetwork,
    baseline_of,
    build,
    has_weights,
    load_weights,
)
from fewframes.bench.stopwatch import Energy, Memory, RunMode, Runner, in_own_process, percentile, significant
from fewframes.core.devices import choose_device, machine_name, matrix_flops_s
from fewframes.core.metrics import Cost, Report, count_cost, score
from fewframes.core.settings import settings_from
from fewframes.data.dataset import VideoSet
from fewframes.errors import ConfigError, DataError, FewframesError, VideoError, nearest
from fewframes.inference.predictor import DTYPES, Predictor
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.release import kinetics_labels
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.models.token_merging import merge_tokens
from fewframes.sampling import Views
from fewframes.training.evaluation.labels import indices_of, targets_for
from fewframes.training.evaluation.scoring import score_videos
from fewframes.video.source import open_video
from fewframes.video.transforms import crops_of

Progress = Callable[[str, int, int, str], None]
"""A function called with the stage, the items done, the items in all, and the item that comes now."""
PACKAGES = ("torch", "torchvision", "timm", "transformers", "pytorchvideo", "av", "fewframes")
RATE_SIDES = {"cpu": 4096, "cuda": 8192}
"""Rows and columns of the matrices whose products give the rate of a device."""


@dataclass(frozen=True)
class Shortcuts:
    """The shortcuts that make our models cheaper; other systems run without any."""

    tolerance: float = 0.0  # fraction of the interval between frames by which timestamps may move
    merge: int = 0  # patches that each block of a ViT merges

    def baseline(self, name: str) -> Baseline:
        """Return the baseline of this name; if it is ours, its timestamps have the tolerance."""
        baseline = baseline_of(name)
        if not self.tolerance or (name in BASELINES and name not in OURS):
            return baseline
        views = settings_from(Views, {**vars(baseline.views), "tolerance": self.tolerance}, "bench")
        return replace(baseline, views=views)

    def merged(self, network: nn.Module) -> int:
        """Return the patches to merge in each block of this network: 0 unless it is a ViT of ours."""
        return self.merge if isinstance(getattr(network, "frame_encoder", None), SpatialEncoder) else 0


NO_SHORTCUTS = Shortcuts()


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


def bench(
    names: Sequence[str],
    *,
    device: str = "auto",
    rounds: int = 3,
    seconds: float = 3.0,
    clip: str | None = None,
    data: VideoSet | None = None,
    weights: Mapping[str, str] | None = None,
    tolerance: float = 0.0,
    merge: int = 0,
    progress: Progress = lambda stage, done, total, words: None,
) -> Bench:
    """Measure systems in interleaved turns.

    A system that cannot be built, run or evaluated is reported, and the others go on. An interruption (Ctrl-C) ends the bench
    with what was measured until then. Raises ConfigError for wrong arguments, and VideoError for a clip that cannot be read.

    Args:
        names: Names of systems, or files of our models.
        device: Name of the device.
        rounds: Turns of each system.
        seconds: Approximate seconds of a turn.
        clip: Video to decode; None does not measure decoding.
        data: Labelled videos, on which the systems that have weights are evaluated too.
        weights: Files of weights, by the name of the system that they belong to.
        tolerance: Fraction of the interval between frames by which our models may move timestamps to decode the clip faster.
        merge: Patches that each block of our ViTs merges.
        progress: Called before each turn.
    """
    names, weights, shortcuts = list(dict.fromkeys(names)), weights or {}, Shortcuts(tolerance, merge)
    _check(names, weights, rounds, data)
    if clip is not None:
        read_views(baseline_of(names[0]), clip)
    chosen = choose_device(device)
    state = _State({name: [] for name in names}, {}, {}, {}, shortcuts)
    interrupted = False
    try:
        for number in range(rounds):
            for index, name in enumerate(names):
                done = number * len(names) + index
                progress("measuring", done, rounds * len(names), f"turn {number + 1} of {rounds}: {name}")
                state.measure(name, str(chosen), seconds, clip)
        for index, name in enumerate(names if data is not None else ()):
            progress("evaluating", index, len(names), name)
            state.evaluate(name, data, weights.get(name), device)
    except KeyboardInterrupt:
        interrupted = True
    rows = state.rows()
    rates: dict[str, list[float]] = {}
    for turn in (turn for row in rows for turn in row.turns):
        rates.setdefault(turn.mode.dtype, []).append(turn.matrix_flops_s / 1e9)
    return Bench(
        rows=rows,
        missed=tuple(state.missed.values()),
        machine=machine_name(chosen),
        rounds=rounds,
        seconds=seconds,
        clip="" if clip is None else Path(clip).name,
        matrix_gflops_s={dtype: significant(statistics.median(values)) for dtype, values in rates.items()},
        interrupted=interrupted,
    )


@dataclass(frozen=True)
class _State:
    """The results so far, by the name of the system."""

    turns: dict[str, list[Measurement]]
    costs: dict[str, tuple[Cost, Cost]]
    reports: dict[str, Report | None]
    missed: dict[str, UnmeasuredBaseline]
    shortcuts: Shortcuts

    def measure(self, name: str, device: str, seconds: float, clip: str | None) -> None:
        """Take one more turn of a system, unless it failed before."""
        if name in self.missed:
            return
        try:
            if name not in self.costs:
                self.costs[name] = in_own_process(costs_of, name, self.shortcuts)
            mode = self.turns[name][0].mode if self.turns[name] else None
            self.turns[name].append(in_own_process(take_turn, name, device, seconds, mode, clip, self.shortcuts))
        except FewframesError as error:
            self.missed[name] = UnmeasuredBaseline(name, str(error))

    def evaluate(self, name: str, data: VideoSet | None, weights: str | None, device: str) -> None:
        """Evaluate a system on labelled videos if it has weights."""
        try:
            self.reports[name] = in_own_process(report_on, name, data, weights, device, self.shortcuts)
        except FewframesError as error:
            self.missed.setdefault(name, UnmeasuredBaseline(name, f"not evaluated: {error}"))

    def rows(self) -> tuple[BenchResult, ...]:
        """Return the rows of the systems that had a turn."""
        return tuple(
            BenchResult(name, self.shortcuts.baseline(name), *self.costs[name], tuple(turns), self.reports.get(name))
            for name, turns in self.turns.items()
            if turns
        )


def _check(names: Sequence[str], weights: Mapping[str, str], rounds: int, data: VideoSet | None) -> None:
    """Check the arguments of `bench` before minutes of work. Raises ValueError, ConfigError and DataError."""
    if rounds < 1:
        raise ValueError(f"rounds = {rounds}: needs at least 1")
    if not names:
        raise ConfigError(f"no systems were named; there are {', '.join(BASELINES)}")
    for name in names:
        baseline_of(name)
    for name, path in weights.items():
        if name not in names:
            raise ConfigError(f"weights for {name!r}, which is not measured; {nearest(name, names)}")
        if name in OURS or name not in BASELINES:
            raise ConfigError(f"weights for {name!r}, which is ours: name the file itself as a system instead")
        if not Path(path).exists():
            raise ConfigError(f"weights for {name!r}: {path}: no such file")
        if data is None:
            raise ConfigError(f"weights for {name!r} change no speed; they need labelled videos too (--data)")
    if data is not None and data.multilabel:
        raise DataError(f"{data.name}: its videos have any number of actions; bench needs one action per video")


def costs_of(name: str, shortcuts: Shortcuts) -> tuple[Cost, Cost]:
    """Return the cost of one view by the whole network, and as it is run; nothing is computed."""
    baseline = baseline_of(name)
    with torch.device("meta"):  # only a file of ours comes with its weights
        network = build(baseline)
    whole = count_cost(network, baseline.frames_a_pass, baseline.size_px)
    if not isinstance(network, STAM):
        return whole, whole
    merge_tokens(network.eval().frame_encoder, shortcuts.merged(network))
    return whole, count_cost(network, baseline.frames_a_pass, baseline.size_px)


def take_turn(
    name: str,
    device_name: str,
    seconds: float,
    mode: RunMode | None,
    clip: str | None,
    shortcuts: Shortcuts = NO_SHORTCUTS,
) -> Measurement:
    """Take one turn of a system: build it, warm up, and measure.

    Args:
        name: The system.
        device_name: Name of the device.
        seconds: Approximate seconds of the turn.
        mode: The mode of an earlier turn; None looks for the best one first.
        clip: Video to decode; None does not measure decoding.
        shortcuts: Applied if the system is ours.
    """
    device = torch.device(device_name)
    memory = Memory(device)
    baseline = shortcuts.baseline(name)
    network = build(baseline)
    runner = Runner(network, baseline, device, shortcuts.merged(network))
    if mode is None:
        mode = runner.best_mode(seconds / 4)
    runner.take(mode)
    for batch in {1, mode.batch}:
        runner.seconds_of(batch, 0)  # warm-up
    with memory, Energy(device) as energy:
        pass_s = runner.seconds_of(mode.batch, seconds)
    view_s = pass_s if mode.batch == 1 else runner.seconds_of(1, seconds / 2)
    return Measurement(
        mode=mode,
        pass_s=tuple(pass_s),
        view_s=tuple(view_s),
        decode_s=None if clip is None else decoding_s(baseline, clip),
        memory_bytes=memory.peak_bytes,
        joules=energy.joules,
        matrix_flops_s=matrix_flops_s(
            DTYPES[mode.dtype], device, side=RATE_SIDES.get(device.type, 4096), seconds=min(seconds, 1.0)
        ),
        tried=runner.tried,
    )


def report_on(
    name: str, data: VideoSet, weights: str | None, device: str, shortcuts: Shortcuts = NO_SHORTCUTS
) -> Report | None:
    """Return the accuracy of a system by its own protocol; None if it has no weights.

    Models of ours are evaluated as `fewframes evaluate` does it; other systems run in float32, with the labels of Kinetics-400.
    `weights` is a file of weights with the names of the system's library; None takes the weights of a model of ours. Raises
    DataError for a video that cannot be read: accuracies over different videos cannot be compared.
    """
    if weights is None:
        if not has_weights(name):
            return None
        checkpoint = load_checkpoint(name)
        merge = shortcuts.merged(checkpoint.model) or None
        predictor = Predictor(checkpoint, device=device, merge=merge, name=name)
        scored = score_videos(data, predictor, views=Views(tolerance=shortcuts.tolerance))
        if scored.failures:
            raise DataError(f"{len(scored.failures)} videos cannot be read, the first: {scored.failures[0].error}")
        return score(scored.logits, targets_for(data, predictor).argmax(dim=1), predictor.labels)
    baseline, labels = baseline_of(name), kinetics_labels(NUM_CLASSES)
    class_indices = torch.tensor(indices_of(data.labels, labels, f"{data.name}: {name}"))
    network = build(baseline)
    assert isinstance(network, BaselineNetwork)
    load_weights(network, baseline, weights)
    runner = Runner(network, baseline, choose_device(device))
    scores = [runner.scores(read_views(baseline, sample.path, sample.start_s, sample.end_s)) for sample in data.samples]
    return score(torch.stack(scores).log(), class_indices[data.multi_hot().argmax(dim=1)], labels)


def decoding_s(baseline: Baseline, clip: str) -> float:
    """Return the seconds to open a video and read the frames of all views of a baseline, resized and cropped."""
    began = time.perf_counter()
    read_views(baseline, clip)
    return time.perf_counter() - began


def read_views(baseline: Baseline, path: str, start_s: float = 0.0, end_s: float | None = None) -> Tensor:
    """Return all views of a video by the baseline's protocol: (V, T, C, H, W) uint8, clip after clip, each with its crops."""
    num_crops = baseline.views.num_crops
    with closing(open_video(path, threads=0)) as video:
        try:
            times_s = baseline.views.times(video.duration_s, baseline.frames, start_s=start_s, end_s=end_s)
            tolerance_s = baseline.views.tolerance_s(video.duration_s, baseline.frames, start_s=start_s, end_s=end_s)
        except ValueError as error:
            raise VideoError(f"{video.name}: {error}") from None
        frames_NSCHW = video.frames_at(
            times_s.flatten(), lambda frame: crops_of(frame, baseline.view, num_crops), tolerance_s
        ).frames
    frames_GTSCHW = frames_NSCHW.unflatten(0, (-1, baseline.frames_a_pass))
    return frames_GTSCHW.transpose(1, 2).flatten(0, 1)
