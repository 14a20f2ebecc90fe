"""Events reach every receiver, and no receiver holds up the stream."""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fewframes.errors import ConfigError
from fewframes.inference.live.spans import LiveSpan
from fewframes.watch.event import Event, new_id
from fewframes.watch.settings import read_watch, watch_of
from fewframes.watch.watch import Record, Watch
from helpers.receivers import broker, cut, free_port, wait_until, webhook
from helpers.stream_answers import LABELS, answer_of

DOOR = "opening door"
FILE = """
time_zone = "Europe/Berlin"
events = "events.jsonl"

[[rules]]
labels = ["opening door"]
zones = ["door"]
enter = 0.6
leave = 0.4
min_s = 1.0
cooldown_s = 30.0
hours = ["22:00-06:00"]

[[sequences]]
name = "delivery"
steps = [{ label = "opening door" }, { label = "carrying", zone = "hall" }]
within_s = 10.0

[[webhooks]]
url = "https://example.org/hook"
secret_file = "/run/secrets/hook"

[mqtt]
url = "mqtts://me@broker"

[[commands]]
run = "notify-send {label}"
states = ["started"]
"""


@contextmanager
def watch_with(told: list[str] | None = None, record: Record | None = None, **values: Any) -> Iterator[Watch]:
    settings = watch_of({"close_s": 20.0, **values}, "test")
    with Watch(settings, tell=(told if told is not None else []).append, record=record) as watch:
        yield watch


