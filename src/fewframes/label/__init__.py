"""The label wing: teach actions by marking spans of videos, with a read-out that is solved anew after every change. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.label.session import Session as Session

__getattr__, __dir__ = lazy("fewframes.label", {"Session": "session"})
