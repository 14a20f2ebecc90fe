"""Tell what has changed since a reader asked last, so that little is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Values = dict[str, Any]
MOST_GONE = 1000
"""The most entries that are remembered as gone. A reader that was away for longer gets everything."""


class ChangeLog:
    """Entries by their keys, each with the number of the change that it came with. The caller holds a lock."""

    def __init__(self) -> None:
        self.number = 0
        """The number of the last change."""
        self._entries: dict[str, tuple[int, Values]] = {}
        self._gone: dict[str, int] = {}
        self._oldest = 0

    def update(self, entries: Mapping[str, Values]) -> None:
        """Take in all entries as they are now. Those that are new, that differ, or that are gone, are one change."""
        number = self.number + 1
        changed = {key: values for key, values in entries.items() if self._entries.get(key, (0, None))[1] != values}
        gone = self._entries.keys() - entries.keys()
        if not changed and not gone:
            return
        self.number = number
        self._entries = {
            key: (number, values) if key in changed else self._entries[key] for key, values in entries.items()
        }
        self._gone = {key: since for key, since in self._gone.items() if key not in entries} | dict.fromkeys(
            gone, number
        )
        while len(self._gone) > MOST_GONE:
            self._oldest = self._gone.pop(next(iter(self._gone)))

    def since(self, number: int) -> tuple[list[Values], list[str], bool]:
        """Return the entries that have changed after a change, the keys of those that are gone, and whether these are all entries.

        Args:
            number: The number of the last change that the reader knows; 0 for none.
        """
        is_whole = not self._oldest <= number <= self.number or number == 0
        changed = [values for since, values in self._entries.values() if is_whole or since > number]
        return changed, [] if is_whole else [key for key, since in self._gone.items() if since > number], is_whole
