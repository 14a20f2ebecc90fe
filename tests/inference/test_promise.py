"""Promised rates of alarms: bounds equal to closed forms, thresholds by hand, and promises that simulations keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fewframes.errors import ConfigError
from fewframes.inference.promise import (
    AlarmPromise,
    AlarmThreshold,
    Exceedances,
    check_hours,
    choose_threshold,
    dispersion,
    gamma_quantile,
    negative_binomial_quantile,
    num_blocks_of,
)


def peaks(
    scores: list[float] | NDArray[np.float64],
    times_s: list[float] | NDArray[np.float64],
    *,
    hours: float = 24.0,
    num_blocks: int = 24,
) -> Exceedances:
    times = np.asarray(times_s, np.float64)
    blocks = (times / (3600 * hours) * num_blocks).astype(np.int64)
    return Exceedances(np.asarray(scores, np.float64), np.zeros(len(times), np.int64), times, blocks)


def chosen(found: Exceedances, alarms_per_day: float, *, hours: float = 24.0, num_blocks: int = 24) -> AlarmThreshold:
    return choose_threshold(
        found, hours=hours, num_blocks=num_blocks, alarms_per_day=alarms_per_day, gap_s=30.0, lowest=0.5
    )


def test_the_upper_bound_is_that_of_the_closed_form() -> None:
    assert gamma_quantile(0.95, 1) == pytest.approx(-math.log(0.05), rel=1e-12)  # none seen: the rule of three
    two = gamma_quantile(0.95, 2)  # one seen
    assert math.exp(-two) * (1 + two) == pytest.approx(0.05, rel=1e-9)
    for shape in (0.3, 5.5, 41.0, 3000.0):
        for share in (0.025, 0.5, 0.975):
            assert gamma_quantile(share, shape) == pytest.approx(stats.gamma.ppf(share, shape), rel=1e-8)
    for count in (0, 3, 60):  # the bound of Garwood for a Poisson mean
        assert gamma_quantile(0.95, count + 1) == pytest.approx(stats.chi2.ppf(0.95, 2 * (count + 1)) / 2, rel=1e-9)


def test_the_interval_of_new_counts_is_that_of_the_closed_form() -> None:
    for chance in (0.1, 0.5, 0.9):  # of shape 1: a geometric variable
        by_hand = max(0, math.ceil(math.log(0.025) / math.log(1 - chance)) - 1)
        assert negative_binomial_quantile(0.975, 1, chance) == by_hand
    for shape, chance in ((3, 0.9), (20.5, 0.3), (2000, 0.5), (1, 0.999)):
        for share in (0.025, 0.975):
            assert negative_binomial_quantile(share, shape, chance) == stats.nbinom.ppf(share, shape, chance)


def test_thresholds_by_hand() -> None:
    found = peaks([0.9, 0.8, 0.7, 0.6], [3600, 20_000, 40_000, 60_000])
    one = chosen(found, 1)
    assert (one.threshold, one.alarms, one.promised) == (0.9, 0, 1.0)
    assert one.most_per_day == pytest.approx(-math.log(0.05))
    three = chosen(found, 3)
    assert (three.threshold, three.alarms, three.promised) == (0.7, 2, 3.0)
    assert chosen(found, 3.9) == three
    lenient = chosen(found, 5)
    assert (lenient.threshold, lenient.alarms, lenient.promised) == (0.5, 4, 5.0)  # `lowest`: no score is left
    nothing = chosen(peaks([], []), 2)
    assert (nothing.threshold, nothing.alarms, nothing.promised) == (0.5, 0, 1.0)


def test_windows_of_one_happening_are_one_alarm() -> None:
    found = peaks([0.9, 0.95, 0.8, 0.9], [3600, 3610, 3635, 40_000])
    two = chosen(found, 3)
    assert (two.threshold, two.alarms) == (0.5, 2)  # 3600, 3610 and 3635 s are one, 30 s apart at most


def test_a_happening_that_falls_into_two_at_a_higher_threshold_counts_twice() -> None:
    found = peaks([0.9, 0.9, 0.8], [3600, 3650, 3625])
    assert chosen(found, 2).alarms == 0  # 50 s apart they are two alarms, of which a third would be one too many
    assert chosen(found, 2).threshold == 0.9


def test_alarms_of_one_block_count_as_dependent() -> None:
    apart = chosen(peaks([0.9, 0.8, 0.7], [1000, 8000, 40_000]), 4)
    clumped = chosen(peaks([0.9, 0.8, 0.7], [1000, 2000, 3000]), 4)
    assert (apart.alarms, apart.clumping) == (3, 1.0)
    # Three of one hour: as if three more came with the next one. 1 + 3 are allowed, 2 + 3 are not.
    assert (clumped.alarms, clumped.threshold) == (1, 0.8)
    assert clumped.clumping == pytest.approx(3.0)
    assert clumped.promised == pytest.approx(4.0)
    assert clumped.most_per_day == pytest.approx(3 * stats.gamma.ppf(0.95, 4 / 3))
    assert clumped.new_alarms(24, 24) == (0, 3 * stats.nbinom.ppf(0.975, 4 / 3, 0.5))
    with pytest.raises(ConfigError, match="its alarms come in clumps of about 3, so that needs 36 hours"):
        chosen(peaks([0.9, 0.8, 0.7], [1000, 2000, 3000]), 2)


def test_dispersion_of_counts() -> None:
    counts_N = np.array([0.0, 4.0, 1.0, 3.0])
    assert dispersion(counts_N) == pytest.approx(counts_N.var(ddof=1) / 2)
    assert dispersion(np.array([1.0, 1.0, 1.0])) == 1.0  # more even than by chance
    assert dispersion(np.zeros(3)) == 1.0


def test_equal_scores_are_above_a_threshold_together() -> None:
    found = peaks([1.0, 1.0, 1.0, 0.6], [1000, 20_000, 40_000, 60_000])
    full = chosen(found, 2)
    assert (full.threshold, full.alarms) == (1.0, 0)  # nothing lies above it


@pytest.mark.parametrize(
    ("rate", "hours", "words"),
    [
        (1, 2, "that needs 24 hours, even if nothing in them is like an action; give 22 more, or allow 12 a day"),
        (0.5, 30, "needs 48 hours, even if nothing in them is like an action; give 18 more, or allow 0.8 a day"),
        (0, 2, "alarms_per_day = 0: needs a number above 0"),
        (-1, 2, "alarms_per_day = -1: needs a number above 0"),
        (math.nan, 2, "alarms_per_day = nan: needs a number above 0"),
    ],
)
def test_too_few_hours_are_refused_with_the_hours_that_are_needed(rate: float, hours: float, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        check_hours(rate, hours)
    with pytest.raises(ConfigError):
        chosen(peaks([], []), rate, hours=hours)


def test_the_rate_that_a_refusal_allows_is_allowed() -> None:
    for hours in (0.1234, 1.7, 5.55, 23.999, 30.1):
        with pytest.raises(ConfigError) as refused:
            check_hours(0.01, hours)
        check_hours(float(str(refused.value).split("allow ")[1].split()[0]), hours)


def simulated(seed: int, *, hours: float, new_hours: float, asked: float, size: int) -> tuple[float, float]:
    """The mean of the alarms a day in new footage, and the fraction of new footage with a count in the promise's interval.

    Happenings come in clumps of this size within a minute, ten clumps an hour.
    """
    draw = np.random.default_rng(seed)
    realised, inside, num_refused = [], [], 0
    for _ in range(400):
        scores: list[NDArray[np.float64]] = []
        times_s: list[NDArray[np.float64]] = []
        for length in (hours, new_hours):
            count = draw.poisson(10 * length)
            starts_s = np.repeat(draw.uniform(0, 3600 * length - 200, count), size)
            times_s.append(
                starts_s + np.tile(40 * np.arange(size), count)
            )  # farther apart than the gap: alarms of their own
            scores.append(np.repeat(draw.uniform(0.5, 1, count), size))
        num_blocks = num_blocks_of(hours)
        found = peaks(scores[0], times_s[0], hours=hours, num_blocks=num_blocks)
        try:
            promise = chosen(found, asked, hours=hours, num_blocks=num_blocks)
        except ConfigError:  # happenings that came in clumps by chance
            num_refused += 1
            continue
        above_s = np.sort(times_s[1][scores[1] > promise.threshold])
        alarms = int((np.diff(above_s) > 30).sum()) + bool(len(above_s))
        low, high = promise.new_alarms(hours, new_hours)
        realised.append(alarms * 24 / new_hours)
        inside.append(low <= alarms <= high)
    assert num_refused < 40
    return float(np.mean(realised)), float(np.mean(inside))


@pytest.mark.parametrize(("hours", "new_hours", "asked"), [(24.0, 24.0, 1.0), (48.0, 24.0, 2.0), (30.0, 100.0, 10.0)])
def test_a_promise_is_kept_in_the_mean_and_in_its_interval(hours: float, new_hours: float, asked: float) -> None:
    mean, inside = simulated(1, hours=hours, new_hours=new_hours, asked=asked, size=1)
    error = 3 * asked / math.sqrt(400) * math.sqrt(2)  # three standard errors of 400 draws
    assert asked - 0.35 * asked - error < mean < asked + error
    assert inside > 0.94


def test_a_promise_is_kept_where_happenings_come_in_clumps() -> None:
    mean, inside = simulated(2, hours=48.0, new_hours=48.0, asked=10.0, size=3)
    assert 5 < mean < 11
    assert inside > 0.93


def promise_of(threshold: float, at_enter: int = 3) -> AlarmPromise:
    found = AlarmThreshold(threshold=threshold, alarms=0, clumping=1.0, promised=1.0, most_per_day=3.0)
    return AlarmPromise(
        alarms_per_day=1.0, hours=24.0, num_blocks=24, num_videos=2, window_s=3.2, every_s=None, smooth_s=1.0, enter=0.5,
        alarm_gap_s=30.0, at_enter=at_enter, overall=found, actions={"wave": found},
    )  # fmt: skip


def test_a_promise_is_read_back_and_damage_is_named() -> None:
    promise = promise_of(0.9)
    assert AlarmPromise.from_dict(promise.to_dict(), "model") == promise
    with pytest.raises(ConfigError, match=r"model: unknown setting 'hour'"):
        AlarmPromise.from_dict({**promise.to_dict(), "hour": 1}, "model")
    with pytest.raises(ConfigError, match=r"model: hours = 'many'"):
        AlarmPromise.from_dict({**promise.to_dict(), "hours": "many"}, "model")


def test_words_say_what_is_promised_and_what_it_rests_on() -> None:
    lines = promise_of(0.9).lines()
    assert lines[0] == (
        "alarms: at most 1 a day in the mean, for scores above 0.9000; with 95 % confidence at most 3 a day"
    )
    assert "24 hours of uneventful footage in 24 blocks: 0 alarms above that score, 3 from 0.5 on" in lines[1]
    assert "few actions would be reported: the footage has 3 happenings" in promise_of(0.9995).lines()[-1]
    assert "nothing would ever be reported" in promise_of(1.0).lines()[-1]
