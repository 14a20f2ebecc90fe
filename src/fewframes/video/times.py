"""Check and move timestamps: plain numbers, in seconds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence


def checked_range(duration_s: float, start_s: float, end_s: float | None) -> tuple[float, float]:
    """Return a range in seconds with its end cut to that of the video.

    Args:
        duration_s: the length of the video.
        start_s: the start of the range.
        end_s: the end of the range; None is the end of the video.

    Raises:
        ValueError: if nothing is left of the range.
    """
    end_s = duration_s if end_s is None else min(end_s, duration_s)
    if not 0 <= start_s < end_s:
        raise ValueError(
            f"nothing to look at between {start_s:g} s and {end_s:g} s: needs 0 <= start < end, "
            f"and the video is {duration_s:.3f} s long"
        )
    return start_s, end_s


def cheapest_times(
    times_s: Sequence[float], key_times_s: Sequence[float], tolerance_s: float, *, worth_s: float = 0.0
) -> list[float]:
    """Return ascending timestamps, each moved to where the least must be decoded for its frame.

    A timestamp moves to the nearest key frame. If no key frame is near enough, and no later timestamp needs the pictures before
    this one, it moves to the earliest time allowed, because decoding begins at the key frame before it.

    Args:
        times_s: the timestamps, in seconds, ascending.
        key_times_s: when key frames are shown, ascending.
        tolerance_s: the largest move, in seconds.
        worth_s: the least move to an earlier time that is worth it.
    """
    moved_s = []
    for index, time_s in enumerate(times_s):
        near = bisect_left(key_times_s, time_s)
        keys_s = [key_s for key_s in key_times_s[max(0, near - 1) : near + 1] if abs(key_s - time_s) <= tolerance_s]
        following_s = times_s[index + 1] if index + 1 < len(times_s) else math.inf
        next_key_s = key_times_s[near] if near < len(key_times_s) else math.inf
        if keys_s:
            moved_s.append(min(keys_s, key=lambda key_s: abs(key_s - time_s)))
        elif tolerance_s >= worth_s and next_key_s <= following_s:
            moved_s.append(max(0.0, time_s - tolerance_s))
        else:
            moved_s.append(time_s)
    return moved_s
