"""Hours are those of a clock on the wall, over midnight too, in any time zone."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from fewframes.core.hours import Schedule, hours_of, is_within, time_zone_of
from fewframes.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("08:00-17:30", ["08:00", "17:29"], ["07:59", "17:30", "00:00"]),
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "21:59", "12:00"]),
        ("18:00-24:00", ["18:00", "23:59"], ["00:00", "17:59"]),
    ],
)
def test_a_range_holds_its_first_minute_and_not_its_last(text: str, inside: list[str], outside: list[str]) -> None:
    hours = hours_of(text)
    assert all(hours.hold(time.fromisoformat(each)) for each in inside)
    assert not any(hours.hold(time.fromisoformat(each)) for each in outside)


@pytest.mark.parametrize("text", ["", "22-6", "25:00-06:00", "10:61-11:00", "10:00-10:00", "24:00-06:00", "night"])
def test_what_is_no_range_is_an_error_that_shows_one(text: str) -> None:
    with pytest.raises(ConfigError, match=r"hours '.*'.*(22:00-06:00|00:00 to 24:00)"):
        hours_of(text)


def test_hours_follow_summer_time_of_their_zone() -> None:
    night, berlin = (hours_of("22:00-06:00"),), time_zone_of("Europe/Berlin")
    assert is_within(datetime(2026, 7, 1, 20, 30, tzinfo=UTC), night, berlin)  # 22:30 in summer
    assert not is_within(datetime(2026, 12, 1, 20, 30, tzinfo=UTC), night, berlin)  # 21:30 in winter
    assert is_within(datetime(2026, 12, 1, 12, 0, tzinfo=UTC), (), berlin)


@pytest.mark.parametrize("name", ["Europe/Berlim", "/etc/passwd", "..", "Europe"])
def test_an_unknown_time_zone_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="time_zone"):
        time_zone_of(name)


@pytest.mark.parametrize(
    ("noon", "hours"),
    [
        (datetime(2026, 7, 1, 12, tzinfo=UTC), 8),
        (datetime(2026, 10, 24, 12, tzinfo=UTC), 9),  # the clock goes back in this night
        (datetime(2026, 3, 28, 12, tzinfo=UTC), 7),  # and forward in this one
    ],
)
def test_a_schedule_of_a_night_is_as_long_as_the_night(noon: datetime, hours: int) -> None:
    times = iter([noon + timedelta(minutes=15 * number) for number in range(96)])
    schedule = Schedule(["22:00-06:00"], "Europe/Berlin", lambda: next(times))
    found = [schedule.rests() for _ in range(96)]
    assert found.count(False) == 4 * hours
    first = found.index(False)
    assert not any(found[first : first + 4 * hours])  # one piece, over midnight
    assert schedule.is_resting


def test_a_schedule_without_hours_never_rests_and_asks_no_clock() -> None:
    def now() -> datetime:
        raise AssertionError

    assert not Schedule((), "", now).rests()
