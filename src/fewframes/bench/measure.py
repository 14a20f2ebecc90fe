"""Measure the cost of systems on this machine: videos/s, latency, memory and energy.

Each turn of a system is a fresh process: it builds the network, warms up, measures and ends. So the memory, threads and kernels
of one system do not disturb another. Turns are interleaved: all systems have their first before any has its second,
so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewframes.bench.results import Bench, BenchResult, Measurement, UnmeasuredBaseline
from fewframes.bench.stopwatch import in_own_process, significant
from fewframes.bench.turns import Shortcuts, costs_of, read_views, report_on, take_turn
from fewframes.core.metrics import Report
from fewframes.core.process import TalkingProgress
from fewframes.data.dataset import VideoSet
from fewframes.errors import ConfigError, DataError, FewframesError, nearest
from fewframes.models.baselines.catalogue import BASELINES, OURS, baseline_of
from fewframes.models.cost import Cost
from fewframes.models.devices import choose_device, machine_name


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
    progress: TalkingProgress = lambda stage, done, total, words: None,
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
