"""Choose a threshold that keeps a promised rate of alarms, from the scores of footage in which nothing of interest happens.

An alarm is a happening: exceedances of the threshold that lie close together are one. The threshold is conformal. It is the lowest
for which (alarms in the footage + 1) / hours of footage keeps the rate, and so it is for every higher threshold: if happenings come
independently, as many a day in new footage as in this one, the mean number of new alarms is at most that. Where they come in
clumps, the alarms of one block of footage (an hour, a day) say little more than one alarm. So the 1 becomes the variance of the
alarms of a block over their mean, if that is larger than it is by chance.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Count, Positive, StillLevel, settings_from
from fewframes.core.text import count_of
from fewframes.errors import ConfigError

CONFIDENCE = 0.95
"""The confidence of `most_per_day`, and the share of new footage whose number of alarms lies in `new_alarms`."""
HOURS_A_DAY = 24.0
SILENT, NEARLY_SILENT = 1.0, 0.999
"""The threshold above which no score lies, and the one above which few lie."""
LOOK_AHEAD = 5
"""The alarms more than are allowed that are looked at to see if they come in clumps: of fewer one cannot see it."""
LEAST_BLOCKS, BLOCK_HOURS, LEAST_DAYS = 8, 1.0, 5
"""Alarms are counted in blocks of about an hour, but in eight at least; and in days if the footage has five."""

Number = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AlarmThreshold:
    """A score above which an alarm is raised, and what is known of the alarms above it."""

    threshold: Annotated[float, Field(ge=0, le=1)]
    """The smoothed score (0-1) that an answer must be above."""
    alarms: Number
    """The alarms that the footage has above it."""
    clumping: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    """The alarms that count as one: the variance of the alarms of a block over their mean, or 1 if it may be so by chance."""
    promised: Positive
    """The promise: the most alarms a day in the mean."""
    most_per_day: Positive
    """The most alarms a day with a confidence of 95 % (one-sided, Poisson)."""

    def new_alarms(self, hours: float, new_hours: float) -> tuple[int, int]:
        """Return the least and the most alarms in new footage: the interval of 95 % that the promise itself gives.

        Args:
            hours: The hours of the footage that the threshold was chosen on.
            new_hours: The hours of the new footage.
        """
        outside = (1 - CONFIDENCE) / 2
        chance, groups = hours / (hours + new_hours), self.alarms / self.clumping
        low = negative_binomial_quantile(outside, groups, chance) if self.alarms else 0
        high = negative_binomial_quantile(1 - outside, groups + 1, chance)
        return math.floor(low * self.clumping), math.ceil(high * self.clumping)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AlarmPromise:
    """A promised rate of false alarms: the thresholds that keep it, what it rests on, and the settings that it holds for."""

    alarms_per_day: Positive
    """The rate that was asked for."""
    hours: Positive
    """The hours of uneventful footage that it rests on."""
    num_blocks: Count
    """The number of equal blocks in which the alarms were counted."""
    num_videos: Count
    """The number of videos of the footage."""
    window_s: Positive
    """The seconds that an answer is about. This and the following are settings of the stream, as `StreamConfig` has them."""
    every_s: Positive | None
    smooth_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    enter: Annotated[float, Field(gt=0, le=1)]
    alarm_gap_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    at_enter: Number
    """The alarms that the footage has without a threshold of its own: answers with a score of `enter` or more."""
    overall: AlarmThreshold
    """The threshold that alarms of all actions together keep the rate with. Streams use it."""
    actions: dict[str, AlarmThreshold]
    """The thresholds that alarms of one action alone keep the rate with."""
    still: StillLevel = 0.0
    """The gate for frames that show nothing new, through which the footage was looked at."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> AlarmPromise:
        """Return the promise that `to_dict` made plain values of. Raises ConfigError, which names `where`."""
        return settings_from(cls, values, where)

    @property
    def is_silent(self) -> bool:
        """Return True if no score lies above the threshold, so that nothing would ever be reported."""
        return self.overall.threshold >= SILENT

    def new_alarms(self, new_hours: float) -> tuple[int, int]:
        """Return the least and the most alarms in new footage of so many hours: the interval of 95 % of this promise."""
        return self.overall.new_alarms(self.hours, new_hours)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as model files hold them."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # a dataclass of pydantic is one

    def lines(self) -> list[str]:
        """Return the promise in words for people: what is promised, and what it rests on."""
        found = self.overall
        lines = [
            f"alarms: at most {found.promised:.3g} a day in the mean, for scores above {found.threshold:.4f}; with 95 % confidence "
            f"at most {found.most_per_day:.3g} a day",
            f"  this rests on {self.hours:.3g} hours of uneventful footage in {count_of(self.num_blocks, 'block')}: "
            f"{count_of(found.alarms, 'alarm')} above that score, {self.at_enter} from {self.enter:g} on",
            "  it holds while new footage is like that one (same camera, same kinds of days)",
        ]
        if self.is_silent:
            lines.append(f"  nothing would ever be reported: {self.full_of_actions()}")
        elif found.threshold > NEARLY_SILENT:
            lines.append(f"  few actions would be reported: {self.full_of_actions()}")
        return lines

    def full_of_actions(self) -> str:
        """Return why the threshold is so high, and what to do."""
        return (
            f"the footage has {count_of(self.at_enter, 'happening')} that the model takes for actions; are actions in it? take "
            "them out, or allow more alarms a day"
        )


