"""Graphs of a model for other runtimes, and the running of such graphs.

Making them needs the extra `train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.export.exporter import export as export_model  # noqa: F401

__getattr__, __dir__ = lazy("fewframes.export", {"export_model": "exporter:export"})
