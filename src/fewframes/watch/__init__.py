"""The watch wing: what happens in a stream becomes events, and events are delivered to other systems.

It imports `inference` and `core`, and none of the wings above it. MQTT needs the extra `mqtt`, and metrics need `serve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.watch.event import Event as Event
    from fewframes.watch.settings import WatchSettings as WatchSettings
    from fewframes.watch.settings import read_watch as read_watch
    from fewframes.watch.settings import watch_of as watch_of
    from fewframes.watch.watch import Watch as Watch

__getattr__, __dir__ = lazy(
    "fewframes.watch",
    {"Event": "event", "Watch": "watch", "WatchSettings": "settings", "read_watch": "settings", "watch_of": "settings"},
)
