"""A command gets the values of an event as they are: nothing in them is a command, an argument or a placeholder."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewframes.errors import ConfigError
from fewframes.watch.event import Event
from fewframes.watch.settings import CommandSettings
from fewframes.watch.sinks.command import CommandSink, arguments_of
from fewframes.watch.sinks.protocol import DeliveryError

EVENT = Event(id="f00d", source="cam1", label="fall", confidence=0.9, start_s=1.0, started_at="")
WRITE = "import sys, json; open(sys.argv[1], 'w').write(json.dumps([sys.argv[2:], sys.stdin.read()]))"
PYTHON = shlex.quote(sys.executable)


def sink_of(run: str, timeout_s: float = 30.0) -> CommandSink:
    return CommandSink(CommandSettings(run=run, timeout_s=timeout_s), "command")


def test_values_take_the_place_of_their_names(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    sink = sink_of(
        f"{PYTHON} -c {shlex.quote(WRITE)} {file} {{label}} 'at {{start_s}} s in {{source}}' {{clip}} {{{{}}}}"
    )
    sink.send(EVENT)
    arguments, line = json.loads(file.read_text())
    assert arguments == ["fall", "at 1.0 s in cam1", "", "{}"]
    assert json.loads(line) == EVENT.to_dict()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    label=st.one_of(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
        st.sampled_from(["; touch pwned", "$(touch pwned)", "`id`", "a b", "'", '"', "{source}", "&& x", "-rf", "\n"]),
    )
)
def test_no_label_becomes_a_command_or_another_argument(tmp_path: Path, label: str) -> None:
    file = tmp_path / "out.json"
    sink_of(f"{PYTHON} -c {shlex.quote(WRITE)} {file} {{label}} last").send(replace(EVENT, label=label))
    assert json.loads(file.read_text(encoding="utf-8"))[0] == [label, "last"]


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("true {lable}", "did you mean 'label'"),
        ("true {label.__class__}", "no value is named"),
        ("true {label!r}", "no value is named"),
        ("true {start_s:.1f}", "no value is named"),
        ("true {}", "no value is named"),
        ("true {label", "cannot be read"),
        ("true 'label", "cannot be read"),
        ("'' x", "no program"),
        ("   ", "is empty"),
        ("{label} x", "an event cannot name the program"),
        ("no-such-program-here {label}", "no program 'no-such-program-here' is found"),
    ],
)
def test_what_cannot_be_run_is_an_error_at_the_start(run: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        arguments_of(run)


def test_a_failure_is_told_with_what_the_command_says() -> None:
    script = shlex.quote("import sys; print('no\\x1b[31m network', file=sys.stderr); sys.exit(7)")
    with pytest.raises(DeliveryError, match=r"exit code 7\): no\\x1b\[31m network") as caught:
        sink_of(f"{PYTHON} -c {script}").send(EVENT)
    assert not caught.value.is_final


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are of POSIX")
def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "slow.sh"
    script.write_text(f"#!/bin/sh\nsleep 61.25 &\necho $! > {tmp_path}/child\nwait\n")
    script.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(DeliveryError, match="took longer than 1 s"):
        sink_of(str(script), timeout_s=1.0).send(EVENT)
    assert time.monotonic() - began < 15
    child = (tmp_path / "child").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True, check=False).stdout
    assert not state or state.startswith("Z"), "the child still runs"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_what_a_command_leaves_in_the_background_holds_nothing_up() -> None:
    began = time.monotonic()
    sink_of("sh -c 'sleep 3 &'").send(EVENT)
    assert time.monotonic() - began < 2.5
