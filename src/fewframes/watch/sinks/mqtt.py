"""Publish events to an MQTT broker, and announce them to Home Assistant. Needs paho-mqtt (the extra `mqtt`)."""

from __future__ import annotations

import os
import ssl
import threading
from typing import TYPE_CHECKING, Any

from fewframes.core.text import json_line
from fewframes.errors import ConfigError, needed
from fewframes.watch.event import STATES, Event
from fewframes.watch.settings import MqttSettings
from fewframes.watch.sinks.home_assistant import Sensor, last_event_config, sensor_config
from fewframes.watch.sinks.protocol import DeliveryError, secret_of
from fewframes.watch.sinks.webhook import split_url

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

PASSWORD = "FEWFRAMES_MQTT_PASSWORD"
"""The name of the environment variable with the password."""
PORTS = {"mqtt": 1883, "mqtts": 8883}
MOST_SECONDS_APART = 60
"""The most seconds between two attempts to connect."""
MOST_QUEUED = 1000
"""The most messages that paho holds. Events wait in the spool."""
AT_LEAST_ONCE = 1
"""The quality of service of all messages."""


class MqttSink:
    """A broker. It holds whether this process is there, and for each label of a zone whether an event goes on."""

    def __init__(self, settings: MqttSettings, name: str) -> None:
        """Begin to connect, and go on trying until `close`.

        Args:
            settings: The broker.
            name: The name of the sink.

        Raises:
            ConfigError: The address or a file is wrong.
            MissingDependency: paho-mqtt is not installed.
        """
        self.name, self.states, self._settings = name, STATES, settings
        parts = split_url(settings.url, ("mqtt", "mqtts"), "mqtt")
        if parts.password is not None:
            raise ConfigError(f"mqtt: put no password into the address; set {PASSWORD}, or name a password_file")
        self._where = f"{parts.hostname}:{parts.port or PORTS[parts.scheme]}"
        self._availability = f"{settings.name}/availability"
        self._lock = threading.Lock()
        self._sensors: dict[Sensor, set[str]] = {}
        """The ids of the events that go on, for each sensor."""
        self._why = "no connection yet"
        self._has_tried = threading.Event()
        """Set once the broker has answered, or cannot be reached."""
        mqtt = needed("paho.mqtt.client", "mqtt", "MQTT needs paho-mqtt")
        self._client: Client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if parts.username:
            self._client.username_pw_set(parts.username, secret_of(settings.password_file, PASSWORD) or None)
        if parts.scheme == "mqtts":
            self._client.tls_set_context(_trusting(settings.ca_file))
        self._client.will_set(self._availability, "offline", AT_LEAST_ONCE, retain=True)
        self._client.max_queued_messages_set(MOST_QUEUED)
        self._client.reconnect_delay_set(1, MOST_SECONDS_APART)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_connect_fail = self._unreachable
        self._client.connect_async(parts.hostname or "", parts.port or PORTS[parts.scheme])
        self._client.loop_start()

    def announce(self, source: str, zone: str, label: str, model: str) -> None:
        """Take note of a sensor, and announce it if the broker is there; else this happens with the connection."""
        sensor = Sensor(source, zone, label, model)
        with self._lock:
            if sensor in self._sensors:
                return
            self._sensors[sensor] = set()
        if self._client.is_connected():
            self._announce(sensor)

    def send(self, event: Event) -> None:
        """Publish an event, and what it changes of its sensor. Raises DeliveryError if the broker does not acknowledge it."""
        self._has_tried.wait(self._settings.timeout_s)
        if not self._client.is_connected():
            raise DeliveryError(f"{self._where}: {self._why}")
        sensor = Sensor(event.source, event.zone, event.label, event.model)
        self.announce(*sensor)
        with self._lock:
            going = self._sensors[sensor]
            (going.add if event.state == "started" else going.discard)(event.id)
            is_on = bool(going)
        line, prefix = json_line(event.to_dict()), self._settings.name
        topic = sensor.topic(prefix)
        sent = [
            self._publish(f"{topic}/attributes", line, retain=True),
            self._publish(f"{topic}/state", "ON" if is_on else "OFF", retain=True),
            self._publish(f"{prefix}/last", line, retain=True),
            self._publish(f"{prefix}/events", line),  # not retained: an automation must not see an old one as new
        ]
        for info in sent:
            self._acknowledged(info)

    def _acknowledged(self, info: MQTTMessageInfo) -> None:
        try:
            info.wait_for_publish(self._settings.timeout_s)
        except (RuntimeError, ValueError) as error:  # the connection ended, or too many messages wait
            raise DeliveryError(f"{self._where}: not published ({error})") from None
        if not info.is_published():
            raise DeliveryError(f"{self._where}: not acknowledged within {self._settings.timeout_s:g} s")

    def _publish(self, topic: str, text: str, *, retain: bool = False) -> MQTTMessageInfo:
        return self._client.publish(topic, text, AT_LEAST_ONCE, retain=retain)

    def _announce(self, sensor: Sensor) -> None:
        """Publish what Home Assistant needs to know of a sensor, and its state."""
        settings = self._settings
        if settings.discovery:
            topic, config = sensor_config(sensor, settings.name, self._availability)
            self._publish(f"{settings.discovery}/{topic}", json_line(config), retain=True)
        with self._lock:
            is_on = bool(self._sensors[sensor])
        self._publish(f"{sensor.topic(settings.name)}/state", "ON" if is_on else "OFF", retain=True)

    def _connected(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._why = f"refused ({reason}); check the user and the password"
            self._has_tried.set()
            return
        self._why = "no connection yet"
        self._publish(self._availability, "online", retain=True)
        if self._settings.discovery:
            topic, config = last_event_config(self._settings.name, self._availability)
            self._publish(f"{self._settings.discovery}/{topic}", json_line(config), retain=True)
        with self._lock:
            sensors = list(self._sensors)
        for sensor in sensors:
            self._announce(sensor)
        self._has_tried.set()

    def _disconnected(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._why.startswith("refused"):  # a broker that refuses ends the connection, too
            self._why = f"the connection ended ({reason})"
        self._has_tried.set()

    def _unreachable(self, _client: Client, _data: Any) -> None:
        self._why = "cannot be reached"
        self._has_tried.set()

    def close(self) -> None:
        """Say that this process is gone, and disconnect."""
        if self._client.is_connected():
            info = self._publish(self._availability, "offline", retain=True)
            if info.rc == 0:
                info.wait_for_publish(self._settings.timeout_s)
        self._client.disconnect()
        self._client.loop_stop()


def _trusting(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts an authority. Raises ConfigError if its file cannot be read."""
    try:
        return ssl.create_default_context(cafile=os.fspath(ca_file) or None)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"mqtt: ca_file {ca_file}: no certificate can be read from it ({error.strerror or error})"
        ) from None
