"""`fewframes serve` as a process: it starts, answers, stops when told to and finishes what is inside."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.serve.server import listen


@contextmanager
def served(model: Path, root: Path, *words: str, before: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process which runs `before` first, and the address that it tells."""
    options = ["--model", str(model), "--device", "cpu", "--dtype", "float32", "--port", "0", "--root", str(root)]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before}from fewframes.cli.main import main; main()", "serve", *options, *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        lines = [process.stderr.readline() for _ in range(2)]
        yield process, re.findall(r"http://[\d.:]+", lines[1])[0]
        assert process.stderr.read().endswith("stopped\n")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_it_finishes_what_is_inside_and_stops(tiny_model: Path, videos: Path) -> None:
    with served(tiny_model, videos) as (process, address):
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(httpx2.post(f"{address}/v1/timeline", json={"path": "a.mp4"}, timeout=300).status_code)

        ask()
        asking = threading.Thread(target=ask)
        with httpx2.Client(base_url=address, timeout=300) as client:
            assert client.get("/v1/about", headers={"Host": "evil.example"}).status_code == 421
            client.get("/healthz")
            asking.start()
            while "requests_inside 1.0" not in client.get("/metrics").text and len(statuses) == 1:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            asking.join()
        assert statuses == [200, 200]
        assert process.wait(120) == 0


def test_a_thread_that_works_for_nobody_does_not_keep_the_process(tiny_model: Path, videos: Path) -> None:
    stuck = "import time; from fewframes.serve.batcher import BatchingRuntime as R; R._round = lambda self: time.sleep(60); "
    with served(tiny_model, videos, "--timeout-s", "0.5", before=stuck) as (process, address):
        assert httpx2.post(f"{address}/v1/predict", json={"path": "a.mp4"}, timeout=60).status_code == 408
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert time.monotonic() - began < 20  # --stop-s is 30, and the thread sleeps for 60


def test_who_is_told_the_address_can_connect() -> None:
    with closing(listen("127.0.0.1", 0)) as listening, closing(socket.create_connection(listening.getsockname(), 5)):
        pass


def test_wrong_use(tiny_model: Path, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["serve", "--model", str(tiny_model), *words])
        return done.exit_code, done.stderr

    code, err = run("--root", str(tmp_path / "none"))
    assert (code, "no such folder" in err) == (2, True)
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, err = run("--port", str(taken.getsockname()[1]))
    assert (code, "cannot be listened on" in err) == (2, True)
    assert run("--max-mb", "0")[0] == 2


LAST_WORDS = "stopped; not answered within --stop-s 30, or before a second signal: 2 requests"


def test_what_was_not_answered_is_counted(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object, listening: socket.socket, *, stop_s: float, leave: object) -> int:
        assert leave is os._exit  # the process is the command's to end
        listening.close()
        return 2

    monkeypatch.setattr("fewframes.serve.server.run", run)
    done = CliRunner().invoke(app, ["serve", "--model", str(tiny_model), "--device", "cpu", "--port", "0"])
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (3, LAST_WORDS)


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for module in ("app", "server"):
        monkeypatch.delitem(sys.modules, f"fewframes.serve.{module}", raising=False)
    done = CliRunner().invoke(app, ["serve"])
    assert done.exit_code == 4
    assert "pip install 'fewframes[serve]'" in done.stderr
