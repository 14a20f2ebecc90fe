"""Names of pictures in the order in which they were numbered. Names alone: no files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import PurePath

NUMBER = re.compile(r"(\d+)")
DECIMAL = re.compile(r"(\d+(?:\.\d+)?)")
FRACTION = re.compile(r"\d\.(\d+)")


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return the names with their numbers ascending by value, so that `frame_2` stands before `frame_10`.

    `1.5` is one number where the names are seconds as programs write them (0.04, 0.2); else it is a 1 and a 5, as in `cam1.5`.
    """
    names = sorted(names)  # what is equal in all other respects has one order too
    number = DECIMAL if _are_seconds(names) else NUMBER
    return sorted(names, key=lambda name: _key(name, number))


def repeated_numbers(names: Iterable[str]) -> list[str]:
    """Return all names that share their numbers with another one, such as `left_7.png` and `right_7.png`, in natural order;
    none where there is one number alone, or none: letters then tell the pictures apart."""
    names = list(names)
    numbers = {name: tuple(int(digits) for digits in NUMBER.findall(PurePath(name).stem)) for name in names}
    counted = Counter(found for found in numbers.values() if found)
    if len(counted) < 2:
        return []
    return sorted((name for name in names if counted[numbers[name]] > 1), key=lambda name: (numbers[name], name))


def equal_groups(names: Iterable[str]) -> int:
    """Return how many groups of names have the same last numbers, at least two, where that is all groups that the numbers before
    the last one make (`cam1_1`, `cam1_2`, `cam2_1`, `cam2_2`: two); else 0."""
    groups: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for name in names:
        *before, last = [int(digits) for digits in NUMBER.findall(PurePath(name).stem)] or [0]
        groups[tuple(before)].add(last)
    first, *others = groups.values()
    return len(groups) if others and len(first) > 1 and all(other == first for other in others) else 0


def _key(name: str, number: re.Pattern[str]) -> list[tuple[Fraction, str]]:
    """Text and numbers by turns; the ending, which says nothing about order, at last."""
    path = PurePath(name)
    parts = number.split(path.stem.casefold())
    return [(Fraction(part), "") if place % 2 else (Fraction(-1), part) for place, part in enumerate(parts)] + [
        (Fraction(-2), path.suffix)
    ]


def _are_seconds(names: list[str]) -> bool:
    """Digits after a point, of several lengths, with a leading zero and no trailing one: counters have neither, or no zeros."""
    digits = [found for name in names for found in FRACTION.findall(PurePath(name).stem)]
    several = [one for one in digits if len(one) > 1]
    return (
        len({len(one) for one in digits}) > 1
        and any(one.startswith("0") for one in several)
        and not any(one.endswith("0") for one in several)
    )