@plain_dataclass(frozen=True, eq=False)
class Exceedances:
    """The windows of footage that may raise an alarm: answers other than background with a score of `enter` or more."""

    scores: NDArray[np.float64]
    """The scores (M,), 0-1."""
    actions: NDArray[np.int64]
    """The index of the action of each window (M,)."""
    times_s: NDArray[np.float64]
    """The times (M,) on one axis, on which videos lie farther apart than alarms may be to be one."""
    blocks: NDArray[np.int64]
    """The block of each window (M,)."""

    def of(self, action: int) -> Exceedances:
        """Return the windows of one action."""
        rows = self.actions == action
        return Exceedances(self.scores[rows], self.actions[rows], self.times_s[rows], self.blocks[rows])

    def num_alarms(self, gap_s: float) -> int:
        """Return the number of alarms if all these windows are above the threshold: those no farther apart than `gap_s` are one."""
        return int((np.diff(np.sort(self.times_s)) > gap_s).sum()) + bool(len(self.times_s))


def needed_hours(alarms_per_day: float) -> float:
    """Return the fewest hours of footage from which this rate can be promised: those of footage without a single alarm."""
    return HOURS_A_DAY / alarms_per_day


def check_rate(alarms_per_day: float) -> None:
    """Raise ConfigError if this is no number of alarms a day."""
    if not (alarms_per_day > 0 and math.isfinite(alarms_per_day)):
        raise ConfigError(f"alarms_per_day = {alarms_per_day:g}: needs a number above 0, such as 1")


def check_hours(alarms_per_day: float, hours: float) -> None:
    """Raise ConfigError if so few hours of footage cannot promise this rate. It says how many are needed."""
    check_rate(alarms_per_day)
    needed = needed_hours(alarms_per_day)
    if hours < needed * (1 - 1e-9):
        raise ConfigError(
            f"{_a_day(alarms_per_day)} cannot be promised from {hours:.3g} hours of footage: that needs {needed:.3g} hours, "
            f"even if nothing in them is like an action; give {needed - hours:.3g} more, or allow {_allowed(hours)} a day"
        )


def _a_day(alarms_per_day: float) -> str:
    return "1 alarm a day" if alarms_per_day == 1 else f"{alarms_per_day:g} alarms a day"


def _allowed(hours: float) -> str:
    """Return the lowest rate that so many hours can promise, rounded up to three digits."""
    rate = HOURS_A_DAY / hours
    unit = 10.0 ** (math.floor(math.log10(rate)) - 2)
    return f"{math.ceil(rate / unit) * unit:.3g}"


def num_blocks_of(hours: float) -> int:
    """Return the number of equal blocks for footage of so many hours."""
    return max(LEAST_BLOCKS, round(hours / BLOCK_HOURS))


