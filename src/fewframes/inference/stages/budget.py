"""Answer within a budget of time or of bytes: look at as many frames as fit, and be no surer than so few frames allow.

One frame is decoded first, to learn how fast this video is decoded here. Then frames are read and encoded in nested stages, as for
an early exit: each time the largest stage that is expected to fit into what is left. An answer is given after each, and the last
one counts. Where even the fewest frames would take too long, their timestamps may move to where decoding is cheaper.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewframes.core.arguments import real_number
from fewframes.core.metrics import fit_temperature
from fewframes.inference.clips import ClipReader, ClipRequest, OpenRequest
from fewframes.inference.stages.early_exit import (
    NEVER,
    EarlyEncoding,
    EncodedFrames,
    answer,
    confidence,
    exit_plan_of,
    filled,
    stages_by_size,
)
from fewframes.models.config import ExitPlan
from fewframes.results import BudgetUse, Clip, Familiarity, Timing, Work
from fewframes.runtime.protocol import Floats, Runtime, WindowEncoding
from fewframes.video.source import Source

TOLERANCES = (0.1, 0.5)
"""The tolerances that are tried, in this order, where the fewest frames do not fit into the budget at their timestamps."""
MARGIN = 1.1
"""The factor by which what comes is taken to cost more than what came before says."""
STORED = "few_frames"
"""The key of a model's provenance under which the divisors of the logits stand, by number of frames."""

Stages: TypeAlias = Sequence[tuple[int, ...]]
Clock: TypeAlias = Callable[[], float]
Judge: TypeAlias = Callable[[Floats], Sequence[Familiarity | None]]


@dataclass(frozen=True)
class Budget:
    """The most that a video may take; None is no limit."""

    ms: float | None = None
    """Milliseconds from opening the video to its answer."""
    kb: float | None = None
    """Thousands of bytes that are read of it."""

    @classmethod
    def of(cls, ms: float | None, kb: float | None) -> Budget | None:
        """Return the budget of these limits, or None if there is none. Raises TypeError and ConfigError for wrong ones."""
        if ms is None and kb is None:
            return None
        return cls(
            None if ms is None else real_number("budget_ms", ms, above=0),
            None if kb is None else real_number("budget_kb", kb, above=0),
        )


@dataclass(frozen=True)
class StagePlan:
    """The stages in which a video is read, and for which of them the confidence was fitted."""

    exits: ExitPlan
    fitted: tuple[bool, ...]


def stage_plan_of(runtime: Runtime, early_exit: bool | float, num_frames: int | None = None) -> StagePlan:
    """Return the stages of a model: those fitted for its early exit, or else of 2, 4, 6, 8, 12, 16, ... frames.

    Where nothing was fitted, the confidence is taken as it is. Raises ConfigError as `exit_plan_of` does.

    Args:
        runtime: The model.
        early_exit: Whether to stop when sure too; see `exit_plan_of`.
        num_frames: The number of frames asked for; None is the model's own.
    """
    exits = exit_plan_of(runtime, early_exit, num_frames)
    total = num_frames or runtime.num_frames
    is_own = total == runtime.num_frames
    threshold = NEVER if exits is None else exits.threshold
    if runtime.exits is not None and is_own:
        return StagePlan(replace(runtime.exits, threshold=threshold), (True,) * len(runtime.exits.stages))
    stages = stages_within(total)
    divisors = divisors_of(runtime) if is_own else {}
    temperatures = tuple(divisors.get(len(stage), 1.0) for stage in stages[:-1])
    fitted = tuple(len(stage) in divisors for stage in stages[:-1])
    return StagePlan(ExitPlan(stages=stages, temperatures=(*temperatures, 1.0), threshold=threshold), (*fitted, True))


def stages_within(num_frames: int) -> tuple[tuple[int, ...], ...]:
    """Return nested frame indices: 2, 4, 6, 8, 12, 16, 24, ... of `num_frames`, and at last all."""
    sizes = sorted(size for power in range(1, num_frames.bit_length() + 1) for size in (2**power, 3 * 2**power))
    return stages_by_size(num_frames, [size for size in sizes if size < num_frames])


def fit_divisors(stages: Stages, logits_SNK: Floats, targets_N: NDArray[np.int64]) -> dict[str, float]:
    """Return the numbers to divide logits of few frames by, for a model that is calibrated at all frames, to store in its file.

    Each is the temperature of the stage over that of all frames, and never below 1: few frames make nothing surer.

    Args:
        stages: The frame indices of each stage.
        logits_SNK: The logits of every stage for videos that the model did not learn from.
        targets_N: The index of the right label of each.
    """
    *few, last = (fit_temperature(logits_NK, targets_N) for logits_NK in logits_SNK)
    return {str(len(stage)): round(max(1.0, value / last), 3) for stage, value in zip(stages, few, strict=False)}


