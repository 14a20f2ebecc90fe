"""`fewframes stream --page`: the address, who is let in, and the end with the stream."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
import typer
from typer.testing import CliRunner, Result

from fewframes.cli.live_page import page_address
from fewframes.cli.main import app
from fewframes.serve.server import listen
from helpers.numbered import Numbered


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8123", ("127.0.0.1", 8123)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:8123", ("::1", 8123)),
        ("here:0", ("here", 0)),
    ],
)
def test_an_address_is_a_port_or_a_host_with_a_port(text: str, found: tuple[str, int]) -> None:
    assert page_address(text) == found


@pytest.mark.parametrize("text", ["", "here", "here:", ":8123", "8123.5", "65536", "http://here:8123/x", "-1", "²"])
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="needs .HOST:.PORT with a port up to 65535"):
        page_address(text)


def streamed(model: Path, *words: str | Path) -> Result:
    options = ["--model", str(model), "--device", "cpu", "--dtype", "float32", "--window", "0.4"]
    return CliRunner().invoke(app, ["stream", *map(str, words), *options])


def test_the_page_ends_with_the_stream_and_a_port_that_is_taken_is_told(
    tiny_model: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEWFRAMES_TOKEN", raising=False)
    done = streamed(tiny_model, videos / "a.mp4", "--page", "0")
    assert done.exit_code == 0, done.output
    address = next(line for line in done.stderr.splitlines() if line.startswith("page: ")).split()[1]
    assert re.fullmatch(r"http://127.0.0.1:\d+", address)
    assert "events: " in done.stderr
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(address)
    with closing(listen("127.0.0.1", 0)) as taken:
        done = streamed(tiny_model, videos / "a.mp4", "--page", str(taken.getsockname()[1]))
    assert (done.exit_code, "cannot be listened on" in done.output) == (2, True), done.output


def test_other_machines_need_the_whole_address(tiny_model: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWFRAMES_TOKEN", raising=False)
    done = streamed(tiny_model, videos / "a.mp4", "--page", "0.0.0.0:0")
    assert "open to other machines: whoever has the whole address can see the pictures" in done.stderr
    assert re.search(r"page: http://\S+:\d+/\?token=\S{16}\n", done.stderr), done.stderr
    monkeypatch.setenv("FEWFRAMES_TOKEN", "own-s3cret")
    done = streamed(tiny_model, videos / "a.mp4", "--page", "0.0.0.0:0")
    assert "open to other machines" not in done.stderr
    assert "own-s3cret" not in done.stderr  # it stays, so it has no place in logs
    assert "/?token=$FEWFRAMES_TOKEN" in done.stderr


def test_an_interruption_ends_the_stream_while_somebody_looks(tiny_model: Path, tmp_path: Path) -> None:
    video = Numbered(suffix=".ts", format="mpegts", times_ms=range(0, 60_000, 40)).write(tmp_path / "source")
    words = ["stream", video, "--live", "--page", "0", "--model", tiny_model, "--window", "0.4", "--json"]
    command = [sys.executable, "-m", "fewframes.cli", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = next(line for line in process.stderr if line.startswith("page: ")).split()[1]
        with httpx2.Client(base_url=address) as client:
            assert client.get("/api/live").json()["sources"]["changed"]
            process.send_signal(signal.SIGINT)
            told = process.stderr.read()
        assert process.wait(60) == 0, told
    assert "interrupted" in told
    assert "Traceback" not in told
