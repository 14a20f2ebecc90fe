"""Hours of the day, by the clock of a time zone. A range may go over midnight: `22:00-06:00`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fewframes.errors import ConfigError

RANGE = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")
DAY_MINUTES = 24 * 60
Clock = Callable[[], datetime]
"""A function that returns the time now, with a time zone."""


@dataclass(frozen=True)
class Hours:
    """A range of the day, from one minute of the day up to another one, which may lie after midnight."""

    first_minute: int
    end_minute: int

    def hold(self, local: time) -> bool:
        """Return True if the range holds this time of the day."""
        minute = 60 * local.hour + local.minute
        if self.first_minute < self.end_minute:
            return self.first_minute <= minute < self.end_minute
        return minute >= self.first_minute or minute < self.end_minute


def hours_of(text: str) -> Hours:
    """Return the range that a text such as `22:00-06:00` stands for. Raises ConfigError if it is none."""
    found = RANGE.fullmatch(text)
    values = [int(digits) for digits in found.groups()] if found else []
    if not values or values[1] > 59 or values[3] > 59:
        raise ConfigError(f"hours {text!r}: needs two times of the day, such as 22:00-06:00")
    first, end = 60 * values[0] + values[1], 60 * values[2] + values[3]
    if first >= DAY_MINUTES or end > DAY_MINUTES or first == end:
        raise ConfigError(
            f"hours {text!r}: needs two different times from 00:00 to 24:00; leave hours out for all of the day"
        )
    return Hours(first, end)


def time_zone_of(name: str) -> tzinfo | None:
    """Return a time zone by its name, such as `Europe/Berlin`; None, the machine's own, for an empty name. Raises ConfigError."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # an unknown name, one that is a path, one of a folder
        raise ConfigError(
            f"time_zone {name!r}: not known on this machine; take a name such as Europe/Berlin or UTC, or leave it out for the "
            "machine's own (Windows needs: pip install tzdata)"
        ) from None


def is_within(at: datetime, hours: tuple[Hours, ...], zone: tzinfo | None) -> bool:
    """Return True if one of the ranges holds a time (with a time zone) by the clock of `zone`, or if there are no ranges."""
    local = at.astimezone(zone).time()
    return not hours or any(each.hold(local) for each in hours)


def utc_now() -> datetime:
    """Return the time by the clock of this machine."""
    return datetime.now(UTC)


class Schedule:
    """The hours of the day in which something is done, by a clock that is asked again and again."""

    def __init__(self, hours: Sequence[str], time_zone: str, now: Clock) -> None:
        """Prepare a schedule. Raises ConfigError for hours or a time zone that make no sense.

        Args:
            hours: Ranges as for `hours_of`; none is all of the day.
            time_zone: A name as for `time_zone_of`.
            now: The clock.
        """
        self._hours, self._zone, self._now = tuple(map(hours_of, hours)), time_zone_of(time_zone), now
        self.is_resting = False
        """True if the last answer of `rests` was True."""

    def rests(self) -> bool:
        """Return True outside of the hours."""
        self.is_resting = bool(self._hours) and not is_within(self._now(), self._hours, self._zone)
        return self.is_resting
