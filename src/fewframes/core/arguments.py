"""Checks of arguments from Python callers.

A wrong type raises TypeError. A value out of range raises ConfigError, which is a ValueError too.
"""

from __future__ import annotations

import math
import operator
from typing import SupportsIndex

from fewframes.errors import ConfigError


def whole_number(name: str, value: SupportsIndex, low: int, high: int | None = None) -> int:
    """Return `value` as an int if it is a whole number from `low` to `high`.

    Whole numbers of numpy are accepted; True and 4.0 are not.

    Args:
        name: the argument's name, for the error message.
        value: the argument's value.
        low: the smallest value that is allowed.
        high: the largest value that is allowed; None is no limit.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} = {value!r}: needs a whole number")
    number = operator.index(value)
    if number < low or (high is not None and number > high):
        at_most = "" if high is None else f" and at most {high}"
        raise ConfigError(f"{name} = {number}: needs at least {low}{at_most}")
    return number


def real_number(
    name: str, value: float, *, low: float = -math.inf, above: float = -math.inf, high: float = math.inf
) -> float:
    """Return `value` as a float if it is finite and within the limits.

    Args:
        name: the argument's name, for the error message.
        value: the argument's value.
        low: the smallest value that is allowed.
        above: a value that is itself too small.
        high: the largest value that is allowed.
    """
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} = {value!r}: needs a number")
    number = float(value)
    if not math.isfinite(number) or not (low <= number <= high and number > above):
        limits = [f"from {low:g}"] * math.isfinite(low) + [f"above {above:g}"] * math.isfinite(above)
        limits += [f"up to {high:g}"] * math.isfinite(high)
        raise ConfigError(f"{name} = {number:g}: needs a finite number {' '.join(limits)}".rstrip())
    return number


def check_time_range(start_s: float, end_s: float | None, fps: float) -> None:
    """Raise TypeError or ConfigError unless these are times of a video, in seconds, and a rate above 0, in frames a second."""
    real_number("start_s", start_s)
    if end_s is not None:
        real_number("end_s", end_s)
    real_number("fps", fps, above=0)
