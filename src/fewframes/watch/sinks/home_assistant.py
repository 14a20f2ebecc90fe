"""Describe the sensors of a watch as Home Assistant's discovery over MQTT has them."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from fewframes.core.version import __version__

ORIGIN = {"name": "fewframes", "sw_version": __version__}


class Sensor(NamedTuple):
    """A sensor that is on while an event of a label goes on in a zone of a source."""

    source: str
    zone: str
    label: str
    model: str

    @property
    def id(self) -> str:
        """Return the id, in which only letters, digits and underscores are."""
        return "_".join(topic_part(text) for text in (self.source, self.zone, self.label, self.model) if text)

    def topic(self, prefix: str) -> str:
        """Return the topic under which its state and attributes are."""
        parts = [self.source, self.zone or "picture", self.label, *([self.model] if self.model else [])]
        return "/".join([prefix, *map(topic_part, parts)])


def topic_part(text: str) -> str:
    """Return a text as a part of a topic: lower-case letters, digits and underscores.

    Where more than blanks became underscores, eight digits follow that no other text has.
    """
    slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    if slug.replace("_", " ") == text or slug == text:
        return slug
    return f"{slug}_{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}".lstrip("_")


def sensor_config(sensor: Sensor, prefix: str, availability: str) -> tuple[str, dict[str, object]]:
    """Return the topic (below that of discovery) and the content of the announcement of a sensor.

    Args:
        sensor: The sensor.
        prefix: The first part of the topics of this process.
        availability: The topic that says whether this process is there.
    """
    topic, place = sensor.topic(prefix), ", ".join(part for part in (sensor.source, sensor.zone, sensor.model) if part)
    return f"binary_sensor/{prefix}/{sensor.id}/config", {
        "name": f"{sensor.label} ({place})",
        "unique_id": f"{prefix}_{sensor.id}",
        "state_topic": f"{topic}/state",
        "json_attributes_topic": f"{topic}/attributes",
        **_common(prefix, availability),
    }


def last_event_config(prefix: str, availability: str) -> tuple[str, dict[str, object]]:
    """Return the topic and the content of the announcement of the sensor with the label of the last event."""
    return f"sensor/{prefix}/last_event/config", {
        "name": "Last event",
        "unique_id": f"{prefix}_last_event",
        "state_topic": f"{prefix}/last",
        "value_template": "{{ value_json.label }}",
        "json_attributes_topic": f"{prefix}/last",
        **_common(prefix, availability),
    }


def _common(prefix: str, availability: str) -> dict[str, object]:
    return {
        "availability_topic": availability,
        "device": {"identifiers": [f"fewframes_{prefix}"], "name": prefix, "model": "fewframes"},
        "origin": ORIGIN,
    }
