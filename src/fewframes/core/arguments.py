"""Arguments of Python callers, checked at the door: another type is a TypeError, a value out of range a ConfigError, which is a
ValueError too."""

from __future__ import annotations

import math
import operator
from typing import SupportsIndex

from fewframes.errors import ConfigError


def whole_number(name: str, value: SupportsIndex, low: int, high: int | None = None) -> int:
    """Return a whole number from `low` to `high`; numpy's are taken too, True and 4.0 are not."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} = {value!r}: needs a whole number")
    number = operator.index(value)
    if number < low or (high is not None and number > high):
        most = "" if high is None else f" and at most {high}"
        raise ConfigError(f"{name} = {number}: needs at least {low}{most}")
    return number


def real_number(
    name: str, value: float, *, low: float = -math.inf, above: float = -math.inf, high: float = math.inf
) -> float:
    """Return a finite number from `low`, or from above `above`, to `high`."""
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} = {value!r}: needs a number")
    number = float(value)
    if not math.isfinite(number) or not (low <= number <= high and number > above):
        limits = [f"from {low:g}"] * math.isfinite(low) + [f"above {above:g}"] * math.isfinite(above)
        limits += [f"up to {high:g}"] * math.isfinite(high)
        raise ConfigError(f"{name} = {number:g}: needs a finite number {' '.join(limits)}".rstrip())
    return number


def check_time_range(start_s: float, end_s: float | None, fps: float) -> None:
    """Raise TypeError or ConfigError where these are no seconds of a video and no frames a second."""
    real_number("start_s", start_s)
    if end_s is not None:
        real_number("end_s", end_s)
    real_number("fps", fps, above=0)
