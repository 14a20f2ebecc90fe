"""Moments of a video as plain numbers, in seconds: arithmetic that needs no torch."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence


def part_centres(start_s: float, end_s: float, num_parts: int) -> list[float]:
    """The centre of each of equal parts between two seconds, ascending: the paper's uniform sampling."""
    return [start_s + (part + 0.5) * ((end_s - start_s) / num_parts) for part in range(num_parts)]


def checked_range(duration_s: float, start_s: float, end_s: float | None) -> tuple[float, float]:
    """The range in seconds to look at, its end cut to the video's; ValueError when nothing is left of it."""
    end_s = duration_s if end_s is None else min(end_s, duration_s)
    if not 0 <= start_s < end_s:
        raise ValueError(
            f"nothing to look at between {start_s:g} s and {end_s:g} s: needs 0 <= start < end, "
            f"and the video is {duration_s:.3f} s long"
        )
    return start_s, end_s


def cheapest_times(
    times_s: Sequence[float], key_times_s: Sequence[float], slack_s: float, *, worth_s: float = 0.0
) -> list[float]:
    """Ascending moments, each moved by at most `slack_s` to where least has to be decoded for it: (T,) seconds.

    To the key frame nearest to it; where none is so near, and no later moment needs what lies before it, as early as it may:
    what is decoded for a moment begins with the key frame before it. Where that is less than `worth_s` earlier, it stays.
    """
    moved_s = []
    for place, time_s in enumerate(times_s):
        near = bisect_left(key_times_s, time_s)
        keys_s = [key_s for key_s in key_times_s[max(0, near - 1) : near + 1] if abs(key_s - time_s) <= slack_s]
        following_s = times_s[place + 1] if place + 1 < len(times_s) else math.inf
        next_key_s = key_times_s[near] if near < len(key_times_s) else math.inf
        if keys_s:
            moved_s.append(min(keys_s, key=lambda key_s: abs(key_s - time_s)))
        elif slack_s >= worth_s and next_key_s <= following_s:
            moved_s.append(max(0.0, time_s - slack_s))
        else:
            moved_s.append(time_s)
    return moved_s
