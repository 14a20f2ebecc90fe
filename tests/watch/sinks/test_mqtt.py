"""A real broker gets each event, holds the states of sensors, and tells Home Assistant of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fewframes.errors import ConfigError
from fewframes.watch.event import Event
from fewframes.watch.settings import MqttSettings
from fewframes.watch.sinks.home_assistant import Sensor, topic_part
from fewframes.watch.sinks.protocol import DeliveryError
from helpers.receivers import Broker, broker, wait_until

mqtt = pytest.importorskip("paho.mqtt.client")
from fewframes.watch.sinks.mqtt import PASSWORD, MqttSink  # noqa: E402

EVENT = Event(
    id="f00d",
    source="cam1",
    zone="door",
    label="sit down",
    confidence=0.9,
    start_s=1.0,
    started_at="2026-11-29T12:00:00.000Z",
)
ENDED = replace(EVENT, end_s=2.0, ended_at="2026-11-29T12:00:01.000Z")
STATE = "fewframes/cam1/door/sit_down/state"


@contextmanager
def listener(found: Broker) -> Iterator[list[tuple[str, str, bool]]]:
    """Yield the messages of all topics as they come: topic, content, and if it was retained."""
    messages: list[tuple[str, str, bool]] = []
    subscribed = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _d, message: messages.append(
        (message.topic, message.payload.decode(), message.retain)
    )
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", found.port)
    client.subscribe("#", 1)
    client.loop_start()
    assert subscribed.wait(20)
    try:
        yield messages
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def sink_to(found: Broker, **settings: Any) -> Iterator[MqttSink]:
    sink = MqttSink(MqttSettings(**{"url": f"mqtt://127.0.0.1:{found.port}", **settings}), "mqtt")
    try:
        yield sink
    finally:
        sink.close()


def sent(sink: MqttSink, event: Event) -> bool:
    """Return True if an event could be sent, as soon as the broker is there."""
    try:
        sink.send(event)
    except DeliveryError:
        return False
    return True


def test_sensors_go_on_and_off_and_are_announced(tmp_path: Path) -> None:
    with broker(tmp_path) as found, listener(found) as live:
        with sink_to(found) as sink:
            sink.announce("cam1", "door", "fall", "")
            wait_until(lambda: sent(sink, EVENT))
            sink.send(ENDED)
        wait_until(lambda: ("fewframes/availability", "offline", False) in live)
        assert [content for topic, content, _ in live if topic == STATE] == ["OFF", "ON", "OFF"]
        events = [json.loads(content) for topic, content, _ in live if topic == "fewframes/events"]
        assert events == [EVENT.to_dict(), ENDED.to_dict()]
        with listener(found) as later:  # who comes later learns the same, but sees no old event as new
            wait_until(lambda: len(later) >= 8)
    kept = {topic: content for topic, content, is_retained in later if is_retained}
    assert "fewframes/events" not in kept
    assert (kept[STATE], kept["fewframes/cam1/door/fall/state"]) == ("OFF", "OFF")
    assert json.loads(kept["fewframes/last"]) == ENDED.to_dict()
    config = json.loads(kept["homeassistant/binary_sensor/fewframes/cam1_door_sit_down/config"])
    assert (config["name"], config["state_topic"]) == ("sit down (cam1, door)", STATE)
    assert config["availability_topic"] == "fewframes/availability"
    assert json.loads(kept[config["json_attributes_topic"]]) == ENDED.to_dict()
    last = json.loads(kept["homeassistant/sensor/fewframes/last_event/config"])
    assert last["device"] == config["device"]


def test_a_sensor_of_two_persons_is_on_until_the_last_one_ends(tmp_path: Path) -> None:
    with broker(tmp_path) as found, listener(found) as live, sink_to(found, discovery="") as sink:
        wait_until(lambda: sent(sink, EVENT))
        for event in (replace(EVENT, id="2", track="2"), ENDED, replace(ENDED, id="2", track="2", withdrawn=True)):
            sink.send(event)
        wait_until(lambda: len([topic for topic, *_ in live if topic == "fewframes/events"]) == 4)
    assert [content for topic, content, _ in live if topic == STATE] == ["OFF", "ON", "ON", "ON", "OFF"]
    assert not [topic for topic, *_ in live if topic.startswith("homeassistant")]


def test_a_process_that_dies_is_told_by_the_broker(tmp_path: Path) -> None:
    with broker(tmp_path) as found, listener(found) as live, sink_to(found) as sink:
        wait_until(lambda: ("fewframes/availability", "online", False) in live)
        client = sink._client
        client.loop_stop()
        assert client._sock is not None
        client._sock.close()  # as a killed process does: without a word
        wait_until(lambda: ("fewframes/availability", "offline", False) in live)


def test_a_broker_that_comes_later_or_goes_away_for_a_while_gets_everything(tmp_path: Path) -> None:
    with broker(tmp_path, starts=False) as found, sink_to(found) as sink:
        with pytest.raises(DeliveryError, match=f"127.0.0.1:{found.port}: cannot be reached"):
            sink.send(EVENT)
        found.start()
        wait_until(lambda: sent(sink, EVENT))
        found.stop()
        wait_until(lambda: not sent(sink, ENDED))
        found.start()
        wait_until(lambda: sent(sink, ENDED))
        with listener(found) as later:
            wait_until(lambda: (STATE, "OFF", True) in later)
            wait_until(lambda: ("fewframes/availability", "online", True) in later)


def run(*command: str) -> None:
    """Run a program of mosquitto or OpenSSL; skip the test where it is missing."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} on this machine")
    subprocess.run(command, check=True, capture_output=True)