def divisors_of(runtime: Runtime) -> dict[int, float]:
    """Return the numbers that logits of few frames are divided by, by number of frames, as they stand in the model's file."""
    stored = runtime.provenance.get(STORED, {})
    return {int(size): real_number(f"{STORED} of {runtime.name}", value, above=0) for size, value in stored.items()}


class Spending:
    """The time and the bytes that were spent on one video so far, and whether more work fits, going by them."""

    def __init__(self, budget: Budget, clock: Clock, frame_s: float, answer_s: float) -> None:
        """Start the clock. Takes how long a frame's embedding and an answer took in the video before, 0 if that is not known."""
        self._budget, self._clock, self._began = budget, clock, clock()
        self.frame_s, self.answer_s = frame_s, answer_s
        self.decode_s = self.network_s = self._expected_s = self._expected_bytes = 0.0
        self._num_read, self._transform_s = 0, 0.0
        self.num_bytes = 0
        """The bytes that were read, as far as they are counted."""

    @property
    def took_s(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._began

    def read(self, video: OpenRequest, work: Work, decode: Callable[[], Clip]) -> Clip:
        """Decode a clip for which so much work is expected, and note what it took."""
        began, transform_s = self._clock(), video.transform_s
        clip = decode()
        took_s = self._clock() - began
        # Transforms are timed by the wall clock, which on a busy machine may have gone on further than this one.
        transformed_s = min(took_s, video.transform_s - transform_s)
        self._transform_s += transformed_s
        self.decode_s += took_s - transformed_s
        # Opening the file has read its first key frame, which is taken to be as much as what is read first.
        self._expected_bytes += work.num_bytes if self._num_read else 2 * work.num_bytes
        self._num_read += len(clip.times_s)
        self._expected_s += work.seconds
        self.num_bytes = clip.reading.bytes_read
        return clip

    def fits(self, work: Work, num_read: int, num_encoded: int) -> bool:
        """Return True if what is left is enough for this work, for frames that are decoded and encoded, and for an answer."""
        ms, kb = self._budget.ms, self._budget.kb
        if ms is not None:
            decode_s = work.seconds * self.decode_s / self._expected_s + num_read * self._transform_s / self._num_read
            more_s = MARGIN * (decode_s + num_encoded * self.frame_s + self.answer_s)
            if 1000 * (self.took_s + more_s) > ms:
                return False
        if kb is None or not work.num_bytes:
            return True
        more_bytes = work.num_bytes * max(1.0, self.num_bytes / self._expected_bytes)
        return self.num_bytes + more_bytes <= 1000 * kb

    def use(self, num_frames: int, plan: StagePlan, tolerance: float) -> BudgetUse:
        """Return what was spent, for the answer of so many frames."""
        stage = [len(indices) for indices in plan.exits.stages].index(num_frames)
        return BudgetUse(
            num_frames=num_frames,
            all_frames=plan.exits.num_frames,
            took_ms=1000 * self.took_s,
            read_kb=self.num_bytes / 1000 if self.num_bytes else None,
            budget_ms=self._budget.ms,
            budget_kb=self._budget.kb,
            tolerance=tolerance,
            is_fitted=plan.fitted[stage],
            is_least=stage == 0,
        )


@dataclass(frozen=True, eq=False)
class WithinBudget:
    """The encoding of a video that was read within a budget, the judgement on it, and what was used."""

    early: EarlyEncoding
    familiarity: Familiarity | None
    use: BudgetUse


class BudgetReader:
    """A reader and encoder of one model's videos within budgets.

    It remembers how long frames and answers took in the video before, so that the next one is planned better.
    """

    def __init__(self, runtime: Runtime, reader: ClipReader, judge: Judge, clock: Clock = time.perf_counter) -> None:
        """Take the model, the reader of its videos, its judge of unknown ones, and the clock that budgets are measured by."""
        self._runtime, self._reader, self._judge, self._clock = runtime, reader, judge, clock
        self._frame_s = self._answer_s = 0.0

    def encode(
        self, source: Source, request: ClipRequest, plan: StagePlan, budget: Budget, *, threads: int
    ) -> WithinBudget:
        """Encode one video within a budget. `threads` decode it. Raises VideoError."""
        spent, exits = Spending(budget, self._clock, self._frame_s, self._answer_s), plan.exits
        with self._reader.opened(source, request, threads=threads) as video:
            # Where it is known what a frame costs, just the frames that fit are decoded, and few come later.
            is_planned = self._frame_s > 0 and exits.threshold > 1
            tolerance, at_once = _begin(video, exits.stages, request.views.tolerance, spent, is_planned=is_planned)
            seen = EncodedFrames()
            stage = _next(video, exits, spent, seen, at_once=at_once) if is_planned else 0
            while stage is not None:
                clip, seen = self._look(video, spent, seen, exits.stages, stage, at_once=at_once)
                encoded, familiarity = self._answer(spent, seen, exits, stage)
                is_sure = float(confidence(encoded.logits, 1.0)[0]) >= exits.threshold
                stage = None if is_sure else _next(video, exits, spent, seen, at_once=at_once)
            use = spent.use(len(seen.indices), plan, tolerance)
            timing = Timing(spent.took_s - spent.network_s - video.transform_s, video.transform_s, spent.network_s)
        early = EarlyEncoding(replace(clip, times_s=seen.times_s), seen.embeddings, encoded, timing)
        return WithinBudget(early, familiarity, use)

    def _look(
        self, video: OpenRequest, spent: Spending, seen: EncodedFrames, stages: Stages, stage: int, *, at_once: bool
    ) -> tuple[Clip, EncodedFrames]:
        """Decode and encode the frames of a stage that were not seen yet; returns their clip, and all that were seen."""
        new = _new(stages[stage], seen)
        work = video.work(stages[-1] if at_once else new)
        first = not seen.indices
        clip = spent.read(
            video, work, lambda: video.decode_first(new, at_once=at_once) if first else video.decode_more(new)
        )
        began = self._clock()
        seen = seen.plus(new, clip.times_s, self._runtime.embed_frames(clip.frames[:, 0]))
        took_s = self._clock() - began
        spent.network_s += took_s
        self._frame_s = spent.frame_s = _smoothed(self._frame_s, took_s / len(new))
        return clip, seen

    def _answer(
        self, spent: Spending, seen: EncodedFrames, exits: ExitPlan, stage: int
    ) -> tuple[WindowEncoding, Familiarity | None]:
        """Return the answer of the frames seen so far, no surer than these frames allow, and the judgement on the video."""
        began, total = self._clock(), exits.num_frames
        encoded, weights_TN = answer(self._runtime, seen.embeddings[None], seen.indices, total)
        familiarity = self._judge(filled(seen.embeddings[None], seen.indices, total))[0]
        took_s = self._clock() - began
        self._answer_s = spent.answer_s = _smoothed(self._answer_s, took_s)
        spent.network_s += took_s
        assert encoded.frame_attention is not None
        # The answer of all frames is that of the plain model; its file has it calibrated already.
        divisor = np.float32(exits.temperatures[stage] if len(seen.indices) < total else 1.0)
        attention = encoded.frame_attention @ weights_TN
        return replace(encoded, logits=encoded.logits / divisor, frame_attention=attention), familiarity


def _begin(
    video: OpenRequest, stages: Stages, tolerance: float, spent: Spending, *, is_planned: bool
) -> tuple[float, bool]:
    """Decode one frame, and decide by what it took how far timestamps may move, and whether all are decoded at once.

    Timestamps move only where the fewest frames fit then, or where decoding them as they are is too much by itself. Returns the
    tolerance, and True for all at once: where going back would cost more, unless the frames to look at are planned.
    """
    least, every = stages[0], stages[-1]
    one_pass = video.is_one_pass(least)
    probe = every[:1] if one_pass else least[:1]
    spent.read(video, video.work(probe), lambda: video.decode(probe))
    if one_pass and not is_planned and spent.fits(video.work(every), len(every), len(least)):
        return tolerance, True
    work = video.work(least)
    for more in TOLERANCES:
        if spent.fits(work, len(least), len(least)):
            break
        moved = video.work(least, max(more, tolerance))
        helps = spent.fits(moved, len(least), len(least)) or not spent.fits(work, len(least), 0)
        if moved.seconds < work.seconds and helps:
            tolerance, work = max(more, tolerance), moved
    video.allow(tolerance)
    return tolerance, False


def _next(video: OpenRequest, exits: ExitPlan, spent: Spending, seen: EncodedFrames, *, at_once: bool) -> int | None:
    """Return the largest stage that fits into what is left, or the next one where an answer may be sure before.

    Returns None if none fits; before anything was seen, the first stage then.
    """
    stages = exits.stages
    later = [number for number, indices in enumerate(stages) if len(indices) > len(seen.indices)]
    fitting = [] if seen.indices else [0]
    for number in later[:1] if exits.threshold <= 1 else later:
        new = _new(stages[number], seen)
        work = video.work(stages[-1] if at_once else new)
        num_read = 0 if not work.seconds else len(stages[-1] if at_once else new)
        if spent.fits(work, num_read, len(new)):
            fitting.append(number)
    return max(fitting, default=None)


def _smoothed(before_s: float, now_s: float) -> float:
    """Return the mean of both, so that one odd frame misleads less; the second where nothing was known before."""
    return (before_s + now_s) / 2 if before_s else now_s


def _new(indices: Sequence[int], seen: EncodedFrames) -> list[int]:
    return [index for index in indices if index not in seen.indices]
