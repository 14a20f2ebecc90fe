"""The search wing: an index of windows of many videos in LanceDB, and searches in it. It needs the extra `search`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.search.index import Index as Index

__getattr__, __dir__ = lazy("fewframes.search", {"Index": "index"})
