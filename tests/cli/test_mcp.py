"""`fewframes mcp` as a process, as agents' programs start it: it answers, writes nothing else on standard output, and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult
from typer.testing import CliRunner

from fewframes.cli.main import app

CLIENT = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
MAIN = "from fewframes.cli.main import main; main()"

NOISE = """
import os
import fewframes.cli.mcp as command
from fewframes.serve.answers import VideoAnswerer

def noisy(call):
    def called(*values, **named):
        os.write(1, b"native noise\\n")
        print("noise", flush=True)
        return call(*values, **named)
    return called

command.open_models = noisy(command.open_models)
VideoAnswerer.answer = noisy(VideoAnswerer.answer)
"""
"""Code that makes loading and answering write to standard output, as libraries do."""


def words(model: Path, *more: str) -> list[str]:
    return ["mcp", "--model", str(model), "--device", "cpu", "--dtype", "float32", *more]


def test_it_answers_on_standard_input_and_output(tiny_model: Path, videos: Path) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-c", MAIN, *words(tiny_model, "--root", str(videos))],
        env=dict(os.environ),
    )

    async def asked() -> tuple[CallToolResult, ...]:
        async with Client(stdio_client(server)) as client:
            names = ("a.mp4", "b.mp4", "missing.mp4")
            return tuple(await asyncio.gather(*(client.call_tool("predict", {"path": name}) for name in names)))

    first, second, missing = asyncio.run(asked())
    assert first.structured_content is not None
    assert second.structured_content is not None
    assert (first.structured_content["source"], second.structured_content["source"]) == ("a.mp4", "b.mp4")
    assert missing.is_error


def message(method: str, number: int | None = None, **params: Any) -> str:
    asked = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(asked | ({} if number is None else {"id": number})) + "\n"


def test_standard_output_has_nothing_but_the_protocol(tiny_model: Path, videos: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", NOISE + MAIN, *words(tiny_model, "--root", str(videos))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(message("initialize", 1, **CLIENT) + message("notifications/initialized"))
        process.stdin.write(message("tools/call", 2, name="predict", arguments={"path": "a.mp4"}))
        process.stdin.flush()
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        rest, said = process.communicate(timeout=120)  # closes its input, at which it ends
    finally:
        process.kill()
    assert [line["id"] for line in lines] == [1, 2]
    assert lines[1]["result"]["structuredContent"]["source"] == "a.mp4"
    assert rest == ""
    assert process.returncode == 0
    assert "writes nothing" in said
    assert said.count("native noise") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_its_input_is_open(tiny_model: Path, videos: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words(tiny_model, "--root", str(videos))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(message("initialize", 1, **CLIENT))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.send_signal(number)
        assert process.wait(timeout=60) == -number
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()


def test_wrong_use(tiny_model: Path, tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, words(tiny_model, "--root", str(tmp_path / "none")))
    assert (missing.exit_code, "no such folder" in missing.output) == (2, True)
    assert CliRunner().invoke(app, words(tiny_model)).exit_code == 2
