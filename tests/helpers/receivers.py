"""Receivers of events on loopback: a webhook that behaves as a test says, and a real MQTT broker."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
PATIENCE_S = 20.0


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds; fail if it does not."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Webhook:
    """A webhook. Each request is answered by the next of `behaviours`: a status, a status with headers, or what does the answering.
    After the last, all is well."""

    url: str = ""
    behaviours: list[int | tuple[int, dict[str, str]] | Callable[[BaseHTTPRequestHandler], None]] = field(
        default_factory=list
    )
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


@contextmanager
def webhook(
    *behaviours: int | tuple[int, dict[str, str]] | Callable[[BaseHTTPRequestHandler], None],
) -> Iterator[Webhook]:
    found = Webhook(behaviours=list(behaviours))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests.append(({key.lower(): value for key, value in self.headers.items()}, body))
            found.times.append(time.monotonic())
            behaviour = found.behaviours.pop(0) if found.behaviours else 204
            if callable(behaviour):
                behaviour(self)
                return
            status, headers = behaviour if isinstance(behaviour, tuple) else (behaviour, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}/hook/path-with-a-secret"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Break off in the middle of an answer's first line."""
    handler.wfile.write(b"HTTP/1.1 20")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


class Broker:
    """A mosquitto that can be stopped and started again on its port."""

    def __init__(self, folder: Path, lines: str = "allow_anonymous true") -> None:
        if MOSQUITTO is None:
            pytest.skip("no mosquitto on this machine")
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\npersistence false\n{lines}\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def broker(folder: Path, lines: str = "allow_anonymous true", *, starts: bool = True) -> Iterator[Broker]:
    found = Broker(folder, lines)
    if starts:
        found.start()
    try:
        yield found
    finally:
        found.stop()