def test_a_wrong_password_is_told_and_the_right_one_comes_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, right = tmp_path / "users", tmp_path / "password"
    run("mosquitto_passwd", "-b", "-c", str(users), "me", "hush")
    users.chmod(0o644)
    right.write_text("hush\n")
    monkeypatch.setenv(PASSWORD, "wrong-one")
    lines = f"user root\nallow_anonymous false\npassword_file {users}"
    with broker(tmp_path, lines) as found:
        url = f"mqtt://me@127.0.0.1:{found.port}"
        with sink_to(found, url=url) as sink:

            def refused() -> bool:
                with pytest.raises(DeliveryError) as caught:
                    sink.send(EVENT)
                assert "wrong-one" not in str(caught.value)
                return "refused" in str(caught.value)

            wait_until(refused)
        with sink_to(found, url=url, password_file=str(right)) as sink:
            wait_until(lambda: sent(sink, EVENT))


# paho leaves the socket of a refused handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_is_reached_by_tls_if_its_authority_is_trusted(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
        "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate),
    )  # fmt: skip
    lines = f"user root\nallow_anonymous true\ncertfile {certificate}\nkeyfile {key}"
    with broker(tmp_path, lines) as found:
        url = f"mqtts://localhost:{found.port}"
        with sink_to(found, url=url, ca_file=str(certificate)) as sink:
            wait_until(lambda: sent(sink, EVENT))
        with sink_to(found, url=url) as sink:
            time.sleep(1.5)
            with pytest.raises(DeliveryError, match=f"localhost:{found.port}"):
                sink.send(EVENT)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "127.0.0.1:1883"}, "must begin with mqtt://"),
        ({"url": "mqtt://me:hush@host"}, "put no password into the address"),
        ({"url": "mqtts://host", "ca_file": "/nowhere/ca.pem"}, "ca_file /nowhere/ca.pem: no certificate"),
        ({"url": "mqtt://me@host", "password_file": "/nowhere/pw"}, "the secret cannot be read"),
    ],
)
def test_wrong_settings_are_errors_without_secrets(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        MqttSink(MqttSettings(**settings), "mqtt")  # type: ignore[arg-type]
    assert "hush" not in str(caught.value)


def test_topics_have_plain_characters_and_differ_where_their_texts_do() -> None:
    texts = ["sit down", "sit_down", "Sit down", "sit/down", "sit+down", "#", "Tür", "Tor", "", "日本", "日本語"]
    parts = [topic_part(text) for text in texts]
    assert parts[0] == "sit_down"
    assert len(set(parts[1:])) == len(texts) - 1
    assert all(part.isascii() and not set(part) & set("/+#$ ") for part in parts)
    assert Sensor("cam1", "", "fall", "m").topic("home") == "home/cam1/picture/fall/m"
