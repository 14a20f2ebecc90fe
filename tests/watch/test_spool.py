"""What waits in a spool is delivered at least once: over restarts and kills, on full disks, with a cap on its size."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fewframes.errors import ConfigError, OutputError
from fewframes.watch.event import Event, new_id
from fewframes.watch.spool import LONGEST_WAIT_S, SPOOL_FILE, Delivery, Spool, wait_s
from helpers.receivers import wait_until, webhook


def event_of(label: str = "fall") -> Event:
    return Event(
        id=new_id(), source="cam1", label=label, confidence=0.9, start_s=1.0, started_at="2026-11-29T12:00:00.000Z"
    )


def ended(event: Event) -> Event:
    return replace(event, end_s=2.0, ended_at="2026-11-29T12:00:01.000Z")


def taken(spool: Spool, sink: str = "a") -> Delivery:
    delivery = spool.next(sink, 0.0)
    assert delivery is not None
    return delivery


@pytest.fixture
def told() -> list[str]:
    return []


def test_each_sink_gets_each_event_once_and_in_order(told: list[str]) -> None:
    spool, events = Spool(None, 1_000_000, told.append), [event_of(), event_of()]
    for event in events:
        spool.put(event, ("a", "b"))
    for sink in ("a", "b"):
        for event in events:
            delivery = taken(spool, sink)
            assert delivery.event == event
            spool.done(delivery)
        assert spool.next(sink, 0.0) is None
    spool.close()


def test_what_failed_waits_and_others_go_first_but_no_end_before_its_start(told: list[str]) -> None:
    spool, first, second = Spool(None, 1_000_000, told.append), event_of(), event_of()
    for event in (first, ended(first), second):
        spool.put(event, ("a",))
    spool.failed(taken(spool), 0.2)
    assert taken(spool).event == second
    spool.done(taken(spool))
    assert spool.next("a", 0.0) is None
    delivery = spool.next("a", 5.0)
    assert delivery is not None
    assert (delivery.event, delivery.attempts) == (first, 1)
    spool.done(delivery)
    assert taken(spool).event == ended(first)
    spool.close()


def test_a_restart_keeps_what_was_not_acknowledged_with_its_attempts(tmp_path: Path, told: list[str]) -> None:
    events = [event_of("a"), event_of("Tür öffnen"), event_of("c")]
    spool = Spool(tmp_path, 1_000_000, told.append)
    for event in events:
        spool.put(event, ("a",))
    spool.done(taken(spool))
    spool.failed(taken(spool), 60.0)
    spool.close()
    spool = Spool(tmp_path, 1_000_000, told.append)
    first = taken(spool)  # at once: it may be that the receiver came back meanwhile
    assert (first.event, first.attempts) == (events[1], 1)
    spool.done(first)
    assert taken(spool).event == events[2]
    spool.put(event_of("d"), ("a",))
    spool.close()
    assert told == []


def test_the_oldest_are_dropped_above_the_cap_and_that_is_told(tmp_path: Path, told: list[str]) -> None:
    events = [event_of() for _ in range(100)]
    num_bytes = len(json.dumps(events[0].to_dict()))
    spool = Spool(tmp_path, 10 * num_bytes, told.append)
    for event in events:
        spool.put(event, ("a",))
    assert spool.num_waiting() == {"a": 10}
    assert spool.dropped == {"a": 90}
    assert taken(spool).event == events[90]
    assert told[-1].endswith("90 messages so far")
    spool.close()
    spool = Spool(tmp_path, 10 * num_bytes, told.append)
    assert spool.num_waiting() == {"a": 10}
    spool.close()


def test_waiting_times_double_up_to_a_limit_with_a_random_part() -> None:
    lot = random.Random(0)
    for attempts in range(1, 1100):
        waits = [wait_s(attempts, lot) for _ in range(20)]
        longest = min(LONGEST_WAIT_S, 2.0 ** min(attempts - 1, 30))
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_a_spool_belongs_to_one_process(tmp_path: Path, told: list[str]) -> None:
    spool = Spool(tmp_path, 1_000_000, told.append)
    with pytest.raises(ConfigError, match="is writing to it"):
        Spool(tmp_path, 1_000_000, told.append)
    spool.close()


def test_a_file_that_is_no_spool_is_an_error_and_stays(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / SPOOL_FILE).write_bytes(b"my diary " * 1000)
    with pytest.raises(ConfigError, match="cannot be opened as a spool.*move it away"):
        Spool(tmp_path, 1_000_000, told.append)
    assert (tmp_path / SPOOL_FILE).read_bytes() == b"my diary " * 1000
    (tmp_path / SPOOL_FILE).unlink()
    with sqlite3.connect(tmp_path / SPOOL_FILE) as disk:
        disk.execute("create table deliveries (number integer primary key, sink, event, attempts)")
        disk.execute("insert into deliveries values (1, 'a', '{}', 0)")
    disk.close()
    with pytest.raises(ConfigError, match="damaged.*move it away"):
        Spool(tmp_path, 1_000_000, told.append)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Spool(tmp_path / "file" / "spool", 1_000_000, told.append)


def run_script(script: str, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


KILLED_BEFORE_THE_ACKNOWLEDGEMENT = """
    import sys
    from fewframes.core.settings import settings_from
    from fewframes.watch.event import Event
    from fewframes.watch.settings import watch_of
    from fewframes.watch.watch import Watch
    settings = watch_of({"webhooks": [{"url": sys.argv[1]}], "spool": sys.argv[2]}, "test")
    with Watch(settings, tell=print) as watch:
        if len(sys.argv) > 3:
            print(sys.argv[3], flush=True)
            watch.deliver(Event(id=sys.argv[3], source="cam1", label="fall", confidence=0.9, start_s=1.0, started_at=""))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_process_killed_between_receipt_and_acknowledgement_delivers_again_with_the_same_key(tmp_path: Path) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def kill(_: object) -> None:
        wait_until(lambda: num_on_disk(tmp_path) == 1, 20)  # the disk has it some milliseconds later
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()

    with webhook(kill) as receiver:
        script = textwrap.dedent(KILLED_BEFORE_THE_ACKNOWLEDGEMENT)
        command = [sys.executable, "-c", script, receiver.url, str(tmp_path), "f00d"]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        assert processes[0].wait(60) == -signal.SIGKILL
        assert len(receiver.requests) == 1
        said = run_script(script, receiver.url, str(tmp_path))
        assert "webhook: 1 message of an earlier run; they are delivered now" in said
        assert [headers["idempotency-key"] for headers, _ in receiver.requests] == [
            "f00d-started",
            "f00d-started",
            "f00d-ended",  # of an event that a killed process left
        ]
        run_script(script, receiver.url, str(tmp_path))
        assert len(receiver.requests) == 3  # all were acknowledged