def happen(watch: Watch, source: str = "cam1") -> list[Event]:
    """Let the door open and close."""
    steps = ((0.0, 0.9), (1.0, 0.0))
    return [event for time_s, score in steps for event in watch.step(source, answer_of(time_s, {DOOR: score}))]


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_rules_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    settings = watch_of(read_watch(path), str(path))
    assert settings.book.rules[0].ranges[0].first_minute == 22 * 60
    assert settings.book.sequences[0].steps[1].zone == "hall"
    assert settings.mqtt is not None
    assert settings.commands[0].states == ("started",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules = 3", "rules needs a table"),
        ("[[rules]]\nlabel = 'fall'", "rules: unknown setting 'label'; did you mean 'labels'"),
        ("[mqtt]\nurl = 'mqtt://h'\npassword = 'hush'", "secrets have no place in this file; write password_file"),
        ("[[webhooks]]\nurl = 'http://h'\nsecret = 'hush'", "write secret_file = FILE or token_file = FILE"),
        ("[[commands]]\nrun = 'true'\nstates = ['over']", "states.0 = 'over'"),
        ("spol = 'x'", "did you mean 'spool'"),
        ("x = [", "not TOML"),
        ("[[rules]]\nhours = ['22-6']", "22:00-06:00"),
    ],
)
def test_wrong_rules_files_are_errors_without_secrets(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        watch_of(read_watch(path), str(path))
    assert "hush" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_events_are_told_by_the_clock_of_the_machine(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    before = datetime.now(UTC)
    with watch_with(events=str(file)) as watch:
        events = happen(watch)
    assert lines_of(file) == [event.to_dict() for event in events]
    assert abs((datetime.fromisoformat(events[0].started_at) - before).total_seconds()) < 20


def test_what_goes_on_at_the_end_ends(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    with watch_with(events=str(file)) as watch:
        watch.step("cam1", answer_of(0.0, {DOOR: 0.9}))
        assert watch.counts().num_going == 1
    assert [line["state"] for line in lines_of(file)] == ["started", "ended"]


def test_a_slow_webhook_delays_neither_the_stream_nor_other_receivers(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    with webhook(*[lambda _: time.sleep(1.5)] * 20) as receiver:
        url = {"url": receiver.url, "timeout_s": 1.0}
        with watch_with(events=str(file), webhooks=[url], close_s=0.0) as watch:
            longest = 0.0
            for number in range(20):
                began = time.monotonic()
                watch.step("cam1", answer_of(float(number), {DOOR: float(number % 2)}))
                longest = max(longest, time.monotonic() - began)
            wait_until(lambda: len(lines_of(file)) == 19, 10)
            wait_until(lambda: receiver.requests)
        assert longest < 0.5


def test_a_webhook_that_fails_in_every_way_gets_all_in_the_end() -> None:
    told: list[str] = []
    with webhook(500, cut, 429, lambda _: time.sleep(1.0)) as receiver:
        with watch_with(told, webhooks=[{"url": receiver.url, "timeout_s": 0.5}], close_s=60.0) as watch:
            events = happen(watch)
        counts = watch.counts().sinks["webhook"]
    keys = [headers["idempotency-key"] for headers, _ in receiver.requests]
    assert set(keys) == {event.key for event in events}
    assert keys[-1] == events[1].key, "the end came before the start"
    assert (counts.delivered, counts.failed) == (2, 4)
    assert "answered 500" in told[0]
    assert told[-1] == "webhook: works again after 4 failures"
    assert "secret" not in " ".join(told)


def test_what_a_webhook_refuses_is_told_and_not_sent_again() -> None:
    told: list[str] = []
    with webhook(404) as receiver, watch_with(told, webhooks=[{"url": receiver.url}]) as watch:
        events = happen(watch)
        wait_until(lambda: watch.counts().sinks["webhook"].delivered == 1)
        counts = watch.counts()
    assert len(receiver.requests) == 2
    assert counts.sinks["webhook"].refused == 1
    assert "answered 404" in told[0]
    assert events[0].key in told[0]


def test_a_receiver_that_asks_for_time_gets_it() -> None:
    with webhook((503, {"Retry-After": "2"})) as receiver:
        with watch_with(webhooks=[{"url": receiver.url}]) as watch:
            happen(watch)
        assert receiver.times[1] - receiver.times[0] >= 2


def test_messages_without_a_spool_folder_are_told_to_be_lost_and_with_one_to_be_kept(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    for spool, words in (("", "2 messages not delivered; lost"), (str(tmp_path), f"left in {tmp_path}")):
        told: list[str] = []
        with watch_with(told, webhooks=[{"url": url}], spool=spool, close_s=0.2) as watch:
            happen(watch)
        assert words in told[-1]
    told = []
    with watch_with(told, events=str(tmp_path / "e.jsonl"), spool=str(tmp_path)) as watch:
        assert told == ["webhook: 2 messages of an earlier run; they stay: there is no such receiver now"]
    with webhook() as receiver, watch_with(webhooks=[{"url": receiver.url}], spool=str(tmp_path)):
        pass
    assert len(receiver.requests) == 2


def test_an_event_of_a_killed_process_is_ended_by_the_next(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    event = Event(id=new_id(), source="cam1", label=DOOR, confidence=0.9, start_s=5.0, started_at="then")
    told: list[str] = []
    watch = Watch(watch_of({"events": str(file), "spool": str(tmp_path)}, "test"), tell=told.append)
    watch.deliver(event)
    watch.close()  # it knows nothing of what `deliver` was given, as a process that was killed
    with watch_with(events=str(file), spool=str(tmp_path)):
        pass
    with watch_with(events=str(file), spool=str(tmp_path)):
        pass
    ended = replace(event, end_s=5.0, ended_at="then")
    assert lines_of(file) == [event.to_dict(), ended.to_dict()]


def test_what_the_detector_takes_back_is_counted_and_told_to_those_who_heard_of_it(tmp_path: Path) -> None:
    file, told = tmp_path / "events.jsonl", tmp_path / "told"
    run = f"{sys.executable} -c \"open({str(told)!r}, 'a').write('{{state}} ')\""
    begun = LiveSpan(1, "started", DOOR, 3.0, None, 0.8)
    with watch_with(events=str(file), commands=[{"run": run, "states": ["withdrawn"]}]) as watch:
        watch.step("cam1", answer_of(5.0, {}, spans=(begun,)))
        watch.step("cam1", answer_of(7.0, {}, spans=(replace(begun, state="withdrawn", end_s=6.0),)))
        counts = watch.counts()
        assert (counts.num_going, counts.num_withdrawn) == (0, 1)
        assert str(counts).startswith("1 event; 1 withdrawn; ")
    assert [line["state"] for line in lines_of(file)] == ["started", "withdrawn"]
    assert told.read_text() == "withdrawn "


def test_a_recorder_adds_pictures_at_once_and_clips_later(tmp_path: Path) -> None:
    file, held = tmp_path / "events.jsonl", []

    def record(event: Event) -> Event | None:
        if event.state == "started":
            return replace(event, picture="a.jpg")
        held.append(event)
        return None

    with watch_with(record=record, events=str(file)) as watch:
        started, _ = happen(watch)
        assert started.picture == "a.jpg"
        wait_until(lambda: len(lines_of(file)) == 1)
        watch.deliver(replace(held[0], clip="a.mp4"))
    assert [(line["state"], line["picture"], line["clip"]) for line in lines_of(file)] == [
        ("started", "a.jpg", ""),
        ("ended", "", "a.mp4"),
    ]


def test_a_command_that_fails_is_run_again(tmp_path: Path) -> None:
    script = tmp_path / "flaky.py"
    script.write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1]); tries = path.read_text() if path.exists() else ''\n"
        "path.write_text(tries + sys.argv[2] + '\\n'); sys.exit(not tries)\n"
    )
    run = f"{sys.executable} {script} {tmp_path / 'tries'} {{state}}"
    with watch_with(commands=[{"run": run}]) as watch:
        happen(watch)
    assert (tmp_path / "tries").read_text().splitlines() == ["ended", "ended"]


def test_a_broker_that_is_down_at_the_start_gets_everything(tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt.client")
    told: list[str] = []
    with broker(tmp_path, starts=False) as found:
        with watch_with(told, mqtt={"url": f"mqtt://127.0.0.1:{found.port}"}, close_s=30.0) as watch:
            happen(watch)
            wait_until(lambda: told)
            found.start()
        assert watch.counts().sinks["mqtt"].delivered == 2
        assert watch.counts().waiting == {}
    assert "cannot be reached" in told[0]
    assert "works again" in told[-1]


def test_counts_are_shown_to_prometheus(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    file, port = tmp_path / "fewframes.prom", free_port()
    metrics = {"file": str(file), "port": port}
    with webhook(404) as receiver, watch_with(webhooks=[{"url": receiver.url}], metrics=metrics) as watch:
        happen(watch)
        wait_until(lambda: not watch.counts().waiting)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            served = answer.read().decode()
        watch.step("cam1", answer_of(9.0, {DOOR: 0.9}))
    text = file.read_text()
    assert f'fewframes_events_total{{label="{DOOR}",source="cam1",zone=""}} 1.0' in served
    assert f'fewframes_events_total{{label="{DOOR}",source="cam1",zone=""}} 2.0' in text
    assert 'fewframes_event_deliveries_total{result="refused",sink="webhook"} 1.0' in text
    assert 'fewframes_event_deliveries_total{result="delivered",sink="webhook"} 3.0' in text
    assert 'fewframes_event_deliveries_waiting{sink="webhook"} 0.0' in text


def test_a_taken_port_or_a_wrong_path_is_an_error_that_leaves_nothing_open(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for metrics in ({"file": str(tmp_path / "none" / "x.prom")}, {"port": taken.getsockname()[1]}):
            with pytest.raises(ConfigError, match="metrics"), watch_with(spool=str(tmp_path), metrics=metrics):
                pass
    with pytest.raises(ConfigError, match="no program"), watch_with(
        spool=str(tmp_path), commands=[{"run": "no-such-program"}]
    ):  # fmt: skip
        pass
    with watch_with(spool=str(tmp_path)):
        pass


def test_rules_about_labels_that_the_model_lacks_are_errors() -> None:
    with (
        watch_with(rules=[{"labels": ["open door"]}]) as watch,
        pytest.raises(ConfigError, match=f"mean '{LABELS[0]}'"),
    ):
        watch.step("cam1", answer_of(0.0, {}))
