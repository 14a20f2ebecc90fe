"""Each line of the file is a whole event, whatever happens to the process and the disk."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fewframes.errors import ConfigError
from fewframes.watch.event import Event
from fewframes.watch.sinks.lines import FileSink, StreamSink
from fewframes.watch.sinks.protocol import DeliveryError

EVENT = Event(id="f00d", source="Tür", label="fall\n{", confidence=0.9, start_s=1.0, started_at="")


def test_events_are_appended_as_lines(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "events.jsonl"
    FileSink(file).send(EVENT)
    FileSink(file).send(replace(EVENT, end_s=2.0, ended_at=""))
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [Event.from_dict(line).state for line in lines] == ["started", "ended"]
    assert lines[0] == EVENT.to_dict()


def test_a_torn_line_of_a_killed_process_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"id": "torn')
    FileSink(file).send(EVENT)
    assert json.loads(file.read_text(encoding="utf-8").splitlines()[1]) == EVENT.to_dict()


def test_a_file_that_is_moved_away_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    sink = FileSink(file)
    sink.send(EVENT)
    file.rename(tmp_path / "events.1")
    sink.send(EVENT)
    assert file.read_bytes() == (tmp_path / "events.1").read_bytes()


def test_a_file_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        FileSink(tmp_path)


def test_a_closed_stream_is_a_failure_for_good() -> None:
    stream = io.StringIO()
    sink = StreamSink(stream)
    sink.send(EVENT)
    assert json.loads(stream.getvalue()) == EVENT.to_dict()
    stream.close()
    with pytest.raises(DeliveryError) as caught:
        sink.send(EVENT)
    assert caught.value.is_final


FULL = """
import resource, sys
from pathlib import Path
from fewframes.watch.event import Event
from fewframes.watch.sinks.lines import FileSink
from fewframes.watch.sinks.protocol import DeliveryError
sink = FileSink(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
written = 0
for _ in range(10):
    try:
        sink.send(Event(id="f00d", source="cam1", label="fall", confidence=0.9, start_s=1.0, started_at=""))
        written += 1
    except DeliveryError as error:
        assert "make room" in str(error)
print(written)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_full_disk_leaves_no_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, str(file)], capture_output=True, text=True, check=True)
    lines = file.read_text().splitlines()
    assert 0 < len(lines) == int(done.stdout) < 10
    assert all(json.loads(line)["id"] == "f00d" for line in lines)