def num_on_disk(folder: Path) -> int:
    with closing(sqlite3.connect(folder / SPOOL_FILE)) as disk:
        return int(disk.execute("select count(*) from deliveries").fetchone()[0])


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from fewframes.watch.event import Event
    from fewframes.watch.spool import Spool
    folder, told = Path(sys.argv[1]), []
    spool = Spool(folder, 10_000_000, told.append)
    size = (folder / "spool.sqlite").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, resource.RLIM_INFINITY))
    for number in range(200):
        spool.put(Event(id=str(number), source="cam1", label="fall", confidence=0.9, start_s=1.0, started_at=""), ("a",))
    assert not spool.wait_until_written(1.0)
    assert spool.is_behind and len(told) == 1 and "cannot be written" in told[0], told
    for number in range(50):
        delivery = spool.next("a", 0.0)
        assert delivery.event.id == str(number)
        spool.done(delivery)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    spool.done(spool.next("a", 0.0))
    assert spool.wait_until_written(20.0)
    assert not spool.is_behind and "can be written again" in told[1] and len(told) == 2, told
    import os; os._exit(0)  # nothing is written at the end
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_full_disk_loses_nothing_and_the_disk_catches_up(tmp_path: Path, told: list[str]) -> None:
    run_script(FULL_DISK, str(tmp_path))
    spool = Spool(tmp_path, 10_000_000, told.append)
    left = []
    while (delivery := spool.next("a", 0.0)) is not None:
        left.append(delivery.event.id)
        spool.done(delivery)
    assert left == [str(number) for number in range(51, 200)]
    spool.close()
