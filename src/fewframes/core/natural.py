"""The order of numbered pictures, from their names alone. No file is opened."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import PurePath

NUMBER = re.compile(r"(\d+)")
"""A whole number in a name."""
DECIMAL = re.compile(r"(\d+(?:\.\d+)?)")
"""A number in a name, with its decimals if it has any."""
FRACTION = re.compile(r"\d\.(\d+)")
"""The digits after a decimal point."""
FLOAT_DIGITS = 6
"""The number of digits after a point from which on they are a fraction. No counter of pictures in a folder goes from single digits
to a hundred thousand."""
MOST_COUNTED = 10
"""The largest step of a counter. Larger steps may be those of fractions (0.25, 0.5, 0.75)."""


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return the names sorted by the values of their numbers, so that `frame_2` comes before `frame_10`.

    `1.5` is one number if the names are seconds as programs write them (0.04, 0.2). Otherwise it is a 1 and a 5, as in `cam1.5`.
    """
    names = sorted(names)  # so that names with equal keys have a fixed order too
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
    """Return all names that have their numbers in common with another name, such as `left_7.png` and `right_7.png`.

    They are in natural order. If all names have the same numbers, or none has any, the list is empty: then their letters tell the
    pictures apart.
    """
    names = list(names)
    number = _number_in(names)
    numbers = {name: tuple(Fraction(digits) for digits in number.findall(PurePath(name).stem)) for name in names}
    counts = Counter(found for found in numbers.values() if found)
    if len(counts) < 2:
        return []
    return sorted((name for name in names if counts[numbers[name]] > 1), key=lambda name: (numbers[name], name))


def without_numbers(names: Iterable[str]) -> list[str]:
    """Return the names without a number, in natural order, where most have one."""
    names = list(names)
    found = [name for name in names if not NUMBER.search(PurePath(name).stem)]
    return in_natural_order(found) if 2 * len(found) < len(names) else []


def equal_groups(names: Iterable[str]) -> int:
    """Return the number of groups of names if all groups have the same last numbers, otherwise 0.

    A group is all names with the same numbers before the last one: `cam1_1`, `cam1_2`, `cam2_1`, `cam2_2` are two groups with
    the last numbers 1 and 2. There must be at least two groups, and at least two last numbers.
    """
    groups: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for name in names:
        *before, last = [int(digits) for digits in NUMBER.findall(PurePath(name).stem)] or [0]
        groups[tuple(before)].add(last)
    first, *others = groups.values()
    return len(groups) if others and len(first) > 1 and all(other == first for other in others) else 0


def _key(name: str, number: re.Pattern[str]) -> list[tuple[Fraction, str]]:
    """Return a sort key of text and numbers, interleaved. The file's ending comes last, because it says nothing about order."""
    path = PurePath(name)
    parts = number.split(path.stem.casefold())  # text at even indices, numbers at odd ones
    return [(Fraction(part), "") if index % 2 else (Fraction(-1), part) for index, part in enumerate(parts)] + [
        (Fraction(-2), path.suffix)
    ]


def _number_in(names: list[str]) -> re.Pattern[str]:
    """Return the pattern of a number in these names: with the digits after a point, or without.

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
