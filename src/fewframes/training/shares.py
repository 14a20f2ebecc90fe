"""Work on many videos, dealt out to the processes that train together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """What one of `num_processes` does: every so many-th video, from its own number on."""

    rank: int = 0
    num_processes: int = 1

    def of(self, num_videos: int) -> range:
        """Return the places of this process's videos."""
        return range(self.rank, num_videos, self.num_processes)

    def gathered(self, items: list[Item]) -> list[Item]:
        """Return the items of all processes, in each of them; every process has to call it."""
        if self.num_processes == 1:
            return items
        from accelerate.utils import gather_object  # late: it loads accelerate, and one process needs none

        found: list[Item] = gather_object(items)
        return found


ALONE = Share()
"""All of the work."""
