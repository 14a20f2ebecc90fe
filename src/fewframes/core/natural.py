"""Names of pictures in the order in which they were numbered. Names alone: no files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import PurePath

NUMBER = re.compile(r"(\d+)")
DECIMAL = re.compile(r"(\d+(?:\.\d+)?)")
FRACTION = re.compile(r"\d\.(\d+)")
FLOAT_DIGITS = 6
"""So many digits after a point are a fraction: no counter of a folder's pictures reaches a hundred thousand from single digits."""
MOST_COUNTED = 10
"""Counters go on by one, or leave some numbers out; steps beyond this may be those of fractions (0.25, 0.5, 0.75)."""


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return the names with their numbers ascending by value, so that `frame_2` stands before `frame_10`.

    `1.5` is one number where the names are seconds as programs write them (0.04, 0.2); else it is a 1 and a 5, as in `cam1.5`.
    """
    names = sorted(names)  # what is equal in all other respects has one order too
    number = _number_in(names)
    return sorted(names, key=lambda name: _key(name, number))


def unclear_order(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names, such as `0.25.png` and `0.5.png`, that stand one way round where the digits after a point are fractions and
    the other way round where they count, and nothing tells which they are; None where the order is clear."""
    names = sorted(names)
    digits = _after_points(names)
    if _number_in(names) == DECIMAL or any(_ends_with_zero(one) for one in digits):
        return None
    if all(after - before <= MOST_COUNTED for before, after in pairwise(sorted(int(one) for one in digits))):
        return None
    as_fractions, as_counters = (sorted(names, key=lambda name: _key(name, one)) for one in (DECIMAL, NUMBER))
    return next((pair for pair in zip(as_fractions, as_counters, strict=True) if pair[0] != pair[1]), None)


def repeated_numbers(names: Iterable[str]) -> list[str]:
    """Return all names that share their numbers with another one, such as `left_7.png` and `right_7.png`, in natural order;
    none where there is one number alone, or none: letters then tell the pictures apart."""
    names = list(names)
    number = _number_in(names)
    numbers = {name: tuple(Fraction(digits) for digits in number.findall(PurePath(name).stem)) for name in names}
    counted = Counter(found for found in numbers.values() if found)
    if len(counted) < 2:
        return []
    return sorted((name for name in names if counted[numbers[name]] > 1), key=lambda name: (numbers[name], name))


def without_numbers(names: Iterable[str]) -> list[str]:
    """Return the names without a number, in natural order, where most have one."""
    names = list(names)
    found = [name for name in names if not NUMBER.search(PurePath(name).stem)]
    return in_natural_order(found) if 2 * len(found) < len(names) else []


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


def _number_in(names: list[str]) -> re.Pattern[str]:
    """Return what a number is in these names: with the digits after a point, or without.

    Fractions as programs write them have several lengths, and none ends with a zero; some begin with one, or have more digits than
    a counter reaches."""
    digits = _after_points(names)
    if len({len(one) for one in digits}) < 2 or any(_ends_with_zero(one) for one in digits):
        return NUMBER
    are_fractions = any((len(one) > 1 and one.startswith("0")) or len(one) >= FLOAT_DIGITS for one in digits)
    return DECIMAL if are_fractions else NUMBER


def _after_points(names: list[str]) -> set[str]:
    return {found for name in names for found in FRACTION.findall(PurePath(name).stem)}


def _ends_with_zero(digits: str) -> bool:
    return len(digits) > 1 and digits.endswith("0")