def choose_threshold(
    found: Exceedances, *, hours: float, num_blocks: int, alarms_per_day: float, gap_s: float, lowest: float
) -> AlarmThreshold:
    """Return the lowest threshold that keeps the rate, and so does every higher one. Raises ConfigError for too few hours.

    Args:
        found: The windows of the footage that may raise an alarm.
        hours: The hours of the footage.
        num_blocks: The number of equal blocks that it was divided into.
        alarms_per_day: The rate.
        gap_s: Windows above the threshold that lie no farther apart are one alarm.
        lowest: The lowest threshold.
    """
    check_hours(alarms_per_day, hours)
    allowed = alarms_per_day * hours / HOURS_A_DAY * (1 + 1e-9)
    levels = [np.arange(num_blocks)]
    if (num_days := round(hours / HOURS_A_DAY)) >= LEAST_DAYS:
        levels.append(np.arange(num_blocks) * num_days // num_blocks)
    steps = _steps(found, levels, gap_s, lowest, allowed + LOOK_AHEAD)
    kept = None
    for number, step in enumerate(steps):
        ahead = next((later for later in steps[number:] if later.counted >= step.counted + LOOK_AHEAD), steps[-1])
        if step.counted + ahead.clumping > allowed:
            break
        kept = step, ahead.clumping
    if kept is None:
        clumping = next((step for step in steps if step.counted >= LOOK_AHEAD), steps[-1]).clumping
        raise ConfigError(
            f"{_a_day(alarms_per_day)} cannot be promised from {hours:.3g} hours of footage: its alarms come in clumps of "
            f"about {clumping:.2g}, so that needs {clumping * needed_hours(alarms_per_day):.3g} hours; give more, or raise the gap "
            "up to which alarms are one"
        )
    step, clumping = kept
    counted = step.counted + clumping
    a_day = HOURS_A_DAY / hours
    return AlarmThreshold(
        threshold=step.threshold,
        alarms=step.alarms,
        clumping=clumping,
        promised=counted * a_day,
        most_per_day=clumping * gamma_quantile(CONFIDENCE, counted / clumping) * a_day,
    )


@plain_dataclass(frozen=True)
class _Step:
    """A threshold, the alarms above it, the most in each block above any threshold as high (added up), and their clumping."""

    threshold: float
    alarms: int
    counted: int
    clumping: float


def _steps(
    found: Exceedances, levels: Sequence[NDArray[np.int64]], gap_s: float, lowest: float, most: float
) -> list[_Step]:
    """Return the thresholds from the highest down to the one that more than `most` alarms are above, or to the lowest.

    Args:
        found: The windows that may raise an alarm.
        levels: For each length of blocks that is looked at, the block (N,) in which each of the N shortest blocks lies.
        gap_s: Windows that lie no farther apart are one alarm.
        lowest: The lowest threshold.
        most: The alarms after which it ends.
    """
    blocks = [_Alarms(gap_s) for _ in levels[0]]
    # For each block the most alarms above any threshold so far. Alarms grow together where a threshold falls; this never falls.
    most_N = np.zeros(len(blocks))
    usual = [_usual_dispersion(int(level_N[-1]) + 1) for level_N in levels]
    order = np.argsort(-found.scores, kind="stable")
    scores = found.scores[order].tolist()
    rows = list(zip(found.times_s[order].tolist(), found.blocks[order].tolist(), strict=True))
    steps = [_Step(scores[0] if scores else lowest, 0, 0, 1.0)]
    start = 0
    while start < len(scores) and steps[-1].counted <= most:
        end = start
        while end < len(scores) and scores[end] == scores[start]:
            time_s, block = rows[end]
            most_N[block] = max(most_N[block], blocks[block].add(time_s))
            end += 1
        clumping = [dispersion(np.bincount(level_N, most_N).astype(np.float64)) for level_N in levels]
        steps.append(
            _Step(
                scores[end] if end < len(scores) else lowest,
                sum(block.count for block in blocks),
                int(most_N.sum()),
                max([1.0, *(found for found, by_chance in zip(clumping, usual, strict=True) if found > by_chance)]),
            )
        )
        start = end
    return steps


def _usual_dispersion(num_blocks: int) -> float:
    """Return the dispersion that independent events in so many blocks exceed in one case of 20 (chi-squared)."""
    return 2 * gamma_quantile(CONFIDENCE, (num_blocks - 1) / 2) / (num_blocks - 1)


class _Alarms:
    """The alarms of the windows above a threshold that falls: `add` takes one more window, in any order of time."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._times_s: list[float] = []
        self.count = 0

    def add(self, time_s: float) -> int:
        """Add a window, and return the number of alarms."""
        times_s, gap_s = self._times_s, self._gap_s
        place = bisect_left(times_s, time_s)
        before = place > 0 and time_s - times_s[place - 1] <= gap_s
        after = place < len(times_s) and times_s[place] - time_s <= gap_s
        were_one = before and after and times_s[place] - times_s[place - 1] <= gap_s
        self.count += 1 - before - after + were_one
        times_s.insert(place, time_s)
        return self.count


def dispersion(counts_N: NDArray[np.float64]) -> float:
    """Return the variance of counts (N,) over their mean, 1 if that is less: about 1 if events come independently."""
    mean = float(counts_N.mean())
    return max(1.0, float(counts_N.var(ddof=1)) / mean) if mean and len(counts_N) > 1 else 1.0


def gamma_quantile(share: float, shape: float) -> float:
    """Return the value below which a gamma variable of this shape and scale 1 lies with this probability.

    For a shape of n + 1 it is the upper limit of the mean of a Poisson variable of which n were seen.
    """
    low, high = 0.0, shape + 12 * math.sqrt(shape) + 24
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _gamma_share(shape, middle) < share else (low, middle)
    return high


def _gamma_share(shape: float, value: float) -> float:
    """Return the probability of a gamma variable to lie below a value: the series of the incomplete gamma function."""
    if value <= 0:
        return 0.0
    term = math.exp(shape * math.log(value) - value - math.lgamma(shape + 1))
    total, number = term, 0
    while term > 1e-17 * total or number < value:
        number += 1
        term *= value / (shape + number)
        total += term
    return min(1.0, total)


def negative_binomial_quantile(share: float, shape: float, chance: float) -> int:
    """Return the least count that a negative binomial variable exceeds with probability 1 - `share` at most.

    It is the number of new alarms until `shape` old ones have come, if each alarm is an old one with this `chance`.
    """
    mean = shape * (1 - chance) / chance
    most = int(mean + 20 * math.sqrt(mean / chance) + 50 / chance)
    number_N = np.arange(most)
    steps_N = np.log(shape + number_N) - np.log(number_N + 1) + math.log1p(-chance)
    logs_N = shape * math.log(chance) + np.concatenate([[0.0], np.cumsum(steps_N)])
    return min(most, int(np.searchsorted(np.cumsum(np.exp(logs_N)), share)))
