"""The order of numbered pictures, from their names alone. No file is opened."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import PurePath

NUMBER = re.compile(r"(\d+)")
"""A whole number in a name."""
DECIMAL = re.compile(r"(\d+(?:\.\d+)?)")
"""A number in a name, with its decimals if it has any."""
FRACTION = re.compile(r"\d\.(\d+)")
"""The digits after a decimal point."""


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return the names sorted by the values of their numbers, so that `frame_2` comes before `frame_10`.

    `1.5` is one number if the names are seconds as programs write them (0.04, 0.2). Otherwise it is a 1 and a 5, as in `cam1.5`.
    """
    names = sorted(names)  # so that names with equal keys have a fixed order too
    number = DECIMAL if _are_seconds(names) else NUMBER
    return sorted(names, key=lambda name: _key(name, number))


def repeated_numbers(names: Iterable[str]) -> list[str]:
    """Return all names that have their numbers in common with another name, such as `left_7.png` and `right_7.png`.

    They are in natural order. If all names have the same numbers, or none has any, the list is empty: then their letters tell the
    pictures apart.
    """
    names = list(names)
    numbers = {name: tuple(int(digits) for digits in NUMBER.findall(PurePath(name).stem)) for name in names}
    counts = Counter(found for found in numbers.values() if found)
    if len(counts) < 2:
        return []
    return sorted((name for name in names if counts[numbers[name]] > 1), key=lambda name: (numbers[name], name))


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


def _are_seconds(names: list[str]) -> bool:
    """Return True if the names hold seconds with decimals, as programs write them, and not counters after a point.

    The decimals of seconds have several lengths, some begin with a zero, and none ends with one. Counters either have a fixed
    length, or no leading zeros.
    """
    digits = [found for name in names for found in FRACTION.findall(PurePath(name).stem)]
    longer = [decimals for decimals in digits if len(decimals) > 1]
    return (
        len({len(decimals) for decimals in digits}) > 1
        and any(decimals.startswith("0") for decimals in longer)
        and not any(decimals.endswith("0") for decimals in longer)
    )
