"""The rank of a process among several that share the work on many videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProcessRank:
    """The number of a process among the `num_processes` that share the work on many videos."""

    rank: int = 0
    num_processes: int = 1

    def indices(self, num_videos: int) -> range:
        """Return the indices of the videos that this process works on: every `num_processes`-th, from its rank on."""
        return range(self.rank, num_videos, self.num_processes)

    def gather(self, items: list[Item]) -> list[Item]:
        """Return the items of all processes, in order of their ranks. Every process has to call it, and each gets them all."""
        if self.num_processes == 1:
            return items
        from accelerate.utils import gather_object  # late: it is not always installed

        gathered: list[Item] = gather_object(items)
        return gathered


ONLY_PROCESS = ProcessRank()
"""The rank of a process that does all of the work itself."""
