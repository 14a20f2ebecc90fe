"""An event: one happening of one label in one zone of one source."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["started", "ended", "withdrawn"]
STATES: tuple[State, ...] = ("started", "ended", "withdrawn")


def new_id() -> str:
    """Return an id that no other event has: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def iso(at: datetime) -> str:
    """Return a time with a time zone as ISO 8601 in UTC, with milliseconds: `2026-11-29T15:28:00.250Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event. It is told twice, when it has started and when it has ended, with the same id.

    A model's detector may find later that it was none: then it is told as withdrawn in place of ended.
    """

    id: str
    """32 hexadecimal digits. They stay the same when the event is delivered again."""
    source: str
    """The name of the source."""
    label: str
    """The action, or the name of the sequence of actions."""
    confidence: float
    """The highest smoothed score (0-1) so far."""
    start_s: float
    """The beginning, in seconds on the stream's clock."""
    started_at: str
    """The beginning by the clock of this machine: ISO 8601 in UTC."""
    end_s: float | None = None
    """The end, in seconds on the stream's clock; None while the event goes on."""
    ended_at: str | None = None
    """The end by the clock of this machine; None while the event goes on."""
    zone: str = ""
    """The name of the zone; empty for the whole picture."""
    track: str = ""
    """The id of the person or thing that is followed; empty if none is."""
    model: str = ""
    """The name of the model; empty if only one answers."""
    picture: str = ""
    """The path of a picture; empty if there is none."""
    clip: str = ""
    """The path of a clip; empty if there is none, or not yet."""
    detected: bool = False
    """True if the model's detector says where it begins and ends; False if these are the ends of windows."""
    withdrawn: bool = False
    """True if it was told as started and was none after all."""

    @property
    def state(self) -> State:
        """Return `started` while the event goes on, then `ended`; `withdrawn` if it was none after all."""
        if self.withdrawn:
            return "withdrawn"
        return "started" if self.end_s is None else "ended"

    @property
    def key(self) -> str:
        """Return the id and the state. A message that is sent again has the same key."""
        return f"{self.id}-{self.state}"

    @property
    def duration_s(self) -> float | None:
        """Return the seconds from the beginning to the end; None while the event goes on."""
        return None if self.end_s is None else self.end_s - self.start_s

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as they are written to JSON lines and sent to other systems."""
        return {
            "id": self.id,
            "state": self.state,
            "source": self.source,
            "zone": self.zone,
            "track": self.track,
            "label": self.label,
            "confidence": round(self.confidence, 6),
            "start_s": round(self.start_s, 3),
            "end_s": None if self.end_s is None else round(self.end_s, 3),
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "picture": self.picture,
            "clip": self.clip,
            "model": self.model,
            "detected": self.detected,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Event:
        """Return the event that `to_dict` made these values of. Raises KeyError for one that is missing."""
        given = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name != "withdrawn"}
        return cls(**given, withdrawn=values["state"] == "withdrawn")
